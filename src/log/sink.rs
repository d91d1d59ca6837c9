//! One log descriptor: appends whole lines, each batch in one write, and can be given a new file under its feet.

use std::io;
use std::os::fd::OwnedFd;

use crate::config::LogTarget;

/// A place for log lines.
#[derive(Debug)]
pub struct Sink {
    fd: OwnedFd,
}

impl Sink {
    /// Opens the target (a file: append, create, mode 0640).
    pub fn open(target: &LogTarget) -> io::Result<Self> {
        let _ = target;
        todo!()
    }

    /// Appends `lines` (one or more whole lines): to a file in one write, to a pipe in writes that the kernel keeps whole
    /// (PIPE_BUF, pipe(7)). A short write is continued; what cannot be written is counted and said on the next success.
    pub fn write(&self, lines: &[u8]) {
        let _ = (lines, &self.fd);
        todo!()
    }
}
