//! Signals that the application handles. CPython's own handler sets a flag; the function that the application has installed runs
//! on the main thread, between two byte codes. While that thread runs no byte code, the server has to make it do so: the flag
//! alone wakes nobody, and the kernel may have given the signal to any thread.

use std::ffi::CStr;
use std::os::fd::{IntoRawFd, OwnedFd};

use pyo3::prelude::*;

use super::{failure, forks, timeout};
use crate::log::error::Log;

/// Name of the module that decides whose descriptor Python's handler writes to.
const MODULE: &CStr = c"tapster_wakeup";

/// Its source.
const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("wakeup.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// The module of --debug.
const INTERRUPT: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("interrupt.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// Keeps SIGINT from debuggers, before the application could start one.
pub fn keep_interrupt(py: Python<'_>) -> PyResult<()> {
    PyModule::from_code(py, INTERRUPT, c"<tapster interrupt>", c"tapster_interrupt").map(drop)
}

/// Makes the module, before code of the application could look up the function that it replaces.
pub fn install(py: Python<'_>) -> PyResult<()> {
    PyModule::from_code(py, SOURCE, c"<tapster wakeup>", MODULE).map(drop)
}

/// Makes each signal that has a Python handler put a byte into the pipe, which stays open for the life of the process.
pub fn tell(py: Python<'_>, pipe: OwnedFd) -> PyResult<()> {
    py.import("tapster_wakeup")?.call_method1("begin", (pipe.into_raw_fd(),)).map(drop)
}

/// Runs the handlers of signals that have come; the calling thread must be the main one.
pub fn handle(py: Python<'_>, log: &Log) {
    if let Err(error) = py.check_signals() {
        forks::end_child(py, &error);
        // Returns that the log has the exception already, if the handler was interrupted at its deadline.
        timeout::request_of(py, &error);
        let error = failure::traceback(py, &error);
        log.error(format_args!("a signal handler of the application raised an exception\n{error}"));
    }
}
