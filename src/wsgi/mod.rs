//! The bridge to Python: the only place that knows pyo3. Python objects do not leave it.
//!
//! [`interpreter`] starts Python, [`load`] finds the application, [`app`] calls it for each request with the dict that
//! [`environ`] makes. `start_response` puts the head into an [`exchange`]; the application's result is rendered at once or, as an
//! [`answer`], block by block. The safe API of pyo3 is used wherever it costs nothing; the raw one is in [`text`] (strings) and
//! [`start_response`] (a callable type), and, for the start, in [`interpreter`].

mod answer;
mod app;
mod boot_profile;
mod draft;
mod environ;
mod environ_cache;
mod errors;
mod exchange;
mod failure;
mod file_wrapper;
mod forks;
mod hijack;
mod input;
mod interpreter;
mod keys;
mod literals;
mod load;
mod memo;
mod names;
mod offers;
mod signals;
mod spooled;
mod stacks;
mod start_response;
mod stdlib;
mod target;
mod text;
mod thread;
mod timeout;
mod welcome;
mod write_errors;

use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;

use app::Plan;
pub use app::Wsgi;
use boot_profile::BootProfile;

use crate::channel::BootError;
use crate::config::Settings;
use crate::log::error::Log;
use crate::worker::app::{App, Renounce};

/// SERVER_PORT of a listener without one (a unix socket): applications build URLs from it, and 80 is left out of them.
const UNIX_PORT: &str = "80";

/// SERVER_NAME of a listener without one.
const UNIX_NAME: &str = "localhost";

/// The interpreter that this binary runs, `Python 3.11.7`. Needs no running interpreter.
pub fn version() -> String {
    format!("Python {}", interpreter::version())
}

/// Starts the interpreter and loads the application, to see whether that works.
pub fn check(settings: &Settings, log: &Log) -> Result<(), BootError> {
    load_app(settings, 1, log, None, None).map(drop)
}

fn load_app(
    settings: &Settings,
    workers: usize,
    log: &Log,
    renounce: Option<&Renounce>,
    stacks: Option<i32>,
) -> Result<load::FoundApp, BootError> {
    let began = Instant::now();
    let interpreter = interpreter::start(&settings.python, stacks)?;
    let started = began.elapsed();
    if let Some(note) = &interpreter.note {
        log.info(format_args!("{note}"));
    }
    let loaded = Python::attach(|py| {
        if let Some(renounce) = renounce {
            forks::renounce_in_children(py, renounce.clone())
                .map_err(|error| BootError { app: false, text: failure::traceback(py, &error) })?;
        }
        // The worker serves even if no profile can be taken.
        let profile = settings.boot_profile.then(|| BootProfile::start(py, started));
        let loaded = load::load(py, &settings.app, workers);
        match profile.map(|profile| profile.and_then(|profile| profile.finish(py))) {
            Some(Ok(report)) => log.info(format_args!("{report}")),
            Some(Err(error)) => log.error(format_args!("no boot profile: {}", failure::traceback(py, &error))),
            None => {}
        }
        loaded
    })?;
    if let Some(warning) = &loaded.warning {
        log.warning(format_args!("{warning}"));
    }
    Ok(loaded)
}

impl Wsgi {
    /// Starts the interpreter on this thread and loads the application. The working directory and the environment must be set
    /// already. Children that the application forks call `renounce`. `listeners` has SERVER_NAME, SERVER_PORT and whether it is a
    /// unix socket, for each listener in order; `environ_names` are the environ variables that [`App::logged`] returns after each
    /// call; `stacks` is a descriptor, open for the life of the process, for the stacks of all Python threads when a signal ends
    /// it.
    #[allow(clippy::new_ret_no_self, reason = "what the worker needs is the trait, and the type stays on this side")]
    pub fn new(
        settings: &Settings,
        listeners: Vec<(String, String, bool)>,
        workers: usize,
        renounce: &Renounce,
        log: Log,
        environ_names: Vec<String>,
        stacks: Option<i32>,
    ) -> Result<Box<dyn App>, BootError> {
        let loaded = load_app(settings, workers, &log, Some(renounce), stacks)?;
        let listeners: Vec<environ::ListenerEnviron> = listeners
            .into_iter()
            .map(|(name, port, is_unix)| environ::ListenerEnviron {
                name: if name.is_empty() { UNIX_NAME.to_owned() } else { name },
                port: if is_unix && port.is_empty() { UNIX_PORT.to_owned() } else { port },
            })
            .collect();
        let (multithread, multiprocess) = (settings.threads > 1, workers > 1);
        Python::attach(|py| {
            let plan = Plan { listeners, multithread, multiprocess, log, environ_names };
            Self::prepare(py, loaded.callable, Arc::new(plan))
                .map(|wsgi| Box::new(wsgi) as Box<dyn App>)
                .map_err(|error| BootError { app: false, text: failure::traceback(py, &error) })
        })
    }
}
