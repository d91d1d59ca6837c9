//! The scoreboard: one cache-line-padded slot of atomics per worker in memory shared by master and workers (mapped before the
//! fork), written by its worker with plain stores, read by the master at any time, also after the worker's death.

use std::io;

/// Longest request line kept by the flight recorder, in bytes; the rest is cut.
pub const LINE_MAX: usize = 256;

/// The slots of all workers.
#[derive(Debug)]
pub struct Scoreboard {}

impl Scoreboard {
    /// Maps `slots` zeroed slots, shared with every process forked later.
    pub fn new(slots: usize) -> io::Result<Self> {
        let _ = slots;
        todo!()
    }

    /// One slot.
    pub fn slot(&self, index: usize) -> &Slot {
        let _ = index;
        todo!()
    }
}

/// What one worker tells of itself.
#[derive(Debug)]
pub struct Slot {}

/// What a worker was doing when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Request line, cut at [`LINE_MAX`].
    pub line: Vec<u8>,
    /// When the application was called, nanoseconds of the monotonic clock.
    pub since: u64,
}

impl Slot {
    /// The application is called with this request: written before the call, so that a crash in it is explained.
    /// `now` is in nanoseconds of the monotonic clock.
    pub fn begin(&self, line: &[u8], now: u64) {
        let _ = (line, now);
        todo!()
    }

    /// The application has returned; counts one request.
    pub fn end(&self) {
        todo!()
    }

    /// Open connections of the worker.
    pub fn set_connections(&self, count: u32) {
        let _ = count;
        todo!()
    }

    /// The request in the application, if any.
    pub fn in_flight(&self) -> Option<InFlight> {
        todo!()
    }

    /// Requests served by the slot since the start of the server.
    pub fn requests(&self) -> u64 {
        todo!()
    }

    /// A new worker takes the slot: forgets what the last one was doing, keeps the counters.
    pub fn reset(&self, pid: u32) {
        let _ = pid;
        todo!()
    }
}
