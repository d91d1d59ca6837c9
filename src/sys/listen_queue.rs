//! How many connections wait to be accepted on a listening socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::fd::identity;
use super::unix_diag::{ANSWER, BY_FAMILY, ERROR, HEADER, Sockets, UnixDiag, attributes, u16_at, u32_at};

/// The queue of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenQueue {
    /// Connections that wait to be accepted. Of TCP connections under TCP_DEFER_ACCEPT those that have said nothing are not in it.
    pub waiting: u32,
    /// How many may wait there.
    pub limit: u32,
}

/// That of a TCP socket (TCP_INFO, tcp(7)): for one that listens the kernel puts them into two fields that mean something else in
/// a connection.
pub fn of_tcp(listener: &impl AsFd) -> io::Result<ListenQueue> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `size` bytes to a place of that size; the descriptor is open as long as it is borrowed.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut size) };
    Errno::result(result)?;
    // SAFETY: it is made of integers, all of which are zero or were written.
    let info = unsafe { info.assume_init() };
    Ok(ListenQueue { waiting: info.tcpi_unacked, limit: info.tcpi_sacked })
}

/// The kernel's answers about unix sockets (sock_diag(7)), which have no such option.
#[derive(Debug)]
pub struct UnixQueues(UnixDiag);

/// UDIAG_SHOW_RQLEN of linux/unix_diag.h.
const SHOW_QUEUE: u32 = 0x10;
/// UNIX_DIAG_RQLEN of linux/unix_diag.h: the attribute with the queue.
const QUEUE: u16 = 4;

impl UnixQueues {
    /// Opens the socket to ask by.
    pub fn open() -> io::Result<Self> {
        UnixDiag::open().map(Self)
    }

    /// The queue of a unix socket. The kernel answers at once, or not at all.
    pub fn of(&self, listener: &impl AsFd) -> io::Result<ListenQueue> {
        let (_, inode) = identity(listener.as_fd().as_raw_fd())?;
        let inode = u32::try_from(inode).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.0.ask(Sockets::One(inode), SHOW_QUEUE)?;
        let mut answer = [0; 256];
        understand(self.0.hear(&mut answer)?, inode)
    }
}

fn understand(answer: &[u8], inode: u32) -> io::Result<ListenQueue> {
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    match u16_at(answer, 4).ok_or_else(strange)? {
        BY_FAMILY => {}
        ERROR => {
            let error = u32_at(answer, HEADER).ok_or_else(strange)?.cast_signed();
            return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
        }
        _ => return Err(strange()),
    }
    if u32_at(answer, HEADER + 4) != Some(inode) {
        return Err(strange());
    }
    let found = attributes(answer.get(HEADER + ANSWER..).unwrap_or_default()).find(|(kind, _)| *kind == QUEUE);
    let queue = found.and_then(|(_, value)| Some(ListenQueue { waiting: u32_at(value, 0)?, limit: u32_at(value, 4)? }));
    queue.ok_or_else(strange)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::sys::socket::listen;

    #[test]
    fn connections_that_wait_on_a_tcp_socket_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listen(&listener, 7).unwrap();
        assert_eq!(of_tcp(&listener).unwrap(), ListenQueue { waiting: 0, limit: 7 });
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(of_tcp(&listener).unwrap().waiting, 3);
        listener.accept().unwrap();
        assert_eq!(of_tcp(&listener).unwrap().waiting, 2);
        drop(clients);
    }

    #[test]
    fn connections_that_wait_on_a_unix_socket_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        listen(&listener, 7).unwrap();
        let queues = UnixQueues::open().unwrap();
        assert_eq!(queues.of(&listener).unwrap(), ListenQueue { waiting: 0, limit: 7 });
        let clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        assert_eq!(queues.of(&listener).unwrap().waiting, 3);
        listener.accept().unwrap();
        assert_eq!(queues.of(&listener).unwrap().waiting, 2);
        drop(clients);
        let file = tempfile::tempfile().unwrap();
        assert!(queues.of(&file).is_err(), "it is no socket");
        assert!(queues.of(&listener).is_ok(), "an error is no answer to the next question");
    }

    #[test]
    fn a_damaged_answer_is_an_error() {
        for len in 0..HEADER + ANSWER {
            assert!(understand(&vec![0; len], 5).is_err());
        }
        let mut endless = vec![0; 64];
        endless[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        endless[HEADER + 4..HEADER + 8].copy_from_slice(&5_u32.to_ne_bytes());
        assert!(understand(&endless, 5).is_err(), "attributes of no length end as well");
    }
}
