//! How many connections wait to be accepted on a listening socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::fd::identity;

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
pub struct UnixQueues(OwnedFd);

/// SOCK_DIAG_BY_FAMILY of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// UDIAG_SHOW_RQLEN of linux/unix_diag.h.
const SHOW_QUEUE: u32 = 0x10;
/// UNIX_DIAG_RQLEN of linux/unix_diag.h: the attribute with the queue.
const QUEUE: u16 = 4;
/// NLMSG_ERROR of linux/netlink.h.
const ERROR: u16 = 2;
/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of a `struct unix_diag_req`.
const REQUEST: usize = 24;
/// Bytes of a `struct unix_diag_msg`.
const ANSWER: usize = 16;
/// Bytes of a `struct nlattr`.
const ATTRIBUTE: usize = 4;

impl UnixQueues {
    /// Opens the socket to ask by.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?))
    }

    /// The queue of a unix socket. The kernel answers at once, or not at all.
    pub fn of(&self, listener: &impl AsFd) -> io::Result<ListenQueue> {
        let (_, inode) = identity(listener.as_fd().as_raw_fd())?;
        let inode = u32::try_from(inode).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        send(self.0.as_raw_fd(), &question(inode), MsgFlags::MSG_DONTWAIT)?;
        let mut answer = [0; 256];
        let count = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        understand(&answer[..count], inode)
    }
}

/// A `struct nlmsghdr` with a `struct unix_diag_req` for one socket.
fn question(inode: u32) -> Vec<u8> {
    let flags = libc::NLM_F_REQUEST as u16;
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence, and the port of the sender, which the kernel knows.
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    // Sockets in any state.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(inode.to_ne_bytes());
    bytes.extend(SHOW_QUEUE.to_ne_bytes());
    // No cookie.
    bytes.extend([u8::MAX; 8]);
    bytes
}

fn understand(answer: &[u8], inode: u32) -> io::Result<ListenQueue> {
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let u16_at = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    match u16_at(4).ok_or_else(strange)? {
        BY_FAMILY => {}
        ERROR => {
            let error = u32_at(HEADER).ok_or_else(strange)?.cast_signed();
            return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
        }
        _ => return Err(strange()),
    }
    if u32_at(HEADER + 4) != Some(inode) {
        return Err(strange());
    }
    let mut at = HEADER + ANSWER;
    while let (Some(len), Some(kind)) = (u16_at(at), u16_at(at + 2)) {
        if kind == QUEUE {
            let value = at + ATTRIBUTE;
            let (Some(waiting), Some(limit)) = (u32_at(value), u32_at(value + 4)) else { break };
            return Ok(ListenQueue { waiting, limit });
        }
        // Attributes begin at multiples of four.
        at += usize::from(len).max(ATTRIBUTE).next_multiple_of(4);
    }
    Err(strange())
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
