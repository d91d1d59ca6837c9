//! Children that the application forks. They have descriptors of all connections that were open then, and the server's close would
//! not end those: so a child gives them up at once. What starts a program (`subprocess`) is none: exec closes them.

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCFunction};

use crate::worker::app::Renounce;

/// From now on a forked child begins with this.
pub fn renounce_in_children(py: Python<'_>, renounce: Renounce) -> PyResult<()> {
    let hook = PyCFunction::new_closure(py, Some(c"renounce"), None, move |_, _| renounce())?;
    py.import("os")?.call_method("register_at_fork", (), Some(&[("after_in_child", hook)].into_py_dict(py)?)).map(drop)
}
