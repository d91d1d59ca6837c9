//! sendfile(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::signals::without_sigpipe;

/// Most bytes of one call: what Linux transfers at most (sendfile(2), "Notes"), rounded down to a page.
const MAX: u64 = 0x7fff_f000;

/// Sends up to `len` bytes of `file` from `offset` to `socket`; returns how many the kernel took. The file's own position
/// stays as it is. 0 means that the file ends before `offset`. A socket whose peer has left is an error (EPIPE) and no signal.
pub fn sendfile(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<u64> {
    let mut position = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let count = len.min(MAX) as usize;
    without_sigpipe(|| {
        // SAFETY: both descriptors are open (borrowed for the call); `position` lives through the call and is the only memory
        // the kernel writes.
        let sent = unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &mut position, count) };
        if sent == -1 { Err(io::Error::last_os_error()) } else { Ok(sent as u64) }
    })
}
