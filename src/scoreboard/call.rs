//! The flight recorder: what one thread does in the application.
//!
//! A call has one writer, its thread. The request in it is a sequence lock whose sequence is the time of the call: zero while the
//! line is rewritten, so that a reader sees a whole line or none.

use std::fmt::Write;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::Duration;

use crate::sys::memory::shared_struct;

use super::counters::Counters;

/// Longest request line kept by the flight recorder, in bytes; the rest is cut.
pub const LINE_MAX: usize = 256;

/// Longest client address and request id kept, in bytes; the rest is cut. An IPv6 address has at most 39, a UUID 36.
pub const CLIENT_MAX: usize = 48;

/// See [`CLIENT_MAX`].
pub const ID_MAX: usize = 128;

/// Bytes stored at once.
const WORD: usize = size_of::<u64>();

/// Stands for the time of entry of a call that has no deadline.
const HELD: u64 = u64::MAX;

/// How often a reader tries while the thread begins the next request at the same time.
const READ_ATTEMPTS: usize = 8;

shared_struct! {
    /// One thread's call of the application.
    #[derive(Debug)]
    #[repr(C, align(128))]
    pub struct Call {
        /// When the application was called, in nanoseconds of the monotonic clock; 0 while no call runs.
        since: AtomicU64,
        /// When it was entered for this piece of the answer, in nanoseconds of the monotonic clock.
        entered: AtomicU64,
        /// The same, whether the call has a deadline or not.
        resumed: AtomicU64,
        requests: AtomicU64,
        /// Bytes that are used of the line, of the client and of the id.
        len: AtomicU32,
        client_len: AtomicU32,
        id_len: AtomicU32,
        /// The request line in little-endian words, the last one filled up with zeros.
        line: [AtomicU64; LINE_MAX / WORD],
        client: [AtomicU64; CLIENT_MAX / WORD],
        id: [AtomicU64; ID_MAX / WORD],
        /// What the thread has done.
        counters: Counters,
    }
}

/// Whether a thread is in the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// It is not.
    Idle,
    /// It is, with a request that began then, nanoseconds of the monotonic clock.
    Busy { since: u64 },
    /// As [`Self::Busy`], and the application has taken the connection over.
    Held { since: u64 },
}

/// The parts of a request that the flight recorder keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFacts<'a> {
    /// Request line.
    pub line: &'a [u8],
    /// Address of the client, without its port; empty for a unix socket.
    pub client: &'a [u8],
    /// Value of X-Request-ID; empty when there is none.
    pub id: &'a [u8],
}

/// What a worker was doing when its slot was read.
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
        let mut text = format!("{} for {:.1} s", self.line(), time.as_secs_f64());
        for (what, value) in [("from", &self.client), ("request id", &self.id)] {
            if !value.is_empty() {
                let _ = write!(text, ", {what} {}", plain(value));
            }
        }
        text
    }

    /// Address of the client as text of one line.
    pub fn client(&self) -> String {
        plain(&self.client)
    }

    /// Its request id as text of one line.
    pub fn id(&self) -> String {
        plain(&self.id)
    }

    /// Whether the application has taken the connection over, and keeps it.
    pub fn is_held(&self) -> bool {
        self.entered == HELD
    }

    /// The request line as text of one line.
    pub fn line(&self) -> String {
        plain(&self.line)
    }
}

/// Bytes as text of one line. A worker's own code keeps no line with control characters, but others may write here.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let escaped =
        |character: char| if character.is_control() { character.escape_default().to_string() } else { character.into() };
    text.chars().map(escaped).collect()
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
        // The last bytes, shifted, avoid a copy of unknown length.
        let last = match text.last_chunk::<WORD>() {
            Some(end) => u64::from_le_bytes(*end) >> (8 * (WORD - rest.len())),
            None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        place.store(last, Relaxed);
    }
    text.len() as u32
}

/// The bytes that [`store`] has kept.
fn load(place: &[AtomicU64], len: &AtomicU32) -> Vec<u8> {
    let mut text: Vec<u8> = place.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    text.truncate(len.load(Relaxed) as usize);
    text
}

impl Call {
    /// Notes that the application is called with this request, before the call, so that a crash in it is explained. `now` is in
    /// nanoseconds of the monotonic clock.
    #[inline]
    pub fn begin(&self, facts: &RequestFacts<'_>, now: u64) {
        self.enter(facts, now, now);
    }

    #[inline]
    fn enter(&self, facts: &RequestFacts<'_>, since: u64, now: u64) {
        self.since.store(0, Relaxed);
        // A reader that sees one of the words below also sees the zero above.
        fence(Release);
        self.entered.store(now, Relaxed);
        self.resumed.store(now, Relaxed);
        self.len.store(store(facts.line, &self.line), Relaxed);
        self.client_len.store(store(facts.client, &self.client), Relaxed);
        self.id_len.store(store(facts.id, &self.id), Relaxed);
        self.since.store(since.max(1), Release);
    }

    /// Notes that the application has taken its connection over: it may use it as long as it likes.
    pub fn lift_deadline(&self) {
        self.entered.store(HELD, Relaxed);
    }

    /// Whether it has taken its connection over.
    pub fn has_no_deadline(&self) -> bool {
        self.since.load(Acquire) != 0 && self.entered.load(Relaxed) == HELD
    }

    /// Notes that the application has returned at `now`; counts one request.
    #[inline]
    pub fn end(&self, now: u64) {
        self.leave(now);
        self.requests.store(self.requests.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts the time since the application was entered. What runs is over before it is counted: a reader may miss it for a
    /// moment, and keeps the highest, but it never finds it twice.
    #[inline]
    fn leave(&self, now: u64) {
        self.since.store(0, Release);
        self.counters.add_busy(now.saturating_sub(self.resumed.load(Relaxed)));
    }

    /// Notes that the application continues at `now` with the answer to a request that began at `since`.
    #[inline]
    pub fn resume(&self, facts: &RequestFacts<'_>, since: u64, now: u64) {
        self.enter(facts, since, now);
    }

    /// Notes that the application has returned a piece of its answer at `now`: the request was counted before.
    #[inline]
    pub fn pause(&self, now: u64) {
        if self.since.load(Relaxed) != 0 {
            self.leave(now);
        }
    }

    /// Forgets the call of a worker whose time was counted at its end.
    pub(super) fn forget(&self) {
        self.since.store(0, Relaxed);
    }

    /// Whether a call of the application runs.
    pub fn is_running(&self) -> bool {
        self.since.load(Relaxed) != 0
    }

    /// What the thread has done.
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Nanoseconds in the application until `now`, and whether it is there.
    pub(super) fn busy(&self, now: u64) -> (u64, Activity) {
        let mut seen = (self.counters.busy(), Activity::Idle);
        for _ in 0..READ_ATTEMPTS {
            let busy = self.counters.busy();
            let since = self.since.load(Acquire);
            let (resumed, entered) = (self.resumed.load(Relaxed), self.entered.load(Relaxed));
            fence(Acquire);
            let activity = match (since, entered) {
                (0, _) => Activity::Idle,
                (since, HELD) => Activity::Held { since },
                (since, _) => Activity::Busy { since },
            };
            let running = if since == 0 { 0 } else { now.saturating_sub(resumed) };
            seen = (busy.wrapping_add(running), activity);
            if self.since.load(Relaxed) == since && self.counters.busy() == busy {
                break;
            }
        }
        seen
    }

    /// When the application was entered for its present work, nanoseconds of the monotonic clock; `None` while it has none, or
    /// has no deadline.
    pub fn entered(&self) -> Option<u64> {
        (self.since.load(Acquire) != 0).then(|| self.entered.load(Relaxed)).filter(|&entered| entered != HELD)
    }

    /// The request in the application, if any.
    pub fn in_flight(&self) -> Option<InFlight> {
        (0..READ_ATTEMPTS).find_map(|_| {
            let since = self.since.load(Acquire);
            let request = self.read(since);
            fence(Acquire);
            (since == self.since.load(Relaxed)).then(|| (since != 0).then_some(request))
        })?
    }

    /// The last request that the calling thread, whose call this is, had in the application.
    pub fn last(&self) -> InFlight {
        self.read(self.entered.load(Relaxed))
    }

    fn read(&self, since: u64) -> InFlight {
        InFlight {
            line: load(&self.line, &self.len),
            client: load(&self.client, &self.client_len),
            id: load(&self.id, &self.id_len),
            since,
            entered: self.entered.load(Relaxed),
        }
    }

    /// Requests served by the threads of this place since the start of the server.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Scoreboard;

    fn flying(line: &[u8], since: u64) -> Option<InFlight> {
        Some(InFlight { line: line.to_vec(), client: Vec::new(), id: Vec::new(), since, entered: since })
    }

    fn facts(line: &[u8]) -> RequestFacts<'_> {
        RequestFacts { line, ..RequestFacts::default() }
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
            slot.begin(&RequestFacts { line: b"GET / HTTP/1.1", client, id }, 5);
            let seen = slot.in_flight().unwrap();
            assert_eq!((seen.client.as_slice(), seen.id.as_slice()), (client, &id[..id.len().min(ID_MAX)]));
        }
    }

    #[test]
    fn the_pieces_of_an_answer_are_no_requests_of_their_own() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.call(0, 0);
        slot.begin(&facts(b"GET /a HTTP/1.1"), 3);
        slot.end(4);
        slot.resume(&facts(b"GET /a HTTP/1.1"), 3, 7);
        let again = slot.in_flight().unwrap();
        assert_eq!((again.line.as_slice(), again.since, again.entered), (&b"GET /a HTTP/1.1"[..], 3, 7));
        assert_eq!(slot.entered(), Some(7));
        slot.pause(9);
        assert_eq!(slot.in_flight(), None);
        assert_eq!((slot.requests(), slot.busy(20)), (1, (3, Activity::Idle)));
    }

    #[test]
    fn a_reader_never_sees_a_mixture_of_two_lines() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.call(0, 0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for now in 1..200_000u64 {
                    slot.begin(&facts(&[b'a' + (now % 26) as u8; 40]), now);
                    slot.end(now);
                }
            });
            while !writer.is_finished() {
                if let Some(seen) = slot.in_flight() {
                    assert_eq!(seen.line, [b'a' + (seen.since % 26) as u8; 40]);
                }
            }
        });
    }
}
