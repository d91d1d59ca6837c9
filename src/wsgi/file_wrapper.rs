//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): an iterable over a file-like object that the
//! server recognises and, where the object is a plain file, hands to the kernel.

use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Bytes of a block when the application names no size, as in PEP 3333's example.
const BLOCK_SIZE: isize = 8192;

/// The wrapper.
#[pyclass(frozen, name = "file_wrapper", module = "tapster")]
pub struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    blksize: isize,
    /// Bytes of the file that became a part of the answer.
    taken: AtomicU64,
    /// What a hook wants to be called with them once the file is closed.
    at_close: OnceLock<Py<PyAny>>,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize = BLOCK_SIZE))]
    fn new(filelike: Py<PyAny>, blksize: isize) -> PyResult<Self> {
        if blksize <= 0 {
            return Err(PyValueError::new_err(format!("wsgi.file_wrapper: the block size must be positive, not {blksize}")));
        }
        Ok(Self { filelike, blksize, taken: AtomicU64::new(0), at_close: OnceLock::new() })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1("read", (self.blksize,))?;
        if !block.is_truthy()? {
            return Ok(None);
        }
        if let Ok(bytes) = block.cast::<PyBytes>() {
            self.taken.fetch_add(bytes.as_bytes().len() as u64, Relaxed);
        }
        Ok(Some(block))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let closed = match self.filelike.bind(py).getattr_opt("close")? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        };
        if let Some(then) = self.at_close.get() {
            then.call1(py, (self.taken.load(Relaxed),))?;
        }
        closed
    }

    /// Calls `then` when the file is closed; once.
    fn _at_close(&self, then: Py<PyAny>) {
        let _ = self.at_close.set(then);
    }
}

/// A part of a regular file.
pub struct Extent {
    /// The file, by a descriptor of our own.
    pub file: File,
    /// First byte.
    pub offset: u64,
    /// Bytes from there to the end of the file; not 0.
    pub len: u64,
}

impl FileWrapper {
    /// The part of the file that reading would give, when the wrapped object is a plain file.
    ///
    /// Only the standard library's own binary files qualify: an object of another type may have a descriptor and still
    /// read something else (`gzip.GzipFile`, text files, encrypting wrappers).
    pub fn extent(&self, py: Python<'_>) -> Option<Extent> {
        let extent = self.try_extent(py);
        // An error here comes again, visibly, when the object is read.
        let extent = extent.ok().flatten();
        self.taken.store(extent.as_ref().map_or(0, |extent| extent.len), Relaxed);
        extent
    }

    fn try_extent(&self, py: Python<'_>) -> PyResult<Option<Extent>> {
        let io = py.import("io")?;
        let (raw, reader, random) = (io.getattr("FileIO")?, io.getattr("BufferedReader")?, io.getattr("BufferedRandom")?);
        let mut object = self.filelike.bind(py).clone();
        if object.get_type().name()? == "_TemporaryFileWrapper" {
            object = object.getattr("file")?;
        }
        let kind = object.get_type();
        let plain = kind.is(&raw) || ((kind.is(&reader) || kind.is(&random)) && object.getattr("raw")?.get_type().is(&raw));
        if !plain || !object.call_method0("readable")?.is_truthy()? {
            return Ok(None);
        }
        if kind.is(&random) {
            object.call_method0("flush")?;
        }
        // `tell` knows what a buffered reader has already taken from the descriptor.
        let offset: u64 = object.call_method0("tell")?.extract()?;
        let fd: RawFd = object.call_method0("fileno")?.extract()?;
        if fd < 0 {
            return Ok(None);
        }
        // SAFETY: the Python file is open, since `fileno` succeeded, and cannot be closed before this function returns: the
        // thread stays attached and runs no Python code until the descriptor is duplicated.
        let owned = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
        let file = File::from(owned);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        // A size of 0 is also what files have whose content is made when they are read (proc(5), sysfs, some FUSE).
        match metadata.len().checked_sub(offset) {
            None | Some(0) => Ok(None),
            Some(len) => Ok(Some(Extent { file, offset, len })),
        }
    }
}
