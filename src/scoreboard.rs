//! The scoreboard: cache-line-padded slots of atomics in memory shared by master and workers (mapped before the fork), written by
//! their worker with plain stores, read by the master at any time, also after the worker's death.
//!
//! A worker has one [`Slot`] and for each of its threads one [`Call`]. A call has one writer, its thread. The request in it is a
//! sequence lock whose sequence is the time of the call: zero while the line is rewritten, so that a reader sees a whole line
//! or none.

use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::Duration;

use crate::sys::memory::{SharedSlice, shared_struct};
use crate::sys::time::NS_PER_MS;

/// Longest request line kept by the flight recorder, in bytes; the rest is cut.
pub const LINE_MAX: usize = 256;

/// Version of [`Slot`] as bytes. It changes with them: after an upgrade workers of the old program write for a master of the new one.
pub const LAYOUT: u32 = 2;

/// Longest client address and request id kept, in bytes; the rest is cut. An IPv6 address with its port has 47, a UUID 36.
pub const CLIENT_MAX: usize = 48;

/// See [`CLIENT_MAX`].
pub const ID_MAX: usize = 64;

/// Bytes stored at once.
const WORD: usize = size_of::<u64>();

/// Upper bounds of the classes by which waits for a free slot are counted, in milliseconds; longer ones have a class of their own.
/// From a turn of the loop to half a minute, each class four times as long as the one before.
pub const WAIT_BOUNDS_MS: [u64; 8] = [2, 8, 32, 128, 512, 2_048, 8_192, 32_768];

/// Stands for the time of entry of a call that has no deadline.
const HELD: u64 = u64::MAX;

/// How often a reader tries to find the worker not between two requests.
const READ_ATTEMPTS: usize = 8;

/// What all workers tell of themselves.
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

    /// Maps the memory of the program that this process was before exec, with room for `slots` workers of as many threads as then.
    pub fn adopt([slots_memory, calls_memory]: [OwnedFd; 2], slots: usize, threads: usize) -> io::Result<Self> {
        Ok(Self { slots: SharedSlice::of(slots_memory, slots)?, calls: SharedSlice::of(calls_memory, slots * threads)?, threads })
    }

    /// The memory behind it, for [`Self::adopt`].
    pub fn memory(&self) -> [BorrowedFd<'_>; 2] {
        [self.slots.as_fd(), self.calls.as_fd()]
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What the worker in one slot tells.
    pub fn slot(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }

    /// What one of its threads does.
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
        self.calls(slot).map(Call::requests).sum()
    }

    /// Whether a worker of another slot takes over connections now.
    pub fn others_adopt(&self, slot: usize) -> bool {
        (0..self.slots()).any(|other| other != slot && self.slot(other).adopts.load(Relaxed) != 0)
    }

    /// Connections that were lent and not taken over yet, or were lost on the way with a worker that died in between.
    pub fn on_loan(&self) -> u64 {
        // What was adopted was lent before: read in this order, none is missed.
        let sum = |count: fn(&Slot) -> u64| (0..self.slots()).map(|slot| count(self.slot(slot))).sum::<u64>();
        let adopted = sum(Slot::adopted);
        sum(Slot::lent).saturating_sub(adopted)
    }

    /// A new worker takes the slot: what the last one was doing is forgotten, the counters are kept.
    pub fn reset(&self, slot: usize, pid: u32) {
        self.slot(slot).reset(pid);
        self.calls(slot).for_each(Call::pause);
    }
}

shared_struct! {
    /// What one worker tells of itself.
    #[derive(Debug)]
    // Two lines of 64 bytes: processors fetch lines in pairs, and workers must not wait for each other's stores.
    #[repr(C, align(128))]
    pub struct Slot {
        /// When the worker's loop last went round, in nanoseconds of the monotonic clock.
        beat: AtomicU64,
        pid: AtomicU32,
        connections: AtomicU32,
        /// Connections that the workers of this slot have given away, and those that they have taken over.
        lent: AtomicU64,
        adopted: AtomicU64,
        /// 1 while the worker takes over connections.
        adopts: AtomicU32,
        /// 1 while the worker takes new connections, else 0.
        accepts: AtomicU32,
        /// Requests that have waited for a free slot, by how long.
        waits: [AtomicU64; WAIT_BOUNDS_MS.len() + 1],
    }
}

shared_struct! {
    /// What one thread does in the application.
    #[derive(Debug)]
    #[repr(C, align(128))]
    pub struct Call {
        /// When the application was called, in nanoseconds of the monotonic clock; 0 while no call runs.
        since: AtomicU64,
        /// When it was entered for this piece of the answer, in nanoseconds of the monotonic clock.
        entered: AtomicU64,
        requests: AtomicU64,
        /// Bytes that are used of the line, of the client and of the id.
        len: AtomicU32,
        client_len: AtomicU32,
        id_len: AtomicU32,
        /// The request line in little-endian words, the last one filled up with zeros.
        line: [AtomicU64; LINE_MAX / WORD],
        client: [AtomicU64; CLIENT_MAX / WORD],
        id: [AtomicU64; ID_MAX / WORD],
    }
}

/// What the flight recorder keeps of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Request line.
    pub line: &'a [u8],
    /// Address of the client, with its port; empty for a unix socket.
    pub client: &'a [u8],
    /// Value of X-Request-ID; empty when there is none.
    pub id: &'a [u8],
}

/// What a worker was doing when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Request line, cut at [`LINE_MAX`].
    pub line: Vec<u8>,
    /// Address of the client.
    pub client: Vec<u8>,
    /// Its request id, if any.
    pub id: Vec<u8>,
    /// When the application was called, nanoseconds of the monotonic clock.
    pub since: u64,
    /// When it was entered for the piece of the answer that it works on.
    pub entered: u64,
}

impl InFlight {
    /// The request in words, with the time that it took: `GET / HTTP/1.1 for 1.0 s, from 127.0.0.1, request id 7f`.
    pub fn describe(&self, time: Duration) -> String {
        let mut text = format!("{} for {:.1} s", String::from_utf8_lossy(&self.line), time.as_secs_f64());
        for (what, value) in [("from", &self.client), ("request id", &self.id)] {
            if !value.is_empty() {
                let _ = write!(text, ", {what} {}", String::from_utf8_lossy(value));
            }
        }
        text
    }
}

/// Stores bytes as words; returns how many were kept.
#[inline]
fn store(text: &[u8], place: &[AtomicU64]) -> u32 {
    let text = &text[..text.len().min(place.len() * WORD)];
    let (words, rest) = text.as_chunks::<WORD>();
    for (place, word) in place.iter().zip(words) {
        place.store(u64::from_le_bytes(*word), Relaxed);
    }
    if !rest.is_empty()
        && let Some(place) = place.get(words.len())
    {
        // The last bytes, shifted, save a copy of unknown length.
        let last = match text.last_chunk::<WORD>() {
            Some(end) => u64::from_le_bytes(*end) >> (8 * (WORD - rest.len())),
            None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        place.store(last, Relaxed);
    }
    text.len() as u32
}

/// What [`store`] has kept.
fn load(place: &[AtomicU64], len: &AtomicU32) -> Vec<u8> {
    let mut text: Vec<u8> = place.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    text.truncate(len.load(Relaxed) as usize);
    text
}

impl Slot {
    /// Open connections of the worker.
    pub fn set_connections(&self, count: u32) {
        self.connections.store(count, Relaxed);
    }

    /// Open connections of the worker, as it last said.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// One more connection was given away.
    pub fn count_lent(&self) {
        self.lent.store(self.lent() + 1, Relaxed);
    }

    /// One more connection was taken over.
    pub fn count_adopted(&self) {
        self.adopted.store(self.adopted() + 1, Relaxed);
    }

    /// Connections that were given away in this slot since the start of the server.
    pub fn lent(&self) -> u64 {
        self.lent.load(Relaxed)
    }

    /// Connections that were taken over in this slot since the start of the server.
    pub fn adopted(&self) -> u64 {
        self.adopted.load(Relaxed)
    }

    /// A request that has waited for a free slot for so many nanoseconds goes to the application. Any thread of the worker may say it.
    pub fn count_wait(&self, ns: u64) {
        let class = WAIT_BOUNDS_MS.iter().position(|&bound| ns < bound * NS_PER_MS).unwrap_or(WAIT_BOUNDS_MS.len());
        self.waits[class].fetch_add(1, Relaxed);
    }

    /// Requests of this slot since the start of the server that had to wait for a free slot: one count for each of
    /// [`WAIT_BOUNDS_MS`], and one for longer waits.
    pub fn waits(&self) -> [u64; WAIT_BOUNDS_MS.len() + 1] {
        self.waits.each_ref().map(|count| count.load(Relaxed))
    }

    /// Whether the worker takes over connections from now on.
    pub fn set_adopts(&self, adopts: bool) {
        self.adopts.store(adopts.into(), Relaxed);
    }

    /// Whether the worker takes new connections from now on; also set by the master, when the worker is dead.
    pub fn set_accepts(&self, accepts: bool) {
        self.accepts.store(accepts.into(), Relaxed);
    }

    /// Whether the worker takes new connections.
    pub fn accepts(&self) -> bool {
        self.accepts.load(Relaxed) != 0
    }

    /// The worker's loop has gone round.
    pub fn beat(&self, now: u64) {
        self.beat.store(now, Relaxed);
    }

    /// When the worker's loop last went round, nanoseconds of the monotonic clock; 0 before the first time.
    pub fn last_beat(&self) -> u64 {
        self.beat.load(Relaxed)
    }

    /// The worker that has, or had, the slot; 0 before the first.
    pub fn pid(&self) -> u32 {
        self.pid.load(Relaxed)
    }

    fn reset(&self, pid: u32) {
        self.beat.store(0, Relaxed);
        self.connections.store(0, Relaxed);
        self.adopts.store(0, Relaxed);
        self.accepts.store(0, Relaxed);
        self.pid.store(pid, Relaxed);
    }
}

impl Call {
    /// The application is called with this request: written before the call, so that a crash in it is explained.
    /// `now` is in nanoseconds of the monotonic clock.
    #[inline]
    pub fn begin(&self, facts: &Facts<'_>, now: u64) {
        self.enter(facts, now, now);
    }

    #[inline]
    fn enter(&self, facts: &Facts<'_>, since: u64, now: u64) {
        self.since.store(0, Relaxed);
        // A reader that sees one of the words below also sees the zero above.
        fence(Release);
        self.entered.store(now, Relaxed);
        self.len.store(store(facts.line, &self.line), Relaxed);
        self.client_len.store(store(facts.client, &self.client), Relaxed);
        self.id_len.store(store(facts.id, &self.id), Relaxed);
        self.since.store(since.max(1), Release);
    }

    /// The application has taken its connection over, and may go on as long as that lasts.
    pub fn hold(&self) {
        self.entered.store(HELD, Relaxed);
    }

    /// Whether it has.
    pub fn is_held(&self) -> bool {
        self.since.load(Acquire) != 0 && self.entered.load(Relaxed) == HELD
    }

    /// The application has returned; counts one request.
    #[inline]
    pub fn end(&self) {
        self.since.store(0, Relaxed);
        self.requests.store(self.requests.load(Relaxed) + 1, Relaxed);
    }

    /// The application goes on at `now` with the answer to a request that began at `since`.
    #[inline]
    pub fn resume(&self, facts: &Facts<'_>, since: u64, now: u64) {
        self.enter(facts, since, now);
    }

    /// The application has given a piece of its answer and waits to be asked again: the request was counted before.
    #[inline]
    pub fn pause(&self) {
        self.since.store(0, Relaxed);
    }

    /// When the application was entered for what it does now, nanoseconds of the monotonic clock; `None` while it does nothing, or
    /// what may last.
    pub fn entered(&self) -> Option<u64> {
        (self.since.load(Acquire) != 0).then(|| self.entered.load(Relaxed)).filter(|&entered| entered != HELD)
    }

    /// The request in the application, if any.
    pub fn in_flight(&self) -> Option<InFlight> {
        (0..READ_ATTEMPTS).find_map(|_| {
            let since = self.since.load(Acquire);
            let (line, client, id) =
                (load(&self.line, &self.len), load(&self.client, &self.client_len), load(&self.id, &self.id_len));
            let entered = self.entered.load(Relaxed);
            fence(Acquire);
            (since == self.since.load(Relaxed)).then(|| (since != 0).then_some(InFlight { line, client, id, since, entered }))
        })?
    }

    /// The last request that the calling thread, whose call this is, had in the application.
    pub fn last(&self) -> InFlight {
        let (line, client, id) =
            (load(&self.line, &self.len), load(&self.client, &self.client_len), load(&self.id, &self.id_len));
        let entered = self.entered.load(Relaxed);
        InFlight { line, client, id, since: entered, entered }
    }

    /// Requests served by this thread's place since the start of the server.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{alone_in_test, fork_in_test, wait_in_test};

    fn flying(line: &[u8], since: u64) -> Option<InFlight> {
        Some(InFlight { line: line.to_vec(), client: Vec::new(), id: Vec::new(), since, entered: since })
    }

    fn facts(line: &[u8]) -> Facts<'_> {
        Facts { line, ..Facts::default() }
    }

    #[test]
    fn a_wait_is_counted_in_the_class_of_its_length() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.slot(0);
        for ms in [0, 1, 2, 7, 8, 32_767, 32_768, 3_600_000] {
            slot.count_wait(ms * NS_PER_MS);
        }
        board.reset(0, 5);
        assert_eq!(slot.waits(), [2, 2, 1, 0, 0, 0, 0, 1, 2], "the counts outlive the worker");
    }

    #[test]
    fn the_request_of_a_dead_worker_is_known() {
        let board = Scoreboard::new(2, 2).unwrap();
        let alone = alone_in_test();
        let worker = fork_in_test(&alone, |_| {
            board.reset(1, 77);
            let slot = board.call(1, 1);
            slot.begin(&facts(b"GET /first HTTP/1.1"), 5);
            slot.end();
            slot.begin(&facts(b"GET /crash HTTP/1.1"), 9);
            0
        });
        wait_in_test(worker);
        assert_eq!(board.in_flight(1), Vec::from_iter(flying(b"GET /crash HTTP/1.1", 9)));
        assert_eq!(board.requests(1), 1);
        assert_eq!(board.slot(1).pid(), 77);
        assert_eq!(board.in_flight(0), []);
    }

    #[test]
    fn lines_of_every_length_come_back_whole_up_to_the_limit() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.call(0, 0);
        let long: Vec<u8> = (0..LINE_MAX + 20).map(|i| b'a' + (i % 26) as u8).collect();
        for len in 0..long.len() {
            slot.begin(&facts(&long[..len]), 1 + len as u64);
            assert_eq!(slot.in_flight(), flying(&long[..len.min(LINE_MAX)], 1 + len as u64));
        }
    }

    #[test]
    fn client_and_request_id_come_back_cut_to_their_length() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.call(0, 0);
        for (client, id) in [(&b"[::1]:80"[..], &[b'x'; ID_MAX + 1][..]), (b"", b"abc"), (&[b'1'; CLIENT_MAX], b"")] {
            slot.begin(&Facts { line: b"GET / HTTP/1.1", client, id }, 5);
            let seen = slot.in_flight().unwrap();
            assert_eq!((seen.client.as_slice(), seen.id.as_slice()), (client, &id[..id.len().min(ID_MAX)]));
        }
    }

    #[test]
    fn an_idle_or_new_worker_has_nothing_in_flight() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.call(0, 0);
        slot.begin(&facts(b"GET / HTTP/1.1"), 1);
        slot.end();
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
    fn the_pieces_of_an_answer_are_no_requests_of_their_own() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.call(0, 0);
        slot.begin(&facts(b"GET /a HTTP/1.1"), 3);
        slot.end();
        slot.resume(&facts(b"GET /a HTTP/1.1"), 3, 7);
        let again = slot.in_flight().unwrap();
        assert_eq!((again.line.as_slice(), again.since, again.entered), (&b"GET /a HTTP/1.1"[..], 3, 7));
        assert_eq!(slot.entered(), Some(7));
        slot.pause();
        assert_eq!(slot.in_flight(), None);
        assert_eq!(slot.requests(), 1);
    }

    #[test]
    fn a_reader_never_sees_a_mixture_of_two_lines() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.call(0, 0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for now in 1..200_000u64 {
                    slot.begin(&facts(&[b'a' + (now % 26) as u8; 40]), now);
                    slot.end();
                }
            });
            while !writer.is_finished() {
                if let Some(seen) = slot.in_flight() {
                    assert_eq!(seen.line, [b'a' + (seen.since % 26) as u8; 40]);
                }
            }
        });
    }

    #[test]
    fn what_is_on_loan_and_who_would_take_it_is_known() {
        let board = Scoreboard::new(3, 1).unwrap();
        board.slot(0).count_lent();
        board.slot(0).count_lent();
        board.slot(1).count_adopted();
        assert_eq!((board.on_loan(), board.slot(0).lent(), board.slot(1).adopted()), (1, 2, 1));
        board.slot(1).set_adopts(true);
        assert_eq!((board.others_adopt(0), board.others_adopt(1)), (true, false));
        board.reset(1, 9);
        assert!(!board.others_adopt(0), "a new worker has yet to say so");
        assert_eq!(board.on_loan(), 1, "counters are kept");
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
