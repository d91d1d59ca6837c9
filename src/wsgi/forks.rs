//! Children that the application forks. They have descriptors of all connections that were open then, and the server's close would
//! not end those: so a child gives them up at once. What starts a program (`subprocess`) is none: exec closes them.

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCFunction};

use crate::worker::app::Renounce;

/// From now on a forked child begins with this.
pub fn renounce_in_children(py: Python<'_>, renounce: Renounce) -> PyResult<()> {
    let hook = PyCFunction::new_closure(py, Some(c"renounce"), None, move |_, _| renounce())?;
    py.import("os")?.call_method("register_at_fork", (), Some(&[("after_in_child", hook)].into_py_dict(py)?)).map(drop)
}

/// An exception has come out of the application. A child in which it is SystemExit ends by it, with its exit code, and does not return
/// from here: Python itself would end there, and what the server does next is not a child's.
pub fn end_child(py: Python<'_>, error: &PyErr) {
    if !error.is_instance_of::<PySystemExit>(py) {
        return;
    }
    let ended = py.import("tapster_children").and_then(|module| {
        if module.getattr("is_child")?.is_truthy()? { module.call_method1("end", (error.value(py),)).map(drop) } else { Ok(()) }
    });
    // Fails only if the application has changed the module, or the exception cannot be shown; then it is an exception like others.
    drop(ended);
}
