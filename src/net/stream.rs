//! A connected stream, TCP or unix: the only door to the socket of a connection.
//!
//! Whatever is asked of a socket goes through a method here, so that a transport that keeps bytes in this process (TLS) has one place
//! for its answers: what a read says of what follows, whether anything is unsent, and who else may have the descriptor.

use std::fmt::Write as _;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
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

use super::text::Text;

/// A non-blocking stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(mio::net::TcpStream),
    /// Unix.
    Unix(mio::net::UnixStream),
}

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
    fn of(count: usize, wanted: usize) -> Self {
        Self { count, more: count == wanted }
    }
}

/// Longest text of an address in bytes: eight groups of four hexadecimal digits.
pub const IP_MAX: usize = 39;

/// Longest text of a port in bytes.
pub const PORT_MAX: usize = 5;

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket has no address.
    Unix,
}

impl PeerAddr {
    /// The address; an IPv4 client of a dual-stack socket (`::ffff:192.0.2.1`) has its IPv4 address. `None` for a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(addr) => Some(addr.ip().to_canonical()),
            Self::Unix => None,
        }
    }

    /// Address and port as text, both empty for a unix socket.
    pub fn text(&self) -> (Text<IP_MAX>, Text<PORT_MAX>) {
        let Self::Tcp(addr) = self else { return (Text::default(), Text::default()) };
        let ip = match addr.ip().to_canonical() {
            IpAddr::V4(addr) => Text::dotted(addr.octets()),
            IpAddr::V6(addr) => {
                let mut ip = Text::default();
                // Cannot fail: the longest one fits.
                let _ = write!(ip, "{addr}");
                ip
            }
        };
        (ip, Text::decimal(addr.port()))
    }
}

impl Stream {
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

    /// As [`Stream::send`], with several slices.
    pub fn send_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // writev(2) would be a signal when the client has left, if the application has set SIGPIPE to end the process.
        Ok(sendmsg::<()>(self.number(), slices, &[], MsgFlags::MSG_NOSIGNAL, None)?)
    }

    /// Sends up to `len` bytes of `file` from `offset`; returns how many the socket took. 0: the file ends before `offset`.
    pub fn send_file(&self, file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<u64> {
        sendfile(self.descriptor(), file, offset, len)
    }

    /// Writes bytes that [`Stream::shutdown_write`], or the close of the last descriptor, follows at once: TCP keeps back bytes
    /// that fill no segment until then, for about 200 ms at most (MSG_MORE, send(2)), so that they leave with the end. A unix
    /// socket sends as usual.
    #[inline]
    pub fn send_last(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.number(), bytes, MsgFlags::from_bits_retain(libc::MSG_MORE | libc::MSG_NOSIGNAL))?)
    }

    /// Whether it keeps bytes that it has taken and the kernel has not.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }

    /// Sends the bytes that it keeps ([`Stream::has_unsent`]). `WouldBlock`: the kernel takes no more now.
    pub fn flush(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// Whether another process can go on with its descriptor: nothing that belongs to it is in this process only.
    #[inline]
    pub fn can_travel(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => true,
        }
    }

    /// Whether the application can use its descriptor: what is read and written there is what the client sends and gets.
    #[inline]
    pub fn shares_descriptor(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => true,
        }
    }

    /// Its descriptor, for another process if [`Self::can_travel`] says so.
    #[inline]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    /// Another descriptor of the same socket, for the application if [`Self::shares_descriptor`] says so.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.descriptor().try_clone_to_owned()
    }

    #[inline]
    fn number(&self) -> RawFd {
        self.descriptor().as_raw_fd()
    }

    /// Has the poll watch it under this name, edge-triggered, for reading and writing.
    pub fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.number()), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Has the poll watch it no longer.
    pub fn unwatch(&self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut SourceFd(&self.number()))
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

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Tcp(stream) => stream.into(),
            Stream::Unix(stream) => stream.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_a_dual_stack_socket_has_its_ipv4_address() {
        let peer = PeerAddr::Tcp("[::ffff:192.0.2.1]:81".parse().unwrap());
        assert_eq!(peer.text(), ("192.0.2.1".into(), "81".into()));
        assert_eq!(peer.ip(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(PeerAddr::Tcp("[2001:db8::1]:81".parse().unwrap()).text(), ("2001:db8::1".into(), "81".into()));
        assert_eq!(PeerAddr::Unix.text(), (Text::default(), Text::default()));
        assert_eq!(PeerAddr::Unix.ip(), None);
    }

    #[test]
    fn a_stream_closed_after_linger0_is_reset() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Stream::Tcp(mio::net::TcpStream::from_std(listener.accept().unwrap().0));
        stream.set_linger0().unwrap();
        drop(stream);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn the_last_bytes_wait_for_the_close() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // The kernel sends the bytes that it has kept back after a while, and a busy machine may have done nothing else until
        // then.
        let kept = (0..10).any(|_| {
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let stream = Stream::Tcp(mio::net::TcpStream::from_std(listener.accept().unwrap().0));
            assert_eq!(stream.send_last(b"abc").unwrap(), 3);
            client.set_nonblocking(true).unwrap();
            let early = client.read(&mut [0; 8]);
            drop(stream);
            client.set_nonblocking(false).unwrap();
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            early.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) && all == b"abc"
        });
        assert!(kept);
    }

    #[test]
    fn a_unix_stream_shows_its_end_after_shutdown() {
        let (stream, mut client) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = Stream::Unix(mio::net::UnixStream::from_std(stream));
        assert_eq!(stream.send_slices(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), 3);
        stream.shutdown_write().unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abc");
    }
}
