//! Signals that mean an error of write(2), when the application gives them their default action ([`SOURCE`]).
//!
//! What the server sends on sockets needs none of this (MSG_NOSIGNAL); pipes and files have no such flag, and the application's
//! own writes have none either.

use std::ffi::{CStr, c_int};

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

/// Name of the module that the application's changes of dispositions go through.
const MODULE: &CStr = c"tapster_write_errors";

/// Its source.
const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("write_errors.py"), "\0").as_bytes()) {
    Ok(code) => code,
    Err(_) => panic!("the source has no NUL byte"),
};

/// Makes the module, before code of the application could set a disposition.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let module = PyModule::from_code(py, SOURCE, c"<tapster write_errors>", MODULE)?;
    let do_nothing = PyCFunction::new_closure(py, None, None, |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        args.get_item(0)?.extract().map(do_nothing)
    })?;
    module.setattr("do_nothing", do_nothing)
}

/// Gives a signal a handler that does nothing: system calls return their errors, and exec gives the signal its default action.
fn do_nothing(number: c_int) {
    extern "C" fn handler(_: c_int) {}
    // SAFETY: zeros are a valid sigaction: no flags, an empty mask. The handler is a function of the right kind that touches
    // nothing, so that it may run at any time.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(number, &raw const action, std::ptr::null_mut());
    }
}
