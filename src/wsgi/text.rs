//! Between bytes and Python's `str` as PEP 3333 wants them: native strings whose code points are the bytes (latin-1). A lack of
//! memory is a MemoryError.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use pyo3::{Borrowed, ffi};

/// Code point that makes `PyUnicode_New` choose the ASCII representation (unicodeobject.h).
const MAX_ASCII: ffi::Py_UCS4 = 127;

/// The string whose code points are `bytes`.
pub fn from_latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // A slice has at most isize::MAX bytes, so that the length fits.
    let len = bytes.len() as ffi::Py_ssize_t;
    let string = if bytes.is_ascii() {
        // SAFETY: the thread is attached (`py`); a new string of `len` ASCII code points has `len` writable bytes at
        // PyUnicode_DATA, and nobody else knows the object yet. The shared empty string is not written to.
        unsafe {
            let string = ffi::PyUnicode_New(len, MAX_ASCII);
            if !string.is_null() && len > 0 {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), ffi::PyUnicode_DATA(string).cast::<u8>(), bytes.len());
            }
            string
        }
    } else {
        // SAFETY: the thread is attached; pointer and length are those of a live slice.
        unsafe { ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), len, std::ptr::null()) }
    };
    // SAFETY: both calls return a new reference to a str, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, string).map(|string| string.cast_into_unchecked()) }
}

/// Python's copy of `bytes`.
pub fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    // A slice has at most isize::MAX bytes, so that the length fits.
    let len = bytes.len() as ffi::Py_ssize_t;
    // SAFETY: the thread is attached; pointer and length are those of a live slice, which is copied. The call returns a new
    // reference to a bytes object, or null with an exception set.
    unsafe {
        let bytes = ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), len);
        Bound::from_owned_ptr_or_err(py, bytes).map(|bytes| bytes.cast_into_unchecked())
    }
}

/// The bytes of a string all of whose code points are below 256, else `None`.
pub fn to_latin1<'a>(string: Borrowed<'a, '_, PyString>) -> Option<&'a [u8]> {
    let object = string.as_ptr();
    // SAFETY: `object` is a live str and the thread is attached (a Borrowed proves both); PyUnicode_READY makes the old
    // representation (before 3.12) a current one; a str of kind 1 has PyUnicode_GET_LENGTH bytes of latin-1 at PyUnicode_DATA,
    // and they do not change while the object lives.
    unsafe {
        if ffi::PyUnicode_READY(object) < 0 {
            ffi::PyErr_Clear();
            return None;
        }
        if ffi::PyUnicode_KIND(object) != ffi::PyUnicode_1BYTE_KIND {
            return None;
        }
        let len = ffi::PyUnicode_GET_LENGTH(object) as usize;
        Some(std::slice::from_raw_parts(ffi::PyUnicode_DATA(object).cast::<u8>().cast_const(), len))
    }
}

/// An interned string whose hash is known, for keys that are used in every request.
pub fn key(py: Python<'_>, name: &str) -> PyResult<Py<PyString>> {
    let key = PyString::intern(py, name);
    key.hash()?;
    Ok(key.unbind())
}
