//! One connection of an operator: a request comes in, an answer goes out, each within its time.
//!
//! ```text
//! Reading ──request──▶ Asking ──answer──▶ Writing ──all sent──▶ Reading | Lingering ─▶ gone
//! ```
//! Nothing here waits: a socket that has nothing to read or takes nothing is left alone until the poll says otherwise, and a
//! deadline ends what does not go on.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::http::terms::Terms;
use crate::net::stream::Stream;

use super::reply::DoorReply;
use super::request::{DoorKind, DoorRequest, RequestReader};

/// Time for a request, from its first byte or from the connection's begin, and for the reader of an answer to take it.
pub const EXCHANGE_TIME: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request: longer than most scrapers pause.
const KEEP_TIME: Duration = Duration::from_secs(75);

/// How long the rest of what a client sends is read and thrown away behind the last answer, which a reset could destroy on its
/// way (RFC 9112 section 9.6).
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Bytes read at once.
const READ_SIZE: usize = 4 * 1024;

/// Names a connection for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitorId(pub u64);

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VisitorPhase {
    /// A request is to come.
    Reading,
    /// One has come, and is to be answered.
    Asking(Terms),
    /// An answer goes out; `close`: the last one.
    Writing { close: bool },
    /// All is said.
    Lingering,
}

/// A connection of an operator.
#[derive(Debug)]
pub struct Visitor {
    /// Its name.
    pub id: VisitorId,
    /// Its door.
    pub door: DoorKind,
    stream: Stream,
    reader: RequestReader,
    /// Whether bytes came behind the last request that nobody has looked at.
    unread: bool,
    phase: VisitorPhase,
    /// The answer that goes out, and how much of it has gone.
    out: Vec<u8>,
    sent: usize,
    /// When it is ended.
    pub until: Instant,
    /// Since when it is in its phase.
    pub since: Instant,
}

/// How a connection goes on.
#[derive(Debug)]
pub enum VisitorNext {
    /// It waits for its socket or its time.
    Wait,
    /// A request is to be answered.
    Ask(DoorRequest),
    /// It is over.
    Gone,
}

impl Visitor {
    /// A new one.
    pub fn new(id: VisitorId, door: DoorKind, stream: Stream, now: Instant) -> Self {
        let until = now + EXCHANGE_TIME;
        let (reader, phase) = (RequestReader::default(), VisitorPhase::Reading);
        Self { id, door, stream, reader, unread: false, phase, out: Vec::new(), sent: 0, until, since: now }
    }

    /// Whether it has been given its request's due, or waits for it: it makes way for others only after those that are silent.
    pub fn is_silent(&self) -> bool {
        matches!(self.phase, VisitorPhase::Reading | VisitorPhase::Lingering)
    }

    /// Its socket, and what is waited for there.
    pub fn watch(&self) -> (BorrowedFd<'_>, PollFlags) {
        let flags = match self.phase {
            // The next one may be complete already: the socket can be written, and the turn comes at once.
            VisitorPhase::Reading if self.unread => PollFlags::POLLIN | PollFlags::POLLOUT,
            VisitorPhase::Reading | VisitorPhase::Lingering => PollFlags::POLLIN,
            // Only its end matters, which the poll always reports.
            VisitorPhase::Asking(_) => PollFlags::empty(),
            VisitorPhase::Writing { .. } => PollFlags::POLLOUT,
        };
        (self.stream.descriptor(), flags)
    }

    /// Goes on as far as the socket allows, up to one request.
    pub fn drive(&mut self, now: Instant) -> VisitorNext {
        match self.phase {
            VisitorPhase::Reading => self.read(now),
            // It has left before its answer.
            VisitorPhase::Asking(_) if self.stream.is_reset() => VisitorNext::Gone,
            VisitorPhase::Asking(_) => VisitorNext::Wait,
            VisitorPhase::Writing { close } => self.write(close, now),
            VisitorPhase::Lingering => self.linger(),
        }
    }

    /// Answers its request; it goes out as far as the socket takes it.
    pub fn answer(&mut self, reply: &DoorReply, date: &[u8], now: Instant) -> VisitorNext {
        let VisitorPhase::Asking(terms) = self.phase else { return VisitorNext::Wait };
        self.out.clear();
        self.sent = 0;
        let close = !reply.render(terms, date, &mut self.out);
        self.enter(VisitorPhase::Writing { close }, EXCHANGE_TIME, now);
        self.write(close, now)
    }

    /// Its request has until then to be answered.
    pub fn extend(&mut self, until: Instant) {
        self.until = until;
    }

    fn enter(&mut self, phase: VisitorPhase, time: Duration, now: Instant) {
        (self.phase, self.since, self.until) = (phase, now, now + time);
    }

    fn read(&mut self, now: Instant) -> VisitorNext {
        if std::mem::take(&mut self.unread)
            && let Some(request) = self.reader.next(self.door)
        {
            return self.ask(request, now);
        }
        let mut buffer = [0; READ_SIZE];
        let room = self.reader.room().min(READ_SIZE);
        let got = match self.stream.receive(&mut buffer[..room]) {
            Ok(got) if got.count > 0 => got.count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return VisitorNext::Wait;
            }
            Ok(_) | Err(_) => return VisitorNext::Gone,
        };
        if self.reader.is_empty() {
            self.enter(VisitorPhase::Reading, EXCHANGE_TIME, now);
        }
        self.reader.push(&buffer[..got]);
        match self.reader.next(self.door) {
            Some(request) => self.ask(request, now),
            None => VisitorNext::Wait,
        }
    }

    fn ask(&mut self, request: DoorRequest, now: Instant) -> VisitorNext {
        self.enter(VisitorPhase::Asking(request.terms), EXCHANGE_TIME, now);
        VisitorNext::Ask(request)
    }

    fn write(&mut self, close: bool, now: Instant) -> VisitorNext {
        while self.sent < self.out.len() {
            match self.stream.send(&self.out[self.sent..]) {
                Ok(0) => return VisitorNext::Gone,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return VisitorNext::Wait,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return VisitorNext::Gone,
            }
        }
        // An answer of hundreds of kilobytes is rare; its memory is not kept for the next one.
        self.out = Vec::new();
        if close {
            if self.stream.shutdown_write().is_err() {
                return VisitorNext::Gone;
            }
            self.enter(VisitorPhase::Lingering, LINGER_TIME, now);
            return self.linger();
        }
        self.unread = !self.reader.is_empty();
        let time = if self.unread { EXCHANGE_TIME } else { KEEP_TIME };
        self.enter(VisitorPhase::Reading, time, now);
        VisitorNext::Wait
    }

    /// One read in each turn: a client that sends without end is ended by its time.
    fn linger(&mut self) -> VisitorNext {
        match self.stream.receive(&mut [0; READ_SIZE]) {
            Ok(got) if got.count > 0 => VisitorNext::Wait,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => VisitorNext::Wait,
            Ok(_) | Err(_) => VisitorNext::Gone,
        }
    }
}
