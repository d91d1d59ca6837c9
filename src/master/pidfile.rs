//! The pid file: says which process is the master, refuses a second server, leaves with its maker.
//!
//! A lock decides whether a server has the file, and not the number in it, which may be that of any program by now. The master
//! holds it for its life, across exec too; the kernel takes it back when the process ends, however that happens, and the children
//! of a dead master do not have it (`sys::lock`).
//!
//! The file is written under another name, locked, and then given its own: so it is never seen without its number and its lock. A
//! process that may only read it can take no lock that counts here.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf, absolute};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Pid, getpid};

use crate::sys::entry::{self, Entry, Mark};
use crate::sys::lock::{self, Lock};

use super::refusal::reason;

/// Its mode: everybody may read it, as usual, for a number is no secret.
const MODE: u32 = 0o644;

/// Length in bytes from which on a file is no pid file, whatever is in it: a block, which is what a power failure may leave of
/// one.
const SIZE_MAX: usize = 4096 + 1;

/// How often others may be faster with the file before this process gives up. Each time means that another server has started or
/// ended just then.
const TRIES_MAX: usize = 100;

/// The file of this process. Dropping it removes the file, but only in the process that made it, and only if it still is the same
/// file with the same number in it. Closed in a worker, it changes nothing.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    maker: Pid,
    /// The only descriptor of the file: closing any other would lose the lock.
    file: File,
    mark: Mark,
}

impl Pidfile {
    /// Writes the number of this process, whole from the first moment on. A file that a dead server has left is replaced; one
    /// that a running server has is refused. The error is one line.
    pub fn create(path: &Path) -> Result<Self, String> {
        let path = absolute(path).map_err(|error| failed(path, &error))?;
        let entry = Entry::of(&path).map_err(|error| failed(&path, &error))?;
        for _ in 0..TRIES_MAX {
            let stale = find_stale(&entry, &path)?;
            match Self::write(&entry, &path, stale.as_ref()) {
                Ok(Some(own)) => return Ok(own),
                Ok(None) => {}
                Err(error) => return Err(failed(&path, &error)),
            }
        }
        Err(refused(&path, "other processes change or lock it all the time"))
    }

    /// The file that this process had before exec, with the descriptor that holds its lock. A program that knew no locks has left
    /// none: then the file is locked now, if it is there and has the number of this process.
    pub fn adopt(path: &Path, locked: Option<OwnedFd>) -> io::Result<Option<Self>> {
        let own = |file: File| Ok(Self { path: path.to_owned(), maker: getpid(), mark: mark(&file)?, file });
        if let Some(locked) = locked {
            return own(locked.into()).map(Some);
        }
        let entry = Entry::of(path)?;
        if !entry.look()?.is_some_and(|stat| entry::is(&stat, SFlag::S_IFREG)) {
            return Ok(None);
        }
        let file = entry.open(OFlag::O_RDWR, Mode::empty())?;
        let ours = number(&file) == Some(getpid()) && lock::take(&file)? == Lock::Free;
        if ours { own(file).map(Some) } else { Ok(None) }
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes and locks a new file, and puts it in the place of the stale one, or where there is none. `None` when another server
    /// was faster.
    fn write(entry: &Entry, path: &Path, stale: Option<&Stale>) -> io::Result<Option<Self>> {
        let maker = getpid();
        let draft = entry.beside(&format!(".{maker}"))?;
        // Nobody else has a reason to own a file of this name: it can only be left from a process of the same number.
        let _ = draft.unlink();
        let mut file = draft.open(OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL, Mode::from_bits_truncate(MODE))?;
        let locked = writeln!(file, "{maker}").and_then(|()| lock::take(&file));
        let placed = locked.and_then(|lock| match stale {
            // Another process that may read it was quick enough to lock it.
            _ if lock != Lock::Free => Ok(false),
            Some(stale) if entry.is(stale.mark) => entry.replace_by(&draft).map(|()| true),
            Some(_) => Ok(false),
            None => match entry.link_from(&draft) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            },
        });
        // It has its own name by now, or none is wanted. After a replacement it is gone already.
        let _ = draft.unlink();
        let mark = mark(&file)?;
        Ok(placed?.then_some(Self { path: path.to_owned(), maker, file, mark }))
    }

    fn remove(&self) -> io::Result<()> {
        if self.maker == getpid() && number(&self.file) == Some(self.maker) {
            Entry::of(&self.path)?.remove(self.mark)?;
        }
        Ok(())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // There is nobody to report to, and a file that stays is replaced at the next start.
        let _ = self.remove();
    }
}

impl AsFd for Pidfile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file that no server has.
struct Stale {
    mark: Mark,
    /// Keeps its lock, if it could be had, so that of several servers one replaces it.
    _file: File,
}

/// The file that is there, if it may be replaced; `None` if there is none. The error is one line.
fn find_stale(entry: &Entry, path: &Path) -> Result<Option<Stale>, String> {
    let failed = |error: io::Error| failed(path, &error);
    let Some(stat) = entry.look().map_err(failed)? else { return Ok(None) };
    // Before it is opened, for that has effects on a device.
    let kind =
        [(SFlag::S_IFREG, ""), (SFlag::S_IFLNK, "it is a link, not a file of a server"), (SFlag::S_IFDIR, "it is a directory")];
    match kind.iter().find(|(kind, _)| entry::is(&stat, *kind)) {
        Some((SFlag::S_IFREG, _)) => {}
        Some((_, what)) => return Err(refused(path, &format!("{what}; remove it, or give another file"))),
        None => return Err(refused(path, "it is no ordinary file; remove it, or give another file")),
    }
    let (file, lock) = match open(entry) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if let Lock::Owned(owner) = lock {
        let pid = owner.or_else(|| number(&file)).map_or(String::new(), |pid| format!(", pid {pid}"));
        return Err(refused(path, &format!("a server is running already{pid}; stop it, or give another file")));
    }
    if !may_be_replaced(&file) {
        return Err(refused(path, "the file exists and holds no process id; remove it, or give another file"));
    }
    Ok(Some(Stale { mark: mark(&file).map_err(failed)?, _file: file }))
}

/// Opens a file that is there and locks it, where that is allowed; returns the process that has its lock.
fn open(entry: &Entry) -> io::Result<(File, Lock)> {
    match entry.open(OFlag::O_RDWR, Mode::empty()) {
        Ok(file) => lock::take(&file).map(|lock| (file, lock)),
        Err(error) if matches!(Errno::from_raw(error.raw_os_error().unwrap_or(0)), Errno::EACCES | Errno::EPERM) => {
            let file = entry.open(OFlag::O_RDONLY, Mode::empty())?;
            lock::look(&file).map(|lock| (file, lock))
        }
        Err(error) => Err(error),
    }
}

fn mark(file: &File) -> io::Result<Mark> {
    let meta = file.metadata()?;
    Ok(Mark { device: meta.dev(), inode: meta.ino() })
}

/// What is in the file, without the blanks around it, and without the NUL bytes that a power failure leaves of a file. `None` if
/// it is too much, or cannot be read.
fn content(file: &File) -> Option<Vec<u8>> {
    let mut bytes = vec![0; SIZE_MAX];
    let count = file.read_at(&mut bytes, 0).ok().filter(|count| *count < SIZE_MAX)?;
    bytes.truncate(count);
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(count);
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    Some(bytes[start..end].to_vec())
}

/// The process id in the file.
fn number(file: &File) -> Option<Pid> {
    let digits = content(file)?;
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number: i32 = if valid { std::str::from_utf8(&digits).ok()?.parse().ok()? } else { return None };
    (number > 0).then(|| Pid::from_raw(number))
}

/// Whether nothing is lost with the file: it has a process id, or nothing, as after a power failure or on a full disk.
fn may_be_replaced(file: &File) -> bool {
    content(file).is_some_and(|content| content.is_empty()) || number(file).is_some()
}

fn refused(path: &Path, why: &str) -> String {
    format!("--pid {}: {why}", path.display())
}

fn failed(path: &Path, error: &io::Error) -> String {
    refused(path, &format!("cannot be written: {}", reason(error)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};

    #[test]
    fn it_names_this_process_and_leaves_with_it_only() {
        let alone = alone_in_test();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        let file = Pidfile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", getpid()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o444, 0o444);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        let mut copy = Some(file);
        wait_in_test(fork_in_test(&alone, |_| {
            drop(copy.take());
            0
        }));
        assert!(path.exists(), "a worker must not remove it");
        drop(copy);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_another_server_has_put_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        let file = Pidfile::create(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn a_stale_file_is_replaced() {
        let alone = alone_in_test();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        let dead = fork_in_test(&alone, |_| 0);
        wait_in_test(dead);
        // Also one whose number has gone to another program.
        for stale in [format!("{dead}\n"), "1\n".into(), String::new(), "\0\0\0\n".into(), format!("{}\n", getpid())] {
            fs::write(&path, &stale).unwrap();
            let file = Pidfile::create(&path).unwrap();
            assert_eq!(number(&file.file), Some(getpid()), "{stale:?}");
            drop(file);
        }
    }

    #[test]
    fn a_server_that_was_slower_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        let entry = Entry::of(&path).unwrap();
        fs::write(&path, "").unwrap();
        let stale = find_stale(&entry, &path).unwrap();
        fs::remove_file(&path).unwrap();
        let own = Pidfile::create(&path).unwrap();
        assert!(Pidfile::write(&entry, &path, stale.as_ref()).unwrap().is_none(), "the stale file was replaced meanwhile");
        assert!(Pidfile::write(&entry, &path, None).unwrap().is_none(), "a file came meanwhile");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(own);
    }

    #[test]
    fn a_program_that_knew_no_locks_leaves_its_file_to_be_locked() {
        let alone = alone_in_test();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        fs::write(&path, format!("{}\n", getpid())).unwrap();
        let own = Pidfile::adopt(&path, None).unwrap().unwrap();
        let child = fork_in_test(&alone, |_| i32::from(Pidfile::create(&path).is_ok()));
        assert_eq!(wait_in_test(child), Exit::Code(0));
        drop(own);
        assert!(!path.exists());
        fs::write(&path, "1\n").unwrap();
        assert!(Pidfile::adopt(&path, None).unwrap().is_none(), "another's");
    }

    #[test]
    fn what_is_no_pid_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        for text in ["precious", "-1", "0", "12 13", "12\x0013"] {
            fs::write(&path, text).unwrap();
            assert!(Pidfile::create(&path).unwrap_err().contains("holds no process id"), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(Pidfile::create(&dir.path().join("none/x.pid")).unwrap_err().ends_with("no such file or directory"));
    }
}
