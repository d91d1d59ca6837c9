//! `tapster._tapster`: the way of a Python interpreter into the server. The package's `__main__.py` calls it.

use std::ffi::{OsString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use tapster::{CallError, GuestTask, ServerCall};

/// Exit code of a command that failed in a way nobody has foreseen, as of a Rust program that panics.
const PANICKED: i32 = 101;

/// `run(words, own)`: does what the arguments ask for and ends the process, or returns that they need a master.
unsafe extern "C" fn run(_: *mut ffi::PyObject, args: *mut ffi::PyObject) -> *mut ffi::PyObject {
    enter(args, |(words, own): (Vec<OsString>, Vec<OsString>)| match tapster::run_as_guest(words, own) {
        GuestTask::NeedsMaster => Ok(None),
        GuestTask::Done(code) => process::exit(code),
    })
}

/// `run_bare(words, own)`: is the master, and ends the process.
unsafe extern "C" fn run_bare(_: *mut ffi::PyObject, args: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // The interpreter runs no more code and is not finalised: it may be the copy of another process by then (`--daemon`).
    enter(args, |(words, own): (Vec<OsString>, Vec<OsString>)| process::exit(tapster::run_bare(words, own)))
}

/// `run_worker(number)`: is a worker, and ends the process.
unsafe extern "C" fn run_worker(_: *mut ffi::PyObject, args: *mut ffi::PyObject) -> *mut ffi::PyObject {
    enter(args, |(number,): (i32,)| tapster::run_worker(number))
}

/// `follow_parent(pid)`: this process, a child of that one, is told to stop (SIGTERM) when the thread ends that has forked it.
unsafe extern "C" fn follow_parent(_: *mut ffi::PyObject, args: *mut ffi::PyObject) -> *mut ffi::PyObject {
    enter(args, |(parent,): (i32,)| match tapster::follow_parent(parent) {
        Ok(()) => Ok(None),
        Err(error) => Err(error.into()),
    })
}

/// `serve(script, words, app, title, options, warnings)`: is the master for as long as there is one, and returns the exit code.
unsafe extern "C" fn serve(_: *mut ffi::PyObject, args: *mut ffi::PyObject) -> *mut ffi::PyObject {
    type Arguments = (Vec<OsString>, Vec<OsString>, Option<String>, String, String, Vec<String>);
    enter(args, |(script, words, app, title, options, warnings): Arguments| {
        let call = ServerCall { script, words, app: app.ok_or(title), options, warnings };
        tapster::serve(call).map(Some).map_err(|error| match error {
            CallError::Argument(why) => PyTypeError::new_err(why),
            CallError::Value(why) => PyValueError::new_err(why),
            CallError::Process(why) => PyRuntimeError::new_err(why),
        })
    })
}

/// Calls `body` with the arguments of a Python call, which returns what `body` does. `body` must not be inside of a `Python::attach`: pyo3 counts its own, and
/// would take a thread that lets go of the GIL in the middle of one for attached. For the same reason there is no `#[pyfunction]`.
fn enter<A>(args: *mut ffi::PyObject, body: impl FnOnce(A) -> PyResult<Option<i32>>) -> *mut ffi::PyObject
where
    A: for<'a, 'py> FromPyObject<'a, 'py, Error = PyErr>,
{
    let arguments = Python::attach(|py| {
        // SAFETY: the interpreter calls with a live tuple of the arguments, since the functions are METH_VARARGS.
        unsafe { Bound::from_borrowed_ptr(py, args) }.extract::<A>().map_err(|error| error.restore(py))
    });
    let Ok(arguments) = arguments else { return std::ptr::null_mut() };
    match catch_unwind(AssertUnwindSafe(|| body(arguments))) {
        Ok(result) => Python::attach(|py| match result.and_then(|code| code.into_py_any(py)) {
            Ok(returned) => returned.into_ptr(),
            Err(error) => {
                error.restore(py);
                std::ptr::null_mut()
            }
        }),
        // The panic has been printed.
        Err(_) => process::exit(PANICKED),
    }
}

/// A function of the module as CPython wants it.
struct Method(ffi::PyMethodDef);

// SAFETY: the pointers in it are to constants and functions; nobody writes to it.
unsafe impl Sync for Method {}

const fn method(name: &'static std::ffi::CStr, function: ffi::PyCFunction) -> Method {
    Method(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: ffi::METH_VARARGS as c_int,
        ml_doc: std::ptr::null(),
    })
}

static METHODS: [(&str, Method); 5] = [
    ("follow_parent", method(c"follow_parent", follow_parent)),
    ("run", method(c"run", run)),
    ("run_bare", method(c"run_bare", run_bare)),
    ("run_worker", method(c"run_worker", run_worker)),
    ("serve", method(c"serve", serve)),
];

#[pymodule]
fn _tapster(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    for (name, method) in &METHODS {
        // SAFETY: the definition lives for ever and is not written to.
        let function = unsafe {
            let raw = ffi::PyCFunction_NewEx((&raw const method.0).cast_mut(), std::ptr::null_mut(), std::ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, raw)?
        };
        module.add(*name, function)?;
    }
    tapster::wsgi::described::install(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
