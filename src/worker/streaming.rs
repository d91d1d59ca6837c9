//! An answer that did not fit into one rendering: blocks of an iterable, a large block, a file.
//!
//! The application is advanced only while nothing waits to be sent, so a client that reads slowly costs a bounded part of the answer in
//! memory ([`crate::worker::send::coalesce`]) and no time of others.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::http::head::Head;
use crate::sys::sendfile::sendfile;

use super::app::{Blocks, Produced, Summary};
use super::connection::{CLIENT_CLOSED_REQUEST, CloseReason, Connection, Flow, Next, Phase};
use super::ctx::{LogEntry, ThreadCtx, copy_of_head};
use super::job::{Link, Served, Work};
use super::serve::facts;
use crate::worker::send::coalesce::BlockBuffer;
use crate::worker::send::output;
use crate::worker::threads::thread_id::ThreadId;

/// Bytes of a file sent before others have their turn.
const FILE_BURST: u64 = 4 * 1024 * 1024;

/// The rest of an answer.
pub struct Streaming {
    pub(super) stream: Box<dyn Blocks>,
    pending: Pending,
    /// Blocks that it has given and that are not sent.
    pub(super) block_buffer: Arc<BlockBuffer>,
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
    thread: ThreadId,
}

/// What must be sent before the stream is asked again.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Nothing,
    /// Nothing, and the last block was empty.
    Empty,
    /// The held block, from this byte of block and tail.
    Block(usize),
    /// A part of the file.
    File {
        offset: u64,
        left: u64,
    },
}

impl std::fmt::Debug for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streaming").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Streaming {
    /// The rest of the answer to the request in hand, whose head the log may want: it is `sent`, or rendered in the thread context.
    pub fn new((stream, mut sent): (Box<dyn Blocks>, Vec<u8>), link: Arc<Link>, ctx: &mut ThreadCtx) -> Self {
        if sent.is_empty() {
            sent = copy_of_head(ctx.response_head(&ctx.out[ctx.job.rendered.min(ctx.out.len())..]));
        }
        let job = &mut ctx.job;
        // Only logs want it: without memory for it the answer goes on.
        let (head, bytes) = if job.detach(&ctx.input) { job.take_head() } else { Default::default() };
        Self {
            stream,
            pending: Pending::Nothing,
            block_buffer: Arc::default(),
            begun: false,
            bytes,
            head,
            began: job.began,
            queued: job.queued,
            response_head: sent,
            environ: ctx.app.take_logged(),
            link,
            thread: ctx.thread,
        }
    }

    /// The thread that began it.
    pub fn thread(&self) -> ThreadId {
        self.thread
    }

    /// The request line, fit for a log.
    pub fn line(&self) -> impl std::fmt::Display {
        self.head.line.of(&self.bytes).escape_ascii()
    }

    /// Writes its log line.
    fn record(&self, summary: Summary, ctx: &mut ThreadCtx) {
        ctx.record(&LogEntry {
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

impl ThreadCtx {
    /// The application is entered again for this answer. The clock of a thread that waited for the work is old.
    fn go_on(&mut self, answer: &Streaming) {
        self.clock.tick();
        let facts = facts(&answer.head, &answer.bytes, &answer.link.peer);
        self.scoreboard.call(self.slot, self.thread.0).resume(&facts, answer.began, self.clock.ns());
    }

    /// Asks a stream for its next blocks; the last step closes it.
    pub(super) fn advance(&mut self, mut answer: Box<Streaming>) -> Served {
        self.go_on(&answer);
        let mut output = None;
        let step = self.coalesce(&mut answer, &mut output);
        let late = match step {
            Produced::End(_) => !answer.link.claim.complete(),
            Produced::Rendered | Produced::LargeBlock | Produced::File { .. } => answer.link.claim.is_late(),
        };
        let served = match step {
            Produced::Rendered | Produced::LargeBlock | Produced::File { .. } => {
                if !self.out.is_empty() || output.is_some() || step != Produced::Rendered {
                    answer.link.claim.begin();
                }
                Served::Produced(output, answer, step)
            }
            Produced::End(summary) => {
                if !late {
                    answer.record(summary, self);
                }
                drop(answer);
                Served::Ended(output, summary.fate)
            }
        };
        self.scoreboard.call(self.slot, self.thread.0).pause();
        self.after_call(late);
        served
    }

    /// Drops a stream whose client is gone.
    pub(super) fn abandon(&mut self, answer: Box<Streaming>) -> Served {
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
        self.scoreboard.call(self.slot, self.thread.0).pause();
        self.after_call(false);
        Served::Dropped
    }
}

impl Streaming {
    /// Bytes of the stream's last block or file that were rendered and not handed to the kernel.
    fn unsent(&self) -> u64 {
        match self.pending {
            Pending::Nothing | Pending::Empty => 0,
            Pending::Block(at) => self.stream.large_block().0.len().saturating_sub(at) as u64,
            Pending::File { left, .. } => left,
        }
    }
}

impl Connection {
    /// Sends what the stream has given, asks it for more.
    pub(super) fn go_on_answering(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let Phase::Streaming(mut answer) = std::mem::replace(&mut self.phase, Phase::Serving) else {
            unreachable!("called in the answer phase only");
        };
        let sent = match answer.pending {
            // What it has given is on its way before it is asked again (PEP 3333, "Buffering and Streaming").
            Pending::Nothing => match self.flush(ctx) {
                Ok(()) => return Err(Next::Work(Work::Advance(answer))),
                stopped => stopped,
            },
            // An empty block sends nothing that would show that nobody is there.
            Pending::Empty if self.link.is_reset() => Err(Next::Close(CloseReason::ClientGone)),
            Pending::Empty => return Err(Next::Work(Work::Advance(answer))),
            Pending::Block(at) => self.send_block(&mut answer, at, ctx),
            Pending::File { offset, left } => self.send_file(&mut answer, offset, left, ctx),
        };
        self.phase = Phase::Streaming(answer);
        sent
    }

    /// Takes back a stream that was asked for a block.
    pub(super) fn take_step(&mut self, mut answer: Box<Streaming>, step: Produced, ctx: &ThreadCtx) {
        answer.pending = match step {
            Produced::Rendered if ctx.out.is_empty() && self.output.is_none() => Pending::Empty,
            Produced::Rendered | Produced::End(_) => Pending::Nothing,
            Produced::LargeBlock => Pending::Block(0),
            Produced::File { offset, len } => Pending::File { offset, left: len },
        };
        self.phase = Phase::Streaming(answer);
    }

    /// Sends the rendered bytes, the held block and its tail in one call as far as the socket takes them.
    fn send_block(&mut self, answer: &mut Streaming, at: usize, ctx: &mut ThreadCtx) -> Flow {
        let (block, tail) = answer.stream.large_block();
        let total = block.len() + tail.len();
        let (block, tail) = (&block[at.min(block.len())..], &tail[at.saturating_sub(block.len())..]);
        let Ok(sent) = output::send_parts(&self.link.stream, [&ctx.out, block, tail]) else {
            return Err(Next::Close(CloseReason::ClientGone));
        };
        if sent < ctx.out.len() {
            let kept = self.keep_waiting(&ctx.out[sent..]);
            ctx.out.clear();
            return self.after_send(kept, ctx);
        }
        let at = at + sent - ctx.out.len();
        ctx.out.clear();
        if at == total {
            answer.pending = Pending::Nothing;
            return Ok(());
        }
        answer.pending = Pending::Block(at);
        if sent > 0 {
            self.deadline = ctx.clock.ms() + ctx.rules.write_timeout;
        }
        Err(Next::Wait)
    }

    /// Sends the rendered bytes, then the file.
    fn send_file(&mut self, answer: &mut Streaming, mut offset: u64, mut left: u64, ctx: &mut ThreadCtx) -> Flow {
        self.flush(ctx)?;
        let mut batch = FILE_BURST;
        while left > 0 {
            if batch == 0 {
                return Err(Next::Yield);
            }
            let Some(file) = answer.stream.file() else {
                return self.cut_file(answer, "was closed", ctx);
            };
            match sendfile(self.link.stream.as_fd(), file, offset, left.min(batch)) {
                Ok(0) => return self.cut_file(answer, &format!("ended {left} bytes early"), ctx),
                Ok(sent) => {
                    offset += sent;
                    left -= sent;
                    batch -= sent;
                    answer.pending = Pending::File { offset, left };
                    self.deadline = ctx.clock.ms() + ctx.rules.write_timeout;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Next::Wait),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_gone(&error) => return Err(Next::Close(CloseReason::ClientGone)),
                Err(error) => return self.cut_file(answer, &format!("cannot be read: {error}"), ctx),
            }
        }
        answer.pending = Pending::Nothing;
        Ok(())
    }

    /// The file does not give the bytes that its length promised.
    fn cut_file(&self, answer: &Streaming, what: &str, ctx: &ThreadCtx) -> Flow {
        let line = answer.head.line.of(&answer.bytes).escape_ascii();
        ctx.log.error(format_args!("the file that answers {line} {what}; the answer is cut"));
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
