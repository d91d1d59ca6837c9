//! Threads of the application's runtime: Python threads with names that hold the GIL only while they are in the application.
//!
//! A serving thread is attached once for its life and detaches in between, so that `threading.local` keeps its values from
//! request to request. The attachment is a raw one: pyo3 counts its own nested ones and would take a thread that releases the GIL
//! in the middle of one for attached.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyModule, PyTuple};

use super::stdlib;

/// The calling thread without the GIL; takes it back when dropped. It must not move to another thread.
pub struct Detached {
    state: *mut ffi::PyThreadState,
}

impl Detached {
    /// Releases the GIL.
    pub fn new() -> Self {
        // SAFETY: the thread is attached by `interpreter::start` or by `Attached`, not by pyo3, and no `Detached` of it lives:
        // `Wsgi` keeps at most one and makes it outside of every `Python::attach`.
        Self { state: unsafe { ffi::PyEval_SaveThread() } }
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        // SAFETY: the state is the one that PyEval_SaveThread returned on this thread, and was not restored since.
        unsafe { ffi::PyEval_RestoreThread(self.state) };
    }
}

/// The calling thread with the GIL, for life.
struct Attached {
    state: ffi::PyGILState_STATE,
    /// Bound to its thread.
    here: PhantomData<*mut ()>,
}

impl Attached {
    fn new() -> Self {
        // SAFETY: the interpreter runs and is never finalized; the thread has a state, made by `threading`, that is not current.
        Self { state: unsafe { ffi::PyGILState_Ensure() }, here: PhantomData }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: undoes the `PyGILState_Ensure` of `new` on the same thread, which is attached again: each `Detached` was
        // dropped before.
        unsafe { ffi::PyGILState_Release(self.state) };
    }
}

/// Whether the calling thread, which must be attached, is the only one that the interpreter knows. One of another language
/// is known from its first `PyGILState_Ensure` on, so it may come at any moment.
pub fn is_only() -> bool {
    // SAFETY: the calling thread is attached (see `Detached`; `Wsgi` asks while it has none), so there are a current thread state
    // and a current interpreter. Only the state of this thread is looked into.
    unsafe {
        let own = ffi::PyThreadState_Get();
        // The list of an interpreter grows at its head.
        ffi::PyInterpreterState_ThreadHead(ffi::PyInterpreterState_Get()) == own && ffi::PyThreadState_Next(own).is_null()
    }
}

/// Starts a daemon thread with this name that runs `body` attached.
pub fn start(py: Python<'_>, name: &str, body: impl FnOnce() + Send + 'static) -> PyResult<()> {
    let body = Mutex::new(Some(body));
    let target = PyCFunction::new_closure(py, None, None, move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
        args.py().detach(|| {
            let attached = Attached::new();
            if let Some(body) = body {
                body();
            }
            drop(attached);
        });
    })?;
    let kwargs = PyDict::new(py);
    kwargs.set_item("target", target)?;
    kwargs.set_item("name", name)?;
    kwargs.set_item("daemon", true)?;
    let threading = stdlib::import(py, "threading")?;
    expect_real(&threading)?;
    threading.getattr("Thread")?.call((), Some(&kwargs))?.call_method0("start")?;
    Ok(())
}

/// The functions that start threads, by the version of Python: the module has the one that it uses.
const STARTERS: [&str; 2] = ["_start_joinable_thread", "_start_new_thread"];

/// Refuses to start threads by a module whose functions somebody has replaced: they start no threads, so nobody would ever serve,
/// and the locks that came with them exclude only the greenlets of one thread from each other.
fn expect_real(threading: &Bound<'_, PyModule>) -> PyResult<()> {
    for name in STARTERS {
        let Some(starter) = threading.getattr_opt(name)? else { continue };
        if !starter.is_instance_of::<PyCFunction>() {
            let by =
                starter.getattr("__module__").and_then(|module| module.extract()).unwrap_or_else(|_| "another module".to_owned());
            return Err(PyRuntimeError::new_err(format!(
                "--threads above 1 needs Python's own threads, and the application has replaced them ({by}, monkey patching): give \
                 --threads 1 and more --workers, or patch without threads: patch_all(thread=False) of gevent, \
                 monkey_patch(thread=False) of eventlet"
            )));
        }
    }
    Ok(())
}
