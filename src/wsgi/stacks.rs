//! The stacks of Python's threads as text, taken while none of them runs.
//!
//! No Python code runs for it, and nothing releases the interpreter: only attributes that C code provides are read. So it takes
//! less than a millisecond for an ordinary number of threads, and needs no module that a project could have replaced.

use std::ffi::c_long;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::stdlib;
use crate::worker::app::Stacks;

/// Frames of a thread that are shown, from the innermost: a deep recursion would fill the log, and take long, with one place.
const FRAMES_MAX: usize = 100;

/// The stacks of all threads but the calling one; `own` is the interpreter's identifier of the thread that the caller is
/// interested in.
///
/// # Errors
/// The exception of an interpreter that does not give them.
pub fn now(py: Python<'_>, own: c_long) -> PyResult<Stacks> {
    labelled(py, own, &|_| None)
}

/// As [`now`]; `about` has words for the thread of a number, which stand behind its name. Such threads come first.
pub fn labelled(py: Python<'_>, own: c_long, about: &dyn Fn(i64) -> Option<String>) -> PyResult<Stacks> {
    // SAFETY: needs nothing; it returns the identifier of the calling thread.
    let here = unsafe { pyo3::ffi::PyThread_get_thread_ident() } as c_long;
    let frames = py.import("sys")?.getattr("_current_frames")?.call0()?.cast_into::<PyDict>()?;
    let threads = stdlib::import(py, "threading")?.getattr("_active")?;
    let mut stacks = Stacks::default();
    let (mut serving, mut others) = (String::new(), String::new());
    for (ident, frame) in frames {
        let ident: c_long = ident.extract()?;
        if ident == here {
            continue;
        }
        // The attribute, not the property, which is Python code. Threads that Python did not start have no name.
        let name = threads.get_item(ident).and_then(|thread| thread.getattr("_name")?.extract());
        let name: String = name.unwrap_or_else(|_| ident.to_string());
        let serves = about(ident).map(|words| format!(", serving {words}"));
        let mut text = format!("Thread {name}{} (most recent call last):\n", serves.as_deref().unwrap_or_default());
        write_frames(&mut text, frame)?;
        if serves.is_some() {
            serving.push_str(&text)
        } else {
            others.push_str(&text)
        }
        if ident == own {
            stacks.own = text.trim_end().to_owned();
        }
    }
    stacks.all = serving + &others;
    stacks.all.truncate(stacks.all.trim_end().len());
    Ok(stacks)
}

fn write_frames(text: &mut String, innermost: Bound<'_, PyAny>) -> PyResult<()> {
    let mut lines = Vec::new();
    let mut next = Some(innermost);
    while let Some(frame) = next.take_if(|frame| !frame.is_none()) {
        if lines.len() == FRAMES_MAX {
            lines.push("  ... and the calls before\n".to_owned());
            break;
        }
        let code = frame.getattr("f_code")?;
        let words = |name: &str| Ok::<_, PyErr>(code.getattr(name)?.cast_into::<PyString>()?.to_string_lossy().into_owned());
        // A frame may have no line.
        let number: Option<u32> = frame.getattr("f_lineno")?.extract()?;
        let number = number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let line = format!("  File \"{}\", line {number}, in {}\n", words("co_filename")?, words("co_name")?);
        lines.push(line);
        next = Some(frame.getattr("f_back")?);
    }
    lines.iter().rev().for_each(|line| text.push_str(line));
    Ok(())
}
