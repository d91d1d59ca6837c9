//! Reading from a connection's socket: the state after an edge, and after a read.

use std::io;

use crate::net::stream::{Got, Stream};
use crate::worker::ctx::ThreadCtx;

use super::{CloseReason, Connection, Next, Phase};

/// The facts that an edge of the socket reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It may be written.
    Writable,
    /// It may be read, and maybe written.
    Readable,
    /// As [`Edge::Readable`], and the client sends nothing more: after the bytes that are there comes the end, or an error.
    Ended,
}

/// What is known of a connection's socket.
#[derive(Debug)]
pub struct Io {
    /// Whether it may have bytes for us (edge-triggered: true until a read finds that no more are there).
    pub(super) readable: bool,
    /// Whether an edge has reported the client's end: no other edge will, so a read that finds no more bytes proves nothing.
    pub(super) ended: bool,
    /// Whether bytes of the client were left unread, so that a plain close would reset the connection.
    pub(super) unread: bool,
    /// Whether the client has said that nothing follows its request.
    pub(super) is_last: bool,
    /// Whether a request has its time because a record has begun to come in which it may be.
    is_part_timed: bool,
    /// Whether it is registered with the poll.
    pub registered: bool,
}

impl Io {
    /// Of a socket that was just accepted: its request is usually there already.
    pub(super) fn new() -> Self {
        Self { readable: true, ended: false, unread: false, is_last: false, is_part_timed: false, registered: false }
    }
}

impl Connection {
    /// Notes an edge of the socket.
    pub fn ready(&mut self, edge: Edge) {
        self.io.readable |= edge != Edge::Writable;
        self.io.ended |= edge == Edge::Ended;
    }

    /// Reads the bytes that are there; returns whether they are in the thread context, and not in the final place of its body.
    #[inline(always)] // each request comes through one caller, prefaces through the other
    pub(super) fn read_more(&mut self, ctx: &mut ThreadCtx) -> Result<bool, Next> {
        if !self.io.readable {
            return Err(Next::Wait);
        }
        let was_idle = matches!(self.phase, Phase::Head) && self.kept.is_none();
        if let Some(flow) = self.receive_body(ctx) {
            return flow.map(|()| false);
        }
        match self.read(ctx.input.space()) {
            Ok(0) => {
                if was_idle && self.link.stream.is_encrypted() {
                    self.note_part(ctx);
                }
                Err(Next::Wait)
            }
            Ok(count) => {
                ctx.input.filled(count);
                if was_idle {
                    self.io.is_part_timed = false;
                    self.timer.deadline = ctx.clock.ms() + ctx.rules.header_timeout;
                }
                Ok(true)
            }
            Err(reason) => {
                // A client that has closed its end may still read, and slowly.
                self.flush(ctx)?;
                Err(Next::Close(self.lost(reason, ctx)))
            }
        }
    }

    /// Gives a request its time when the first bytes of its record come, as to one whose bytes can be read. More of them change nothing.
    #[cold]
    fn note_part(&mut self, ctx: &ThreadCtx) {
        let is_here = self.link.stream.has_part();
        if is_here && !self.io.is_part_timed {
            self.timer.deadline = ctx.clock.ms() + ctx.rules.header_timeout;
        }
        self.io.is_part_timed = is_here;
    }

    /// One read. `Ok(0)`: nothing is there now. An error is the reason for the connection's end.
    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CloseReason> {
        self.read_with(|stream| stream.receive(buffer))
    }

    /// One read by `act`. A call of its own would cost the ordinary request 17 instructions.
    #[inline(always)]
    pub(in crate::worker) fn read_with(&mut self, mut act: impl FnMut(&Stream) -> io::Result<Got>) -> Result<usize, CloseReason> {
        loop {
            match act(&self.link.stream) {
                Ok(Got { count: 0, .. }) => return Err(CloseReason::ClientClosed),
                Ok(Got { count, more }) => {
                    // If no more is there, the next bytes, or the end, come with a new edge. An end that came together with these
                    // bytes has had its edge.
                    self.io.readable = self.io.ended || more;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.io.readable = false;
                    return Ok(0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(CloseReason::ClientGone),
            }
        }
    }

    /// Whether no bytes of the client are known to be left unread, so that a plain close ends the connection in order.
    pub(in crate::worker) fn has_read_all(&self) -> bool {
        !self.io.unread && !self.io.readable
    }
}
