//! The socket of a connection and its attributes, shared between the loop and a call.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::net::stream::{PeerAddr, Stream};
use crate::worker::app::{Client, Gone, Peer};
use crate::worker::body::disk::Disk;
use crate::worker::deadline::claim::Claim;
use crate::worker::send::output::{self, Output, deliver_by};
use crate::worker::threads::precedence::Precedence;

/// The parts of a connection that outlive a phase: shared between the loop and a call.
#[derive(Debug)]
pub struct Link {
    /// The socket.
    pub stream: Stream,
    /// The client.
    pub peer: Peer,
    /// Index of the listener it came from.
    listener: u32,
    /// Whether a call may still write to it.
    pub claim: Claim,
    /// The place of output that its client does not read.
    pub disk: Disk,
    /// Whether the application has taken the socket over.
    hijacked: AtomicBool,
    /// Whether the loop has answers that go before the bytes of the call.
    pub precedence: Precedence,
}

impl Link {
    /// The ends of a connection that was just accepted.
    pub fn new(stream: Stream, peer: Peer, listener: usize, disk: Disk) -> Self {
        Self {
            stream,
            peer,
            // Each listener is a descriptor, of which a process has fewer.
            listener: u32::try_from(listener).unwrap_or(u32::MAX),
            claim: Claim::default(),
            disk,
            hijacked: AtomicBool::new(false),
            precedence: Precedence::new(),
        }
    }

    /// The socket's peer is a proxy, and this is its client. Where the proxy is not trusted, an address that it names proves nothing.
    pub fn name_client(&mut self, client: SocketAddr) {
        let (addr, port) = PeerAddr::Tcp(client).text();
        let proxy = std::mem::take(&mut self.peer);
        self.peer = Peer { addr, port, trusted: proxy.trusted, proxy: Some(Box::new(proxy)) };
    }

    /// Index of the listener it came from.
    #[inline]
    pub fn listener(&self) -> usize {
        self.listener as usize
    }

    /// Whether nothing more can reach the client: it has reset the connection, or a unix socket's other end is closed. A TCP
    /// client that has closed its end may only have finished sending.
    pub fn is_reset(&self) -> bool {
        self.stream.is_reset()
    }

    /// Whether bytes wait to be sent: in `output`, which is the connection's or its call's, or in the stream.
    #[inline]
    pub fn has_unsent(&self, output: &Option<Box<Output>>) -> bool {
        output.is_some() || self.stream.has_unsent()
    }

    /// Notes that the application takes the socket over; the connection serves no other request.
    pub fn take(&self) {
        self.hijacked.store(true, Relaxed);
    }

    /// Whether the application has taken the socket over.
    pub fn is_hijacked(&self) -> bool {
        self.hijacked.load(Relaxed)
    }
}

impl Client for Link {
    fn has_left(&self) -> bool {
        self.stream.has_left()
    }
}

/// Sends `out` after the bytes that wait already, keeps the rest, leaves `out` empty.
pub fn deliver(link: &Link, output: &mut Option<Box<Output>>, out: &mut Vec<u8>) -> Result<(), Gone> {
    deliver_by(&link.disk, output, out, |bytes| output::send(&link.stream, bytes))
}
