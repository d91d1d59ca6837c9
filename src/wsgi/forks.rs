//! Children that the application forks. They have descriptors of all connections that were open then, and their close here would not
//! end them: so a child gives them up at once, and who must know whether nobody else has a connection (a close that sends what was held
//! back) asks whether there was ever a fork. What starts a program (`subprocess`) is none: exec closes them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCFunction};

use crate::worker::app::Renounce;

/// From now on a forked child begins with this.
pub fn renounce_in_children(py: Python<'_>, renounce: Renounce) -> PyResult<()> {
    let hook = PyCFunction::new_closure(py, Some(c"renounce"), None, move |_, _| renounce())?;
    py.import("os")?.call_method("register_at_fork", (), Some(&[("after_in_child", hook)].into_py_dict(py)?)).map(drop)
}

/// The forks of this process, seen from all threads.
pub struct Forks(Arc<AtomicBool>);

impl Forks {
    /// Watches from now on (`os.register_at_fork`).
    pub fn watch(py: Python<'_>) -> PyResult<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        let forks = Self(seen.clone());
        let note = PyCFunction::new_closure(py, Some(c"note_fork"), None, move |_, _| seen.store(true, Relaxed))?;
        py.import("os")?.call_method("register_at_fork", (), Some(&[("before", note)].into_py_dict(py)?))?;
        Ok(forks)
    }

    /// Whether there was one.
    pub fn any(&self) -> bool {
        self.0.load(Relaxed)
    }
}
