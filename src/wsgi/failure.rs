//! Mistakes of an application, worded so that its author finds the cause.

use std::fmt::Write;

use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTraceback};

use super::{stdlib, timeout};

/// Why an answer failed.
pub enum Failure {
    /// The application raised.
    Raised(PyErr),
    /// It did what WSGI forbids; the text names the cause.
    Misuse(String),
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl Failure {
    /// The text of the log record, without the request line.
    pub fn describe(&self, py: Python<'_>) -> String {
        match self {
            Self::Misuse(text) => text.clone(),
            Self::Raised(error) => {
                if let Some(request) = timeout::request_of(py, error) {
                    return format!("interrupted at --timeout: {request}\n{}", traceback(py, error));
                }
                let mut text = String::from("the application raised an exception");
                if let Some(hint) = hint(py, error) {
                    let _ = write!(text, " ({hint})");
                }
                text.push('\n');
                text.push_str(&traceback(py, error));
                text
            }
        }
    }
}

impl Failure {
    /// Whether the deadline of the request is the cause.
    pub fn is_timeout(&self, py: Python<'_>) -> bool {
        match self {
            Self::Raised(error) => timeout::request_of(py, error).is_some(),
            Self::Misuse(_) => false,
        }
    }
}

/// The exception with its traceback, as Python prints it, without a final line end. Frames of the import machinery and of the server's
/// own code before the first one of the application are left out.
pub fn traceback(py: Python<'_>, error: &PyErr) -> String {
    let formatted = || -> PyResult<String> {
        let mut first = error.traceback(py);
        while let Some(frame) = &first {
            let file: String = frame.getattr("tb_frame")?.getattr("f_code")?.getattr("co_filename")?.extract()?;
            if !file.starts_with("<frozen importlib") && !file.starts_with("<tapster ") {
                break;
            }
            first = frame.getattr("tb_next")?.cast_into::<PyTraceback>().ok();
        }
        let lines =
            stdlib::import(py, "traceback")?.getattr("format_exception")?.call1((error.get_type(py), error.value(py), first))?;
        let mut text = String::new();
        for line in lines.try_iter()? {
            text.push_str(&line?.cast::<PyString>()?.to_string_lossy());
        }
        Ok(text)
    };
    // The exception's own __str__ or __repr__ may raise; the module imported as `traceback` by now may be the application's own.
    let text = formatted().or_else(|_| plain(py, error)).unwrap_or_else(|_| {
        error
            .get_type(py)
            .qualname()
            .map_or_else(|_| "an exception that cannot be shown".to_owned(), |name| name.to_string_lossy().into_owned())
    });
    text.trim_end().to_owned()
}

/// Exceptions of a chain that [`plain`] shows.
const CHAIN_MAX: usize = 10;

/// As [`traceback`], but by the interpreter's own means, which need no module: syntax errors and groups have fewer details.
fn plain(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    let mut parts = Vec::new();
    let mut next = Some((error.value(py).clone().into_any(), ""));
    while let Some((value, link)) = next.take().filter(|_| parts.len() < CHAIN_MAX) {
        let file = py.import("io")?.getattr("StringIO")?.call0()?;
        let frames = match error.traceback(py) {
            Some(own) if parts.is_empty() => own.into_any(),
            Some(_) | None => value.getattr("__traceback__")?,
        };
        if !frames.is_none() {
            // SAFETY: the thread is attached; both are live objects, the first a traceback, as the interpreter ensures.
            if unsafe { pyo3::ffi::PyTraceBack_Print(frames.as_ptr(), file.as_ptr()) } != 0 {
                return Err(PyErr::fetch(py));
            }
        }
        let mut text: String = file.call_method0("getvalue")?.extract()?;
        let class = value.get_type();
        let module: String = class.getattr("__module__")?.extract()?;
        if module != "builtins" {
            text.push_str(&module);
            text.push('.');
        }
        text.push_str(&class.qualname()?.to_string_lossy());
        let words = value.str().map(|words| words.to_string_lossy().into_owned());
        match words.as_deref() {
            Ok("") => {}
            Ok(words) => _ = write!(text, ": {words}"),
            Err(_) => text.push_str(": <exception str() failed>"),
        }
        text.push('\n');
        text.push_str(link);
        parts.push(text);
        let [cause, context] = [value.getattr("__cause__")?, value.getattr("__context__")?];
        next = if !cause.is_none() {
            Some((cause, "\nThe above exception was the direct cause of the following exception:\n\n"))
        } else if !context.is_none() && !value.getattr("__suppress_context__")?.is_truthy()? {
            Some((context, "\nDuring handling of the above exception, another exception occurred:\n\n"))
        } else {
            None
        };
    }
    parts.reverse();
    Ok(parts.concat())
}

/// A guess at the cause of an exception that a wrong call convention leads to.
fn hint(py: Python<'_>, error: &PyErr) -> Option<&'static str> {
    let type_error = error.is_instance_of::<PyTypeError>(py);
    if !type_error && !error.is_instance_of::<PyAttributeError>(py) {
        return None;
    }
    let message = error.value(py).str().ok()?;
    let message = message.to_string_lossy();
    if type_error && error.traceback(py).is_none() && message.contains("argument") {
        return Some(
            "it is not callable as app(environ, start_response); if it is a factory, name it with parentheses: module:factory()",
        );
    }
    let uses_start_response_as_dict = message.contains("start_response' object");
    let calls_the_environ = type_error && message.contains("'dict' object is not callable");
    (uses_start_response_as_dict || calls_the_environ)
        .then_some("are its arguments in the wrong order? WSGI calls application(environ, start_response)")
}

/// What is wrong with a result that is no iterable of bytes; `None` when nothing can be said before iterating.
pub fn of_result(result: &Bound<'_, PyAny>) -> Option<String> {
    if result.is_none() {
        return Some(
            "the application returned None instead of an iterable of bytes: is a `return` missing, or the argument order \
             wrong? (a generator needs `yield`)"
                .to_owned(),
        );
    }
    if result.is_instance_of::<PyString>() {
        return Some("the application returned a str instead of an iterable of bytes: return [text.encode()]".to_owned());
    }
    if result.is_instance_of::<PyBytes>() {
        return Some("the application returned bytes instead of an iterable of bytes: return [data]".to_owned());
    }
    if kind(result) == "coroutine" {
        return Some("the application is an async function, WSGI needs a plain one: is it an ASGI application?".to_owned());
    }
    None
}

/// What is wrong with an item of the iterable.
pub fn of_item(item: &Bound<'_, PyAny>) -> String {
    let kind = kind(item);
    if item.is_instance_of::<PyString>() {
        format!("the application's iterable yielded {kind}, not bytes: encode text before it is returned (text.encode())")
    } else if item.is_instance_of::<PyList>() {
        format!("the application's iterable yielded a {kind}, not bytes: is a list wrapped twice?")
    } else {
        format!("the application's iterable yielded {kind}, not bytes")
    }
}

/// A body without a head.
pub fn no_start_response() -> Failure {
    Failure::Misuse("the application did not call start_response before the first block of its body".to_owned())
}

/// Name of an object's type.
pub fn kind(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string_lossy().into_owned())
}
