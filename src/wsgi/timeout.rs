//! `tapster.RequestTimeout`: raised in a thread from another one, and recognised when it comes out of the application.

use std::ffi::{CStr, c_long};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::{failure, package, stacks};
use crate::log::error::Log;
use crate::worker::app::{Interrupter, Stacks};

/// Name of the module that applications import.
const MODULE: &CStr = c"tapster";

/// The extension module, when this code is one.
const PACKAGE: &str = "tapster._tapster";

/// Its source.
const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("../python/tapster/__init__.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// Makes the module, for `import tapster`. Where the server is a package of the interpreter, it is that package.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    if modules.contains(PACKAGE)? {
        return Ok(());
    }
    let module = PyModule::from_code(py, SOURCE, c"<tapster>", MODULE)?;
    package::install(&modules, &module)
}

/// The means to interrupt one thread.
pub struct Interrupt {
    /// The interpreter's identifier of the thread.
    ident: c_long,
    /// The exception that was raised in the call that runs.
    raised: Mutex<Option<Py<PyAny>>>,
    log: Log,
}

impl Interrupt {
    /// Interrupts the calling thread.
    pub fn here(log: Log) -> Arc<Self> {
        // SAFETY: needs nothing; it returns the identifier of the calling thread.
        let ident = unsafe { ffi::PyThread_get_thread_ident() } as c_long;
        Arc::new(Self { ident, raised: Mutex::new(None), log })
    }

    /// The call is over: clears an exception that was not raised yet; returns whether the log has it.
    pub fn settle(&self, py: Python<'_>) -> bool {
        // SAFETY: the thread is attached, as `py` shows; a null exception clears a pending one.
        unsafe { ffi::PyThreadState_SetAsyncExc(self.ident, std::ptr::null_mut()) };
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.is_some_and(|class| class.bind(py).getattr("_came_out").is_ok_and(|came| came.is_truthy().unwrap_or(false)))
    }

    fn raise(&self, py: Python<'_>, request: &str, runs: &dyn Fn() -> bool, raising: &dyn Fn(Stacks)) -> PyResult<()> {
        let class = py.import("tapster")?.getattr("_exception")?.call1((request,))?;
        // Python code ran, and other threads with it: only from here to the end no other thread runs. Python's own formatting of
        // stacks reads the sources, and lets the others run at each file: the exception would come much later.
        if runs() {
            raising(stacks::now(py, self.ident)?);
            // SAFETY: the thread is attached, as `py` shows; the class is one of exceptions; the call takes its own reference.
            unsafe { ffi::PyThreadState_SetAsyncExc(self.ident, class.as_ptr()) };
            *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(class.unbind());
        }
        Ok(())
    }
}

impl Interrupter for Interrupt {
    fn number(&self) -> i64 {
        self.ident
    }

    fn stacks(&self, about: &dyn Fn(i64) -> Option<String>) -> Result<String, String> {
        Python::attach(|py| stacks::labelled(py, self.ident, about).map(|stacks| stacks.all).map_err(|error| error.to_string()))
    }

    fn interrupt(&self, request: &str, runs: &dyn Fn() -> bool, raising: &dyn Fn(Stacks)) {
        Python::attach(|py| {
            if runs()
                && let Err(error) = self.raise(py, request, runs, raising)
            {
                self.log.error(format_args!("cannot interrupt {request}: {}", failure::traceback(py, &error)));
            }
        });
    }
}

/// The request in words, if the exception is one of the deadline; notes that it came out of the application.
pub fn request_of(py: Python<'_>, error: &PyErr) -> Option<String> {
    let base = py.import("tapster").ok()?.getattr("RequestTimeout").ok()?.cast_into::<PyType>().ok()?;
    let class = error.get_type(py);
    if !class.is_subclass(&base).ok()? {
        return None;
    }
    // Fails only when the application has replaced the class; then the log has one more line.
    let _ = class.setattr("_came_out", true);
    Some(class.getattr("request").and_then(|request| request.extract()).unwrap_or_default())
}
