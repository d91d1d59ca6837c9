//! The source watcher: the process that notices changes of the sources (`--reload`).
//!
//! ```text
//! worker ── directories of its modules and templates ──▶ master ── orders (one packet each) ──▶ watcher
//!                                                        master ◀── what has changed ──────────
//! ```
//! It is a process of its own because a look at a file may last (a network file system, a directory that a virtual machine
//! shares), and the master never waits; and because it is the workers that say where to look. So it looks as their user, and a
//! worker that was broken into learns nothing by it. It has no descriptor of the server's but its socket, and ends with that.
//!
//! It watches directories, not files: editors save by renaming another file, and a module that could not be loaded is nowhere.

mod names;
mod pending;
mod place;
mod process;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use process::run;

/// Longest packet in bytes: a list of directories as a worker may send it, in JSON.
const PACKET_MAX: usize = 160 * 1024;

/// Room of each end for packets that are not read yet, in bytes.
const ROOM: usize = 2 * PACKET_MAX;

/// From the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchOrder {
    /// A worker has named directories ([`crate::channel::Report::Sources`]).
    Sources {
        /// Its generation.
        generation: u64,
        /// When it began to load, in nanoseconds since 1970: a later change was missed.
        since: u64,
        /// The directories.
        list: String,
    },
    /// What the settings name, by absolute paths. It replaces what was named before.
    Named {
        /// Files, and directories all of whose files matter.
        files: Vec<OsString>,
        /// Directories where modules are looked for.
        code: Vec<OsString>,
    },
    /// This generation serves: what only earlier ones have named is forgotten.
    Adopted(u64),
    /// The last load has failed, maybe for the lack of a package.
    Failed,
}

/// To the master. Each text is one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchReport {
    /// Something has changed; which file, and how many others.
    Changed(String),
    /// Something is not watched, or in another way than asked for; why, and what to do.
    Trouble(String),
}

/// Makes a connected pair of sockets for packets, both non-blocking and close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (master, watcher) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    for socket in [&master, &watcher] {
        setsockopt(socket, sockopt::SndBuf, &ROOM)?;
    }
    Ok((master, watcher))
}

/// Sends one packet without waiting.
pub fn tell(socket: &OwnedFd, message: &impl Serialize) -> io::Result<()> {
    let packet = serde_json::to_vec(message)?;
    send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Takes one packet without waiting: `WouldBlock` when there is none, `UnexpectedEof` when the other side is gone, `InvalidData`
/// for a packet that it never sends.
pub fn hear<T: DeserializeOwned>(socket: &OwnedFd) -> io::Result<T> {
    let mut packet = vec![0; PACKET_MAX];
    let count = recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&packet[..count]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::config::WatchEngine;

    /// The next report; `None`: there is none for so long.
    fn report(socket: &OwnedFd, patience: Duration) -> Option<WatchReport> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            match hear(socket) {
                Ok(report) => return Some(report),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("{error}"),
            }
        }
        None
    }

    #[test]
    fn a_change_between_the_begin_of_a_load_and_the_first_look_is_told_once() {
        for engine in [WatchEngine::Events, WatchEngine::Poll] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_str().unwrap();
            fs::write(dir.path().join("old.py"), "1").unwrap();
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 + 20_000_000;
            thread::sleep(Duration::from_millis(40));
            fs::write(dir.path().join("app.py"), "1").unwrap();
            // The clock of files goes in ticks.
            thread::sleep(Duration::from_millis(20));
            let (master, watcher) = pair().unwrap();
            tell(&master, &WatchOrder::Named { files: Vec::new(), code: vec![path.into()] }).unwrap();
            let sources = WatchOrder::Sources { generation: 1, since, list: format!("c{path}") };
            tell(&master, &sources).unwrap();
            let running = thread::spawn(move || run(watcher, engine));
            let Some(WatchReport::Changed(what)) = report(&master, Duration::from_secs(20)) else { panic!("nothing is told") };
            assert!(what.contains("app.py") && !what.contains("other"), "{what}");
            tell(&master, &sources).unwrap();
            // More of the directory matters, and a file has changed unseen.
            fs::write(dir.path().join("page.html"), "1").unwrap();
            tell(&master, &WatchOrder::Sources { generation: 1, since, list: format!("t{path}") }).unwrap();
            let Some(WatchReport::Changed(what)) = report(&master, Duration::from_secs(20)) else { panic!("nothing is told") };
            assert!(what.contains("page.html") && !what.contains("other"), "{what}");
            assert_eq!(report(&master, Duration::from_millis(300)), None, "{engine:?}");
            drop(master);
            running.join().unwrap().unwrap();
        }
    }
}
