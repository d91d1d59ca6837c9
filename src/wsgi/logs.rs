//! What applications log by Python's `logging`: gunicorn's loggers write to the error log, and `--log-config` is applied.

use std::ffi::CStr;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyString, PyTuple};

use super::failure;
use crate::channel::BootError;
use crate::config::{Level, LogConfig, Settings};
use crate::log::error::Log;

/// Name of the module in `sys.modules`.
const MODULE: &CStr = c"tapster_logs";

/// Its source.
const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("logs.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// Connects the loggers with the error log, and sets up logging as `--log-config` says. Call it before code of the application
/// runs.
pub fn install(py: Python<'_>, settings: &Settings, log: &Log) -> Result<(), BootError> {
    connect(py, settings.log_level, log).map_err(|error| BootError {
        app: false,
        text: format!("cannot prepare Python's loggers: {}", failure::traceback(py, &error)),
    })?;
    let Some(config) = &settings.log_config else { return Ok(()) };
    configure(py, config).map_err(|error| {
        let what = match config {
            LogConfig::File(path) => path.display().to_string(),
            LogConfig::Json(_) => "its dict".into(),
        };
        BootError { app: true, text: format!("--log-config: {what} cannot be applied:\n{}", failure::traceback(py, &error)) }
    })
}

fn connect(py: Python<'_>, level: Level, log: &Log) -> PyResult<()> {
    let module = PyModule::from_code(py, SOURCE, c"<tapster logs>", MODULE)?;
    module.call_method1("install", (writer(py, log)?, number_of(level))).map(drop)
}

/// Has the loggers write to this log from now on.
pub fn renew(py: Python<'_>, log: &Log) -> PyResult<()> {
    py.import("tapster_logs")?.call_method1("renew", (writer(py, log)?,)).map(drop)
}

fn writer<'py>(py: Python<'py>, log: &Log) -> PyResult<Bound<'py, PyCFunction>> {
    let log = log.clone();
    PyCFunction::new_closure(py, Some(c"write"), None, move |args: &Bound<'_, PyTuple>, _| -> PyResult<()> {
        let (level, text): (i64, Bound<'_, PyString>) = args.extract()?;
        log.pass(level_of(level), format_args!("{}", text.to_string_lossy()));
        Ok(())
    })
}

fn configure(py: Python<'_>, config: &LogConfig) -> PyResult<()> {
    let (path, text) = match config {
        LogConfig::File(path) => (Some(path), None),
        LogConfig::Json(text) => (None, Some(text)),
    };
    py.import("tapster_logs")?.call_method1("configure", (path, text)).map(drop)
}

/// The level of a record by the number that Python's `logging` has for it.
pub(super) fn level_of(number: i64) -> Level {
    match number {
        50.. => Level::Critical,
        40.. => Level::Error,
        30.. => Level::Warning,
        20.. => Level::Info,
        _ => Level::Debug,
    }
}

fn number_of(level: Level) -> i64 {
    match level {
        Level::Debug => 10,
        Level::Info => 20,
        Level::Warning => 30,
        Level::Error => 40,
        Level::Critical => 50,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_numbers() {
        for level in [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical] {
            assert_eq!(level_of(number_of(level)), level);
            assert_eq!(level_of(number_of(level) + 9), level);
        }
        assert_eq!(level_of(0), Level::Debug);
    }
}
