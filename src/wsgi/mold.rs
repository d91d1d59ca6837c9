//! An application that was loaded once, for workers that are forks of its process (`--preload`).

use std::ffi::{CStr, c_long};
use std::sync::Arc;

use pyo3::prelude::*;

use super::app::{AppStart, Plan, Wsgi};
use super::mounts::Callables;
use super::start::{self, WorkerStart};
use super::thread::Detached;
use super::{failure, finish, inherited};
use crate::channel::BootError;
use crate::log::error::Log;
use crate::worker::app::{App, MoldFacts, MoldedApp};

const CODE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("mold.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// A WSGI application on the thread that has loaded it.
pub struct MoldedWsgi {
    callables: Callables,
    plan: Arc<Plan>,
    log: Log,
    /// Set while the thread does not have the GIL.
    detached: Option<Detached>,
}

impl MoldedWsgi {
    /// Starts the interpreter on this thread and loads the application.
    pub fn load(start: AppStart<'_>) -> Result<Self, BootError> {
        let AppStart { settings, listeners, workers, renounce, log, environ_names, stacks, .. } = start;
        let callables = start::load_for_forks(settings, workers, &log, renounce, stacks)?;
        let plan = Plan::new(settings, listeners, workers, log.clone(), environ_names).with(None, None);
        Ok(Self { callables, plan, log, detached: None })
    }

    /// Continues as a worker, in a process that was forked from the one which has loaded it.
    pub fn serve(self, start: AppStart<'_>) -> Result<Box<dyn App>, BootError> {
        let AppStart { settings, listeners, workers, renounce, facts, log, environ_names, stacks, .. } = start;
        let worker = WorkerStart { renounce, facts, told: None };
        let loaded = start::continue_in_fork(self.callables, settings, workers, &log, &worker, stacks)?;
        let plan = Plan::new(settings, listeners, workers, log, environ_names).with(loaded.hooks, None);
        Wsgi::assemble(plan, loaded.callables)
    }
}

impl MoldedApp for MoldedWsgi {
    fn probe(&mut self) -> Result<Box<dyn App>, BootError> {
        Wsgi::assemble(self.plan.clone(), Python::attach(|py| self.callables.clone_ref(py)))
    }

    fn settle(&mut self) -> MoldFacts {
        let settled = Python::attach(|py| {
            // What the forks do is tried here once.
            let seeded = inherited::reseed(py)?;
            let code = PyModule::from_code(py, CODE, c"<tapster mold>", c"tapster_mold")?;
            Ok::<_, PyErr>(MoldFacts { threads: code.call_method0("settle")?.extract()?, seeded })
        });
        settled.unwrap_or_else(|error| {
            let error = Python::attach(|py| failure::traceback(py, &error));
            self.log.error(format_args!("workers share less memory than they could: {error}"));
            MoldFacts::default()
        })
    }

    fn release(&mut self) {
        if self.detached.is_none() {
            self.detached = Some(Detached::new());
        }
    }

    fn enter(&mut self) {
        self.detached = None;
    }

    fn bears(&mut self, begins: bool) {
        // SAFETY: needs nothing; it returns the identifier of the calling thread.
        let own = unsafe { pyo3::ffi::PyThread_get_thread_ident() } as c_long;
        let set = Python::attach(|py| py.import("tapster_children")?.setattr("bearing", if begins { own } else { 0 }));
        if let Err(error) = set {
            let error = Python::attach(|py| failure::traceback(py, &error));
            self.log.error(format_args!("workers are taken for children of the application: {error}"));
        }
    }

    fn finish(&mut self) {
        self.detached = None;
        Python::attach(|py| finish::run(py, &self.log));
    }
}
