//! A connected stream: the only door to the socket of a connection.
//!
//! Whatever is asked of a socket goes through a method here, so that a transport that keeps bytes in this process (TLS) has one place
//! for its answers: what a read says of what follows, whether anything is unsent, and who else may have the descriptor.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use zeroize::Zeroizing;

use super::encrypted::Encryption;
pub use super::peer::{IP_MAX, PORT_MAX, PeerAddr};
pub use super::socket::Got;
use super::socket::PlainSocket;
use crate::sys::signals::WithoutSigpipe;
use crate::tls::facts::TlsFacts;
use crate::tls::server::{ClientRules, TlsServer};

/// A non-blocking stream.
#[derive(Debug)]
pub struct Stream {
    socket: PlainSocket,
    /// In a box: most connections have none, and its state is a thousand bytes.
    tls: Option<Box<Encryption>>,
}

impl From<PlainSocket> for Stream {
    fn from(socket: PlainSocket) -> Self {
        Self { socket, tls: None }
    }
}

impl Stream {
    /// The connection with this descriptor; according to another process its peer is `peer`.
    ///
    /// # Errors
    /// When it is anything but a stream socket of that family, or belongs to another client.
    pub fn adopt(descriptor: OwnedFd, peer: PeerAddr) -> io::Result<Self> {
        PlainSocket::adopt(descriptor, peer).map(Self::from)
    }

    /// Has TLS spoken on it from now on, of which these bytes have come.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn encrypt(&mut self, server: TlsServer, begun: &[u8]) -> Result<(), rustls::Error> {
        self.tls = Some(Box::new(Encryption::new(server, begun)?));
        Ok(())
    }

    /// Whether TLS is spoken on it.
    #[inline]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Goes on with the handshake; the count is not 0 when it is over. `may_read`: the socket may have bytes.
    ///
    /// # Errors
    /// `WouldBlock`: it waits for the client, or to be sent if [`Self::has_unsent`].
    pub fn shake_hands(&mut self, may_read: bool) -> io::Result<Got> {
        let Self { socket, tls } = self;
        tls.as_mut().map_or(Ok(Got { count: 1, more: true }), |tls| tls.shake_hands(socket, may_read))
    }

    /// Bytes of an unfinished handshake, or of a record, that are in this process because more are needed.
    pub fn kept(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.kept())
    }

    /// Whether a part of a record is here, in which the client has more to say.
    #[inline]
    pub fn has_part(&self) -> bool {
        self.is_encrypted() && self.kept() > 0
    }

    /// Whether its handshake has resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_resumed())
    }

    /// What is known of the encryption; `None`: there is none, or its handshake is not over.
    #[inline]
    pub fn facts(&self) -> Option<&TlsFacts> {
        self.tls.as_ref().and_then(|tls| tls.facts())
    }

    /// Reads what is there.
    #[inline]
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Got> {
        match &self.tls {
            None => self.socket.receive(buffer),
            Some(tls) => tls.receive(&self.socket, buffer),
        }
    }

    /// Reads at most `max` bytes to the end of `memory`, which grows if it has no room for them.
    pub fn receive_behind(&self, memory: &mut Vec<u8>, max: usize) -> io::Result<Got> {
        match &self.tls {
            None => self.socket.receive_behind(memory, max),
            Some(tls) => tls.receive_behind(&self.socket, memory, max),
        }
    }

    /// Writes what the socket takes; returns how many bytes that is.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.send(bytes),
            Some(tls) => tls.send(&self.socket, bytes),
        }
    }

    /// As [`Stream::send`], with several slices.
    pub fn send_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.send_slices(slices),
            Some(tls) => tls.send_slices(&self.socket, slices),
        }
    }

    /// Sends up to `len` bytes of `file` from `offset`; returns how many the socket took. 0: the file ends before `offset`.
    pub fn send_file(&self, file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<u64> {
        match &self.tls {
            None => self.socket.send_file(file, offset, len),
            Some(tls) => tls.send_file(&self.socket, file, offset, len),
        }
    }

    /// Keeps SIGPIPE away while it lives, where [`Stream::send_file`] may raise it; calls on any stream share it. Only for as long as nothing
    /// of the application runs. `None`: it is not needed, or each call does it.
    pub fn without_sigpipe(&self) -> Option<WithoutSigpipe> {
        match &self.tls {
            None => WithoutSigpipe::hold().ok(),
            Some(_) => None,
        }
    }

    /// Writes bytes that [`Stream::shutdown_write`], or the close of the last descriptor, follows at once: TCP keeps back bytes
    /// that fill no segment until then, for about 200 ms at most (MSG_MORE, send(2)), so that they leave with the end. A unix
    /// socket sends as usual.
    #[inline]
    pub fn send_last(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.send_last(bytes),
            Some(tls) => tls.send_last(&self.socket, bytes),
        }
    }

    /// Whether it keeps bytes that it has taken and the kernel has not.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_unsent())
    }

    /// Sends the bytes that it keeps ([`Stream::has_unsent`]). `WouldBlock`: the kernel takes no more now.
    pub fn flush(&self) -> io::Result<()> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.flush(&self.socket))
    }

    /// Whether another process can go on with it, once nothing is unsent. Encryption can before its handshake begins and after it has ended.
    #[inline]
    pub fn can_travel(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.can_travel())
    }

    /// What another process needs to go on with it beside its descriptor ([`Self::unpack`]), nothing without encryption; `None`: it
    /// cannot go now. Nothing may be done with it here when it has gone.
    pub fn pack(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.tls.as_ref().map_or(Some(Zeroizing::default()), |tls| tls.pack())
    }

    /// Goes on with the encryption that another process has packed; returns whether its client was let in by these rules.
    ///
    /// # Errors
    /// `InvalidData`: it has packed something else.
    pub fn unpack(&mut self, packed: &[u8], rules: &ClientRules) -> io::Result<bool> {
        let tls = Encryption::unpack(packed)?;
        let is_let_in = tls.is_let_in_by(rules);
        self.tls = Some(Box::new(tls));
        Ok(is_let_in)
    }

    /// Whether the application can use its descriptor: what is read and written there is what the client sends and gets.
    #[inline]
    pub fn shares_descriptor(&self) -> bool {
        self.tls.is_none()
    }

    /// Its descriptor, for another process if [`Self::can_travel`] says so.
    #[inline]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.descriptor()
    }

    /// Another descriptor of the same socket, for the application if [`Self::shares_descriptor`] says so.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.descriptor().try_clone_to_owned()
    }

    /// Has the poll watch it under this name, edge-triggered, for reading and writing.
    pub fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.number()), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Has the poll watch it no longer.
    pub fn unwatch(&self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut SourceFd(&self.socket.number()))
    }

    /// Whether nothing more can reach the client: it has reset the connection, or a unix socket's other end is closed. A TCP client
    /// that has closed its end may only have finished sending.
    pub fn is_reset(&self) -> bool {
        self.socket.is_reset()
    }

    /// Whether the client has closed its end, or the connection is reset.
    pub fn has_left(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_ended()) || self.socket.has_left()
    }

    /// No more bytes will be written; the client sees the end, which is meant.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.say_end();
        self.socket.shutdown_write()
    }

    /// The same, where what was written is not all: TLS does not announce the end.
    pub fn cut_write(&self) -> io::Result<()> {
        self.socket.shutdown_write()
    }

    /// Announces the end, which follows, where the protocol has words for that (close_notify, RFC 8446 section 6.1): nothing can be
    /// sent after it. A client that takes nothing more, or has left, gets none.
    #[inline]
    pub fn say_end(&self) {
        if let Some(tls) = &self.tls {
            tls.say_end(&self.socket);
        }
    }

    /// Nothing will be written or read any more, by any descriptor: threads that wait for it wake up.
    pub fn shutdown_all(&self) -> io::Result<()> {
        self.socket.shutdown_all()
    }

    /// As [`Self::shutdown_all`], with a reset, so that the client sees an error and not an end. A unix socket cannot.
    pub fn reset_all(&self) -> io::Result<()> {
        self.socket.reset_all()
    }

    /// Makes it non-blocking again, after somebody had made it blocking (O_NONBLOCK belongs to all descriptors of it).
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking()
    }

    /// Makes the close a reset (SO_LINGER with 0 s, socket(7)), so that the client sees an error and not an end. A unix socket
    /// cannot.
    pub fn set_linger0(&self) -> io::Result<()> {
        self.socket.set_linger0()
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        stream.socket.into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_stream_closed_after_linger0_is_reset() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Stream::from(PlainSocket::Tcp(mio::net::TcpStream::from_std(listener.accept().unwrap().0)));
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
            let stream = Stream::from(PlainSocket::Tcp(mio::net::TcpStream::from_std(listener.accept().unwrap().0)));
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
        let stream = Stream::from(PlainSocket::Unix(mio::net::UnixStream::from_std(stream)));
        assert_eq!(stream.send_slices(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).unwrap(), 3);
        stream.shutdown_write().unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abc");
    }
}
