//! Where the application was loaded from, for `--reload`: `sources.py` looks at the interpreter's modules.

use std::ffi::CStr;

use pyo3::prelude::*;

use super::failure;
use super::mounts::Callables;
use crate::log::error::Log;
use crate::worker::app::ModuleSources;

/// Its source.
const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("sources.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// The directories of the modules and templates that are loaded.
pub struct LoadedSources {
    module: Py<PyModule>,
    log: Log,
}

impl LoadedSources {
    /// Before the application is loaded.
    pub fn new(py: Python<'_>, log: &Log) -> PyResult<Self> {
        let module = PyModule::from_code(py, SOURCE, c"<tapster sources>", c"tapster_sources")?;
        module.call_method0("keep_byte_code_true")?;
        Ok(Self { module: module.unbind(), log: log.clone() })
    }

    /// The applications were loaded.
    pub fn loaded(&self, py: Python<'_>, apps: &Callables) -> Vec<String> {
        let apps: Vec<&Py<PyAny>> = apps.iter().collect();
        self.or_nothing(py, self.module.call_method1(py, "loaded", (apps,)).and_then(|list| list.extract(py)))
    }

    /// It could not be loaded; with the traceback.
    pub fn failed(&self, py: Python<'_>, text: &str) -> Vec<String> {
        self.or_nothing(py, self.module.call_method1(py, "failed", (text,)).and_then(|list| list.extract(py)))
    }

    fn or_nothing(&self, py: Python<'_>, list: PyResult<Vec<String>>) -> Vec<String> {
        list.unwrap_or_else(|error| {
            let error = failure::traceback(py, &error);
            self.log.error(format_args!("--reload cannot tell where the application was loaded from: {error}"));
            Vec::new()
        })
    }
}

impl ModuleSources for LoadedSources {
    fn more(&self) -> Vec<String> {
        Python::attach(|py| self.or_nothing(py, self.module.call_method0(py, "more").and_then(|list| list.extract(py))))
    }

    fn forget(&self, list: &[String]) {
        Python::attach(|py| {
            if let Err(error) = self.module.call_method1(py, "forget", (list.to_vec(),)) {
                self.log.error(format_args!("{}", failure::traceback(py, &error)));
            }
        });
    }
}
