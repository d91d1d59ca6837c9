//! A session that is running: it sends, reads, waits and leaves as its session says, and holds each answer against the expected
//! one.

use std::io::ErrorKind;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

use super::answer::{Answer, Ended, Found, read};
use super::common::client::Address;
use super::model::{End, Expected};
use super::plan::Plan;
use super::session::{Fault, Leaving, Reading, Seen, Session};
use super::socket::Socket;

/// Bytes asked of the socket at once by a client that reads as fast as it can.
const READ_SIZE: usize = 256 * 1024;

/// Bytes asked of the socket at once by a client that pauses.
const SLOW_READ: usize = 4_096;

/// A connection that is running.
struct Run<'a> {
    session: &'a Session,
    socket: Socket,
    may_refuse: bool,
    /// Whether another client has found a fault.
    stop: &'a AtomicBool,
    /// All that was to be sent so far.
    out: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// Whether the server takes no more of it.
    broken: bool,
    /// Where each request in it ends.
    ends: Vec<usize>,
    /// All that came and is not used.
    input: Vec<u8>,
    /// How much of it belongs to answers that were read.
    at: usize,
    /// How many bytes after `at` there must be before another search for an answer can succeed.
    least: usize,
    /// Where bytes are read to.
    space: Vec<u8>,
    /// Bytes that came in all.
    received: usize,
    seen: Vec<Seen>,
    ended: Option<Ended>,
    /// The answer that ends the connection was read.
    closing: Option<End>,
    /// Reads that are still followed by a pause.
    pauses: usize,
    /// Writes that are still followed by one.
    pieces: usize,
}

impl Session {
    /// Runs it, until `stop`; returns the fate of each request, or a mistake with its request.
    pub fn run(&self, address: &Address, may_refuse: bool, stop: &AtomicBool) -> Result<Vec<Seen>, Fault> {
        let socket = Socket::connect(address, matches!(self.reading, Reading::Slow { .. }))
            .map_err(|error| Fault { plan: 0, what: format!("cannot connect: {error}") })?;
        let run = Run {
            session: self,
            socket,
            may_refuse,
            stop,
            out: Vec::new(),
            sent: 0,
            broken: false,
            ends: Vec::new(),
            input: Vec::new(),
            at: 0,
            least: 0,
            space: vec![0; READ_SIZE],
            received: 0,
            seen: Vec::new(),
            ended: None,
            closing: None,
            pauses: match self.reading {
                Reading::Fast => 0,
                Reading::Slow { pauses, .. } => pauses,
            },
            pieces: 20,
        };
        run.finish()
    }
}

/// Whether a connection continues.
enum Goes {
    On,
    /// The client leaves before the end.
    Away,
    /// All is answered, or the server has closed.
    Done,
}

impl Run<'_> {
    fn finish(mut self) -> Result<Vec<Seen>, Fault> {
        if let Reading::Slow { stall, .. } = self.session.reading {
            self.enqueue();
            self.write().map_err(|what| self.fault(what))?;
            sleep(Duration::from_millis(stall));
        }
        loop {
            match self.step().map_err(|what| self.fault(what))? {
                Goes::On => {}
                Goes::Away => {
                    if self.session.resets {
                        self.socket.reset();
                    }
                    return self.left();
                }
                Goes::Done => return self.left(),
            }
        }
    }

    fn fault(&self, what: String) -> Fault {
        Fault { plan: self.seen.len().min(self.session.plans.len() - 1), what }
    }

    /// The requests that have no answer.
    fn left(mut self) -> Result<Vec<Seen>, Fault> {
        let begun = self.seen.len();
        for (index, plan) in self.session.plans.iter().enumerate().skip(begun) {
            let whole = self.ends.get(index).is_some_and(|end| *end <= self.sent);
            let seen = if self.closing.is_some() {
                Seen::Behind
            } else if !whole {
                Seen::Unsent
            } else if index == begun {
                let ended = Some(Ended::Reset);
                let answer = read(&self.input[self.at..], plan.method == "HEAD", ended).map_err(|what| self.fault(what))?;
                match answer {
                    Found::Answer(answer) if !(self.may_refuse && answer.is_refusal()) => {
                        answer.check(plan, &plan.expected(), true, false).map_err(|what| self.fault(what))?;
                        Seen::Left(answer.body.len() as u64)
                    }
                    _ => Seen::Left(0),
                }
            } else {
                Seen::Left(0)
            };
            self.seen.push(seen);
        }
        Ok(self.seen)
    }

    /// Puts the requests that may be sent into the output.
    fn enqueue(&mut self) {
        let plans = &self.session.plans;
        while self.ends.len() < plans.len().min(self.seen.len() + self.session.window) {
            plans[self.ends.len()].render(&mut self.out);
            self.ends.push(self.out.len());
        }
    }

    fn step(&mut self) -> Result<Goes, String> {
        if self.closing.is_none() {
            self.enqueue();
        }
        let may_send = match self.session.leaving {
            Leaving::Sent(bytes, _) => bytes,
            _ => usize::MAX,
        };
        let wants_to_send = self.closing.is_none() && !self.broken && self.sent < self.out.len().min(may_send);
        if let Leaving::Sent(bytes, wait) = self.session.leaving
            && self.sent >= bytes
        {
            sleep(Duration::from_millis(wait));
            self.read_once()?;
            self.read_answers()?;
            return Ok(Goes::Away);
        }
        let (readable, writable) = self.socket.wait(wants_to_send, self.stop)?;
        if writable {
            self.write()?;
        }
        if readable {
            self.read_once()?;
            self.read_answers()?;
        }
        if let Leaving::Received(bytes) = self.session.leaving
            && self.received >= bytes
            && self.closing.is_none()
        {
            return Ok(Goes::Away);
        }
        if self.ended.is_some() {
            return self.at_end();
        }
        let half = matches!(self.session.leaving, Leaving::HalfClose);
        let answered = self.seen.len() == self.session.plans.len();
        if answered && self.closing.is_none() && !half {
            if self.at < self.input.len() {
                return Err(format!("bytes behind the last answer: \"{}\"", self.input[self.at..].escape_ascii()));
            }
            return Ok(Goes::Done);
        }
        Ok(Goes::On)
    }

    fn write(&mut self) -> Result<(), String> {
        let mut to = self.out.len();
        if let Leaving::Sent(bytes, _) = self.session.leaving {
            to = to.min(bytes);
        }
        let piece = self.session.piece.filter(|_| self.pieces > 0);
        if let Some(piece) = piece {
            to = to.min(self.sent + piece);
        }
        match self.socket.stream().write(&self.out[self.sent..to]) {
            Ok(sent) => self.sent += sent,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The server's answers before its close can still be read, and show whether the close was right.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.broken = true;
            }
            Err(error) => return Err(format!("cannot send: {error}")),
        }
        if piece.is_some() {
            self.pieces -= 1;
            sleep(Duration::from_millis(1));
        }
        let all = self.ends.len() == self.session.plans.len() && self.sent == self.out.len();
        if all && matches!(self.session.leaving, Leaving::HalfClose) {
            self.socket.finish_sending();
        }
        Ok(())
    }

    fn read_once(&mut self) -> Result<(), String> {
        let slow = self.pauses > 0;
        let room = if slow { SLOW_READ } else { READ_SIZE };
        if slow {
            self.pauses -= 1;
            if self.pauses == 0 {
                self.socket.widen().map_err(|error| format!("cannot set the buffer: {error}"))?;
            }
            sleep(Duration::from_millis(1));
        }
        // Answers are small as a rule: what was used goes before it is much.
        if self.at > READ_SIZE {
            self.input.drain(..self.at);
            self.at = 0;
        }
        let count = match self.socket.stream().read(&mut self.space[..room]) {
            Ok(0) => {
                self.ended = Some(Ended::Closed);
                0
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.ended = Some(Ended::Reset);
                0
            }
            Err(error) => return Err(format!("cannot read: {error}")),
        };
        self.input.extend_from_slice(&self.space[..count]);
        self.received += count;
        Ok(())
    }

    /// Takes the answers that are whole.
    fn read_answers(&mut self) -> Result<(), String> {
        while self.closing.is_none() {
            let Some(plan) = self.session.plans.get(self.seen.len()) else { break };
            let bytes = &self.input[self.at..];
            if bytes.is_empty() || (bytes.len() < self.least && self.ended.is_none()) {
                break;
            }
            let answer = match read(bytes, plan.method == "HEAD", self.ended)? {
                Found::Answer(answer) => answer,
                Found::Less(least) => {
                    self.least = least;
                    break;
                }
            };
            self.least = 0;
            if self.ends.get(self.seen.len()).is_none_or(|end| *end > self.sent) {
                return Err(format!("an answer before the whole request was sent: status {}", answer.status));
            }
            self.at += answer.len;
            self.take(plan, &answer)?;
        }
        Ok(())
    }

    fn take(&mut self, plan: &Plan, answer: &Answer) -> Result<(), String> {
        if self.may_refuse && answer.is_refusal() {
            self.seen.push(Seen::Refused(answer.body.len() as u64));
            self.closing = Some(End::Close);
            return Ok(());
        }
        let expected: Expected = plan.expected();
        // Unix sockets know no reset, so that a cut which only the close could show looks whole.
        let unseen = expected.end == End::Reset && matches!(self.socket, Socket::Unix(_));
        answer.check(plan, &expected, expected.end == End::Reset, unseen).map_err(|what| match self.ended {
            None => what,
            Some(ended) => format!("{what}; the connection has ended ({ended:?}, broken: {})", self.broken),
        })?;
        if answer.closes() != (expected.end == End::Close || (matches!(expected.end, End::Cut | End::Reset) && answer.closes())) {
            return Err(format!("the answer says that it closes: {}, expected is {:?}", answer.closes(), expected.end));
        }
        self.seen.push(Seen::Answered(answer.body.len() as u64));
        if expected.end != End::Keep {
            self.closing = Some(expected.end);
        } else if self.session.pause > 0 {
            sleep(Duration::from_millis(self.session.pause));
        }
        Ok(())
    }

    /// The server has ended the connection.
    fn at_end(&mut self) -> Result<Goes, String> {
        if self.at < self.input.len() {
            return Err(format!(
                "the connection ended ({:?}) behind {} bytes that are no answer: \"{}\"",
                self.ended,
                self.input.len() - self.at,
                self.input[self.at..].iter().take(200).copied().collect::<Vec<u8>>().escape_ascii()
            ));
        }
        let answered = self.seen.len() == self.session.plans.len();
        if self.closing.is_some() || (answered && matches!(self.session.leaving, Leaving::HalfClose)) {
            return Ok(Goes::Done);
        }
        Err(format!("the connection ended ({:?}) and the request has no answer", self.ended))
    }
}
