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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::signal::{SigSet, Signal};

    use super::super::signals::WithoutSigpipe;
    use super::*;

    fn is_pending() -> bool {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: the first call fills the set, which the second one reads.
        unsafe { libc::sigpending(set.as_mut_ptr()) == 0 && libc::sigismember(set.as_ptr(), libc::SIGPIPE) == 1 }
    }

    #[test]
    fn calls_that_share_a_mask_leave_no_signal_behind() {
        let before = SigSet::thread_get_mask().unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let held = WithoutSigpipe::hold().unwrap();
        assert!(sendfile(ours.as_fd(), file.as_fd(), 0, 10).is_ok_and(|sent| sent == 10));
        drop(theirs);
        for _ in 0..2 {
            let error = sendfile(ours.as_fd(), file.as_fd(), 0, 10).unwrap_err();
            // A blocked signal stays pending, whether or not it is ignored.
            assert!(error.kind() == io::ErrorKind::BrokenPipe && !is_pending(), "{error}");
        }
        drop(WithoutSigpipe::hold().unwrap());
        assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGPIPE), "the outer one lives");
        drop(held);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
        assert!(sendfile(ours.as_fd(), file.as_fd(), 0, 10).is_err() && !is_pending());
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
