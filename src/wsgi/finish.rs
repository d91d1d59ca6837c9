//! The end of an interpreter that is not finalised.

use pyo3::prelude::*;

use super::{failure, stdlib};
use crate::log::error::Log;

/// Runs the exit handlers and flushes the streams, in the order of Py_FinalizeEx: first the threads (and what they registered), then
/// atexit, then the streams.
pub fn run(py: Python<'_>, log: &Log) {
    for (module, function) in [("threading", "_shutdown"), ("atexit", "_run_exitfuncs")] {
        let ran = stdlib::import(py, module).and_then(|module| module.call_method0(function));
        if let Err(error) = ran {
            let text = failure::traceback(py, &error);
            log.error(format_args!("an exit handler of the application raised an exception\n{text}"));
        }
    }
    flush(py);
}

/// Flushes the streams.
pub fn flush(py: Python<'_>) {
    for stream in ["stdout", "stderr"] {
        let stream = py.import("sys").and_then(|sys| sys.getattr(stream));
        // A closed or missing stream has nothing to flush.
        let _flushed = stream.and_then(|stream| stream.call_method0("flush"));
    }
}
