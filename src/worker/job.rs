//! One request on its way through the application, apart from the loop.
//!
//! A call may last: its data is taken out of the connection and the loop before it begins, and its result is put back after it.
//! Between the two nothing of the loop is borrowed, so the loop can continue.

use std::mem::{replace, take};
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use crate::http::framing::Framing;
use crate::http::head::{Head, HeadView};
use crate::http::header_cache::BlockId;
use crate::http::terms::Terms;

use super::app::RequestBody;
use super::kept::reserve;
use super::link::Link;
use crate::worker::body::spool::Lease;
use crate::worker::send::output::Output;
use crate::worker::threads::pace::TICK_NS;

/// Bytes of a head that a spare keeps memory for: longer ones are rare.
const SPARE_MAX: usize = 16 * 1024;

/// The request in hand. It is part of the thread context and is filled again for each request, so that serving allocates nothing.
#[derive(Debug, Default)]
pub struct Job {
    /// The part that leaves the thread context with the request.
    queued: Box<QueuedRequest>,
    /// The head's bytes in the thread's input buffer, when they are nowhere else.
    pub at: Range<usize>,
    /// Whether the last byte of the request was read just before, so that it has neither waited nor changed threads.
    pub is_fresh: bool,
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

    /// The head with them.
    pub fn view<'a>(&'a self, input: &'a [u8]) -> HeadView<'a> {
        HeadView { head: &self.head, bytes: self.bytes(input) }
    }

    /// Makes the head independent of the thread's buffer, `input`. The client determines the size: `false` when there is no
    /// memory.
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
        debug_assert!(!self.own.is_empty(), "the thread's buffer is for the next request");
        (take(&mut self.head), take(&mut self.own))
    }
}

/// A request that may leave its thread context: for another thread, or to wait for a permit.
#[derive(Debug, Default)]
pub struct QueuedRequest {
    /// Socket and client; `None` between requests.
    pub link: Option<Arc<Link>>,
    /// The head's bytes when they are not in a thread context's input buffer (the body came later, or the request has left its
    /// thread context).
    pub own: Vec<u8>,
    /// The head; its spans count from the start of its bytes.
    pub head: Head,
    /// Name of the head's block in the cache of the thread that serves it, if it is there.
    pub block: Option<BlockId>,
    /// Framing of the request.
    pub framing: Framing,
    /// How the answer goes over the wire, as far as the request decides it.
    pub terms: Terms,
    /// The body.
    pub body: RequestBody,
    /// The part of the worker's budget that the body's memory has, until the application has the body.
    pub lease: Lease,
    /// When it asks for another protocol: the bytes that the client has sent after its head.
    pub early: Vec<u8>,
    /// Earlier output of the connection that the socket has not taken; `write()` goes after it.
    pub output: Option<Box<Output>>,
    /// Whether earlier answers of the connection are in the loop's outbox when it begins; `write()` cannot overtake them.
    pub behind: bool,
    /// How long the request waited for a permit, in nanoseconds.
    pub queued: u64,
    /// Whether it has waited for anything, so that its client may have left meanwhile.
    pub waited: bool,
    /// Whether the worker was leaving: the thread that serves it may not know.
    pub draining: bool,
    /// Since when it waits, nanoseconds of the loop's clock; 0: it does not.
    pub since: u64,
    /// When it was put at a desk, in the same unit.
    pub given: u64,
}

impl QueuedRequest {
    /// The head, which is detached, and its bytes.
    pub fn detached(&self) -> HeadView<'_> {
        HeadView { head: &self.head, bytes: &self.own }
    }

    /// Prepares it for another thread, where this one's cache does not name its block, and whose outbox has no answers of it.
    pub fn leave_thread(&mut self) {
        (self.block, self.behind) = (None, false);
    }

    /// Ends its wait.
    pub fn stop_waiting(&mut self, now: u64) {
        if self.since > 0 {
            self.queued += now.saturating_sub(self.since);
            (self.since, self.waited) = (0, true);
        }
    }

    /// Ends its wait at a desk. The wait for the interpreter counts as one for a permit, unless it is as short as the usual ones.
    pub fn leave_desk(&mut self, now: u64) {
        if self.since == 0 && now.saturating_sub(self.given) > TICK_NS {
            self.since = self.given;
        }
        self.stop_waiting(now);
    }
}

impl Job {
    /// Takes the request, whose head is detached, out of its thread context; `draining`: its worker leaves.
    pub fn pack(&mut self, draining: bool) -> Box<QueuedRequest> {
        debug_assert!(self.link.is_some(), "a job is submitted with its link");
        debug_assert!(!self.own.is_empty(), "the thread's buffer is for the next request");
        let spare = self.spare.take().unwrap_or_default();
        let mut queued = replace(&mut self.queued, spare);
        (queued.draining, queued.since, queued.given) = (draining, 0, 0);
        queued
    }

    /// Puts a request into the thread context. The earlier one, which is over, is the spare from now on.
    pub fn unpack(&mut self, queued: Box<QueuedRequest>) {
        let mut spare = replace(&mut self.queued, queued);
        debug_assert!(spare.link.is_none(), "it is over");
        self.is_fresh = false;
        spare.own.clear();
        if spare.own.capacity() > SPARE_MAX {
            spare.own = Vec::new();
        }
        self.spare = Some(spare);
    }
}
