//! A listening socket that somebody has shut down. shutdown(2) acts on the socket and not on a descriptor. So any process with a
//! descriptor shuts it down for all processes, for instance an application that closes a number once too often. Then it does not
//! listen any more, and accept(2) fails with EINVAL.
//!
//! An intruder in a worker can also connect it to somebody, which shows only by its state (SO_ACCEPTCONN).
//!
//! A TCP socket can listen again: it is unbound or bound as before, and every process keeps the descriptor that it has. A unix
//! socket stays shut down for ever, so another one is made in its place, with another file, and processes that have the old one
//! must be replaced. The same is done where a worker connects a TCP socket again and again.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, bind, getsockopt, sockopt};

use crate::config::Settings;
use crate::sys::fd::add_flags;
use crate::sys::privileges::{Gid, Uid};
use crate::sys::socket::{disconnect, listen};

use super::bind::{BindError, listener_at, set_tcp_options};
use super::listener::{Address, Listener};
use super::reason::{explain, lower};
use super::unix;

/// The events of poll(2) that report a shutdown, and no connections.
pub const SHUT_DOWN: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

/// How often a socket is made to listen when somebody connects it again at the same time.
const TRIES: usize = 32;

/// The result for the socket.
#[derive(Debug)]
pub enum Mended {
    /// It listens again, in every process that has it.
    Again(Listener),
    /// Another socket listens at its address.
    Anew(Listener),
}

/// Whether the socket was shut down, or does not listen any more for another reason.
pub fn is_shut_down(listener: &Listener) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), SHUT_DOWN)];
    // An interrupted poll has seen nothing; the next one will.
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0) || getsockopt(listener, sockopt::AcceptConn) == Ok(false)
}

/// Listens again at the address of the socket, which was shut down. The file of a unix socket belongs to `owner`, or to the user
/// of this process.
pub fn mend(listener: Listener, settings: &Settings, owner: Option<(Uid, Gid)>) -> Result<Mended, BindError> {
    let (address, place) = (listener.address().clone(), listener.place());
    let (protocol, is_encrypted) = (listener.protocol(), listener.is_encrypted());
    let anew = |listener: Listener| Mended::Anew(listener.speaking(protocol).encrypted(is_encrypted));
    let failed = |why: String| BindError(format!("cannot listen on {place} any more, where the socket was shut down: {why}"));
    match &address {
        Address::Tcp(addr) => match listen_in_the_end(&listener, settings) {
            Ok(()) => Ok(Mended::Again(listener)),
            Err(_) if listener.is_own() => {
                drop(listener);
                listener_at(*addr, settings).map(anew).map_err(|error| failed(lower(&error)))
            }
            Err(why) => Err(failed(why)),
        },
        Address::Unix(_) if !listener.is_own() => Err(failed(
            "it was inherited, and only who has made it can make it anew (systemctl restart of its socket unit)".into(),
        )),
        Address::Unix(path) => {
            // This comes before the new one is made, or the new file could be removed with the old one.
            drop(listener);
            unix::bind(path, settings, owner).map(anew).map_err(failed)
        }
    }
}

fn listen_in_the_end(listener: &Listener, settings: &Settings) -> Result<(), String> {
    let mut result = Ok(());
    for _ in 0..TRIES {
        result = listen_again(listener, settings);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn listen_again(listener: &Listener, settings: &Settings) -> Result<(), String> {
    let Address::Tcp(addr) = listener.address() else { return Ok(()) };
    let words = |errno: Errno| explain(errno, addr.port());
    // It never fails for a socket that was shut down, and it ends the connection that the socket may have become.
    let _ = disconnect(listener);
    match bind(listener.as_raw_fd(), &SockaddrStorage::from(*addr)) {
        // A port that the kernel had chosen was given back to it, though getsockname(2) still shows it; another one is kept
        // (EINVAL).
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(words(errno)),
    }
    set_tcp_options(listener, settings).map_err(words)?;
    // The flag belongs to all descriptors of the socket; without it a worker would wait in accept(2) and do nothing else.
    add_flags(listener, OFlag::O_NONBLOCK).map_err(|error| lower(&error))?;
    listen(listener, settings.backlog).map_err(|error| lower(&error))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{Shutdown, connect, shutdown};

    use super::*;
    use crate::config::{Bind, Endpoint};
    use crate::net::bind::bind_all;
    use crate::sys::process::FORKS;

    fn bound(bind: Bind) -> (Settings, Listener) {
        let settings = Settings { binds: vec![bind], ..Settings::default() };
        let listener = bind_all(&settings).unwrap().remove(0);
        (settings, listener)
    }

    #[test]
    fn a_tcp_socket_listens_again_at_the_same_address() {
        let _undisturbed = FORKS.read();
        let (mut settings, mut listener) = bound(Bind::plain(Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }));
        let Address::Tcp(addr) = *listener.address() else { panic!("no TCP socket") };
        for _ in 0..2 {
            assert!(!is_shut_down(&listener));
            shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
            assert!(is_shut_down(&listener));
            assert_eq!(listener.accept().unwrap_err().raw_os_error(), Some(libc::EINVAL));
            assert!(TcpStream::connect(addr).is_err());
            let Ok(Mended::Again(again)) = mend(listener, &settings, None) else { panic!("it does not listen again") };
            TcpStream::connect(addr).unwrap();
            listener = again;
            // The second time with a port that was asked for.
            drop(listener);
            (settings, listener) = bound(Bind::plain(Endpoint::Tcp { host: "127.0.0.1".into(), port: addr.port() }));
        }
    }

    #[test]
    fn a_tcp_socket_that_was_connected_to_somebody_listens_again() {
        let _undisturbed = FORKS.read();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let somebody = SockaddrStorage::from(silent.local_addr().unwrap());
        let (settings, listener) = bound(Bind::plain(Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 }));
        let Address::Tcp(addr) = *listener.address() else { panic!("no TCP socket") };
        disconnect(&listener).unwrap();
        bind(listener.as_raw_fd(), &SockaddrStorage::from(addr)).unwrap();
        let _ = connect(listener.as_raw_fd(), &somebody);
        assert!(is_shut_down(&listener));
        let Ok(Mended::Again(listener)) = mend(listener, &settings, None) else { panic!("it does not listen again") };
        TcpStream::connect(addr).unwrap();
        assert!(!is_shut_down(&listener));
    }

    #[test]
    fn a_unix_socket_is_replaced_with_its_file() {
        let _undisturbed = FORKS.read();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (settings, listener) = bound(Bind::plain(Endpoint::Unix(path.clone())));
        assert!(!is_shut_down(&listener));
        shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
        assert!(is_shut_down(&listener) && UnixStream::connect(&path).is_err());
        let Ok(Mended::Anew(listener)) = mend(listener, &settings, None) else { panic!("it is not made anew") };
        UnixStream::connect(&path).unwrap();
        shutdown(listener.as_raw_fd(), Shutdown::Read).unwrap();
        let why = mend(listener.owned(false), &settings, None).unwrap_err().to_string();
        assert!(why.starts_with(&format!("cannot listen on unix:{} any more", path.display())), "{why}");
    }
}
