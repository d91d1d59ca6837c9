//! Socket calls and options that nix does not have, or not in this form.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// TCP_DEFER_ACCEPT (tcp(7)): a connection is handed out when its first bytes arrive, or after about this many seconds without any.
pub fn set_defer_accept(listener: &impl AsFd, seconds: u32) -> io::Result<()> {
    let seconds = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is one int, which outlives the call; its size is given.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// listen(2). A backlog above net.core.somaxconn is cut to it by the kernel (nix refuses some that the kernel takes).
pub fn listen(socket: &impl AsFd, backlog: u32) -> io::Result<()> {
    let backlog = libc::c_int::try_from(backlog).unwrap_or(libc::c_int::MAX);
    // SAFETY: no memory is passed; the descriptor is open as long as it is borrowed.
    Errno::result(unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog) })?;
    Ok(())
}
