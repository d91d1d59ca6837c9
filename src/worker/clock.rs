//! The loop's clock: read once after each poll and once after each call of the application, nowhere else.

use crate::sys::time::{monotonic, wall};

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// Times of the current turn of the loop.
#[derive(Debug)]
pub struct Clock {
    ns: u64,
    wall: u64,
}

impl Clock {
    /// A clock that shows the present.
    pub fn new() -> Self {
        Self { ns: monotonic(), wall: wall().seconds }
    }

    /// Reads the monotonic clock.
    pub fn tick(&mut self) {
        self.ns = monotonic();
    }

    /// Reads the monotonic and the wall clock.
    pub fn turn(&mut self) {
        self.tick();
        self.wall = wall().seconds;
    }

    /// Nanoseconds of the monotonic clock, which master and workers share.
    pub fn ns(&self) -> u64 {
        self.ns
    }

    /// Milliseconds of the monotonic clock: the unit of connection deadlines.
    pub fn ms(&self) -> u64 {
        self.ns / NS_PER_MS
    }

    /// Seconds since the epoch, for the Date header and the log.
    pub fn wall(&self) -> u64 {
        self.wall
    }

    /// Microseconds since `began` (nanoseconds of this clock).
    pub fn micros_since(&self, began: u64) -> u64 {
        self.ns.saturating_sub(began) / 1_000
    }
}
