//! A runtime that this process belongs to: an interpreter whose program has called the server. It wants to know of forks, and its
//! other threads want to run while the server waits.

use std::sync::OnceLock;

use nix::unistd::ForkResult;

/// What the runtime is told. All functions are called by the thread that has called the server.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// A fork follows.
    pub before_fork: fn(),
    /// It has happened, or failed; this is the process that forked.
    pub in_parent: fn(),
    /// It has happened; this is the new process, with one thread.
    pub in_child: fn(),
    /// The function that is passed waits, and needs nothing of the runtime.
    pub idle: fn(&mut dyn FnMut()),
}

/// One for the process, as the runtime is: forks happen deep in parts that know nothing of it.
static HOST: OnceLock<Host> = OnceLock::new();

/// From now on this process belongs to the runtime. Only the first call counts.
pub fn live_in(host: Host) {
    let _ = HOST.set(host);
}

/// Whether it belongs to one. Its other threads are then the business of whoever has started them.
pub(super) fn is_there() -> bool {
    HOST.get().is_some()
}

/// Waits without holding anything of the runtime.
pub fn idle<T>(wait: impl FnOnce() -> T) -> T {
    let Some(host) = HOST.get() else { return wait() };
    let (mut wait, mut waited) = (Some(wait), None);
    (host.idle)(&mut || waited = wait.take().map(|wait| wait()));
    waited.expect("a host calls what it is passed")
}

/// fork(2), with the runtime told before, and in the process that forked. The new process has to call [`tell_child`].
///
/// # Safety
/// As for [`nix::unistd::fork`].
pub(super) unsafe fn fork() -> nix::Result<ForkResult> {
    let host = HOST.get();
    if let Some(host) = host {
        (host.before_fork)();
    }
    // SAFETY: what the caller has promised.
    let forked = unsafe { nix::unistd::fork() };
    if let (Some(host), Ok(ForkResult::Parent { .. }) | Err(_)) = (host, &forked) {
        (host.in_parent)();
    }
    forked
}

/// Tells the runtime that this is the new process.
pub(super) fn tell_child() {
    if let Some(host) = HOST.get() {
        (host.in_child)();
    }
}
