//! One connection and its state machine.
//!
//! ```text
//! Head ── complete, nothing more to come ─────────▶ Serving ── whole answer rendered ──▶ Head | Closing
//!   │ └── complete, body to come ──▶ Body ── done ──▶ │ ▲ └──── blocks follow ──▶ Answer ──▶ Head | Closing
//!   │                                │                │ └── next block ───────────┘
//!   └── refused ──▶ Closing ◀────────┘                └── (the application runs, the connection is left alone)
//!                      └──▶ Linger ──▶ gone
//! ```
//!
//! Whatever the phase, unsent output goes first. [`Connection::drive`] runs until the socket blocks, the application is needed, the
//! connection ends, or its turn is over; it returns which, and never calls up.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::http::head::Progress;
use crate::net::stream::Stream;

use super::answer::Answer;
use super::app::{Fate, Gone};
use super::job::{Link, Parcel, Work, deliver};
use super::output::{Output, Sent};
use super::seat::{READ_SIZE, Seat};
use super::upload::Upload;

/// Steps that one connection may take before others have their turn: each is at most a read, a call or a send.
const TURN: u8 = 48;

/// How long a closed connection is read on, so that the client can read an answer that came before it had sent everything
/// (RFC 9112 section 9.6), in milliseconds without a byte.
const LINGER_MS: u64 = 5_000;

/// How long that goes on in all, in milliseconds (nginx has the same): a client that sends a byte now and then must not keep its
/// connection for ever.
const LINGER_TOTAL_MS: u64 = 30_000;

/// How long a thread of the application may go on with a socket that it took over when the call has ended, in milliseconds: a WebSocket
/// that the server has closed is ended when the client's answer to that has come (RFC 6455 section 7.1.1).
const LAST_WORDS_MS: u64 = 1_000;

/// Bytes read and thrown away while lingering; a client that sends more is cut.
const LINGER_BYTES: u64 = 64 * 1024 * 1024;

/// A connection's name in events and timers: slab key and generation, so that a stale event meets nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(usize);

const _: () = assert!(usize::BITS == 64, "a token holds two 32-bit numbers");

impl Token {
    /// Names no connection: generations begin at 1.
    pub const NONE: Self = Self(0);

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
    /// As [`Self::Done`], and the client has the end already: only the descriptor is left.
    Ended,
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
            Self::Done | Self::Ended => "done",
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
#[derive(Debug)]
pub enum Next {
    /// Wait for its socket or its deadline.
    Wait,
    /// Give others their turn, then drive it again.
    Yield,
    /// Let the application work, then hand the connection what it made.
    Work(Work),
    /// Drop it.
    Close(CloseReason),
}

/// How a step ended: the next one follows, or the drive ends.
pub(super) type Flow = Result<(), Next>;

/// What an edge of the socket told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It may be written.
    Writable,
    /// It may be read, and maybe written.
    Readable,
    /// As [`Edge::Readable`], and the client sends nothing more: behind the bytes that are there lies the end, or an error.
    Ended,
}

/// What is left of reading on behind the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Linger {
    /// Bytes.
    left: u64,
    /// Latest end, in milliseconds of the loop's clock.
    until: u64,
    /// Whether the writing side is closed; before that, nothing is read either.
    shut: bool,
}

/// Where a connection is in its cycle.
#[derive(Debug)]
pub(super) enum Phase {
    /// Idle, or in the middle of a head.
    Head,
    /// In the middle of a body.
    Body(Box<Upload>),
    /// Its request is complete and waits for a free application slot.
    Waiting(Box<Parcel>),
    /// The application has its request or its stream.
    Serving,
    /// The application's answer goes on.
    Answer(Box<Answer>),
    /// The output is the last.
    Closing(Fate),
    /// Closed for writing; what still comes is thrown away.
    Linger(Linger),
}

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub token: Token,
    /// Its socket and client.
    pub link: Arc<Link>,
    pub(super) phase: Phase,
    /// Bytes that were read and not used, while the seat has them not.
    pub(super) input: Vec<u8>,
    /// How much of a head that is not complete was looked at.
    pub(super) progress: Progress,
    /// Whether `input` needs more bytes to mean anything, and not merely its turn.
    pub(super) partial: bool,
    /// Bytes that the socket did not take.
    pub(super) output: Option<Box<Output>>,
    /// Whether the socket may have bytes for us (edge-triggered: true until a short read).
    readable: bool,
    /// Whether an edge has told of the client's end: no other edge will, so a short read says nothing.
    ended: bool,
    /// Whether bytes of it lie in the outbox.
    pub(super) held: bool,
    /// Whether it is registered with the poll.
    pub registered: bool,
    /// Whether it has a place in the loop's queue for application slots.
    pub queued: bool,
    /// Whether its request lies on the tray, as far as the loop knows.
    pub laid: bool,
    /// Whether bytes of the client were left unread, so that a plain close would reset the connection.
    pub(super) unread: bool,
    /// Steps left of its turn.
    pub(super) turn: u8,
    /// Since when its request waits, if another worker has lent it: nanoseconds of the loop's clock; 0: it has not.
    pub(super) since: u64,
    /// How often the request was lent.
    pub(super) moves: u8,
    /// When it is to be looked at, in milliseconds of the loop's clock.
    pub(super) deadline: u64,
    /// When its live timer entry fires; `u64::MAX` when it has none.
    pub armed: u64,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(token: Token, link: Link, deadline: u64) -> Self {
        Self {
            token,
            link: Arc::new(link),
            phase: Phase::Head,
            input: Vec::new(),
            progress: Progress::default(),
            partial: false,
            output: None,
            readable: true,
            ended: false,
            held: false,
            registered: false,
            queued: false,
            laid: false,
            unread: false,
            turn: TURN,
            since: 0,
            moves: 0,
            deadline,
            armed: u64::MAX,
        }
    }

    /// When it must be looked at, in milliseconds of the loop's clock.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Notes an edge of the socket.
    pub fn ready(&mut self, edge: Edge) {
        self.readable |= edge != Edge::Writable;
        self.ended |= edge == Edge::Ended;
    }

    /// Whether it waits for a request of which nothing has come.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.input.is_empty() && self.output.is_none()
    }

    /// Whether it waits for a request, of which a part may have come.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.phase, Phase::Head) && (self.partial || self.input.is_empty()) && self.output.is_none()
    }

    /// Whether the application has its request or its stream.
    pub fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving)
    }

    /// Shortens the wait of an idle connection: the worker leaves.
    pub fn hurry(&mut self, deadline: u64) {
        self.deadline = self.deadline.min(deadline);
    }

    /// A new turn: takes its bytes to the seat and goes on.
    pub fn begin_turn(&mut self, seat: &mut Seat) -> Next {
        self.renew_turn(seat);
        self.drive(seat)
    }

    /// Takes its bytes to the seat.
    pub(super) fn renew_turn(&mut self, seat: &mut Seat) {
        self.turn = TURN;
        seat.take_in(&self.input, self.partial);
    }

    /// Goes on until the socket blocks, the application is needed, the connection ends or its turn is over.
    pub fn drive(&mut self, seat: &mut Seat) -> Next {
        loop {
            if self.turn == 0 {
                // Answers that are rendered go out before others have their turn.
                let next = self.send_all(seat).err().unwrap_or(Next::Yield);
                return self.leave(next, seat);
            }
            self.turn -= 1;
            if let Err(next) = self.step(seat) {
                return self.leave(next, seat);
            }
        }
    }

    /// The deadline has passed.
    pub fn expire(&mut self, seat: &mut Seat) -> Next {
        match &self.phase {
            Phase::Serving => {
                self.deadline = u64::MAX;
                Next::Wait
            }
            Phase::Answer(_) | Phase::Closing(_) => Next::Close(CloseReason::WriteStall),
            Phase::Head | Phase::Body(_) if self.output.is_some() => Next::Close(CloseReason::WriteStall),
            Phase::Head if self.input.is_empty() => Next::Close(CloseReason::Idle),
            Phase::Linger(Linger { shut: false, .. }) => match self.take_back(seat) {
                Ok(()) => self.begin_turn(seat),
                Err(next) => next,
            },
            Phase::Linger(_) => Next::Close(CloseReason::Lingered),
            Phase::Head | Phase::Body(_) | Phase::Waiting(_) => {
                self.time_out(seat);
                self.input = Vec::new();
                self.begin_turn(seat)
            }
        }
    }

    /// The drive is over.
    fn leave(&mut self, next: Next, seat: &mut Seat) -> Next {
        // A call is quick as a rule: what follows its request stays in the seat meanwhile.
        if !matches!(next, Next::Work(Work::Call)) {
            self.stow(seat);
        }
        if matches!(next, Next::Close(_)) {
            // Answers that were rendered for a client that is gone.
            seat.out.clear();
        }
        next
    }

    /// Moves what is left of the input from the seat to the connection; gives the memory back when that is nothing.
    pub(super) fn stow(&mut self, seat: &mut Seat) {
        let rest = seat.rest();
        self.partial = seat.partial;
        if !rest.is_empty() {
            self.input.clear();
            self.input.extend_from_slice(rest);
        } else if self.input.capacity() > 0 {
            self.input = Vec::new();
        }
        seat.take_in(&[], false);
    }

    /// Whether what follows is sent, or read to the end, without the outbox.
    fn sends_now(&self) -> bool {
        let apart = match self.phase {
            Phase::Head | Phase::Waiting(_) | Phase::Serving => false,
            Phase::Body(_) | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => true,
        };
        apart || self.output.is_some()
    }

    fn step(&mut self, seat: &mut Seat) -> Flow {
        if self.held && self.sends_now() {
            self.recall(seat);
        }
        self.send_waiting(seat)?;
        match &self.phase {
            Phase::Head | Phase::Body(_) => {
                self.pass_on(seat)?;
                if seat.has_input() { self.consume(seat) } else { self.read_more(seat) }
            }
            Phase::Waiting(_) | Phase::Serving => Err(Next::Wait),
            Phase::Answer(_) => self.go_on_answering(seat),
            &Phase::Closing(fate) => {
                if fate == Fate::Last {
                    self.flush_last(seat)?;
                }
                self.flush(seat)?;
                self.end(fate, seat)
            }
            &Phase::Linger(linger) => self.linger(linger, seat),
        }
    }

    /// Sends all there is, in order. What waits may never have been tried ([`super::job::SocketOutlet`]): no edge would ask for it.
    fn send_all(&mut self, seat: &mut Seat) -> Flow {
        if self.held {
            self.recall(seat);
        }
        self.send_waiting(seat)?;
        self.flush(seat)
    }

    /// Sends what waits from earlier; stops when the socket is full.
    fn send_waiting(&mut self, seat: &mut Seat) -> Flow {
        let Some(output) = &mut self.output else { return Ok(()) };
        match output.send(&self.link.stream) {
            Ok(Sent::All) => {
                self.output = None;
                self.link.precede(false);
                Ok(())
            }
            Ok(Sent::Blocked { progress }) => {
                if progress {
                    self.deadline = seat.clock.ms() + seat.rules.write_timeout;
                }
                // What the seat has rendered for this connection must not meet the next one there.
                self.flush(seat)?;
                Err(Next::Wait)
            }
            Err(_) => Err(Next::Close(CloseReason::ClientGone)),
        }
    }

    /// Sends what the seat has rendered for this connection; what the socket does not take is kept here.
    pub(super) fn flush(&mut self, seat: &mut Seat) -> Flow {
        if self.held {
            self.recall(seat);
        }
        if seat.out.is_empty() {
            return Ok(());
        }
        let result = deliver(&self.link.stream, &mut self.output, &mut seat.out);
        self.after_send(result, seat)
    }

    /// Keeps bytes that the socket did not take.
    pub(super) fn keep_waiting(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.output.get_or_insert_default().push(bytes).map_err(Gone::Storage)
    }

    /// What follows an attempt to send.
    pub(super) fn after_send(&mut self, result: Result<(), Gone>, seat: &Seat) -> Flow {
        match result {
            Ok(()) if self.output.is_none() => Ok(()),
            Ok(()) => {
                self.deadline = seat.clock.ms() + seat.rules.write_timeout;
                Err(Next::Wait)
            }
            Err(Gone::Client) => Err(Next::Close(CloseReason::ClientGone)),
            Err(Gone::Storage(error)) => {
                seat.log.error(format_args!(
                    "cannot keep the output that {} has not read: {error}; check the space and the rights of the temporary \
                     directory (TMPDIR)",
                    self.link.peer.addr
                ));
                Err(Next::Close(CloseReason::Cut))
            }
        }
    }

    /// Reads what there is to the seat.
    fn read_more(&mut self, seat: &mut Seat) -> Flow {
        if !self.readable {
            return Err(Next::Wait);
        }
        let was_idle = matches!(self.phase, Phase::Head) && seat.rest().is_empty();
        if let Some(flow) = self.receive_body(seat) {
            return flow;
        }
        match self.read(seat.space()) {
            Ok(0) => Err(Next::Wait),
            Ok(count) => {
                seat.filled(count);
                if was_idle {
                    self.deadline = seat.clock.ms() + seat.rules.header_timeout;
                }
                Ok(())
            }
            Err(reason) => {
                // A client that has closed its end may still read, and slowly.
                self.flush(seat)?;
                Err(Next::Close(self.lost(reason, seat)))
            }
        }
    }

    /// One read. `Ok(0)`: nothing there now. An error says why the connection ends.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CloseReason> {
        self.read_with(|mut stream| (buffer.len(), stream.read(buffer)))
    }

    /// One read by `act`, which returns how many bytes it asked for and what came of it.
    pub(super) fn read_with(&mut self, mut act: impl FnMut(&Stream) -> (usize, io::Result<usize>)) -> Result<usize, CloseReason> {
        loop {
            let (wanted, result) = act(&self.link.stream);
            match result {
                Ok(0) => return Err(CloseReason::ClientClosed),
                Ok(count) => {
                    // A short read has emptied the socket: the next bytes, or the end, come with a new edge. An end that came
                    // together with these bytes has had its edge.
                    self.readable = self.ended || count == wanted;
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

    /// Whether no bytes of the client are known to be left unread, so that a plain close ends the connection in order.
    pub(super) fn has_read_all(&self) -> bool {
        !self.unread && !self.readable
    }

    /// Ends the connection behind its last answer.
    fn end(&mut self, fate: Fate, seat: &mut Seat) -> Flow {
        match fate {
            Fate::Taken { held: true } => {
                let now = seat.clock.ms();
                self.phase = Phase::Linger(Linger { left: LINGER_BYTES, until: now + LINGER_TOTAL_MS, shut: false });
                self.deadline = now + LAST_WORDS_MS;
                Ok(())
            }
            Fate::Taken { held: false } => self.take_back(seat),
            Fate::Keep | Fate::Close | Fate::Last => {
                seat.take_in(&[], false);
                // A connection that was adopted with its request has not been read from here.
                let is_empty =
                    |own: &mut Self, seat: &mut Seat| matches!(own.read(&mut seat.space()[..READ_SIZE]), Ok(0) | Err(_));
                if self.has_read_all() || !self.unread && is_empty(self, seat) {
                    return Err(Next::Close(CloseReason::Done));
                }
                if self.link.stream.shutdown_write().is_err() {
                    return Err(Next::Close(CloseReason::ClientGone));
                }
                let now = seat.clock.ms();
                self.phase = Phase::Linger(Linger { left: LINGER_BYTES, until: now + LINGER_TOTAL_MS, shut: true });
                self.deadline = now + LINGER_MS;
                Ok(())
            }
            Fate::Cut => Err(Next::Close(CloseReason::Cut)),
            Fate::Reset => {
                // Without it the close would look like the end of the body. A failure leaves an orderly close, the best that is left.
                let _ = self.link.stream.set_linger0();
                Err(Next::Close(CloseReason::Cut))
            }
        }
    }

    /// The application has done with the socket that it took over.
    fn take_back(&mut self, seat: &mut Seat) -> Flow {
        // Should it stay blocking, it is not to be touched any more.
        if self.link.stream.set_nonblocking().is_err() {
            return Err(Next::Close(CloseReason::Cut));
        }
        // Its edges were not seen meanwhile.
        (self.unread, self.readable) = (true, true);
        self.end(Fate::Close, seat)
    }

    /// Throws away what the client still sends.
    fn linger(&mut self, Linger { left, until, shut }: Linger, seat: &mut Seat) -> Flow {
        if !shut {
            return if self.ended { self.take_back(seat) } else { Err(Next::Wait) };
        }
        if !self.readable {
            return Err(Next::Wait);
        }
        match self.read(&mut seat.space()[..READ_SIZE]) {
            Ok(0) => Err(Next::Wait),
            Ok(count) if (count as u64) < left => {
                self.phase = Phase::Linger(Linger { left: left - count as u64, until, shut });
                self.deadline = until.min(seat.clock.ms() + LINGER_MS);
                Ok(())
            }
            Ok(_) | Err(_) => Err(Next::Close(CloseReason::Lingered)),
        }
    }

    /// Takes the stream out of a connection that ends in the middle of its answer.
    pub fn take_answer(&mut self) -> Option<Box<Answer>> {
        match std::mem::replace(&mut self.phase, Phase::Closing(Fate::Cut)) {
            Phase::Answer(answer) => Some(answer),
            Phase::Head | Phase::Body(_) | Phase::Waiting(_) | Phase::Serving | Phase::Closing(_) | Phase::Linger(_) => None,
        }
    }

    /// The next request begins, or the connection closes.
    pub(super) fn after_answer(&mut self, fate: Fate, seat: &Seat) {
        match fate {
            Fate::Keep => {
                self.phase = Phase::Head;
                let wait = if seat.has_input() {
                    seat.rules.header_timeout
                } else if seat.draining {
                    // The answer was rendered before the worker began to leave and promised to stay: a request that is already on its
                    // way must still be answered.
                    super::DRAIN_IDLE_MS
                } else {
                    seat.rules.keep_alive
                };
                self.deadline = seat.clock.ms() + wait;
            }
            Fate::Close | Fate::Last | Fate::Cut | Fate::Reset | Fate::Taken { .. } => self.phase = Phase::Closing(fate),
        }
    }
}
