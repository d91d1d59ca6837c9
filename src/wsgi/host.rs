//! The interpreter as the host of a master ([`crate::sys::host`]): its program has called the server.
//!
//! The master's thread holds the GIL whenever it does something, as every function of an extension module does, and lets go of it
//! while it waits. A fork is told to the interpreter as `os.fork` tells it: locks are made anew in the child, and the functions of
//! `os.register_at_fork` run.

use pyo3::ffi;
use pyo3::prelude::*;

use super::finish;
use super::thread::Detached;

/// A fork follows.
pub fn before_fork() {
    // What is in the buffers would be written once more by each child.
    Python::attach(finish::flush);
    // SAFETY: the calling thread holds the GIL, as the thread of the master does but in `idle`.
    unsafe { ffi::PyOS_BeforeFork() };
}

/// This is the process that forked, or that could not.
pub fn after_fork_in_parent() {
    // SAFETY: as above, and `before_fork` was called.
    unsafe { ffi::PyOS_AfterFork_Parent() };
}

/// This is the new process.
pub fn after_fork_in_child() {
    // SAFETY: as above; the process has this thread only.
    unsafe { ffi::PyOS_AfterFork_Child() };
}

/// Waits without the GIL.
pub fn idle(wait: &mut dyn FnMut()) {
    let detached = Detached::new();
    wait();
    drop(detached);
}
