//! A name in a directory that is held open. Between two calls that take a path, anybody who may write to a directory on the way
//! can replace it by a link. Calls that begin at this directory stay in it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

/// Time between two tries to get a lock.
const LOCK_EVERY: Duration = Duration::from_millis(1);

/// Identifies a file, wherever it is: device and number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Device of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl Mark {
    /// The identity in the metadata of a file.
    pub fn of(stat: &FileStat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// Whether this is a file of that type.
pub fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

/// The name, whether it has a file or not. Links in the path to the directory are followed once, here; one under the name itself
/// never is.
#[derive(Debug)]
pub struct Entry {
    dir: OwnedFd,
    name: OsString,
}

impl Entry {
    /// Opens the directory of a path.
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::from(Errno::EISDIR))?.to_owned();
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { dir, name })
    }

    /// The file that has the name; `None` if none has.
    pub fn look(&self) -> io::Result<Option<FileStat>> {
        match fstatat(&self.dir, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Holds the file that has the name; `None` if none has. As long as it is held, its number is given to no other file.
    pub fn hold(&self) -> io::Result<Option<OwnedFd>> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.dir, self.name.as_os_str(), flags, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether it is this file.
    pub fn is(&self, mark: Mark) -> bool {
        self.look().is_ok_and(|found| found.is_some_and(|stat| Mark::of(&stat) == mark))
    }

    /// Removes the name if it is this file's. There is no call that does this in one: the file is moved aside first, and one that
    /// somebody has put there in between goes back.
    pub fn remove(&self, mark: Mark) -> io::Result<()> {
        if self.is(mark) { self.take_away(mark) } else { Ok(()) }
    }

    fn take_away(&self, mark: Mark) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!(".tapster-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let aside = Self { dir: self.dir.try_clone()?, name: name.into() };
        match aside.replace_by(self) {
            Ok(()) if aside.is(mark) => aside.unlink(),
            Ok(()) => match self.link_from(&aside) {
                // It has its name again, or another one has it.
                Ok(()) | Err(_) if self.look()?.is_some() => aside.unlink(),
                _ => self.replace_by(&aside),
            },
            // Somebody else has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Keeps other programs that do the same from the directory until the lock is dropped, after a wait of `time` at most. `None`: the
    /// directory cannot be read, or somebody keeps the lock; nobody has to respect it.
    pub fn lock(&self, time: Duration) -> Option<Flock<File>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir: File = openat(&self.dir, ".", flags, Mode::empty()).ok()?.into();
        let until = Instant::now() + time;
        loop {
            match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Some(lock),
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < until => dir = back,
                Err(_) => return None,
            }
            std::thread::sleep(LOCK_EVERY);
        }
    }

    /// Opens the file that is there, or makes it, without waiting; an error (ELOOP) if it is a link. The descriptor closes on
    /// exec.
    pub fn open(&self, flags: OFlag, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Ok(openat(&self.dir, self.name.as_os_str(), flags, mode)?.into())
    }

    /// Another name in the same directory: this one with an `ending`.
    pub fn beside(&self, ending: &str) -> io::Result<Self> {
        let mut name = self.name.clone();
        name.push(ending);
        Ok(Self { dir: self.dir.try_clone()?, name })
    }

    /// Gives the file one more name, this one: an error (EEXIST) if that has a file.
    pub fn link_from(&self, other: &Self) -> io::Result<()> {
        Ok(linkat(&other.dir, other.name.as_os_str(), &self.dir, self.name.as_os_str(), AtFlags::empty())?)
    }

    /// Moves the file from another name to this one, in place of the one that has it.
    pub fn replace_by(&self, other: &Self) -> io::Result<()> {
        Ok(renameat(&other.dir, other.name.as_os_str(), &self.dir, self.name.as_os_str())?)
    }

    /// Removes the name, whichever file has it.
    pub fn unlink(&self) -> io::Result<()> {
        Ok(unlinkat(&self.dir, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir)?)
    }

    /// A path to the name by the open directory, for calls that take nothing else. It needs /proc.
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.dir.as_raw_fd().to_string()).join(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_stays_in_its_directory_whatever_becomes_of_the_path() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, moved, other) = (temp.path().join("dir"), temp.path().join("moved"), temp.path().join("other"));
        fs::create_dir(&dir).and_then(|()| fs::create_dir(&other)).unwrap();
        let entry = Entry::of(&dir.join("file")).unwrap();
        assert!(entry.look().unwrap().is_none());
        fs::write(dir.join("file"), "ours").and_then(|()| fs::write(other.join("file"), "theirs")).unwrap();
        let mark = Mark::of(&entry.look().unwrap().unwrap());
        fs::rename(&dir, &moved).and_then(|()| symlink(&other, &dir)).unwrap();
        assert_eq!(fs::read_to_string(entry.path()).unwrap(), "ours");
        entry.remove(mark).unwrap();
        assert!(!moved.join("file").exists());
        entry.remove(mark).unwrap();
        assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "theirs");
    }

    #[test]
    fn another_file_under_the_name_and_a_link_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "").unwrap();
        let entry = Entry::of(&path).unwrap();
        let mark = Mark::of(&entry.look().unwrap().unwrap());
        fs::rename(&path, temp.path().join("target")).and_then(|()| symlink("target", &path)).unwrap();
        assert!(!entry.is(mark) && is(&entry.look().unwrap().unwrap(), SFlag::S_IFLNK));
        entry.remove(mark).unwrap();
        assert!(path.symlink_metadata().is_ok());
    }

    #[test]
    fn a_file_that_was_put_there_before_the_removal_keeps_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "stale").unwrap();
        let entry = Entry::of(&path).unwrap();
        let stale = Mark::of(&entry.look().unwrap().unwrap());
        // The one that was looked at stays in use, so that its number is not given away.
        fs::rename(&path, temp.path().join("stale")).and_then(|()| fs::write(&path, "theirs")).unwrap();
        let theirs = Mark::of(&entry.look().unwrap().unwrap());
        entry.take_away(stale).unwrap();
        assert!(entry.is(theirs));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
        entry.take_away(theirs).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        entry.take_away(theirs).expect("it is gone already");
    }

    #[test]
    fn a_path_without_a_directory_is_in_the_working_one_and_the_root_is_no_name() {
        assert!(Entry::of(Path::new("Cargo.toml")).unwrap().look().unwrap().is_some());
        assert!(Entry::of(Path::new("/")).is_err());
        assert!(Entry::of(Path::new("/nonexistent/x")).is_err());
    }
}
