//! What the kernel says of unix sockets (sock_diag(7), linux/unix_diag.h): the question, and the parts of an answer.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// SOCK_DIAG_BY_FAMILY of linux/sock_diag.h: the kind of a message about a socket.
pub const BY_FAMILY: u16 = 20;
/// NLMSG_ERROR of linux/netlink.h.
pub const ERROR: u16 = 2;
/// NLMSG_DONE of linux/netlink.h.
pub const DONE: u16 = 3;
/// Bytes of a `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Bytes of a `struct unix_diag_msg`.
pub const ANSWER: usize = 16;

/// Bytes of a `struct unix_diag_req`.
const REQUEST: usize = 24;
/// Bytes of a `struct nlattr`.
const ATTRIBUTE: usize = 4;

/// Which sockets are asked about.
#[derive(Clone, Copy, Debug)]
pub enum Sockets {
    /// The one with this inode, which is that of the socket and not of its file.
    One(u32),
    /// All of this network namespace.
    All,
}

/// A socket to ask by. The kernel answers at once, or not at all.
#[derive(Debug)]
pub struct UnixDiag(OwnedFd);

impl UnixDiag {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?))
    }

    /// Asks; `show` are the UDIAG_SHOW_ bits of what is to be said.
    pub fn ask(&self, sockets: Sockets, show: u32) -> io::Result<()> {
        send(self.0.as_raw_fd(), &question(sockets, show), MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// Takes in the next piece of the answer.
    pub fn hear<'a>(&self, piece: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let count = recv(self.0.as_raw_fd(), piece, MsgFlags::MSG_DONTWAIT)?;
        Ok(&piece[..count])
    }
}

/// A `struct nlmsghdr` with a `struct unix_diag_req`.
fn question(sockets: Sockets, show: u32) -> Vec<u8> {
    let (more, inode) = match sockets {
        Sockets::One(inode) => (0, inode),
        Sockets::All => (libc::NLM_F_DUMP, 0),
    };
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(((libc::NLM_F_REQUEST | more) as u16).to_ne_bytes());
    // Sequence, and the port of the sender, which the kernel knows.
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    // Sockets in any state.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(inode.to_ne_bytes());
    bytes.extend(show.to_ne_bytes());
    // No cookie.
    bytes.extend([u8::MAX; 8]);
    bytes
}

/// The attributes of one message, which begin behind [`HEADER`] and [`ANSWER`]: kind and value of each.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, kind) = (u16_at(rest, 0)?, u16_at(rest, 2)?);
        let len = usize::from(len).max(ATTRIBUTE);
        let value = rest.get(ATTRIBUTE..len).unwrap_or_default();
        // Attributes begin at multiples of four.
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The number at this place; `None`: it ends before.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The number at this place; `None`: it ends before.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
