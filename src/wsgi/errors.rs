//! `wsgi.errors` (PEP 3333): text goes into the error log, a record for each line.
//!
//! The level is WARNING: frameworks write everything from debugging to disasters here, and nothing distinguishes them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::log::error::Log;

/// Longest line, in bytes, that is kept until its end comes; a longer one is logged in pieces.
const LINE_MAX: usize = 64 * 1024;

/// The lines of the stream, shared with the server, which flushes a partial line when a request ends.
pub struct Lines {
    log: Log,
    /// The line that has no end yet.
    partial: Mutex<String>,
    /// Whether `partial` holds something; spares the lock at the end of each request.
    pending: AtomicBool,
}

impl Lines {
    /// Lines into a log.
    pub fn new(log: Log) -> Arc<Self> {
        Arc::new(Self { log, partial: Mutex::new(String::new()), pending: AtomicBool::new(false) })
    }

    fn write(&self, text: &str) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = text;
        while let Some((line, tail)) = rest.split_once('\n') {
            partial.push_str(line);
            self.log.warning(format_args!("{}", partial.strip_suffix('\r').unwrap_or(&partial)));
            partial.clear();
            rest = tail;
        }
        partial.push_str(rest);
        if partial.len() > LINE_MAX {
            self.log.warning(format_args!("{partial}"));
            partial.clear();
        }
        self.pending.store(!partial.is_empty(), Ordering::Relaxed);
    }

    /// Logs a line that has no end yet.
    #[inline]
    pub fn flush(&self) {
        if self.pending.load(Ordering::Relaxed) {
            self.flush_pending();
        }
    }

    #[inline(never)]
    fn flush_pending(&self) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        if !partial.is_empty() {
            self.log.warning(format_args!("{partial}"));
            partial.clear();
        }
        self.pending.store(false, Ordering::Relaxed);
    }
}

/// The stream.
#[pyclass(frozen, module = "tapster")]
pub struct Errors(pub Arc<Lines>);

#[pymethods]
impl Errors {
    fn write(&self, text: &Bound<'_, PyAny>) -> PyResult<usize> {
        let Ok(string) = text.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!("wsgi.errors takes str, not {}", text.get_type().name()?)));
        };
        match string.to_cow() {
            Ok(text) => self.0.write(&text),
            // Lone surrogates have no UTF-8; show them as escapes.
            Err(_) => {
                let escaped = string.call_method1("encode", ("utf-8", "backslashreplace"))?.cast_into::<PyBytes>()?;
                self.0.write(&String::from_utf8_lossy(escaped.as_bytes()));
            }
        }
        string.len()
    }

    fn writelines(&self, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(&line?)?;
        }
        Ok(())
    }

    fn flush(&self) {
        self.0.flush();
    }

    /// Does nothing: the stream is shared by all requests.
    fn close(&self) {}

    #[getter]
    fn closed(&self) -> bool {
        false
    }

    #[getter]
    fn encoding(&self) -> &'static str {
        "utf-8"
    }

    fn writable(&self) -> bool {
        true
    }

    fn readable(&self) -> bool {
        false
    }

    fn seekable(&self) -> bool {
        false
    }

    fn isatty(&self) -> bool {
        false
    }
}
