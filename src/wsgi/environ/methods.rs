//! REQUEST_METHOD: GET is in every environ from the start, and the strings of the other usual methods are kept.

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::worker::app::Request;
use crate::wsgi::text;

/// Methods whose strings are kept.
const KEPT: [&str; 8] = ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "TRACE"];

/// Their strings.
pub struct Methods(Vec<Py<PyString>>);

impl Methods {
    /// Makes them.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        Ok(Self(KEPT.iter().map(|name| text::key(py, name)).collect::<PyResult<_>>()?))
    }

    /// The string of a request's method unless it is GET.
    #[inline]
    pub fn of<'py>(&self, py: Python<'py>, request: &Request<'_>) -> PyResult<Option<Bound<'py, PyString>>> {
        match request.head.method.of(request.bytes) {
            b"GET" => Ok(None),
            other => self.other(py, other).map(Some),
        }
    }

    #[inline(never)]
    fn other<'py>(&self, py: Python<'py>, method: &[u8]) -> PyResult<Bound<'py, PyString>> {
        match KEPT.iter().position(|name| name.as_bytes() == method) {
            Some(known) => Ok(self.0[known].bind(py).clone()),
            None => text::from_latin1(py, method),
        }
    }
}
