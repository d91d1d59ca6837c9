//! One request on its way through the application, apart from the loop.
//!
//! A call may last: what it needs is taken out of the connection and the loop before it begins, and what it made is put back
//! after it. Between the two nothing of the loop is borrowed, so that the loop need not stand still.

use std::io;
use std::mem::{replace, take};
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::http::framing::Framing;
use crate::http::head::Head;
use crate::http::header_cache::BlockId;
use crate::net::stream::Stream;

use super::app::{Client, Fate, Gone, Outlet, Peer, Produced, RequestBody};
use super::connection::Token;
use super::ctx::{copy_of_head, head_of};
use super::kept::{Kept, reserve};
use super::precedence::{Passage, Precedence};
use super::streaming::Streaming;
use crate::worker::body::disk::Disk;
use crate::worker::body::spool::Lease;
use crate::worker::deadline::claim::Claim;
use crate::worker::send::coalesce::{Coalescing, WritePath};
use crate::worker::send::output::{self, Output, Sent};
use crate::worker::threads::pace::{TICK, TICK_NS};
use crate::worker::threads::thread_id::{MAIN, ThreadId};

/// How long `write()` waits, once in a call, for the loop to send what goes before it. The loop is taken after one to two ticks; what
/// takes longer on an idle machine is a full socket, whose client can wait.
const OVERTAKEN: Duration = TICK.saturating_mul(250);

/// Bytes of a head that a spare keeps memory for: longer ones are rare.
const SPARE_MAX: usize = 16 * 1024;

/// The two ends of a connection that outlive a phase: shared between the loop and a call.
#[derive(Debug)]
pub struct Link {
    /// The socket.
    pub stream: Stream,
    /// The client.
    pub peer: Peer,
    /// Index of the listener it came from.
    pub listener: usize,
    /// Whether a call may still write to it.
    pub claim: Claim,
    /// Where output goes that its client does not read.
    pub disk: Disk,
    /// Whether the application has taken the socket over.
    hijacked: AtomicBool,
    /// Whether the loop has answers that go before what the call sends.
    pub precedence: Precedence,
}

impl Link {
    /// The ends of a connection that was just accepted.
    pub fn new(stream: Stream, peer: Peer, listener: usize, disk: Disk) -> Self {
        Self {
            stream,
            peer,
            listener,
            claim: Claim::default(),
            disk,
            hijacked: AtomicBool::new(false),
            precedence: Precedence::new(),
        }
    }

    /// Whether nothing more can reach the client: it has reset the connection, or a unix socket's other end is closed. A TCP client
    /// that has closed its end may only have done with sending.
    pub fn is_reset(&self) -> bool {
        // HUP and ERR are always told. A failing poll tells nothing of the client.
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// The application takes the socket over; the connection serves no other request.
    pub fn take(&self) {
        self.hijacked.store(true, Relaxed);
    }

    /// Whether it has.
    pub fn is_hijacked(&self) -> bool {
        self.hijacked.load(Relaxed)
    }
}

impl Client for Link {
    fn has_left(&self) -> bool {
        // nix does not name it.
        let half_closed = PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut fds = [PollFd::new(self.stream.as_fd(), half_closed)];
        // HUP and ERR are always told. A failing poll tells nothing of the client.
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}

/// The request in hand. It lives in the thread context and is filled anew for each request, so that serving allocates nothing.
#[derive(Debug, Default)]
pub struct Job {
    /// What leaves the thread context with the request.
    queued: Box<QueuedRequest>,
    /// The head's bytes in the thread's input buffer, when they are nowhere else.
    pub at: Range<usize>,
    /// When the call began, nanoseconds of the loop's clock.
    pub began: u64,
    /// Length of the thread's output before the call.
    pub rendered: usize,
    /// Memory for the next request when this one leaves the thread context, so that none is asked for each time.
    pub spare: Option<Box<QueuedRequest>>,
}

impl Deref for Job {
    type Target = QueuedRequest;

    fn deref(&self) -> &QueuedRequest {
        &self.queued
    }
}

impl DerefMut for Job {
    fn deref_mut(&mut self) -> &mut QueuedRequest {
        &mut self.queued
    }
}

impl Job {
    /// The bytes that the head was parsed from; `input` is the thread's buffer.
    pub fn bytes<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        if self.own.is_empty() { &input[self.at.clone()] } else { &self.own }
    }

    /// Makes the head independent of the thread's buffer, `input`. A client decides how much it is: `false` when there is no memory.
    #[must_use]
    pub fn detach(&mut self, input: &[u8]) -> bool {
        if self.own.is_empty() {
            let head = &input[self.at.clone()];
            if self.own.capacity() > SPARE_MAX {
                self.own = Vec::new();
            }
            if !reserve(&mut self.own, head.len()) {
                return false;
            }
            self.own.extend_from_slice(head);
        }
        true
    }

    /// Takes out the head and its bytes, which are detached.
    pub fn take_head(&mut self) -> (Head, Vec<u8>) {
        debug_assert!(!self.own.is_empty(), "the seat's buffer is for the next request");
        (take(&mut self.head), take(&mut self.own))
    }
}

/// A request that may leave its thread context: for another thread, or to wait for a free slot.
#[derive(Debug, Default)]
pub struct QueuedRequest {
    /// Socket and client; `None` between requests.
    pub link: Option<Arc<Link>>,
    /// The head's bytes when they are not in a thread context's input buffer (the body came later, or the request has left its thread context).
    pub own: Vec<u8>,
    /// The head; its spans count from the start of its bytes.
    pub head: Head,
    /// Name of the head's block in the cache of the thread that serves it, if it is there.
    pub block: Option<BlockId>,
    /// Framing of the request.
    pub framing: Framing,
    /// The body.
    pub body: RequestBody,
    /// What the body's memory has of the worker's budget, until the application has it.
    pub lease: Lease,
    /// When it asks for another protocol: what the client has sent behind its head.
    pub early: Vec<u8>,
    /// Earlier output of the connection that the socket has not taken; `write()` goes behind it.
    pub output: Option<Box<Output>>,
    /// Whether earlier answers of the connection lie in the loop's outbox as it begins; `write()` cannot overtake them.
    pub behind: bool,
    /// How long the request waited for a free slot, in nanoseconds.
    pub queued: u64,
    /// Whether it has waited for anything, so that its client may have left meanwhile.
    pub waited: bool,
    /// Whether the worker was leaving: the thread that serves it may not know.
    pub draining: bool,
    /// Since when it waits, nanoseconds of the loop's clock; 0: it does not.
    pub since: u64,
    /// When it was laid on a desk, in the same unit.
    pub given: u64,
}

impl QueuedRequest {
    /// It is for another thread: this one's cache does not name its block there, and its outbox is sent.
    pub fn leave_seat(&mut self) {
        (self.block, self.behind) = (None, false);
    }

    /// Its wait is over.
    pub fn stop_waiting(&mut self, now: u64) {
        if self.since > 0 {
            self.queued += now.saturating_sub(self.since);
            (self.since, self.waited) = (0, true);
        }
    }

    /// It is taken from a desk. The wait for the interpreter counts as one for a slot, unless it is as short as it always is.
    pub fn leave_desk(&mut self, now: u64) {
        if self.since == 0 && now.saturating_sub(self.given) > TICK_NS {
            self.since = self.given;
        }
        self.stop_waiting(now);
    }
}

impl Job {
    /// Takes the request, whose head is detached, out of its thread context, while its worker leaves or not.
    pub fn pack(&mut self, draining: bool) -> Box<QueuedRequest> {
        debug_assert!(self.link.is_some(), "a job is submitted with its link");
        debug_assert!(!self.own.is_empty(), "the seat's buffer is for the next request");
        let spare = self.spare.take().unwrap_or_default();
        let mut queued = replace(&mut self.queued, spare);
        (queued.draining, queued.since, queued.given) = (draining, 0, 0);
        queued
    }

    /// Puts a request into the thread context. What was there, a request that is over, is the spare from now on.
    pub fn unpack(&mut self, queued: Box<QueuedRequest>) {
        let mut spare = replace(&mut self.queued, queued);
        debug_assert!(spare.link.is_none(), "it is over");
        spare.own.clear();
        if spare.own.capacity() > SPARE_MAX {
            spare.own = Vec::new();
        }
        self.spare = Some(spare);
    }
}

/// What the loop asks a thread to do in the application.
#[derive(Debug)]
pub enum Work {
    /// Call it with the thread's job.
    Call,
    /// Call it with the request on the thread's desk, if it still lies there.
    Desk,
    /// Ask a stream for its next block.
    Advance(Box<Streaming>),
    /// Drop a stream whose client is gone: its `close()` runs.
    Drop(Box<Streaming>),
    /// Run the application's handlers of signals that have come.
    Signals,
}

impl Work {
    /// The thread that must do it: a stream stays on the thread that began it, and handlers of signals run on the main one. `None`: any.
    pub fn thread(&self) -> Option<ThreadId> {
        match self {
            Self::Call | Self::Desk => None,
            Self::Advance(answer) | Self::Drop(answer) => Some(answer.thread()),
            Self::Signals => Some(MAIN),
        }
    }
}

/// What came of it; rendered bytes are in the thread's output.
#[derive(Debug)]
pub enum Served {
    /// The call rendered its whole answer; what `write()` left over goes before it.
    Whole(Option<Box<Output>>, Fate),
    /// The call returned a stream.
    Begun(Option<Box<Output>>, Box<Streaming>),
    /// The stream took a step that is not its last; what `write()` left over goes before what it rendered.
    Produced(Option<Box<Output>>, Box<Streaming>, Produced),
    /// The stream has ended and is closed; likewise.
    Ended(Option<Box<Output>>, Fate),
    /// The stream is dropped.
    Dropped,
    /// The handlers have run.
    Handled,
    /// The request was not begun: its client has left while it waited. It is logged.
    Gone,
    /// The request was taken back from the thread's desk before it was begun.
    Withdrawn,
}

impl Served {
    /// The stream in it, which must be dropped by the application's side.
    pub fn into_answer(self) -> Option<Box<Streaming>> {
        match self {
            Self::Begun(_, answer) | Self::Produced(_, answer, _) => Some(answer),
            Self::Whole(..) | Self::Ended(..) | Self::Dropped | Self::Handled | Self::Gone | Self::Withdrawn => None,
        }
    }
}

/// What a thread that has lost the loop sends to its owner.
#[derive(Debug)]
pub struct Completion {
    /// The sender.
    pub from: ThreadId,
    /// The connection that it served.
    pub token: Token,
    /// What it did.
    pub served: Served,
    /// What it rendered.
    pub out: Vec<u8>,
    /// Input of the connection that the sender's thread context still had.
    pub rest: Option<Box<Kept>>,
    /// Memory for the next request that is given away, which the sender needs no more.
    pub spare: Option<Box<QueuedRequest>>,
    /// Whether the call took longer than a tick.
    pub slow: bool,
}

/// `write()`'s way to the client while the application works for it.
pub struct SocketOutlet<'a> {
    /// The connection.
    pub link: &'a Link,
    /// Where the call waits for what goes before it.
    pub passage: &'a Passage,
    /// What its socket did not take.
    pub output: &'a mut Option<Box<Output>>,
    /// Whether something goes before it that this thread does not have: nothing is sent before that is.
    pub behind: bool,
    /// Whether anything was written.
    pub used: bool,
    /// Where the blocks of the stream lie that it is asked for; `None` during a call.
    pub coalescing: Option<Coalescing<'a>>,
    /// Where the head of the answer is copied to for the log, before it leaves the buffer; `None`: the log does not want it.
    pub head: Option<SentHead<'a>>,
}

/// The head of an answer that `write()` sends.
pub struct SentHead<'a> {
    /// The copy; empty until the head is sent.
    pub copy: &'a mut Vec<u8>,
    /// Where the answer begins in the buffer: earlier ones may be before the first bytes of it.
    pub from: usize,
}

impl SentHead<'_> {
    /// Bytes are about to be sent: copies the head if it is among them. Early hints (RFC 8297) are none.
    fn look(&mut self, out: &[u8]) {
        let rendered = &out[std::mem::take(&mut self.from).min(out.len())..];
        if self.copy.is_empty() && !rendered.starts_with(INFORMATIONAL) {
            *self.copy = copy_of_head(head_of(rendered));
        }
    }
}

/// How answers begin that are not the last to their request (RFC 9110 section 15.2).
const INFORMATIONAL: &[u8] = b"HTTP/1.1 1";

impl Outlet for SocketOutlet<'_> {
    fn push(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        if let Some(head) = &mut self.head {
            head.look(out);
        }
        let mut before = Vec::new();
        if let Some(coalescing) = &mut self.coalescing
            && self.output.is_none()
            && !self.behind
        {
            match coalescing.lay(out) {
                WritePath::Coalesced => return Ok(()),
                WritePath::Free => {}
                WritePath::After(bytes) => before = bytes,
                WritePath::Flushed => self.behind = true,
            }
        }
        if self.behind && self.is_preceded() {
            return self.keep(out);
        }
        if !self.link.claim.begin_to_send() {
            return Err(Gone::Client);
        }
        self.used = true;
        let result = if before.is_empty() { self.send(out) } else { self.send(&mut before).and_then(|()| self.send(out)) };
        self.link.claim.has_sent();
        result
    }
}

impl SocketOutlet<'_> {
    /// Whether something still goes before it. The first time it waits: the thread that takes the loop sends that.
    fn is_preceded(&mut self) -> bool {
        let precedence = &self.link.precedence;
        self.behind = if self.used { precedence.is_set() } else { !self.passage.wait(precedence, OVERTAKEN) };
        self.behind
    }

    fn keep(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        if self.link.claim.is_late() {
            return Err(Gone::Client);
        }
        self.used = true;
        self.output.get_or_insert_default().push(out, &self.link.disk).map_err(Gone::Storage)?;
        out.clear();
        Ok(())
    }

    fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        let stream = &self.link.stream;
        if let Some(output) = self.output.as_mut()
            && output.send(stream).map_err(|_| Gone::Client)? == Sent::All
        {
            *self.output = None;
        }
        deliver(self.link, self.output, out)
    }
}

/// Sends `out` behind what waits already, keeps the rest, leaves `out` empty.
pub fn deliver(link: &Link, output: &mut Option<Box<Output>>, out: &mut Vec<u8>) -> Result<(), Gone> {
    deliver_by(&link.disk, output, out, |bytes| output::send(&link.stream, bytes))
}

/// As [`deliver`], with `send`, which returns how many bytes the socket took.
#[inline]
pub fn deliver_by(
    disk: &Disk,
    output: &mut Option<Box<Output>>,
    out: &mut Vec<u8>,
    send: impl FnOnce(&[u8]) -> io::Result<usize>,
) -> Result<(), Gone> {
    let sent = match output {
        Some(_) => 0,
        None => send(out).map_err(|_| Gone::Client)?,
    };
    if sent < out.len() {
        output.get_or_insert_default().push(&out[sent..], disk).map_err(Gone::Storage)?;
    }
    out.clear();
    Ok(())
}
