//! The bridge to Python: the only place that knows pyo3. Python objects do not leave it.
//!
//! [`interpreter`] starts Python, [`load`] finds the application, [`app`] calls it for each request with the dict that
//! [`environ`] makes. `start_response` puts the head into an [`exchange`]; the application's result is rendered at once or, as an
//! [`answer`], block by block. The safe API of pyo3 is used wherever it costs nothing; the raw one is in [`text`] (strings) and
//! [`start_response`] (a callable type), and, for the start, in [`interpreter`].

mod answer;
mod app;
mod boot_profile;
pub mod described;
mod draft;
mod environ;
mod environ_cache;
mod errors;
mod exchange;
mod failure;
mod file_wrapper;
mod finish;
mod forks;
mod gunicorn_file;
mod hijack;
mod hook_process;
mod hooks;
pub mod host;
mod inherited;
mod input;
mod interpreter;
mod keys;
mod literals;
mod load;
mod loading;
mod logs;
mod memo;
mod mold;
mod mounts;
mod names;
mod offers;
mod package;
mod signals;
mod sources;
mod spooled;
mod stacks;
mod start;
mod start_response;
mod stdlib;
mod target;
mod text;
mod thread;
mod timeout;
mod welcome;
mod write_errors;

pub use app::{AppStart, Wsgi};
pub use environ::ListenerEnviron;
pub use gunicorn_file::execute as execute_gunicorn_file;
pub use hook_process::MasterHooks;
pub use mold::MoldedWsgi;

use crate::channel::BootError;
use crate::config::Settings;
use crate::log::error::Log;

/// The interpreter that this binary runs, `Python 3.11.7`. Needs no running interpreter.
pub fn version() -> String {
    format!("Python {}", interpreter::version())
}

/// A file of the standard library that every start reads, of the interpreter that runs; `None`: none runs, or it is in the
/// interpreter.
pub fn library() -> Option<std::path::PathBuf> {
    use pyo3::prelude::*;

    // SAFETY: may be called at any time.
    if unsafe { pyo3::ffi::Py_IsInitialized() } == 0 {
        return None;
    }
    Python::attach(|py| py.import("encodings")?.getattr("__file__")?.extract::<std::path::PathBuf>()).ok()
}

/// The interpreter that an embedded Python takes for its own.
pub use interpreter::BUILT_WITH;

/// Starts the interpreter and loads the application, to see whether that works.
pub fn check(settings: &Settings, log: &Log) -> Result<(), BootError> {
    start::load_app(settings, 1, log, None, None).map(drop)
}
