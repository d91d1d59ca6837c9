//! An answer that did not fit into one rendering: blocks of an iterable, a large block, a file.
//!
//! The application is advanced only while nothing waits to be sent, so a client that reads slowly costs a bounded part of the
//! answer in memory ([`crate::worker::send::coalesce`]) and no time of others.

use std::sync::Arc;

use crate::http::head::{Head, HeadView};
use crate::http::terms::Terms;

use super::app::{Blocks, Summary};
use super::ctx::ThreadCtx;
use crate::log::access::Record;
use crate::worker::link::Link;
use crate::worker::send::coalesce::BlockBuffer;
use crate::worker::threads::thread_id::ThreadId;

/// The rest of an answer.
pub struct Streaming {
    pub(super) stream: Box<dyn Blocks>,
    pub(super) pending: Pending,
    /// Blocks that it has given and that are not sent.
    pub(super) block_buffer: Arc<BlockBuffer>,
    /// Whether its first block is sent.
    pub(super) begun: bool,
    /// The request's head and its bytes, for the log and the flight recorder; empty when there was no memory for them.
    pub(super) head: Head,
    pub(super) bytes: Vec<u8>,
    /// How it goes over the wire.
    pub(super) terms: Terms,
    pub(super) began: u64,
    pub(super) queued: u64,
    pub(super) response_head: Vec<u8>,
    environ: Vec<Option<String>>,
    pub(super) link: Arc<Link>,
    /// The thread that began it: the application may keep things by thread.
    thread: ThreadId,
}

/// The data that must be sent before the stream is asked again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pending {
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
    /// The rest of the answer to the request in hand, whose head the log may want: it is `sent`, or rendered in the thread
    /// context.
    pub fn new((stream, mut sent): (Box<dyn Blocks>, Vec<u8>), link: Arc<Link>, ctx: &mut ThreadCtx) -> Self {
        if sent.is_empty() {
            sent = ctx.copy_response_head(&*stream);
        }
        let job = &mut ctx.job;
        // Only logs need it: without memory for it the answer continues.
        let (head, bytes) = if job.detach(ctx.input.bytes()) { job.take_head() } else { Default::default() };
        Self {
            stream,
            pending: Pending::Nothing,
            block_buffer: Arc::default(),
            begun: false,
            bytes,
            head,
            terms: job.terms,
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

    /// The request's head, for the log and the flight recorder; without memory for it there is none.
    pub fn view(&self) -> HeadView<'_> {
        HeadView { head: &self.head, bytes: &self.bytes }
    }

    /// The request line, fit for a log.
    pub fn line(&self) -> impl std::fmt::Display {
        self.view().line().escape_ascii()
    }

    /// Writes its log line.
    pub fn record(&self, summary: Summary, ctx: &mut ThreadCtx) {
        if summary.failed {
            ctx.slot().count_exception();
        }
        let record = Record {
            peer: self.link.peer.addr.as_bytes(),
            socket: self.link.peer.socket(),
            head: (!self.bytes.is_empty()).then(|| self.view()),
            id: &[],
            status: summary.status,
            sent: summary.sent,
            response_head: &self.response_head,
            timing: ctx.clock.timing(Some(self.began), self.queued),
            environ: &self.environ,
        };
        ctx.record(record, Some(ctx.clock.ns().saturating_sub(self.began)));
    }

    /// Bytes of the stream's last block or file that were rendered and that the kernel has not taken.
    pub fn unsent(&self) -> u64 {
        match self.pending {
            Pending::Nothing | Pending::Empty => 0,
            Pending::Block(at) => self.stream.large_block().0.len().saturating_sub(at) as u64,
            Pending::File { left, .. } => left,
        }
    }
}
