//! A connected socket, TCP or unix, under a [`super::stream::Stream`].

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt, send, sendmsg,
    setsockopt, sockopt,
};

use crate::sys::fd::add_flags;
use crate::sys::read::read_behind;
use crate::sys::sendfile::sendfile;
use crate::sys::socket::disconnect;

use super::peer::PeerAddr;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// Bytes; 0 is the end.
    pub count: usize,
    /// Whether more may be there now: no edge may announce it.
    pub more: bool,
}

impl Got {
    /// A read that has asked the kernel for `wanted` bytes: a short one has emptied the socket.
    #[inline]
    pub fn of(count: usize, wanted: usize) -> Self {
        Self { count, more: count == wanted }
    }
}

/// A non-blocking socket.
#[derive(Debug)]
pub enum PlainSocket {
    /// TCP.
    Tcp(mio::net::TcpStream),
    /// Unix.
    Unix(mio::net::UnixStream),
}

impl PlainSocket {
    /// The connection with this descriptor; according to another process its peer is `peer`.
    ///
    /// # Errors
    /// When it is anything but a stream socket of that family, or belongs to another client.
    pub fn adopt(descriptor: OwnedFd, peer: PeerAddr) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let family = getsockname::<SockaddrStorage>(descriptor.as_raw_fd())?.family();
        let is_stream = getsockopt(&descriptor, sockopt::SockType)? == SockType::Stream;
        let stream = match (peer, family) {
            (PeerAddr::Tcp(_), Some(AddressFamily::Inet | AddressFamily::Inet6)) if is_stream => {
                Self::Tcp(mio::net::TcpStream::from(descriptor))
            }
            (PeerAddr::Unix, Some(AddressFamily::Unix)) if is_stream => Self::Unix(mio::net::UnixStream::from(descriptor)),
            _ => return Err(invalid("its descriptor is not the socket that it is said to be")),
        };
        // A client that has reset the connection has no address any more.
        if let Ok(found) = getpeername::<SockaddrStorage>(stream.number())
            && let PeerAddr::Tcp(addr) = peer
            && address(&found)
                .is_some_and(|found| (found.ip().to_canonical(), found.port()) != (addr.ip().to_canonical(), addr.port()))
        {
            return Err(invalid("its client is not the one that it is said to be"));
        }
        stream.set_nonblocking()?;
        Ok(stream)
    }

    /// Reads what is there.
    #[inline]
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Got> {
        let wanted = buffer.len();
        let count = match self {
            Self::Tcp(stream) => (&*stream).read(buffer),
            Self::Unix(stream) => (&*stream).read(buffer),
        }?;
        Ok(Got::of(count, wanted))
    }

    /// Reads at most `max` bytes to the end of `memory`, which grows if it has no room for them.
    pub fn receive_behind(&self, memory: &mut Vec<u8>, max: usize) -> io::Result<Got> {
        Ok(Got::of(read_behind(self.descriptor(), memory, max)?, max))
    }

    /// Writes what the socket takes; returns how many bytes that is.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Unix(stream) => write_unix(stream.as_raw_fd(), bytes),
        }
    }

    /// As [`Self::send`], with several slices.
    pub fn send_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // writev(2) would be a signal when the client has left, if the application has set SIGPIPE to end the process.
        Ok(sendmsg::<()>(self.number(), slices, &[], MsgFlags::MSG_NOSIGNAL, None)?)
    }

    /// Sends up to `len` bytes of `file` from `offset`; returns how many the socket took. 0: the file ends before `offset`.
    pub fn send_file(&self, file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<u64> {
        sendfile(self.descriptor(), file, offset, len)
    }

    /// Writes bytes that [`Self::shutdown_write`], or the close of the last descriptor, follows at once: TCP keeps back bytes
    /// that fill no segment until then, for about 200 ms at most (MSG_MORE, send(2)), so that they leave with the end. A unix
    /// socket sends as usual.
    #[inline]
    pub fn send_last(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.number(), bytes, MsgFlags::from_bits_retain(libc::MSG_MORE | libc::MSG_NOSIGNAL))?)
    }

    /// Its descriptor.
    #[inline]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    /// The number of its descriptor.
    #[inline]
    pub fn number(&self) -> RawFd {
        self.descriptor().as_raw_fd()
    }

    /// Whether nothing more can reach the client: it has reset the connection, or a unix socket's other end is closed. A TCP client
    /// that has closed its end may only have finished sending.
    pub fn is_reset(&self) -> bool {
        self.has_event(PollFlags::empty())
    }

    /// Whether the client has closed its end, or the connection is reset.
    pub fn has_left(&self) -> bool {
        // nix does not name it.
        self.has_event(PollFlags::from_bits_retain(libc::POLLRDHUP))
    }

    /// Whether one of these events is there, or HUP or ERR, which are always reported. A failing poll says nothing of the client.
    fn has_event(&self, events: PollFlags) -> bool {
        let mut fds = [PollFd::new(self.descriptor(), events)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// No more bytes will be written; the client sees the end.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Nothing will be written or read any more, by any descriptor: threads that wait for it wake up.
    pub fn shutdown_all(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        }
    }

    /// As [`Self::shutdown_all`], with a reset, so that the client sees an error and not an end. A unix socket cannot.
    pub fn reset_all(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => disconnect(stream),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        }
    }

    /// Makes it non-blocking again, after somebody had made it blocking (O_NONBLOCK belongs to all descriptors of it).
    pub fn set_nonblocking(&self) -> io::Result<()> {
        add_flags(&self.descriptor(), OFlag::O_NONBLOCK)
    }

    /// Makes the close a reset (SO_LINGER with 0 s, socket(7)), so that the client sees an error and not an end. A unix socket
    /// cannot.
    pub fn set_linger0(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => Ok(setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?),
            Self::Unix(_) => Ok(()),
        }
    }
}

fn address(found: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = found.as_sockaddr_in().map(|found| SocketAddr::V4((*found).into()));
    v4.or_else(|| found.as_sockaddr_in6().map(|found| SocketAddr::V6((*found).into())))
}

/// The standard library's write does not use MSG_NOSIGNAL for all sockets.
#[inline(never)]
fn write_unix(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket, bytes, MsgFlags::MSG_NOSIGNAL)?)
}

impl From<PlainSocket> for OwnedFd {
    fn from(stream: PlainSocket) -> Self {
        match stream {
            PlainSocket::Tcp(stream) => stream.into(),
            PlainSocket::Unix(stream) => stream.into(),
        }
    }
}
