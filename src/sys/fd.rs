//! Descriptors given by the parent process.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Takes over descriptor `number`, which was inherited from the parent process, and marks it close-on-exec. Each can be taken once.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptors 0 to 2 are the standard streams"));
    }
    // SAFETY: F_GETFD touches nothing but the flags of whatever the number names, and fails if it names nothing.
    let flags = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })
        .map_err(|_| io::Error::new(io::ErrorKind::NotFound, "no such descriptor is open"))?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor was not inherited, or is used twice"));
    }
    // SAFETY: as above; the number is open.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) })?;
    // SAFETY: it came through exec, since it was not close-on-exec and this program opens nothing without that flag; so no other
    // value owns it. It has the flag now: a second call is refused.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test]
    fn a_descriptor_is_taken_once() {
        let file = File::open("/dev/null").unwrap();
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = file.into_raw_fd();
        let taken = inherited(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(inherited(number).is_err());
    }

    #[test]
    fn what_this_process_opened_is_not_inherited() {
        let file = File::open("/dev/null").unwrap();
        assert!(inherited(file.as_raw_fd()).is_err());
        assert!(inherited(1).is_err());
        assert_eq!(inherited(1_000_000).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
