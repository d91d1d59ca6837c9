//! The scoreboard: cache-line-padded slots of atomics in memory shared by master and workers (mapped before the fork), written by
//! their worker with plain stores, read by the master at any time, also after the worker's death.
//!
//! A worker has one [`Slot`] and for each of its threads one [`Call`].
//!
//! A worker that was broken into may write anything anywhere in it. So its values are only shown and compared: nobody takes an
//! index, a length or a process id from it, counts may wrap, a reader tries a bounded number of times, and times in the future
//! count as now (`Scoreboard` cannot know the time: `master::watch` does that).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::memory::SharedSlice;

mod call;
mod classes;
mod counters;
mod refusals;
mod slot;
mod snapshot;
mod statuses;

pub use call::{CLIENT_MAX, Call, ID_MAX, InFlight, LINE_MAX, RequestFacts};
pub use classes::{BOUNDS_NS, CLASSES, Histogram};
pub use counters::{CounterSums, Counters};
pub use refusals::{REASONS, RefusalReason};
pub use slot::{SEVERITIES, Slot};
pub use snapshot::{SlotFigures, Snapshot};
pub use statuses::{STATUSES, StatusKey};

/// Version of [`Slot`] and [`Call`] as bytes. It changes with them: after an upgrade workers of the old program write for a
/// master of the new one.
pub const LAYOUT: u32 = 6;

/// The published state of all workers.
#[derive(Debug)]
pub struct Scoreboard {
    slots: SharedSlice<Slot>,
    calls: SharedSlice<Call>,
    /// Calls of one slot.
    threads: usize,
}

impl Scoreboard {
    /// Maps zeroed memory for `slots` workers of `threads` threads each, shared with every process forked later.
    pub fn new(slots: usize, threads: usize) -> io::Result<Self> {
        Ok(Self { slots: SharedSlice::new(slots)?, calls: SharedSlice::new(slots * threads)?, threads })
    }

    /// Maps the memory of the program that this process ran before exec, with room for `slots` workers of as many threads as
    /// then.
    pub fn adopt([slots_memory, calls_memory]: [OwnedFd; 2], slots: usize, threads: usize) -> io::Result<Self> {
        Ok(Self { slots: SharedSlice::of(slots_memory, slots)?, calls: SharedSlice::of(calls_memory, slots * threads)?, threads })
    }

    /// Its memory, for [`Self::adopt`].
    pub fn memory(&self) -> [BorrowedFd<'_>; 2] {
        [self.slots.as_fd(), self.calls.as_fd()]
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The published state of the worker in one slot.
    pub fn slot(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }

    /// The call of one of its threads.
    pub fn call(&self, slot: usize, thread: usize) -> &Call {
        &self.calls[slot * self.threads..][..self.threads][thread]
    }

    /// The calls of all its threads.
    pub fn calls(&self, slot: usize) -> impl Iterator<Item = &Call> {
        (0..self.threads).map(move |thread| self.call(slot, thread))
    }

    /// Requests that are in the application of the worker in this slot, oldest first.
    pub fn in_flight(&self, slot: usize) -> Vec<InFlight> {
        let mut requests: Vec<InFlight> = self.calls(slot).filter_map(Call::in_flight).collect();
        requests.sort_by_key(|request| request.since);
        requests
    }

    /// Requests served in this slot since the start of the server.
    pub fn requests(&self, slot: usize) -> u64 {
        self.calls(slot).map(Call::requests).fold(0, u64::wrapping_add)
    }

    /// Whether a worker of another slot takes over connections now.
    pub fn others_adopt(&self, slot: usize) -> bool {
        (0..self.slots()).any(|other| other != slot && self.slot(other).adopts())
    }

    /// Connections that were given away and not taken over yet. A worker that dies between the queue and its count leaves it
    /// wrong, until [`Self::settle`].
    pub fn in_transit(&self) -> u64 {
        let (handed_over, adopted) = self.handoffs();
        handed_over.saturating_sub(adopted)
    }

    /// Connections given away and taken over in all slots.
    fn handoffs(&self) -> (u64, u64) {
        // A connection is given away before it is taken over: read in this order, none is missed.
        let sum = |count: fn(&Slot) -> u64| (0..self.slots()).map(|slot| count(self.slot(slot))).fold(0, u64::wrapping_add);
        let adopted = sum(Slot::adopted);
        (sum(Slot::handed_over), adopted)
    }

    /// Corrects the counts of this slot so that no connection is under way: its worker is dead, and the queue is empty. A worker
    /// that has just used the queue and not counted it yet makes this wrong by one, until the next time.
    pub fn settle(&self, slot: usize) {
        let (handed_over, adopted) = self.handoffs();
        self.slot(slot).count_adopted_by(handed_over.wrapping_sub(adopted));
    }

    /// Bytes that all workers have in temporary files.
    pub fn spooled(&self) -> u64 {
        (0..self.slots()).fold(0, |sum: u64, slot| sum.saturating_add(self.slot(slot).spooled()))
    }

    /// Ends the calls of a worker that is dead since `now`, nanoseconds of the monotonic clock, and forgets what it had.
    pub fn end_calls(&self, slot: usize, now: u64) {
        self.slot(slot).forget_present();
        self.calls(slot).for_each(|call| call.pause(now));
    }

    /// Prepares the slot for a new worker: the calls of the last one are forgotten, the counters are kept.
    pub fn reset(&self, slot: usize, pid: u32) {
        self.slot(slot).reset(pid);
        self.calls(slot).for_each(Call::forget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{alone_in_test, fork_in_test, wait_in_test};

    fn facts(line: &[u8]) -> RequestFacts<'_> {
        RequestFacts { line, ..RequestFacts::default() }
    }

    #[test]
    fn the_request_of_a_dead_worker_is_known() {
        let board = Scoreboard::new(2, 2).unwrap();
        let alone = alone_in_test();
        let worker = fork_in_test(&alone, |_| {
            board.reset(1, 77);
            let slot = board.call(1, 1);
            slot.begin(&facts(b"GET /first HTTP/1.1"), 5);
            slot.end(6);
            slot.begin(&facts(b"GET /crash HTTP/1.1"), 9);
            0
        });
        wait_in_test(worker);
        let requests: Vec<_> = board.in_flight(1).into_iter().map(|request| (request.line, request.since)).collect();
        assert_eq!(requests, [(b"GET /crash HTTP/1.1".to_vec(), 9)]);
        assert_eq!(board.requests(1), 1);
        assert_eq!(board.slot(1).pid(), 77);
        assert_eq!(board.in_flight(0), []);
    }

    #[test]
    fn an_idle_or_new_worker_has_nothing_in_flight() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.call(0, 0);
        slot.begin(&facts(b"GET / HTTP/1.1"), 1);
        slot.end(1);
        assert_eq!(slot.in_flight(), None);
        slot.begin(&facts(b"GET / HTTP/1.1"), 2);
        board.slot(0).set_connections(3);
        board.slot(0).beat(7);
        board.reset(0, 8);
        assert_eq!(board.slot(0).last_beat(), 0);
        assert_eq!(slot.in_flight(), None);
        assert_eq!((board.slot(0).connections(), board.requests(0), board.slot(0).pid()), (0, 1, 8));
    }

    #[test]
    fn connections_under_way_and_a_taker_are_known() {
        let board = Scoreboard::new(3, 1).unwrap();
        board.slot(0).count_handed_over();
        board.slot(0).count_handed_over();
        board.slot(1).count_adopted();
        assert_eq!((board.in_transit(), board.slot(0).handed_over(), board.slot(1).adopted()), (1, 2, 1));
        board.slot(1).set_adopts(true);
        assert_eq!((board.others_adopt(0), board.others_adopt(1)), (true, false));
        board.reset(1, 9);
        assert!(!board.others_adopt(0), "a new worker has yet to say so");
        assert_eq!(board.in_transit(), 1, "counters are kept");
    }

    #[test]
    fn what_a_worker_took_and_did_not_count_is_not_in_transit_for_ever() {
        let board = Scoreboard::new(3, 1).unwrap();
        for _ in 0..3 {
            board.slot(0).count_handed_over();
        }
        board.slot(2).count_adopted();
        board.settle(2);
        assert_eq!((board.in_transit(), board.slot(2).adopted()), (0, 3));
        // Taken over, and the giver died before it had counted.
        board.slot(2).count_adopted();
        board.settle(0);
        board.slot(1).count_handed_over();
        assert_eq!(board.in_transit(), 1);
    }

    #[test]
    fn the_requests_of_all_threads_are_known_oldest_first() {
        let board = Scoreboard::new(2, 3).unwrap();
        board.call(1, 0).begin(&facts(b"GET /young HTTP/1.1"), 9);
        board.call(1, 2).begin(&facts(b"GET /old HTTP/1.1"), 4);
        let lines: Vec<Vec<u8>> = board.in_flight(1).into_iter().map(|request| request.line).collect();
        assert_eq!(lines, [b"GET /old HTTP/1.1".to_vec(), b"GET /young HTTP/1.1".to_vec()]);
        assert_eq!(board.in_flight(0), []);
    }

    #[test]
    fn slots_and_calls_share_no_cache_line() {
        assert_eq!((size_of::<Slot>() % 128, align_of::<Slot>()), (0, 128));
        assert_eq!((size_of::<Call>() % 128, align_of::<Call>()), (0, 128));
    }
}
