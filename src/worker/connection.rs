//! One connection and its state machine.
//!
//! ```text
//!            head complete, no body or body at hand
//!   ┌─────────────────────────────────────────────┐
//! Head ── head complete, body to come ──▶ Body ──▶ (call) ──▶ whole answer rendered ──▶ Head | Closing
//!   │                                               └──────▶ Answer (blocks follow) ──▶ Head | Closing
//!   └── refused ──▶ Closing ──▶ Linger ──▶ gone
//! ```
//!
//! Whatever the phase, unsent output goes first. [`Connection::drive`] runs until the socket blocks, the connection ends, or its turn
//! is over; it returns which, and never calls up.

use std::fmt;
use std::io::{self, Read};

use crate::net::stream::Stream;

use super::answer::Answer;
use super::app::{Fate, Gone, Outlet, Peer};
use super::output::{self, Output, Sent};
use super::seat::{READ_SIZE, Seat};
use super::upload::Upload;

/// Steps that one connection may take before others have their turn: each is at most a read, a call or a send.
const TURN: usize = 32;

/// Rendered bytes of pipelined answers that are sent before the next request is served.
pub const FLUSH_SIZE: usize = 64 * 1024;

/// How long a closed connection is read on, so that the client can read an answer that came before it had sent everything
/// (RFC 9112 section 9.6), in milliseconds without a byte.
const LINGER_MS: u64 = 5_000;

/// Bytes read and thrown away while lingering; a client that sends more is cut.
const LINGER_BYTES: u64 = 64 * 1024 * 1024;

/// A connection's name in events and timers: slab key and generation, so that a stale event meets nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(usize);

const _: () = assert!(usize::BITS == 64, "a token holds two 32-bit numbers");

impl Token {
    /// The token of `key` in its `generation`.
    pub fn new(key: u32, generation: u32) -> Self {
        Self((generation as usize) << 32 | key as usize)
    }

    /// The slab key.
    pub fn key(self) -> usize {
        self.0 & 0xffff_ffff
    }
}

impl From<Token> for mio::Token {
    fn from(token: Token) -> Self {
        Self(token.0)
    }
}

impl From<mio::Token> for Token {
    fn from(token: mio::Token) -> Self {
        Self(token.0)
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The last answer said so.
    Done,
    /// The client closed between requests.
    ClientClosed,
    /// The client left in the middle of a request or an answer.
    ClientGone,
    /// The answer is cut, visibly for the client.
    Cut,
    /// No request came in time.
    Idle,
    /// The client took no byte of its answer for too long.
    WriteStall,
    /// The client went on sending behind a refusal, or said nothing more.
    Lingered,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::ClientClosed => "closed by the client",
            Self::ClientGone => "the client left",
            Self::Cut => "answer cut",
            Self::Idle => "idle",
            Self::WriteStall => "the client does not read",
            Self::Lingered => "lingered",
        })
    }
}

/// What the loop does with the connection next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for its socket or its deadline.
    Wait,
    /// Give others their turn, then drive it again.
    Yield,
    /// Drop it.
    Close(CloseReason),
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Take the next step.
    Go,
    /// As [`Next`].
    Stop(Next),
}

/// Where a connection is in its cycle.
#[derive(Debug)]
pub(super) enum Phase {
    /// Idle, or in the middle of a head (`input` holds its start).
    Head,
    /// In the middle of a body.
    Body(Box<Upload>),
    /// The application's answer goes on.
    Answer(Box<Answer>),
    /// The output is the last.
    Closing(Fate),
    /// Closed for writing; what still comes is thrown away, so many bytes at most.
    Linger(u64),
}

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub token: Token,
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) listener: usize,
    pub(super) phase: Phase,
    /// Bytes that were read and not used.
    pub(super) input: Vec<u8>,
    /// Whether `input` may hold a complete request, so that it is looked at before reading.
    pub(super) unparsed: bool,
    /// Bytes that the socket did not take.
    output: Option<Box<Output>>,
    /// Whether the socket may have bytes for us (edge-triggered: true until a short read).
    readable: bool,
    /// Whether it is registered with the poll.
    pub registered: bool,
    /// Whether bytes of the client were left unread, so that a plain close would reset the connection.
    pub(super) unread: bool,
    /// When it is to be looked at, in milliseconds of the loop's clock.
    pub(super) deadline: u64,
    /// When its live timer entry fires; `u64::MAX` when it has none.
    pub armed: u64,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(token: Token, stream: Stream, peer: Peer, listener: usize, deadline: u64) -> Self {
        Self {
            token,
            stream,
            peer,
            listener,
            phase: Phase::Head,
            input: Vec::new(),
            unparsed: false,
            output: None,
            readable: true,
            registered: false,
            unread: false,
            deadline,
            armed: u64::MAX,
        }
    }

    /// The socket, for registration.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// When it must be looked at, in milliseconds of the loop's clock.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Notes an edge of the socket.
    pub fn ready(&mut self, readable: bool) {
        self.readable |= readable;
    }

    /// Whether it waits for a request of which nothing has come.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.input.is_empty() && self.output.is_none()
    }

    /// Shortens the wait of an idle connection: the worker leaves.
    pub fn hurry(&mut self, deadline: u64) {
        self.deadline = self.deadline.min(deadline);
    }

    /// Goes on until the socket blocks, the connection ends or its turn is over.
    pub fn drive(&mut self, seat: &mut Seat) -> Next {
        for _ in 0..TURN {
            if let Flow::Stop(next) = self.send_waiting(seat) {
                return next;
            }
            let flow = match &mut self.phase {
                Phase::Head | Phase::Body(_) => self.take_input(seat),
                Phase::Answer(_) => self.go_on_answering(seat),
                Phase::Closing(fate) => {
                    let fate = *fate;
                    self.end(fate, seat)
                }
                Phase::Linger(left) => {
                    let left = *left;
                    self.linger(left, seat)
                }
            };
            if let Flow::Stop(next) = flow {
                return next;
            }
        }
        Next::Yield
    }

    /// The deadline has passed.
    pub fn expire(&mut self, seat: &mut Seat) -> Next {
        if self.output.is_some() || matches!(self.phase, Phase::Answer(_) | Phase::Closing(_)) {
            return Next::Close(CloseReason::WriteStall);
        }
        match &self.phase {
            Phase::Head if self.input.is_empty() => Next::Close(CloseReason::Idle),
            Phase::Linger(_) => Next::Close(CloseReason::Lingered),
            Phase::Head | Phase::Body(_) | Phase::Answer(_) | Phase::Closing(_) => {
                self.time_out(seat);
                self.drive(seat)
            }
        }
    }

    /// Sends what waits from earlier; stops when the socket is full.
    fn send_waiting(&mut self, seat: &mut Seat) -> Flow {
        let Some(output) = &mut self.output else { return Flow::Go };
        match output.send(&mut self.stream) {
            Ok(Sent::All) => {
                self.output = None;
                Flow::Go
            }
            Ok(Sent::Blocked { progress }) => {
                if progress {
                    self.deadline = seat.clock.ms() + seat.rules.write_timeout;
                }
                Flow::Stop(Next::Wait)
            }
            Err(_) => Flow::Stop(Next::Close(CloseReason::ClientGone)),
        }
    }

    /// Sends what the seat has rendered for this connection; what the socket does not take is kept here.
    pub(super) fn flush(&mut self, seat: &mut Seat) -> Flow {
        if seat.out.is_empty() {
            return Flow::Go;
        }
        let result = deliver(&mut self.stream, &mut self.output, &mut seat.out);
        self.after_send(result, seat)
    }

    /// Keeps bytes that the socket did not take.
    pub(super) fn keep_waiting(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.output.get_or_insert_default().push(bytes).map_err(|_| Gone)
    }

    /// What follows an attempt to send.
    pub(super) fn after_send(&mut self, result: Result<(), Gone>, seat: &Seat) -> Flow {
        match result {
            Ok(()) if self.output.is_none() => Flow::Go,
            Ok(()) => {
                self.deadline = seat.clock.ms() + seat.rules.write_timeout;
                Flow::Stop(Next::Wait)
            }
            Err(Gone) => Flow::Stop(Next::Close(CloseReason::ClientGone)),
        }
    }

    /// The socket and the waiting output, for `write()`.
    pub(super) fn outlet(&mut self) -> SocketOutlet<'_> {
        SocketOutlet { stream: &mut self.stream, output: &mut self.output }
    }

    /// Reads what there is and hands it to the parser.
    fn take_input(&mut self, seat: &mut Seat) -> Flow {
        if !self.unparsed && !self.readable {
            return Flow::Stop(Next::Wait);
        }
        // Taken out of the seat for the time of parsing, so that the seat can serve while the request is borrowed from it.
        let mut buffer = std::mem::take(&mut seat.input);
        let mut have = self.input.len();
        buffer[..have].copy_from_slice(&self.input);
        let flow = if self.unparsed {
            self.unparsed = false;
            Flow::Go
        } else {
            let was_idle = have == 0 && matches!(self.phase, Phase::Head);
            let end = buffer.len().min(have + READ_SIZE);
            match self.read(&mut buffer[have..end]) {
                Ok(0) => Flow::Stop(Next::Wait),
                Ok(count) => {
                    have += count;
                    if was_idle {
                        self.deadline = seat.clock.ms() + seat.rules.header_timeout;
                    }
                    Flow::Go
                }
                Err(reason) => Flow::Stop(Next::Close(self.lost(reason, seat))),
            }
        };
        let flow = match flow {
            Flow::Go => {
                let mut head = std::mem::take(&mut seat.head);
                let used = self.consume(&buffer[..have], &mut head, seat);
                seat.head = head;
                self.keep_rest(&buffer[used.bytes..have]);
                self.unparsed = !used.wants_more && !self.input.is_empty();
                if used.bytes > 0 && used.wants_more && !self.input.is_empty() {
                    // The start of another request has come behind the last one.
                    self.deadline = seat.clock.ms() + seat.rules.header_timeout;
                }
                self.flush(seat)
            }
            Flow::Stop(_) => flow,
        };
        seat.input = buffer;
        flow
    }

    /// Keeps what was not used; gives the memory back when that is nothing.
    fn keep_rest(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            if self.input.capacity() > 0 {
                self.input = Vec::new();
            }
        } else {
            self.input.clear();
            self.input.extend_from_slice(rest);
        }
    }

    /// One read. `Ok(0)`: nothing there now. An error says why the connection ends.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CloseReason> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(CloseReason::ClientClosed),
                Ok(count) => {
                    // A short read has emptied the socket: the next bytes, or the end, come with a new edge.
                    self.readable = count == buffer.len();
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(CloseReason::ClientGone),
            }
        }
    }

    /// Ends the connection behind its last answer.
    fn end(&mut self, fate: Fate, seat: &Seat) -> Flow {
        match fate {
            Fate::Keep | Fate::Close => {
                if !self.unread && !self.readable {
                    return Flow::Stop(Next::Close(CloseReason::Done));
                }
                if self.stream.shutdown_write().is_err() {
                    return Flow::Stop(Next::Close(CloseReason::ClientGone));
                }
                self.input = Vec::new();
                self.phase = Phase::Linger(LINGER_BYTES);
                self.deadline = seat.clock.ms() + LINGER_MS;
                Flow::Go
            }
            Fate::Cut => Flow::Stop(Next::Close(CloseReason::Cut)),
            Fate::Reset => {
                // Without it the close would look like the end of the body. A failure leaves an orderly close, the best that is left.
                let _ = self.stream.set_linger0();
                Flow::Stop(Next::Close(CloseReason::Cut))
            }
        }
    }

    /// Throws away what the client still sends.
    fn linger(&mut self, left: u64, seat: &mut Seat) -> Flow {
        if !self.readable {
            return Flow::Stop(Next::Wait);
        }
        let mut buffer = std::mem::take(&mut seat.input);
        let result = self.read(&mut buffer);
        seat.input = buffer;
        match result {
            Ok(0) => Flow::Stop(Next::Wait),
            Ok(count) if (count as u64) < left => {
                self.phase = Phase::Linger(left - count as u64);
                self.deadline = seat.clock.ms() + LINGER_MS;
                Flow::Go
            }
            Ok(_) | Err(_) => Flow::Stop(Next::Close(CloseReason::Lingered)),
        }
    }

    /// The next request begins, or the connection closes.
    pub(super) fn after_answer(&mut self, fate: Fate, seat: &Seat) {
        match fate {
            Fate::Keep if !seat.draining => {
                self.phase = Phase::Head;
                self.deadline = seat.clock.ms() + seat.rules.keep_alive;
            }
            Fate::Keep => {
                // The answer was rendered before the worker began to leave and promised to stay: a request that is already on its way
                // must still be answered.
                self.phase = Phase::Head;
                self.deadline = seat.clock.ms() + super::DRAIN_IDLE_MS;
            }
            Fate::Close | Fate::Cut | Fate::Reset => self.phase = Phase::Closing(fate),
        }
    }
}

/// `write()`'s way to the client.
pub(super) struct SocketOutlet<'a> {
    stream: &'a mut Stream,
    output: &'a mut Option<Box<Output>>,
}

impl Outlet for SocketOutlet<'_> {
    fn push(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        if let Some(output) = self.output.as_mut()
            && output.send(self.stream).map_err(|_| Gone)? == Sent::All
        {
            *self.output = None;
        }
        deliver(self.stream, self.output, out)
    }
}

/// Sends `out` behind what waits already, keeps the rest, leaves `out` empty.
fn deliver(stream: &mut Stream, output: &mut Option<Box<Output>>, out: &mut Vec<u8>) -> Result<(), Gone> {
    let sent = match output {
        Some(_) => 0,
        None => output::send_parts(stream, [out, &[], &[]]).map_err(|_| Gone)?,
    };
    if sent < out.len() {
        output.get_or_insert_default().push(&out[sent..]).map_err(|_| Gone)?;
    }
    out.clear();
    Ok(())
}
