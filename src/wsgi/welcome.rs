//! The built-in page that is served when no application is named.

use std::ffi::CString;

use pyo3::prelude::*;

/// Its source: a plain WSGI application.
const SOURCE: &str = include_str!("welcome.py");

/// Loads it.
pub fn load(py: Python<'_>, workers: usize) -> PyResult<Py<PyAny>> {
    let source = CString::new(SOURCE)?;
    let module = PyModule::from_code(py, &source, c"<tapster welcome page>", c"tapster_welcome")?;
    module.setattr("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.setattr("WORKERS", workers)?;
    Ok(module.getattr("application")?.unbind())
}
