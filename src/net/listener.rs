//! Listening sockets: where they are bound, and accepting from them. How they are bound is in `bind`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use super::socket::PlainSocket;
use super::stream::{PeerAddr, Stream};
pub use super::unix::FileMark;
use super::unix::UnixFile;
use crate::config::Protocol;
use crate::sys::socket::hold_off_connections;

/// A listening socket, non-blocking, close-on-exec. Made by the master, inherited by the workers. Dropped in the process that
/// made it, it removes its unix socket's file.
#[derive(Debug)]
pub struct Listener {
    /// The file made for a unix socket, to be removed; `None` for TCP and for inherited sockets. It is dropped before the socket,
    /// which keeps its number from being given to another file.
    file: Option<UnixFile>,
    socket: Socket,
    address: Address,
    /// Whether this server made it: an inherited socket may be somebody else's as well.
    own: bool,
    protocol: Protocol,
    is_encrypted: bool,
}

/// The mio types, because their `accept` is one accept4 with the flags and the address.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

/// Where a listener is bound, as bound (port 0 resolved).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket's path, absolute; empty for an inherited socket without a name.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    /// `127.0.0.1:8000`, `[::1]:8000`, `unix:/run/x.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address with the protocol that is spoken there.
#[derive(Clone, Debug)]
pub struct BoundAddress {
    protocol: Protocol,
    is_encrypted: bool,
    address: Address,
}

impl fmt::Display for BoundAddress {
    /// `http://127.0.0.1:8000`, `https://127.0.0.1:443`, `unix:/run/x.sock`, `https:unix:/run/x.sock`, `scgi:127.0.0.1:4000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, &self.address) {
            (Protocol::Http, Address::Tcp(addr)) if self.is_encrypted => write!(f, "https://{addr}"),
            (Protocol::Http, Address::Tcp(addr)) => write!(f, "http://{addr}"),
            (Protocol::Http, Address::Unix(_)) if self.is_encrypted => write!(f, "https:{}", self.address),
            (Protocol::Http, Address::Unix(_)) => self.address.fmt(f),
            (protocol, address) => write!(f, "{}:{address}", protocol.name()),
        }
    }
}

impl Listener {
    pub(super) fn new(socket: Socket, address: Address, file: Option<UnixFile>) -> Self {
        Self { socket, address, own: true, protocol: Protocol::Http, is_encrypted: false, file }
    }

    /// The same, for another protocol.
    pub fn speaking(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// The same, with TLS on its connections or without.
    pub fn encrypted(self, is_encrypted: bool) -> Self {
        Self { is_encrypted, ..self }
    }

    /// Whether TLS is spoken on its connections.
    #[inline]
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// The protocol of the requests on its connections.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The listening socket of the program that this process was forked from, which keeps it: nothing of the socket is changed.
    /// `address` is the one that it has there.
    pub fn shared(socket: OwnedFd, address: Address) -> Self {
        let socket = match &address {
            Address::Tcp(_) => Socket::Tcp(mio::net::TcpListener::from_std(socket.into())),
            Address::Unix(_) => Socket::Unix(mio::net::UnixListener::from_std(socket.into())),
        };
        Self::new(socket, address, None)
    }

    /// The same, made by this server or by the parent process, which may still use it.
    pub fn owned(self, own: bool) -> Self {
        Self { own, ..self }
    }

    /// Whether this server made it.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Whether connections may be on their way without being in the queue: a TCP handshake under way, or one that waits for its
    /// first bytes (TCP_DEFER_ACCEPT). They are lost when the last process closes the socket.
    pub fn has_handshakes(&self) -> bool {
        self.own && matches!(self.socket, Socket::Tcp(_))
    }

    /// Lets no new connection begin, while those that have begun continue: the end of the socket is near. A client that comes now
    /// tries again after a second, as after the loss of a packet, and then is refused, or served by the next process that listens
    /// there.
    ///
    /// A socket that was inherited stays as it is, for it outlives this server; a unix socket has no handshake.
    pub fn hold_off(&self) -> io::Result<()> {
        if self.has_handshakes() { hold_off_connections(self) } else { Ok(()) }
    }

    /// Where it is bound.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The same with its protocol, for people and for `--ready-fd`.
    pub fn place(&self) -> BoundAddress {
        BoundAddress { protocol: self.protocol, is_encrypted: self.is_encrypted, address: self.address.clone() }
    }

    /// The file that was made for it and is removed with it.
    pub fn file(&self) -> Option<&FileMark> {
        self.file.as_ref().map(UnixFile::mark)
    }

    /// Makes an adopted listener the owner of the file that this process made for it before exec.
    pub(super) fn with_file(mut self, file: UnixFile) -> Self {
        self.address = Address::Unix(file.mark().path.clone());
        self.file = Some(file);
        self
    }

    /// Accepts one connection (accept4 with SOCK_NONBLOCK and SOCK_CLOEXEC). `WouldBlock` when none waits; errors of the
    /// connection itself (ECONNABORTED and others, accept(2)) are the caller's to skip.
    #[inline]
    pub fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| (PlainSocket::Tcp(stream).into(), PeerAddr::Tcp(peer)))
            }
            Socket::Unix(listener) => listener.accept().map(|(stream, _)| (PlainSocket::Unix(stream).into(), PeerAddr::Unix)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
