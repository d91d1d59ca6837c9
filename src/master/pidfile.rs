//! The pid file: says which process is the master, refuses a second server, leaves with its maker.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::kill;
use nix::unistd::{Pid, getpid};

/// Who may read it: everybody, as usual, for a number is no secret.
const MODE: u32 = 0o644;

/// What the command line of every server of ours has in it.
const PROGRAM: &[u8] = b"tapster";

/// The file of this process. Dropping it removes the file, but only in the process that made it, and only if it still is the same
/// file with the same number in it.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    maker: Pid,
    device: u64,
    inode: u64,
}

impl Pidfile {
    /// Writes the number of this process, whole from the first moment on. A file that a dead server has left behind is replaced; one
    /// that names a running server is refused. The error is one line.
    pub fn create(path: &Path) -> Result<Self, String> {
        let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        match owner(&path) {
            Owner::Running(pid) => {
                return Err(format!(
                    "--pid {}: a server is running already, pid {pid}; stop it, or give another file",
                    path.display()
                ));
            }
            Owner::NoPidFile => {
                return Err(format!(
                    "--pid {}: the file exists and holds no process id; remove it, or give another file",
                    path.display()
                ));
            }
            Owner::Gone => remove_stale(&path).map_err(|error| failed(&path, &error))?,
            Owner::Nobody => {}
        }
        Self::write(&path).map_err(|error| failed(&path, &error))
    }

    /// The file that this process wrote before exec. `None` when it is not there any more, or is another's.
    pub fn adopt(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok()?;
        let file = Self { path: path.to_owned(), maker: getpid(), device: meta.dev(), inode: meta.ino() };
        file.is_ours().then_some(file)
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(path: &Path) -> io::Result<Self> {
        let maker = getpid();
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{maker}"));
        let draft = path.with_file_name(name);
        // Nobody else has a reason to own a file of this name: it can only be left from a process of the same number.
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&draft)?;
        // A link, and not a rename: it fails if another server was faster.
        let linked = writeln!(file, "{maker}").and_then(|()| fs::hard_link(&draft, path));
        fs::remove_file(&draft)?;
        linked?;
        let meta = file.metadata()?;
        Ok(Self { path: path.to_owned(), maker, device: meta.dev(), inode: meta.ino() })
    }

    fn is_ours(&self) -> bool {
        let same = |meta: fs::Metadata| meta.dev() == self.device && meta.ino() == self.inode;
        self.maker == getpid() && fs::symlink_metadata(&self.path).is_ok_and(same) && read(&self.path) == Some(self.maker)
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if self.is_ours() {
            // Nobody could be told, and a file left behind is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a stale file, unless another server is about to do so, or has just put its own in its place.
fn remove_stale(path: &Path) -> io::Result<()> {
    let busy = || io::Error::from(io::ErrorKind::AlreadyExists);
    let stale = Flock::lock(fs::File::open(path)?, FlockArg::LockExclusiveNonblock).map_err(|_| busy())?;
    let (locked, named) = (stale.metadata()?, fs::symlink_metadata(path)?);
    if (locked.dev(), locked.ino()) != (named.dev(), named.ino()) {
        return Err(busy());
    }
    fs::remove_file(path)
}

/// Whose file it is.
enum Owner {
    /// There is none.
    Nobody,
    /// A process that has ended, or that was this one before it was started anew.
    Gone,
    /// A server.
    Running(Pid),
    /// The file is something else.
    NoPidFile,
}

fn owner(path: &Path) -> Owner {
    match fs::symlink_metadata(path) {
        Err(_) => return Owner::Nobody,
        // An empty file is what a full disk leaves of a pid file.
        Ok(meta) if meta.is_file() && meta.len() == 0 => return Owner::Gone,
        Ok(_) => {}
    }
    match read(path) {
        None => Owner::NoPidFile,
        Some(pid) if pid == getpid() || kill(pid, None) == Err(Errno::ESRCH) => Owner::Gone,
        // The number of a dead server may have gone to another program; what cannot be read is taken for a server.
        Some(pid) => match fs::read(format!("/proc/{pid}/cmdline")) {
            Ok(line) if !line.windows(PROGRAM.len()).any(|part| part == PROGRAM) => Owner::Gone,
            _ => Owner::Running(pid),
        },
    }
}

fn read(path: &Path) -> Option<Pid> {
    let text = fs::read_to_string(path).ok()?;
    let digits = text.trim();
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: i32 = if valid { digits.parse().ok()? } else { return None };
    (number > 0).then(|| Pid::from_raw(number))
}

fn failed(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists => format!("--pid {}: another server is starting with this file", path.display()),
        _ => format!("--pid {}: cannot be written: {}", path.display(), super::start::reason(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::process::{alone_in_test, fork_in_test, wait_in_test};

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
        // Also one whose number has gone to another program: pid 1 is no tapster.
        for stale in [format!("{dead}\n"), "1\n".into(), String::new(), format!("{}\n", getpid())] {
            fs::write(&path, &stale).unwrap();
            let file = Pidfile::create(&path).unwrap();
            assert_eq!(read(&path), Some(getpid()), "{stale:?}");
            drop(file);
        }
    }

    #[test]
    fn of_two_servers_that_find_a_stale_file_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        fs::write(&path, "").unwrap();
        let _first = Flock::lock(fs::File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
        assert!(Pidfile::create(&path).unwrap_err().ends_with("another server is starting with this file"));
        fs::remove_file(&path).unwrap();
        let own = Pidfile::create(&path).unwrap();
        assert!(Pidfile::write(&path).is_err(), "a file that came meanwhile is not overwritten");
        drop(own);
    }

    #[test]
    fn what_is_no_pid_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        for text in ["precious", "-1", "0", "12 13"] {
            fs::write(&path, text).unwrap();
            assert!(Pidfile::create(&path).unwrap_err().contains("holds no process id"), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(Pidfile::create(&dir.path().join("none/x.pid")).unwrap_err().ends_with("no such file or directory"));
    }
}
