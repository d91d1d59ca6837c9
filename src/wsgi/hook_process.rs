//! The functions of a gunicorn file in the hook process ([`crate::hooks`]).

use pyo3::prelude::*;

use super::hooks::FileHooks;
use super::interpreter::{self, FirstPlace};
use super::thread::Detached;
use super::{failure, finish, logs};
use crate::channel::BootError;
use crate::config::Settings;
use crate::hooks::{HookEvent, HookRunner};
use crate::log::error::Log;

/// The hooks of the hook process.
pub struct MasterHooks {
    hooks: FileHooks,
    log: Log,
    /// Set while the thread does not have the GIL.
    detached: Option<Detached>,
}

impl MasterHooks {
    /// Starts the interpreter and executes the file, in the working directory; then enters `--chdir`. `workers`: in all; `master`:
    /// its process id.
    pub fn start(settings: &Settings, workers: usize, master: u32, log: &Log) -> Result<Self, BootError> {
        let failed = |text: String| BootError { app: false, text };
        let Some(hooks) = &settings.hooks else { return Err(failed("no file with hooks is named".into())) };
        let python = settings.python.clone().before(settings.chdir.as_deref());
        interpreter::start(&python, FirstPlace::WorkingDirectory, None)?;
        Python::attach(|py| {
            logs::install(py, settings, log)?;
            let wanted: Vec<&str> = hooks.in_process().collect();
            let loaded = FileHooks::load(py, hooks, &wanted, None, log)?;
            let ready = loaded.equip(py, settings, master, workers).and_then(|()| {
                let Some(chdir) = &settings.chdir else { return Ok(()) };
                py.import("tapster_hooks")?.call_method1("enter", (chdir.as_os_str(),)).map(drop)
            });
            let ready = ready.and_then(|()| forget_interrupts(py));
            ready.map_err(|error| failed(format!("the hooks cannot be started: {}", failure::traceback(py, &error))))?;
            Ok(Self { hooks: loaded, log: log.clone(), detached: None })
        })
    }
}

/// Takes back the handler that an interpreter of its user's has for SIGINT: the signal is for the master.
fn forget_interrupts(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("_signal")?;
    signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("SIG_DFL")?)).map(drop)
}

impl HookRunner for MasterHooks {
    fn handle(&mut self, event: &HookEvent) -> Result<(), String> {
        self.detached = None;
        Python::attach(|py| {
            let object = self.hooks.object.bind(py);
            let called = match event {
                HookEvent::Starting => object.call_method0("starting"),
                HookEvent::Ready => object.call_method1("notice", ("when_ready",)),
                HookEvent::Reloaded => object.call_method1("notice", ("on_reload",)),
                HookEvent::Forked { pid, age } => object.call_method1("forked", (pid, age)),
                HookEvent::Ended { pid, age } => object.call_method1("ended", (pid, age)),
                HookEvent::Workers { new, old } => object.call_method1("changed", (new, old)),
                HookEvent::Upgrading => object.call_method1("notice", ("pre_exec",)),
                HookEvent::Exiting => object.call_method1("notice", ("on_exit",)),
                HookEvent::NewLog => return Ok(()),
            };
            // All but `starting` log what their functions raise.
            called.map(drop).map_err(|error| self.hooks.failed(py, "on_starting raised an exception", &error).text)
        })
    }

    fn release(&mut self) {
        if self.detached.is_none() {
            self.detached = Some(Detached::new());
        }
    }

    fn finish(&mut self) {
        self.detached = None;
        Python::attach(|py| finish::run(py, &self.log));
    }
}
