//! One log descriptor: appends whole lines, each batch in one write, and can be given a new file under its feet.
//!
//! Several processes write to the same file or pipe, so what must stay whole has to leave in one write(2):
//! - a regular file, opened with O_APPEND: the kernel places each write after the last, whatever its length;
//! - anything else (pipe, socket of a service manager, terminal): as many whole lines as fit into PIPE_BUF, which pipe(7)
//!   promises not to mix with others. A longer line leaves in one write of its own; Linux keeps it whole as long as the pipe
//!   has room for it, and may mix it with others when the writer has to wait for the reader in the middle of it;
//! - the system log: one datagram for each line, each record with its header in front.
//!
//! No write waits for a reader. What a pipe, socket or terminal has no room for is kept in a bounded [`backlog`] and written when
//! there is room again; what exceeds that is lost, counted, and said as soon as something can be written. (A regular file takes
//! what it gets, and its write waits as long as its file system does: Linux has no other way that works on all of them.)
//!
//! As long as nothing waits no lock is taken, and nothing but the number of the descriptor is kept between writes. So a new file
//! can be put under the number (dup3) while others write: each write goes to the old file or to the new one, whole.

mod backlog;
mod write;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::config::LogTarget;
use crate::sys::fd;

use super::syslog::Syslog;
use backlog::Backlog;
pub use backlog::PIPE_BUF;

/// How long the end of a process waits for the reader of a full pipe ([`Sink::finish`]): enough for one that is only late.
const LAST_WAIT: Duration = Duration::from_millis(100);

/// Access of new files: the group may read (adm, say), others may not, because logs name clients.
const FILE_MODE: u32 = 0o640;

/// How a sink writes to what is no regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SinkKind {
    /// Plainly: the open file is this sink's alone, and does not wait.
    Own,
    /// In a way that does not wait, whatever the flags of the open file, which others may change.
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
    /// Whether something waits or was lost, so that the next piece has to go behind that.
    behind: AtomicBool,
    backlog: Mutex<Backlog>,
    /// The process whose backlog it is: a child that it forks must not write the same again.
    owner: u32,
    /// Lines that could not be written since the last success, and all that ever could not.
    lost: AtomicU64,
    lost_ever: AtomicU64,
    /// Why, the latest error number.
    error: AtomicI32,
    /// Whether they were JSON.
    json: AtomicBool,
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
            LogTarget::File(path) => open_file(path)?,
            LogTarget::Syslog(path) => {
                let (syslog, socket) = Syslog::connect(path)?;
                return Ok(Self { syslog: Some(syslog), ..Self::over(File::from(socket))? });
            }
        };
        Self::over(file)
    }

    /// As [`Self::open`], by the very descriptor of standard error if that is the target. A child of this process that closes its
    /// standard streams then keeps no copy, which somebody may wait for the end of.
    pub fn open_without_copy(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::Stderr => Self::over(fd::take_error()?.into()),
            LogTarget::Stdout | LogTarget::File(_) | LogTarget::Syslog(_) => Self::open(target),
        }
    }

    /// A sink over an open descriptor.
    fn over(file: File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        Ok(Self {
            file,
            regular: AtomicBool::new(kind.is_file()),
            syslog: None,
            way: if kind.is_socket() { SinkKind::Send } else { SinkKind::Now },
            behind: AtomicBool::new(false),
            backlog: Mutex::default(),
            owner: process::id(),
            lost: AtomicU64::new(0),
            lost_ever: AtomicU64::new(0),
            error: AtomicI32::new(0),
            json: AtomicBool::new(false),
            torn: AtomicBool::new(false),
        })
    }

    /// The same place for the master, through an open file of its own where that can be had: workers may change the flags of
    /// theirs.
    pub fn own(&self) -> io::Result<Self> {
        // What others write to the first open file must be appended to what is written to the second.
        if self.regular.load(Relaxed) {
            fd::add_flags(&self.file, OFlag::O_APPEND)?;
        }
        self.apart()
    }

    /// The same place for one worker: an open file of its own where that can be had. Elsewhere (a socket, a pipe of another user)
    /// its calls do not wait either.
    pub fn apart(&self) -> io::Result<Self> {
        if let Some(syslog) = &self.syslog {
            let (syslog, socket) = syslog.again()?;
            return Ok(Self { syslog: Some(syslog), ..Self::over(File::from(socket))? });
        }
        if self.file.metadata()?.file_type().is_socket() {
            return Self::over(self.file.try_clone()?);
        }
        match self.opened_again(OFlag::O_NONBLOCK) {
            Ok(file) => Ok(Self { way: SinkKind::Own, ..Self::over(file)? }),
            Err(_) => Self::over(self.file.try_clone()?),
        }
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

/// Opens a log without waiting for anybody. A named pipe whose reader is away is opened for reading too, so that lines wait in it
/// for the next reader (fifo(7)).
fn open_file(path: &Path) -> io::Result<File> {
    // std opens with O_CLOEXEC.
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE_MODE).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    match options.open(path) {
        Err(error) if path.metadata().is_ok_and(|meta| meta.file_type().is_fifo()) => {
            options.read(true).open(path).map_err(|_| error)
        }
        opened => opened,
    }
}

fn duplicate(fd: &impl AsFd) -> io::Result<File> {
    let owned: OwnedFd = fd.as_fd().try_clone_to_owned()?;
    Ok(File::from(owned))
}

#[cfg(test)]
mod tests;
