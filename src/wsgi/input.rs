//! `wsgi.input` (PEP 3333, "Input and Error Streams"): a binary stream over the complete body, with its end where the body ends.
//!
//! Client and application determine how much is read at once. A call without memory for it raises MemoryError.

use std::io;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PySlice};

use super::spooled::Spooled;
use super::text;
use crate::worker::app::RequestBody;

/// Reads of a spooled body from this size on let other Python threads run, in bytes: below it, releasing and taking the GIL costs
/// more than copying from the page cache.
const DETACH_MIN: u64 = 64 * 1024;

enum InputSource {
    Empty,
    Memory { bytes: Vec<u8>, at: usize },
    File(Spooled),
}

impl InputSource {
    /// Bytes that are left.
    fn left(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory { bytes, at } => (bytes.len() - at) as u64,
            Self::File(file) => file.left(),
        }
    }
}

/// The stream.
#[pyclass(module = "tapster")]
pub struct Input {
    source: InputSource,
}

impl Input {
    /// A stream over a body. The one over an empty body can be shared by many requests: nothing changes it.
    pub fn new(body: RequestBody) -> Self {
        let source = match body {
            RequestBody::Empty => InputSource::Empty,
            RequestBody::Memory(bytes) if bytes.is_empty() => InputSource::Empty,
            RequestBody::Memory(bytes) => InputSource::Memory { bytes, at: 0 },
            RequestBody::File(file) => InputSource::File(Spooled::new(file)),
        };
        Self { source }
    }

    /// How many bytes a call that asks for `size` gets at most: everything for a missing or negative size.
    fn wanted(&self, size: Option<isize>) -> u64 {
        let left = self.source.left();
        match size.and_then(|size| u64::try_from(size).ok()) {
            Some(size) => size.min(left),
            None => left,
        }
    }

    fn take_line<'py>(&mut self, py: Python<'py>, max: u64) -> PyResult<Bound<'py, PyBytes>> {
        match &mut self.source {
            InputSource::Empty => Ok(PyBytes::new(py, b"")),
            InputSource::Memory { bytes, at } => {
                let max = usize::try_from(max).unwrap_or(usize::MAX);
                let rest = &bytes[*at..];
                let rest = &rest[..rest.len().min(max)];
                let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
                let line = text::bytes(py, &rest[..len])?;
                *at += len;
                Ok(line)
            }
            InputSource::File(file) => {
                let len = file.line(max)?;
                take(py, file, len)
            }
        }
    }
}

/// The next `len` bytes, of which there are as many.
fn take<'py>(py: Python<'py>, file: &mut Spooled, len: u64) -> PyResult<Bound<'py, PyBytes>> {
    let size = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    PyBytes::new_with(py, size, |memory| {
        let mut read = || file.read(memory);
        if len >= DETACH_MIN {
            py.detach(read)?
        } else {
            read()?
        }
        Ok(())
    })
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size = None, /))]
    fn read<'py>(&mut self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = self.wanted(size);
        match &mut self.source {
            InputSource::Empty => Ok(PyBytes::new(py, b"")),
            InputSource::Memory { bytes, at } => {
                // `wanted` is at most the rest of a Vec.
                let end = *at + wanted as usize;
                let data = text::bytes(py, &bytes[*at..end])?;
                *at = end;
                if end == bytes.len() {
                    // The application has its own copy now.
                    self.source = InputSource::Empty;
                }
                Ok(data)
            }
            InputSource::File(file) => take(py, file, wanted),
        }
    }

    #[pyo3(signature = (size = None, /))]
    fn read1<'py>(&mut self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.read(py, size)
    }

    fn readinto(&mut self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let view = py.import("builtins")?.getattr("memoryview")?.call1((buffer,))?.call_method1("cast", ("B",))?;
        if view.getattr("readonly")?.is_truthy()? {
            return Err(PyValueError::new_err("readinto() needs a writable buffer"));
        }
        let data = self.read(py, Some(isize::try_from(view.len()?).unwrap_or(isize::MAX)))?;
        let data = data.as_bytes();
        view.set_item(PySlice::new(py, 0, data.len() as isize, 1), data)?;
        Ok(data.len())
    }

    #[pyo3(signature = (size = None, /))]
    fn readline<'py>(&mut self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = self.wanted(size);
        self.take_line(py, wanted)
    }

    #[pyo3(signature = (hint = None, /))]
    fn readlines<'py>(&mut self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let limit = hint.filter(|hint| *hint > 0).and_then(|hint| usize::try_from(hint).ok());
        let lines = PyList::empty(py);
        let mut total = 0;
        while self.source.left() > 0 {
            let line = self.take_line(py, u64::MAX)?;
            total += line.as_bytes().len();
            lines.append(line)?;
            if limit.is_some_and(|limit| total >= limit) {
                break;
            }
        }
        Ok(lines)
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if self.source.left() == 0 {
            return Ok(None);
        }
        self.take_line(py, u64::MAX).map(Some)
    }

    /// Does nothing: PEP 3333 forbids applications to close it, some do, and the empty one is shared.
    fn close(&self) {}

    fn flush(&self) {}

    #[getter]
    fn closed(&self) -> bool {
        false
    }

    fn readable(&self) -> bool {
        true
    }

    fn writable(&self) -> bool {
        false
    }

    fn seekable(&self) -> bool {
        false
    }

    fn isatty(&self) -> bool {
        false
    }
}
