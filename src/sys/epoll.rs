//! Direct use of an epoll descriptor: exclusive wake-ups, which mio does not offer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Adds `fd` to `epoll`, level-triggered and exclusive: of all the processes that wait for `fd` the kernel wakes one
/// (epoll_ctl(2), EPOLLEXCLUSIVE). `data` comes back with the event. Such an entry cannot be modified, only deleted.
pub fn add_exclusive(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, u64: data };
    // SAFETY: both descriptors are open (borrowed for the call), and the kernel only reads `event` during the call.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Removes `fd` from `epoll`.
pub fn delete(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open (borrowed for the call); EPOLL_CTL_DEL ignores the event pointer.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
