//! An answer that did not fit into one rendering: blocks of an iterable, a large block, a file.
//!
//! The application is advanced by one block at a time and only while nothing waits to be sent, so a client that reads slowly costs
//! one block of memory and no time of others.

use std::io;
use std::os::fd::AsFd;

use crate::http::head::Head;
use crate::sys::sendfile::sendfile;

use super::app::{Fate, Step, Stream, Summary};
use super::connection::{CloseReason, Connection, Flow, Next, Phase};
use super::output;
use super::seat::{Entry, Seat};

/// Blocks of one answer before others have their turn.
const BURST: usize = 8;

/// Bytes of a file sent before others have their turn.
const FILE_BURST: u64 = 4 * 1024 * 1024;

/// The rest of an answer.
pub struct Answer {
    stream: Box<dyn Stream>,
    pending: Pending,
    /// The request's head and its bytes, for the log and the flight recorder.
    head: Head,
    bytes: Vec<u8>,
    began: u64,
    response_head: Vec<u8>,
    environ: Vec<Option<String>>,
}

/// What must be sent before the stream is asked again.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Nothing,
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
    /// The rest of the answer to this request.
    pub fn new(stream: Box<dyn Stream>, head: &Head, bytes: &[u8], began: u64, seat: &Seat, rendered: &[u8]) -> Self {
        let journal = seat.journal.is_some();
        Self {
            stream,
            pending: Pending::Nothing,
            bytes: bytes[..head.len].to_vec(),
            head: head.clone(),
            began,
            response_head: seat.response_head(rendered).to_vec(),
            environ: if journal { seat.app.logged().to_vec() } else { Vec::new() },
        }
    }
}

impl Connection {
    /// Sends what the stream has given, asks it for more.
    pub(super) fn go_on_answering(&mut self, seat: &mut Seat) -> Flow {
        let Phase::Answer(mut answer) = std::mem::replace(&mut self.phase, Phase::Closing(Fate::Cut)) else {
            unreachable!("called in the answer phase only");
        };
        for _ in 0..BURST {
            let flow = match answer.pending {
                Pending::Nothing => match self.advance(&mut answer, seat) {
                    Ok(flow) => flow,
                    Err(summary) => return self.finish_answer(*answer, summary, seat),
                },
                Pending::Held(at) => self.send_held(&mut answer, at, seat),
                Pending::File { offset, left } => self.send_file(&mut answer, offset, left, seat),
            };
            if flow != Flow::Go {
                self.phase = Phase::Answer(answer);
                return flow;
            }
        }
        self.phase = Phase::Answer(answer);
        Flow::Stop(Next::Yield)
    }

    /// Asks for one block and sends what was rendered. `Err` is the end of the answer.
    fn advance(&mut self, answer: &mut Answer, seat: &mut Seat) -> Result<Flow, Summary> {
        seat.slot().resume(answer.head.line.of(&answer.bytes), answer.began);
        let before = seat.out.len();
        let step = answer.stream.advance(&mut seat.out);
        seat.slot().pause();
        seat.clock.tick();
        self.deadline = seat.clock.ms() + seat.rules.write_timeout;
        if answer.response_head.is_empty() {
            answer.response_head = seat.response_head(&seat.out[before..]).to_vec();
        }
        match step {
            Step::Rendered => Ok(self.flush(seat)),
            Step::Held => {
                answer.pending = Pending::Held(0);
                Ok(Flow::Go)
            }
            Step::File { offset, len } => {
                answer.pending = Pending::File { offset, left: len };
                Ok(Flow::Go)
            }
            Step::End(summary) => Err(summary),
        }
    }

    /// Sends the rendered bytes, the held block and its tail in one call as far as the socket takes them.
    fn send_held(&mut self, answer: &mut Answer, at: usize, seat: &mut Seat) -> Flow {
        let (block, tail) = answer.stream.held();
        let total = block.len() + tail.len();
        let (block, tail) = (&block[at.min(block.len())..], &tail[at.saturating_sub(block.len())..]);
        let Ok(sent) = output::send_parts(&mut self.stream, [&seat.out, block, tail]) else {
            return Flow::Stop(Next::Close(CloseReason::ClientGone));
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
            return Flow::Go;
        }
        answer.pending = Pending::Held(at);
        if sent > 0 {
            self.deadline = seat.clock.ms() + seat.rules.write_timeout;
        }
        Flow::Stop(Next::Wait)
    }

    /// Sends the rendered bytes, then the file.
    fn send_file(&mut self, answer: &mut Answer, mut offset: u64, mut left: u64, seat: &mut Seat) -> Flow {
        if let Flow::Stop(next) = self.flush(seat) {
            return Flow::Stop(next);
        }
        let mut burst = FILE_BURST;
        while left > 0 {
            if burst == 0 {
                return Flow::Stop(Next::Yield);
            }
            let Some(file) = answer.stream.file() else {
                return self.cut_file(answer, "was closed", seat);
            };
            match sendfile(self.stream.as_fd(), file, offset, left.min(burst)) {
                Ok(0) => return self.cut_file(answer, &format!("ended {left} bytes early"), seat),
                Ok(sent) => {
                    offset += sent;
                    left -= sent;
                    burst -= sent;
                    answer.pending = Pending::File { offset, left };
                    self.deadline = seat.clock.ms() + seat.rules.write_timeout;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flow::Stop(Next::Wait),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_gone(&error) => return Flow::Stop(Next::Close(CloseReason::ClientGone)),
                Err(error) => return self.cut_file(answer, &format!("cannot be read: {error}"), seat),
            }
        }
        answer.pending = Pending::Nothing;
        Flow::Go
    }

    /// The file does not give the bytes that its length promised.
    fn cut_file(&self, answer: &Answer, what: &str, seat: &Seat) -> Flow {
        let line = answer.head.line.of(&answer.bytes).escape_ascii();
        seat.log.error(format_args!("the file that answers {line} {what}; the answer is cut"));
        Flow::Stop(Next::Close(CloseReason::Cut))
    }

    /// The answer is over: the application's iterable is closed at once, the log line written, the rest flushed.
    fn finish_answer(&mut self, answer: Answer, summary: Summary, seat: &mut Seat) -> Flow {
        self.record_answer(&answer, summary, seat);
        drop(answer);
        self.after_answer(summary.fate, seat);
        self.unparsed = !self.input.is_empty();
        self.flush(seat)
    }

    /// Writes the log line of an answer that ends with its connection, when `reason` ends it in the middle.
    pub(super) fn abandon(&mut self, reason: CloseReason, seat: &mut Seat) {
        if let Phase::Answer(answer) = std::mem::replace(&mut self.phase, Phase::Closing(Fate::Cut)) {
            let line = answer.head.line.of(&answer.bytes).escape_ascii();
            seat.log.debug(format_args!("the answer to {line} is not complete: {reason}"));
            self.record_answer(&answer, answer.stream.summary(), seat);
        }
    }

    fn record_answer(&self, answer: &Answer, summary: Summary, seat: &mut Seat) {
        seat.record(&Entry {
            peer: &self.peer,
            head: Some((&answer.head, &answer.bytes)),
            status: summary.status,
            sent: summary.sent,
            response_head: &answer.response_head,
            began: Some(answer.began),
            environ: &answer.environ,
        });
    }
}

/// Whether a send failed because nobody is there any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::TimedOut
    )
}
