//! Children that the application forks. They have descriptors of all connections that were open then, and the server's close
//! would not end those. So a child closes them at once. A child that starts a program (`subprocess`) need not: exec closes them.

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCFunction};

use crate::worker::app::Renounce;

/// Makes every forked child begin with this from now on.
pub fn renounce_in_children(py: Python<'_>, renounce: Renounce) -> PyResult<()> {
    let hook = PyCFunction::new_closure(py, Some(c"renounce"), None, move |_, _| renounce())?;
    py.import("os")?.call_method("register_at_fork", (), Some(&[("after_in_child", hook)].into_py_dict(py)?)).map(drop)
}

/// An exception has come out of the application. If it is SystemExit and this is a forked child, the child ends with that exit
/// code and this does not return: Python itself would end there, and a child must not do the server's next work.
pub fn end_child(py: Python<'_>, error: &PyErr) {
    if !error.is_instance_of::<PySystemExit>(py) {
        return;
    }
    let ended = py.import("tapster_children").and_then(|module| {
        if module.getattr("is_child")?.is_truthy()? { module.call_method1("end", (error.value(py),)).map(drop) } else { Ok(()) }
    });
    // Fails only if the application has changed the module, or the exception cannot be shown; then it is treated as any other
    // exception.
    drop(ended);
}
