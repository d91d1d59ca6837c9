//! Listening on a unix socket, whose file must be made, shared and removed with care.
//!
//! The file gets its mode from `--umask`; without that option everybody may connect, as with gunicorn, and the directory decides
//! who can reach it. Relative paths start at the directory that the server was started in.
//!
//! A file is stale when nobody is bound to it, and not when nobody answers: between bind(2) and listen(2) a socket refuses
//! connections as one does whose process is dead. Only a file that was found to be stale, and only one's own, is ever removed.
//!
//! Others may be able to write in the directory, and root must do nothing there that they can redirect to another file: mode and
//! owner are those of the creation, and nothing is changed by a path after it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, connect};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Pid, getpid};

use crate::config::Settings;
use crate::sys::bound::is_bound;
use crate::sys::creation::create_as;
use crate::sys::entry::{self, Entry, Mark};
use crate::sys::privileges::{Gid, Uid};
use crate::sys::socket::listen;

use super::listener::{Address, Listener, Socket};
use super::reason::{explain, lower};

/// Longest path of a unix socket in bytes: `sun_path` without its final NUL (unix(7)).
const UNIX_PATH_MAX: usize = 107;

/// How long a process may take between bind(2) and listen(2), where nobody can be asked whether a socket is bound.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// How long a server waits for others that begin in the same directory: each takes some milliseconds. Whoever may read the directory
/// can keep the lock; then the start goes on without it.
const LOCK_TIME: Duration = Duration::from_secs(1);

/// Binds and listens. The file belongs to `owner`, or to the user of this process.
pub(super) fn bind(path: &Path, settings: &Settings, owner: Option<(Uid, Gid)>) -> Result<Listener, String> {
    let length = path.as_os_str().len();
    if length > UNIX_PATH_MAX {
        return Err(format!("the path has {length} bytes, and a unix socket's may have {UNIX_PATH_MAX}; choose a shorter one"));
    }
    let place = UnixAddr::new(path).map_err(|errno| explain(errno, 0))?;
    let entry = Entry::of(path).map_err(|error| lower(&error))?;
    // Who puts a file back that it has moved aside by mistake leaves the name free for a moment, for a third server.
    let _alone = entry.lock(LOCK_TIME);
    remove_stale(path, &entry)?;
    let socket = unix_socket().map_err(|errno| explain(errno, 0))?;
    let bound = create_as(owner, settings.umask.unwrap_or(0), || socket::bind(socket.as_raw_fd(), &place));
    bound.map_err(|error| lower(&error))?.map_err(|errno| explain(errno, 0))?;
    let file = UnixFile::made(path, &entry)?;
    listen(&socket, settings.backlog).map_err(|error| lower(&error))?;
    let address = Address::Unix(file.mark.path.clone());
    Ok(Listener::new(Socket::Unix(mio::net::UnixListener::from_std(UnixListener::from(socket))), address, Some(file)))
}

fn unix_socket() -> nix::Result<OwnedFd> {
    socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
}

/// Makes way for a new socket: removes one that a dead server has left, and nothing else.
fn remove_stale(path: &Path, entry: &Entry) -> Result<(), String> {
    // Another server may remove it meanwhile, and its number must not be that of the other one's new file.
    let Some(held) = entry.hold().map_err(|error| lower(&error))? else { return Ok(()) };
    let found = fstat(&held).map_err(|errno| explain(errno, 0))?;
    if !entry::is(&found, SFlag::S_IFSOCK) {
        return Err("the path exists and is not a socket; remove it or choose another".into());
    }
    let taken = || Err(format!("address already in use; another process listens there (try: ss -lxp src {})", path.display()));
    let mark = Mark::of(&found);
    if answers(path, entry)? {
        return taken();
    }
    let absolute = std::path::absolute(path).map_err(|error| lower(&error))?;
    match is_bound(mark, &absolute) {
        Ok(true) => return taken(),
        Ok(false) => {}
        // Where the kernel does not say it, one that has just been bound listens a moment later.
        Err(_) => {
            std::thread::sleep(SETTLE_TIME);
            if answers(path, entry)? {
                return taken();
            }
        }
    }
    entry.remove(mark).map_err(|error| format!("its stale socket stays: {}", lower(&error)))
}

/// Whether somebody listens there.
fn answers(path: &Path, entry: &Entry) -> Result<bool, String> {
    let probe = unix_socket().map_err(|errno| explain(errno, 0))?;
    // By the directory that was opened, unless there is no /proc or the name is too long with it.
    let place = UnixAddr::new(&entry.path()).ok().filter(|_| entry.path().symlink_metadata().is_ok());
    let place = place.map_or_else(|| UnixAddr::new(path), Ok).map_err(|errno| explain(errno, 0))?;
    match connect(probe.as_raw_fd(), &place) {
        Err(Errno::ECONNREFUSED) => Ok(false),
        // It has been removed meanwhile.
        Err(Errno::ENOENT) => Ok(false),
        // Somebody listens, whether there is room in the queue (EAGAIN) and whether it is a stream socket (EPROTOTYPE) or not.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        Err(errno) => Err(format!("cannot find out whether another process listens there: {}", explain(errno, 0))),
    }
}

/// Identifies the file that was made for a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMark {
    /// Its absolute path.
    pub path: PathBuf,
    /// Device of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// The file of a unix socket that this process made. Dropping it removes the file, but only in this process (a forked child has a
/// copy of the value), and only if nobody has replaced it.
#[derive(Debug)]
pub(super) struct UnixFile {
    mark: FileMark,
    maker: Pid,
}

impl UnixFile {
    fn made(path: &Path, entry: &Entry) -> Result<Self, String> {
        let path = std::path::absolute(path).map_err(|error| lower(&error))?;
        match entry.look() {
            Ok(Some(stat)) if entry::is(&stat, SFlag::S_IFSOCK) => {
                let Mark { device, inode } = Mark::of(&stat);
                Ok(Self::of(FileMark { path, device, inode }))
            }
            Ok(_) => Err("the socket was moved away as soon as it was made; others may write to its directory".into()),
            Err(error) => Err(lower(&error)),
        }
    }

    /// The file that this process made before exec.
    pub(super) fn of(mark: FileMark) -> Self {
        Self { mark, maker: getpid() }
    }

    pub(super) fn mark(&self) -> &FileMark {
        &self.mark
    }

    fn remove(&self) -> io::Result<()> {
        let mark = Mark { device: self.mark.device, inode: self.mark.inode };
        Entry::of(&self.mark.path)?.remove(mark)
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        if self.maker == getpid() {
            // There is nobody to report it to, and a socket that is left over is replaced at the next start.
            let _ = self.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::config::{Bind, Endpoint};
    use crate::net::bind::bind_all;
    use crate::sys::process::{FORKS, alone_in_test, fork_in_test, wait_in_test};

    fn settings(path: &Path) -> Settings {
        Settings { binds: vec![Bind::plain(Endpoint::Unix(path.to_owned()))], ..Settings::default() }
    }

    #[track_caller]
    fn refused(path: &Path) -> String {
        bind_all(&settings(path)).expect_err("it must not be bound").to_string()
    }

    #[test]
    fn a_unix_socket_is_open_to_all_without_a_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = bind_all(&settings(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert_eq!(bound[0].place().to_string(), format!("unix:{}", path.display()));
        UnixStream::connect(&path).unwrap();
        assert_eq!(bound[0].accept().unwrap().1, crate::net::stream::PeerAddr::Unix);
    }

    #[test]
    fn the_file_of_a_unix_socket_leaves_with_its_maker_only() {
        let alone = alone_in_test();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = bind_all(&settings(&path)).unwrap();
        let mut copy = Some(bound);
        wait_in_test(fork_in_test(&alone, |_| {
            drop(copy.take());
            0
        }));
        assert!(path.exists(), "a worker must not remove it");
        drop(copy);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_put_in_its_place_by_another_server_stays() {
        let _undisturbed = FORKS.read();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let old = bind_all(&settings(&path)).unwrap();
        fs::rename(&path, dir.path().join("old")).unwrap();
        let new = bind_all(&settings(&path)).unwrap();
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let _undisturbed = FORKS.read();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let other = UnixListener::bind(&path).unwrap();
        let message = refused(&path);
        assert!(message.contains("another process listens there"), "{message}");
        drop(other);
        assert!(path.exists(), "std leaves it behind");
        bind_all(&settings(&path)).unwrap();
    }

    #[test]
    fn a_socket_that_does_not_listen_yet_is_not_dead() {
        let _undisturbed = FORKS.read();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let early = unix_socket().unwrap();
        socket::bind(early.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        let message = refused(&path);
        assert!(message.contains("another process listens there"), "{message}");
        listen(&early, 1).unwrap();
        UnixStream::connect(&path).expect("its file is there still");
        drop(early);
        bind_all(&settings(&path)).unwrap();
    }

    #[test]
    fn of_servers_that_begin_together_one_has_the_socket() {
        let _undisturbed = FORKS.read();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        for _ in 0..50 {
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(3);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let servers = [(); 3].map(|()| {
                    scope.spawn(|| {
                        start.wait();
                        bind_all(&settings(&path))
                    })
                });
                servers.into_iter().filter_map(|server| server.join().unwrap().ok()).collect()
            });
            assert_eq!(bound.len(), 1);
            UnixStream::connect(&path).expect("it is the one that listens");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
            drop(bound);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(refused(&path).contains("is not a socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_path_too_long_for_a_unix_socket_is_refused_with_its_length() {
        let message = refused(Path::new(&("/".to_owned() + &"x".repeat(107))));
        assert!(message.contains("the path has 108 bytes"), "{message}");
    }
}
