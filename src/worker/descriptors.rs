//! The worker's own descriptors, which an application can close or replace by their numbers: by closing one of its own twice,
//! when the number has another file by then, or by closing a range. Later reads and writes go to another file, such as the
//! connection of a client, so a worker that notices it ends.
//!
//! Some calls fail and show it at once (accept, the poll, the queue). The others are checked once a second while the worker does
//! anything: does each number still have the file that it had at the beginning? The kernel shows all polls, timers and bells as
//! one file, so among these only another kind of file is noticed; if the loop gets no events because of it, `--timeout` ends the
//! worker.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::sys::fd::{FileId, identity, silence};

/// What a descriptor is for. `Display` is a noun: `the error log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Poll,
    Listener,
    Channel,
    Signals,
    Queue,
    /// Its file may be reopened.
    Log,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poll => "the poll of the event loop",
            Self::Listener => "a listening socket",
            Self::Channel => "the channel to the master",
            Self::Signals => "a pipe of the signal handlers",
            Self::Queue => "the hand-off queue",
            Self::Log => "a log",
        })
    }
}

/// A descriptor and the file that it had.
#[derive(Debug)]
struct KnownDescriptor {
    number: RawFd,
    purpose: Purpose,
    identity: FileId,
}

/// Those that live as long as the worker.
#[derive(Debug, Default)]
pub struct Descriptors(Vec<KnownDescriptor>);

impl Descriptors {
    /// Remembers the file of a descriptor.
    pub fn add(&mut self, fd: BorrowedFd<'_>, purpose: Purpose) -> io::Result<()> {
        let number = fd.as_raw_fd();
        self.0.push(KnownDescriptor { number, purpose, identity: identity(number)? });
        Ok(())
    }

    /// Remembers the files of logs that were reopened.
    pub fn renew_logs(&mut self) {
        for known in self.0.iter_mut().filter(|known| known.purpose == Purpose::Log) {
            // The next check finds a descriptor that is closed.
            known.identity = identity(known.number).unwrap_or(known.identity);
        }
    }

    /// Checks whether all of them have their files. When one has not, no log line goes to a file that has replaced a log.
    ///
    /// # Errors
    /// The first one that has another file, in words.
    #[cold]
    pub fn look(&self) -> io::Result<()> {
        let is_lost = |known: &&KnownDescriptor| identity(known.number).ok() != Some(known.identity);
        let Some(lost) = self.0.iter().find(is_lost) else { return Ok(()) };
        self.0.iter().filter(|known| known.purpose == Purpose::Log).filter(is_lost).for_each(|log| silence(log.number));
        Err(replaced(&format_args!("descriptor {}, {}, is another file or none", lost.number, lost.purpose)))
    }
}

/// The error of a worker that has lost a descriptor; `what` describes how that shows.
pub fn replaced(what: &dyn fmt::Display) -> io::Error {
    io::Error::other(format!(
        "{what}: the application has closed or replaced a descriptor of the server (os.close, os.dup2 or os.closerange with a number \
         that is not its own)"
    ))
}

/// Whether a call has failed because its descriptor has another file or none.
pub fn is_replaced(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOTCONN))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::fd::replace;

    #[test]
    fn another_file_under_a_number_is_found_and_gets_no_log_lines() {
        let (first, second) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let (client, socket) = UnixStream::pair().unwrap();
        let mut descriptors = Descriptors::default();
        descriptors.add(first.as_fd(), Purpose::Log).unwrap();
        descriptors.add(client.as_fd(), Purpose::Channel).unwrap();
        descriptors.look().unwrap();
        replace(&first, &second).unwrap();
        descriptors.renew_logs();
        descriptors.look().unwrap();
        replace(&first, &socket).unwrap();
        let why = descriptors.look().unwrap_err().to_string();
        assert!(why.starts_with(&format!("descriptor {}, a log, is another file or none: ", first.as_raw_fd())), "{why}");
        assert_eq!(identity(first.as_raw_fd()).unwrap(), identity(File::open("/dev/null").unwrap().as_raw_fd()).unwrap());
    }
}
