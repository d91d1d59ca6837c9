//! The callables that the environ offers beyond PEP 3333: `wsgi.early_hints` and `tapster.client_disconnected`. Both belong to a
//! `start_response` object, like `write`, and are used again with it.

use pyo3::exceptions::{PyConnectionResetError, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::exchange::{CannotHint, CannotWrite};
use super::start_response::{busy, exchange_of};
use super::text;

/// Both callables. Besides this and the application only environs that the server keeps refer to them, and each of those has a
/// clone of the `Arc`.
pub struct Offers {
    /// `wsgi.early_hints`.
    pub early_hints: Py<PyAny>,
    /// `tapster.client_disconnected`.
    pub client_disconnected: Py<PyAny>,
}

/// Sends `103 Early Hints` (RFC 8297).
#[pyclass(frozen, module = "tapster")]
pub struct EarlyHints(pub Py<PyAny>);

#[pymethods]
impl EarlyHints {
    /// `headers` is a list of (name, value). Does nothing for HTTP/1.0, which has no such answers, and after the head.
    fn __call__(&self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut fields = Vec::new();
        for item in headers.try_iter()? {
            let (name, value): (Bound<'_, PyString>, Bound<'_, PyString>) =
                item?.extract().map_err(|_| PyTypeError::new_err("early_hints() takes a list of (name, value) tuples of str"))?;
            let bytes = |string: &Bound<'_, PyString>| text::to_latin1(string.as_borrowed()).map(<[u8]>::to_vec);
            let (Some(name), Some(value)) = (bytes(&name), bytes(&value)) else {
                return Err(PyValueError::new_err("early_hints(): a header has characters outside latin-1"));
            };
            fields.push((name, value));
        }
        let py = headers.py();
        let mut exchange = exchange_of(py, &self.0).try_borrow_mut().map_err(|_| busy())?;
        exchange.hint(&fields).map_err(|reason| match reason {
            CannotHint::Refused(refused) => PyValueError::new_err(format!("early_hints(): {refused}")),
            CannotHint::Write(CannotWrite::Gone) => PyConnectionResetError::new_err("the client has closed the connection"),
            CannotHint::Write(CannotWrite::Lost(why)) => PyRuntimeError::new_err(why),
            CannotHint::Write(CannotWrite::Memory) => PyMemoryError::new_err("early_hints(): no memory for the fields"),
            CannotHint::Write(CannotWrite::Returned) => {
                PyRuntimeError::new_err("early_hints() called after the application returned")
            }
            CannotHint::Write(CannotWrite::OtherThread) => {
                PyRuntimeError::new_err("early_hints() called by another thread than the one that runs the application")
            }
        })
    }
}

/// Says whether the client has left.
#[pyclass(frozen, module = "tapster")]
pub struct ClientDisconnected(pub Py<PyAny>);

#[pymethods]
impl ClientDisconnected {
    /// True when the client has closed its end, and when the request is over.
    fn __call__(&self, py: Python<'_>) -> PyResult<bool> {
        let exchange = exchange_of(py, &self.0).try_borrow().map_err(|_| busy())?;
        Ok(exchange.client().is_none_or(|client| client.has_left()))
    }
}
