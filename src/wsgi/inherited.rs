//! What a worker changes that is a fork of its application's interpreter.

use std::ffi::CStr;

use pyo3::prelude::*;

use super::failure;
use crate::channel::BootError;
use crate::config::signals;
use crate::log::error::Log;

const CODE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("inherited.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// Seeds random numbers anew that each fork of this interpreter would have alike; returns what they are.
pub fn reseed(py: Python<'_>) -> PyResult<Vec<String>> {
    PyModule::from_code(py, CODE, c"<tapster inherited>", c"tapster_inherited")?.call_method0("reseed")?.extract()
}

/// Makes the interpreter, which runs, that of a worker. Call it before anything else of the interpreter is used.
pub fn begin(log: &Log) -> Result<(), BootError> {
    let seeded: Vec<String> = Python::attach(|py| {
        let code = PyModule::from_code(py, CODE, c"<tapster inherited>", c"tapster_inherited")?;
        let signal = py.import("_signal")?;
        let ours = signals::TABLE.iter().filter(|row| row.meaning != signals::SignalMeaning::Reap);
        let ours: Vec<i32> = ours.map(|row| signal.getattr(format!("SIG{}", row.name))?.extract()).collect::<PyResult<_>>()?;
        code.getattr("begin")?.call1((ours,))?.extract()
    })
    .map_err(|error: PyErr| Python::attach(|py| BootError { app: false, text: failure::traceback(py, &error) }))?;
    if !seeded.is_empty() {
        log.info(format_args!("random numbers that every worker would have had alike are seeded anew: {}", seeded.join(", ")));
    }
    Ok(())
}
