//! Input that connections keep while they are not driven, because it needs more bytes or has to wait, and the memory that all
//! connections of a worker have for it.
//!
//! ```text
//! read ──▶ thread context ── a head without its end ──────────────────────────────▶ Partial ── its end comes ──▶ the application
//!           └──── after a request that the application has, or while others proceed ──▶ Rest ──▶ thread context
//! ```
//! Input is in one place only: in the thread context or with its connection. A part of a head stays with its connection and grows
//! there, so that each byte is copied and parsed once, however many come before it. Memory beyond [`FREE`] comes from one budget
//! and goes back when the bytes are dropped, on every path.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::log::count;
use crate::log::error::Log;

use super::tally::{Reminder, Tally};

/// Bytes that may be kept without the budget: the head of an ordinary request. So a client that sends it in pieces is served also
/// while others have used the budget up.
const FREE: usize = 4 * 1024;

/// Memory that all connections of a worker may keep beyond that, in bytes: a thousand of the longest heads by default, and as
/// much as their bodies have.
const BUDGET: usize = 64 * 1024 * 1024;

/// Memory that has to be left after an allocation of more than [`FREE`], in bytes: small things are allocated without asking, and
/// the worker ends when there is none for them.
const CUSHION: usize = 512 * 1024;

/// Least time between two lines of the log about refusals, in milliseconds.
const SUMMARY_MS: u64 = 10_000;

/// Bytes of a mebibyte.
const MIB: usize = 1024 * 1024;

/// A worker's memory for kept input.
#[derive(Clone, Debug)]
pub struct InputBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    left: AtomicUsize,
    /// Whether the process had no memory, although there was some of this.
    starved: AtomicBool,
    /// Requests that were refused.
    refused: Tally,
}

impl Default for InputBudget {
    fn default() -> Self {
        Self::new(&Reminder::default())
    }
}

impl InputBudget {
    /// All of it.
    pub fn new(reminder: &Reminder) -> Self {
        let (starved, refused) = (AtomicBool::new(false), Tally::new(SUMMARY_MS, reminder));
        Self(Arc::new(BudgetState { left: AtomicUsize::new(BUDGET), starved, refused }))
    }

    /// Whether nothing of it is in use.
    pub fn is_whole(&self) -> bool {
        self.0.left.load(Relaxed) == BUDGET
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    /// So many bytes of it, for as long as the lease is there; `None`: they are in use.
    pub fn lease(&self, bytes: usize) -> Option<InputLease> {
        self.take(bytes).then(|| InputLease { memory: self.clone(), bytes })
    }

    /// What so many bytes of an unfinished handshake cost, for as long as the lease is there: nothing in the free part (`Some(None)`);
    /// `None`: the rest is in use.
    pub fn lease_handshake(&self, bytes: usize) -> Option<Option<InputLease>> {
        let beyond = bytes.saturating_sub(FREE);
        if beyond == 0 { Some(None) } else { self.lease(beyond).map(Some) }
    }

    /// Notes that the process has no memory for bytes that the budget allows.
    pub fn starve(&self) {
        self.0.starved.store(true, Relaxed);
    }

    /// Counts a request that is refused because there is none; logs that from time to time. `now`: milliseconds of the loop's
    /// clock.
    pub fn note_refused(&self, now: u64, log: &Log) {
        if let Some(refused) = self.0.refused.count(now) {
            self.tell(refused, log);
        }
    }

    /// Logs the refusals that no line has, if one is due.
    #[cold]
    pub fn tell_rest(&self, now: u64, log: &Log) {
        if let Some(refused) = self.0.refused.rest(now) {
            self.tell(refused, log);
        }
    }

    fn tell(&self, refused: u64, log: &Log) {
        let refused = count(refused, "request");
        if self.0.starved.swap(false, Relaxed) {
            log.warning(format_args!(
                "the worker has no memory for unfinished requests: {refused} got 503; see what the application keeps, or raise the \
                 limit (ulimit -v, RLIMIT_AS)"
            ));
            return;
        }
        log.warning(format_args!(
            "the memory for unfinished requests is used up ({} MiB for all connections of a worker): {refused} got 503, or the end of a TLS \
             handshake; find who begins so many and ends them late, or lower --limit-request-head or --header-timeout",
            BUDGET / MIB
        ));
    }
}

/// Asks for room for exactly so many bytes more, whose number a client or an application determines; `false`: there is no memory.
pub fn reserve(bytes: &mut Vec<u8>, more: usize) -> bool {
    (more <= FREE || has_cushion()) && bytes.try_reserve_exact(more).is_ok()
}

/// Whether there is memory for small things beside.
#[cold]
fn has_cushion() -> bool {
    let mut cushion = Vec::<u8>::new();
    let there = cushion.try_reserve_exact(CUSHION).is_ok();
    // The compiler may remove an allocation that nobody reads.
    std::hint::black_box(&cushion);
    there
}

/// A copy of such bytes; `None` when there is no memory for it.
pub fn copied(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut copy = Vec::new();
    if !reserve(&mut copy, bytes.len()) {
        return None;
    }
    copy.extend_from_slice(bytes);
    Some(copy)
}

/// A part of a [`InputBudget`], which is given back when it is dropped.
#[derive(Debug)]
pub struct InputLease {
    memory: InputBudget,
    bytes: usize,
}

impl InputLease {
    /// Whether it is enough for so many bytes of a handshake.
    pub fn covers_handshake(&self, bytes: usize) -> bool {
        bytes.saturating_sub(FREE) <= self.bytes
    }
}

impl Drop for InputLease {
    fn drop(&mut self) {
        self.memory.0.left.fetch_add(self.bytes, Relaxed);
    }
}

/// Bytes whose memory beyond [`FREE`] is taken from a [`InputBudget`] and given back when they are dropped.
#[derive(Debug, Default)]
pub struct Leased {
    bytes: Vec<u8>,
    lease: Option<InputLease>,
}

impl Leased {
    /// These bytes; gives them back when there is no memory.
    pub fn own(bytes: Vec<u8>, memory: &InputBudget) -> Result<Self, Vec<u8>> {
        let mut leased = Self { bytes, lease: None };
        if leased.pay(leased.bytes.capacity(), memory) { Ok(leased) } else { Err(leased.into_bytes()) }
    }

    /// A copy of these bytes; `None` when there is no memory.
    pub fn copy(bytes: &[u8], memory: &InputBudget) -> Option<Self> {
        let mut leased = Self::default();
        leased.push(bytes, memory).then_some(leased)
    }

    /// Appends bytes; returns whether there was memory for them.
    pub fn push(&mut self, more: &[u8], memory: &InputBudget) -> bool {
        let needed = self.bytes.len() + more.len();
        // Doubled, so that each byte is moved a few times only while they grow.
        let room = needed <= self.bytes.capacity()
            || self.grow(needed.max(self.bytes.capacity() * 2), memory)
            || self.grow(needed, memory);
        if room {
            self.bytes.extend_from_slice(more);
        }
        room
    }

    fn grow(&mut self, capacity: usize, memory: &InputBudget) -> bool {
        if !self.pay(capacity, memory) {
            return false;
        }
        let more = capacity - self.bytes.len();
        let grown = reserve(&mut self.bytes, more);
        if !grown {
            memory.starve();
        }
        grown
    }

    /// Takes the budget for so much capacity, less the part that it has already.
    fn pay(&mut self, capacity: usize, memory: &InputBudget) -> bool {
        let paid = self.lease.as_ref().map_or(0, |lease| lease.bytes);
        let Some(more) = capacity.saturating_sub(FREE).checked_sub(paid).filter(|more| *more > 0) else { return true };
        if !memory.take(more) {
            return false;
        }
        self.lease.get_or_insert_with(|| InputLease { memory: memory.clone(), bytes: 0 }).bytes += more;
        true
    }

    /// The bytes alone, for a time that others bound: their part of the budget is given back.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Deref for Leased {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The input that a connection keeps.
#[derive(Debug)]
pub enum Kept {
    /// A head without its end, or a preface, as the phase says.
    Partial(Leased),
    /// Bytes that may be a request.
    Rest(Leased),
    /// A part of a handshake, which its session has.
    Handshake(InputLease),
    /// There was no memory for them: the next request is refused.
    Refused,
}

impl Kept {
    /// Bytes that may be a request.
    pub fn rest(bytes: &[u8], memory: &InputBudget) -> Box<Self> {
        Box::new(Leased::copy(bytes, memory).map_or(Self::Refused, Self::Rest))
    }

    /// Whether it needs more bytes to mean anything, and does not merely wait.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Partial(_) | Self::Handshake(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_beyond_the_free_part_is_paid_and_all_of_it_is_given_back() {
        let memory = InputBudget::default();
        let mut bytes = Leased::copy(&[b'x'; FREE], &memory).unwrap();
        assert!(memory.is_whole());
        for _ in 0..10_000 {
            assert!(bytes.push(b"seven..", &memory));
            let left = memory.0.left.load(Relaxed);
            assert_eq!(BUDGET - left, bytes.bytes.capacity() - FREE);
        }
        assert_eq!(bytes.len(), FREE + 70_000);
        assert_eq!(bytes.into_bytes().len(), FREE + 70_000);
        assert!(memory.is_whole());
        drop(Leased::own(Vec::with_capacity(100_000), &memory).unwrap());
        assert!(memory.is_whole());
    }

    #[test]
    fn without_budget_a_connection_has_the_free_part_and_gives_it_back() {
        let memory = InputBudget::default();
        let most = Leased::own(Vec::with_capacity(BUDGET + FREE), &memory).unwrap();
        assert!(Leased::own(Vec::with_capacity(FREE + 1), &memory).is_err());
        let mut other = Leased::copy(&[b'x'; FREE], &memory).unwrap();
        assert!(!other.push(b"x", &memory) && other.len() == FREE);
        assert!(Leased::copy(&[b'x'; FREE + 1], &memory).is_none());
        drop(most);
        assert!(other.push(b"x", &memory));
        drop(other);
        assert!(memory.is_whole());
    }

    #[test]
    fn an_allocation_that_is_as_long_as_what_is_needed_is_taken_when_the_double_is_too_much() {
        let memory = InputBudget::default();
        let _most = Leased::own(Vec::with_capacity(BUDGET - FREE), &memory).unwrap();
        let mut bytes = Leased::copy(&[b'x'; 2 * FREE], &memory).unwrap();
        assert!(bytes.push(&[b'x'; FREE], &memory), "three of what four would be the double of two");
        assert_eq!(memory.0.left.load(Relaxed), 0);
        assert!(!bytes.push(&[b'x'; FREE], &memory));
    }
}
