//! An answer that did not fit into one rendering: blocks of an iterable, a large block, a file.
//!
//! The application is advanced only while nothing waits to be sent, so a client that reads slowly costs a bounded part of the answer in
//! memory ([`super::gather`]) and no time of others.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::http::head::Head;
use crate::sys::sendfile::sendfile;

use super::app::{Step, Stream, Summary};
use super::connection::{CLIENT_CLOSED_REQUEST, CloseReason, Connection, Flow, Next, Phase};
use super::gather::Shelf;
use super::job::{Link, Served, Work};
use super::member::Member;
use super::output;
use super::seat::{Entry, Seat, copy_of_head};
use super::serve::facts;

/// Bytes of a file sent before others have their turn.
const FILE_BURST: u64 = 4 * 1024 * 1024;

/// The rest of an answer.
pub struct Answer {
    pub(super) stream: Box<dyn Stream>,
    pending: Pending,
    /// Blocks that it has given and that are not sent.
    pub(super) shelf: Arc<Shelf>,
    /// Whether its first block is sent.
    pub(super) begun: bool,
    /// The request's head and its bytes, for the log and the flight recorder; empty when there was no memory for them.
    head: Head,
    bytes: Vec<u8>,
    began: u64,
    queued: u64,
    pub(super) response_head: Vec<u8>,
    environ: Vec<Option<String>>,
    pub(super) link: Arc<Link>,
    /// The thread that began it: the application may keep things by thread.
    member: Member,
}

/// What must be sent before the stream is asked again.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Nothing,
    /// Nothing, and the last block was empty.
    Empty,
    /// The held block, from this byte of block and tail.
    Held(usize),
    /// A part of the file.
    File {
        offset: u64,
        left: u64,
    },
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Answer {
    /// The rest of the answer to the request in hand, whose head the log may want: it is `sent`, or rendered in the seat.
    pub fn new((stream, mut sent): (Box<dyn Stream>, Vec<u8>), link: Arc<Link>, seat: &mut Seat) -> Self {
        if sent.is_empty() {
            sent = copy_of_head(seat.response_head(&seat.out[seat.job.rendered.min(seat.out.len())..]));
        }
        let job = &mut seat.job;
        // Only logs want it: without memory for it the answer goes on.
        let (head, bytes) = if job.detach(&seat.input) { job.take_head() } else { Default::default() };
        Self {
            stream,
            pending: Pending::Nothing,
            shelf: Arc::default(),
            begun: false,
            bytes,
            head,
            began: job.began,
            queued: job.queued,
            response_head: sent,
            environ: seat.app.take_logged(),
            link,
            member: seat.member,
        }
    }

    /// The thread that began it.
    pub fn member(&self) -> Member {
        self.member
    }

    /// The request line, fit for a log.
    pub fn line(&self) -> impl std::fmt::Display {
        self.head.line.of(&self.bytes).escape_ascii()
    }

    /// Writes its log line.
    fn record(&self, summary: Summary, seat: &mut Seat) {
        seat.record(&Entry {
            peer: &self.link.peer,
            head: (!self.bytes.is_empty()).then_some((&self.head, &self.bytes)),
            status: summary.status,
            sent: summary.sent,
            response_head: &self.response_head,
            began: Some(self.began),
            queued: self.queued,
            environ: &self.environ,
        });
    }
}

impl Seat {
    /// The application is entered again for this answer. The clock of a thread that waited for the work is old.
    fn go_on(&mut self, answer: &Answer) {
        self.clock.tick();
        let facts = facts(&answer.head, &answer.bytes, &answer.link.peer);
        self.scoreboard.call(self.slot, self.member.0).resume(&facts, answer.began, self.clock.ns());
    }

    /// Asks a stream for its next blocks; the last step closes it.
    pub(super) fn advance(&mut self, mut answer: Box<Answer>) -> Served {
        self.go_on(&answer);
        let mut output = None;
        let step = self.gather(&mut answer, &mut output);
        let late = match step {
            Step::End(_) => !answer.link.claim.complete(),
            Step::Rendered | Step::Held | Step::File { .. } => answer.link.claim.is_late(),
        };
        let served = match step {
            Step::Rendered | Step::Held | Step::File { .. } => {
                if !self.out.is_empty() || output.is_some() || step != Step::Rendered {
                    answer.link.claim.begin();
                }
                Served::Step(output, answer, step)
            }
            Step::End(summary) => {
                if !late {
                    answer.record(summary, self);
                }
                drop(answer);
                Served::Ended(output, summary.fate)
            }
        };
        self.scoreboard.call(self.slot, self.member.0).pause();
        self.after_call(late);
        served
    }

    /// Drops a stream whose client is gone.
    pub(super) fn abandon(&mut self, answer: Box<Answer>) -> Served {
        self.go_on(&answer);
        let mut summary = answer.stream.summary();
        summary.sent = summary.sent.saturating_sub(answer.unsent());
        if summary.status == 0 {
            // The application has not said one yet.
            summary.status = CLIENT_CLOSED_REQUEST;
        }
        // A late one was recorded when its client was answered.
        if !answer.link.claim.is_late() {
            answer.record(summary, self);
        }
        drop(answer);
        self.scoreboard.call(self.slot, self.member.0).pause();
        self.after_call(false);
        Served::Dropped
    }
}

impl Answer {
    /// Bytes of the stream's last block or file that were rendered and not handed to the kernel.
    fn unsent(&self) -> u64 {
        match self.pending {
            Pending::Nothing | Pending::Empty => 0,
            Pending::Held(at) => self.stream.held().0.len().saturating_sub(at) as u64,
            Pending::File { left, .. } => left,
        }
    }
}

impl Connection {
    /// Sends what the stream has given, asks it for more.
    pub(super) fn go_on_answering(&mut self, seat: &mut Seat) -> Flow {
        let Phase::Answer(mut answer) = std::mem::replace(&mut self.phase, Phase::Serving) else {
            unreachable!("called in the answer phase only");
        };
        let sent = match answer.pending {
            // What it has given is on its way before it is asked again (PEP 3333, "Buffering and Streaming").
            Pending::Nothing => match self.flush(seat) {
                Ok(()) => return Err(Next::Work(Work::Advance(answer))),
                stopped => stopped,
            },
            // An empty block sends nothing that would show that nobody is there.
            Pending::Empty if self.link.is_reset() => Err(Next::Close(CloseReason::ClientGone)),
            Pending::Empty => return Err(Next::Work(Work::Advance(answer))),
            Pending::Held(at) => self.send_held(&mut answer, at, seat),
            Pending::File { offset, left } => self.send_file(&mut answer, offset, left, seat),
        };
        self.phase = Phase::Answer(answer);
        sent
    }

    /// Takes back a stream that was asked for a block.
    pub(super) fn take_step(&mut self, mut answer: Box<Answer>, step: Step, seat: &Seat) {
        answer.pending = match step {
            Step::Rendered if seat.out.is_empty() && self.output.is_none() => Pending::Empty,
            Step::Rendered | Step::End(_) => Pending::Nothing,
            Step::Held => Pending::Held(0),
            Step::File { offset, len } => Pending::File { offset, left: len },
        };
        self.phase = Phase::Answer(answer);
    }

    /// Sends the rendered bytes, the held block and its tail in one call as far as the socket takes them.
    fn send_held(&mut self, answer: &mut Answer, at: usize, seat: &mut Seat) -> Flow {
        let (block, tail) = answer.stream.held();
        let total = block.len() + tail.len();
        let (block, tail) = (&block[at.min(block.len())..], &tail[at.saturating_sub(block.len())..]);
        let Ok(sent) = output::send_parts(&self.link.stream, [&seat.out, block, tail]) else {
            return Err(Next::Close(CloseReason::ClientGone));
        };
        if sent < seat.out.len() {
            let kept = self.keep_waiting(&seat.out[sent..]);
            seat.out.clear();
            return self.after_send(kept, seat);
        }
        let at = at + sent - seat.out.len();
        seat.out.clear();
        if at == total {
            answer.pending = Pending::Nothing;
            return Ok(());
        }
        answer.pending = Pending::Held(at);
        if sent > 0 {
            self.deadline = seat.clock.ms() + seat.rules.write_timeout;
        }
        Err(Next::Wait)
    }

    /// Sends the rendered bytes, then the file.
    fn send_file(&mut self, answer: &mut Answer, mut offset: u64, mut left: u64, seat: &mut Seat) -> Flow {
        self.flush(seat)?;
        let mut burst = FILE_BURST;
        while left > 0 {
            if burst == 0 {
                return Err(Next::Yield);
            }
            let Some(file) = answer.stream.file() else {
                return self.cut_file(answer, "was closed", seat);
            };
            match sendfile(self.link.stream.as_fd(), file, offset, left.min(burst)) {
                Ok(0) => return self.cut_file(answer, &format!("ended {left} bytes early"), seat),
                Ok(sent) => {
                    offset += sent;
                    left -= sent;
                    burst -= sent;
                    answer.pending = Pending::File { offset, left };
                    self.deadline = seat.clock.ms() + seat.rules.write_timeout;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Next::Wait),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_gone(&error) => return Err(Next::Close(CloseReason::ClientGone)),
                Err(error) => return self.cut_file(answer, &format!("cannot be read: {error}"), seat),
            }
        }
        answer.pending = Pending::Nothing;
        Ok(())
    }

    /// The file does not give the bytes that its length promised.
    fn cut_file(&self, answer: &Answer, what: &str, seat: &Seat) -> Flow {
        let line = answer.head.line.of(&answer.bytes).escape_ascii();
        seat.log.error(format_args!("the file that answers {line} {what}; the answer is cut"));
        Err(Next::Close(CloseReason::Cut))
    }
}

/// Whether a send failed because nobody is there any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::TimedOut
    )
}
