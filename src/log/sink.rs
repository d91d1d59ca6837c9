//! One log descriptor: appends whole lines, each batch in one write, and can be given a new file under its feet.
//!
//! Several processes write to the same file or pipe, so what must stay whole has to leave in one write(2):
//! - a regular file, opened with O_APPEND: the kernel places each write after the last, whatever its length;
//! - anything else (pipe, socket of a service manager, terminal): as many whole lines as fit into PIPE_BUF, which pipe(7)
//!   promises not to mix with others. A longer line leaves in one write of its own; Linux keeps it whole as long as the pipe
//!   has room for it, and may mix it with others when the writer has to wait for the reader in the middle of it;
//! - the system log: one datagram for each line, each record with its header in front.
//!
//! Nothing but the number of the descriptor is kept between writes and no lock is taken, so a new file can be put under the
//! number (dup3) while others write: each write goes to the old file or to the new one, whole.

mod write;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::config::LogTarget;
use crate::sys::fd;

use super::syslog::Syslog;
pub use write::PIPE_BUF;

/// How long a write waits for the reader of a full non-blocking pipe: enough for one that is only late, short beside what a
/// client would notice. A reader that stays away costs this once, until it reads again; what one write waits in all is no more
/// than this.
const FULL_PIPE_WAIT: Duration = Duration::from_millis(100);

/// Access of new files: the group may read (adm, say), others may not, because logs name clients.
const FILE_MODE: u32 = 0o640;

/// How a sink writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SinkKind {
    /// As the open file has it: it may wait.
    Plain,
    /// Never waits, whatever the flags of the open file, which others may change.
    Now,
    /// As [`SinkKind::Now`], for a socket.
    Send,
}

/// A place for log lines.
#[derive(Debug)]
pub struct Sink {
    /// Its number stays the same for the sink's life; the file of that number may change.
    file: File,
    /// Whether that is a regular file.
    regular: AtomicBool,
    /// The system log, if that is what the sink writes to.
    syslog: Option<Syslog>,
    way: SinkKind,
    /// How long a write waits for the reader of a full pipe.
    patience: Duration,
    /// Lines that could not be written since the last success.
    lost: AtomicU64,
    /// Why, the latest error number.
    error: AtomicI32,
    /// Whether the last write ended in the middle of a line.
    torn: AtomicBool,
}

impl Sink {
    /// Opens the target (a file: append, create, mode 0640). Standard output and error are duplicated, so that the sink's
    /// descriptor is its own.
    pub fn open(target: &LogTarget) -> io::Result<Self> {
        let file = match target {
            LogTarget::Stdout => duplicate(&io::stdout())?,
            LogTarget::Stderr => duplicate(&io::stderr())?,
            // std opens with O_CLOEXEC.
            LogTarget::File(path) => OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?,
            LogTarget::Syslog(path) => {
                let (syslog, socket) = Syslog::connect(path)?;
                return Ok(Self { syslog: Some(syslog), ..Self::over(File::from(socket))? });
            }
        };
        Self::over(file)
    }

    /// A sink over an open descriptor.
    fn over(file: File) -> io::Result<Self> {
        let regular = AtomicBool::new(file.metadata()?.is_file());
        let (lost, error, torn) = (AtomicU64::new(0), AtomicI32::new(0), AtomicBool::new(false));
        Ok(Self { file, regular, syslog: None, way: SinkKind::Plain, patience: FULL_PIPE_WAIT, lost, error, torn })
    }

    /// The same place for the master, whose writes neither wait for long nor depend on the flags of an open file that workers
    /// have: an open file of its own, or where that cannot be had (a socket, a pipe of another user) calls that do not wait.
    pub fn own(&self) -> io::Result<Self> {
        if let Some(syslog) = &self.syslog {
            let (syslog, socket) = syslog.again()?;
            return Ok(Self { syslog: Some(syslog), way: SinkKind::Send, ..Self::over(File::from(socket))? });
        }
        let kind = self.file.metadata()?.file_type();
        if kind.is_file() {
            // What others write to the first open file must be appended to what is written to the second.
            fd::add_flags(&self.file, OFlag::O_APPEND)?;
            return Self::over(self.opened_again(OFlag::empty()).or_else(|_| self.file.try_clone())?);
        }
        if kind.is_socket() {
            return Ok(Self { way: SinkKind::Send, ..Self::over(self.file.try_clone()?)? });
        }
        match self.opened_again(OFlag::O_NONBLOCK) {
            Ok(file) => Self::over(file),
            Err(_) => Ok(Self { way: SinkKind::Now, ..Self::over(self.file.try_clone()?)? }),
        }
    }

    /// The same place for one worker: where others could harm it by the open file (a file, the system log), through one of its
    /// own.
    pub fn apart(&self) -> io::Result<Self> {
        if let Some(syslog) = &self.syslog {
            let (syslog, socket) = syslog.again()?;
            return Ok(Self { syslog: Some(syslog), ..Self::over(File::from(socket))? });
        }
        let file = if self.regular.load(Relaxed) { self.opened_again(OFlag::empty()).ok() } else { None };
        Self::over(file.map_or_else(|| self.file.try_clone(), Ok)?)
    }

    /// The file opened once more, whatever its name is now (proc_pid_fd(5)).
    fn opened_again(&self, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOCTTY;
        OpenOptions::new().append(true).custom_flags(flags.bits()).open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The sink of a worker ([`Self::apart`]) in the program that it becomes by exec: its descriptor, and its
    /// [`Self::system_log`].
    pub fn adopt(fd: OwnedFd, system_log: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self { syslog: system_log.map(Syslog::at), ..Self::over(fd.into())? })
    }

    /// The socket of the system log, if that is what it writes to.
    pub fn system_log(&self) -> Option<&Path> {
        self.syslog.as_ref().map(Syslog::path)
    }

    /// Puts another descriptor of the same kind (the log, opened again) in the place of this one. Writes of other threads
    /// continue meanwhile, each to the old file or to the new one.
    pub fn replace(&self, with: &impl AsFd) -> io::Result<()> {
        fd::replace(&self.file, with)?;
        self.regular.store(self.file.metadata()?.is_file(), Relaxed);
        Ok(())
    }

    /// Whether it stays one file until it is replaced: the system log is connected again.
    pub fn is_file(&self) -> bool {
        self.syslog.is_none()
    }

    /// The system log, which gets each record with a header of its own.
    pub(super) fn syslog(&self) -> Option<&Syslog> {
        self.syslog.as_ref()
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn duplicate(fd: &impl AsFd) -> io::Result<File> {
    let owned: OwnedFd = fd.as_fd().try_clone_to_owned()?;
    Ok(File::from(owned))
}

#[cfg(test)]
mod tests;
