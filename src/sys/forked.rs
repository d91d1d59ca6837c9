//! The parent's descriptors that a forked child must not keep. A socket ends when the last process closes it: a child that lives
//! on would keep clients waiting for the end of their connections, and listening sockets open that nobody accepts from any more.
//!
//! Connections are not listed, which would cost time for each: they are found by their local address, which accept(2) gives them
//! from the listening socket. A socket that the process has connected itself has another one (ip(7): a port that is bound is
//! never chosen for it; unix(7): it has no name).

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use nix::sys::socket::{SockaddrLike, SockaddrStorage, getsockname};

/// The process's own descriptors (proc_pid_fd(5)).
const DESCRIPTORS: &str = "/proc/self/fd";

/// A descriptor and its file as /proc shows it: the number may name something else by the time of the fork.
type NamedDescriptor = (RawFd, PathBuf);

/// The descriptors that children must not keep.
#[derive(Debug)]
pub struct Inheritance {
    names: Vec<SockaddrStorage>,
    others: Vec<NamedDescriptor>,
    poll: OnceLock<NamedDescriptor>,
}

fn known(fd: BorrowedFd<'_>) -> Option<NamedDescriptor> {
    let number = fd.as_raw_fd();
    Some((number, fs::read_link(format!("{DESCRIPTORS}/{number}")).ok()?))
}

impl Inheritance {
    /// These listening sockets with all connections that will be accepted from them, and these other descriptors. Without /proc
    /// children keep what they have.
    pub fn new(listeners: &[BorrowedFd<'_>], others: &[BorrowedFd<'_>]) -> Self {
        let names = listeners.iter().filter_map(|fd| getsockname(fd.as_raw_fd()).ok()).collect();
        let others = others.iter().filter_map(|&fd| known(fd)).collect();
        Self { names, others, poll: OnceLock::new() }
    }

    /// Adds the poll, which is made later: events that a child took from it would be lost.
    pub fn add_poll(&self, poll: BorrowedFd<'_>) {
        if let Some(poll) = known(poll) {
            // This is set once in the life of a process.
            let _ = self.poll.set(poll);
        }
    }

    /// In a forked child: replaces all of them by /dev/null. So the numbers stay in use: an owner that closes its number closes
    /// nothing else, and a child that returns into the server's code by mistake finds nothing to serve.
    pub fn renounce(&self) -> io::Result<()> {
        let null = File::open("/dev/null")?;
        // The descriptor of the listing is among them, and is closed before they are checked.
        let numbers: Vec<RawFd> =
            fs::read_dir(DESCRIPTORS)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        for number in numbers {
            if self.has(number) {
                // SAFETY: dup3 takes any numbers. The owner of this one still owns it, and it is never free in between; that
                // owner is a thread of the parent, of which this process has only the memory, or gets errors from now on.
                unsafe { libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC) };
            }
        }
        Ok(())
    }

    fn has(&self, number: RawFd) -> bool {
        let is = |(other, file): &NamedDescriptor| {
            *other == number && fs::read_link(format!("{DESCRIPTORS}/{number}")).is_ok_and(|found| found == *file)
        };
        if self.others.iter().chain(self.poll.get()).any(is) {
            return true;
        }
        is_stream_socket(number)
            && getsockname::<SockaddrStorage>(number).is_ok_and(|name| self.names.iter().any(|listener| is_from(listener, &name)))
    }
}

pub(super) fn is_stream_socket(number: RawFd) -> bool {
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the call fails for a number that is no socket; it writes one int, and its length, to places of their sizes.
    let done = unsafe { libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut len) };
    done == 0 && kind == libc::SOCK_STREAM
}

fn tcp(name: &SockaddrStorage) -> Option<(IpAddr, u16)> {
    let addr: SocketAddr = match (name.as_sockaddr_in(), name.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::V4((*v4).into()),
        (None, Some(v6)) => SocketAddr::V6((*v6).into()),
        (None, None) => return None,
    };
    Some((addr.ip().to_canonical(), addr.port()))
}

/// Whether a socket of this local address is the listening one, or was accepted from it.
fn is_from(listener: &SockaddrStorage, name: &SockaddrStorage) -> bool {
    match (tcp(listener), tcp(name)) {
        (Some((any, port)), Some((ip, local))) => port == local && (any.is_unspecified() || any == ip),
        (None, None) => listener.len() > size_of::<libc::sa_family_t>() as u32 && listener == name,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// The descriptors to give up among these.
    fn found(inheritance: &Inheritance, all: &[BorrowedFd<'_>]) -> Vec<bool> {
        all.iter().map(|fd| inheritance.has(fd.as_raw_fd())).collect()
    }

    #[test]
    fn accepted_sockets_are_distinguished_from_connected_ones() {
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let (other, file) = (TcpListener::bind("127.0.0.1:0").unwrap(), File::open("/dev/null").unwrap());
            let datagrams = UdpSocket::bind(("127.0.0.1", port));
            let inheritance = Inheritance::new(&[listener.as_fd()], &[]);
            let all = [listener.as_fd(), accepted.as_fd(), client.as_fd(), other.as_fd(), file.as_fd()];
            assert_eq!(found(&inheritance, &all), [true, true, false, false, false], "{bind}");
            assert!(!datagrams.is_ok_and(|socket| inheritance.has(socket.as_raw_fd())), "{bind}");
        }
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let client = UnixStream::connect(dir.path().join("s")).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (other, pair) = (UnixListener::bind(dir.path().join("t")).unwrap(), UnixStream::pair().unwrap());
        let inheritance = Inheritance::new(&[listener.as_fd()], &[]);
        let all = [listener.as_fd(), accepted.as_fd(), client.as_fd(), other.as_fd(), pair.0.as_fd()];
        assert_eq!(found(&inheritance, &all), [true, true, false, false, false]);
    }

    #[test]
    fn a_number_that_names_something_else_by_now_is_not_meant() {
        let (ours, _other) = UnixStream::pair().unwrap();
        let inheritance = Inheritance::new(&[], &[ours.as_fd()]);
        assert!(inheritance.has(ours.as_raw_fd()));
        crate::sys::fd::replace(&ours, &File::open("/dev/null").unwrap()).unwrap();
        assert!(!inheritance.has(ours.as_raw_fd()));
    }
}
