//! The loop's clock: the monotonic one is read once after each poll and once after each call of the application, the wall clock
//! once a second, and nowhere else.

use crate::log::access::Timing;
use crate::sys::time::{NS_PER_MS, monotonic, wall};

/// Nanoseconds per microsecond.
const NS_PER_MICRO: u64 = 1_000;

/// Microseconds per second.
const MICROS: u64 = 1_000_000;

/// Nanoseconds in a second.
const NS_PER_SECOND: u64 = 1_000_000_000;

/// Times of the current iteration of the loop.
#[derive(Debug)]
pub struct Clock {
    ns: u64,
    wall: u64,
    /// When the wall clock's next second begins, in nanoseconds of the monotonic clock. When the wall clock is set, it is wrong
    /// until then.
    next_second: u64,
}

impl Clock {
    /// A clock that shows the present.
    pub fn new() -> Self {
        let mut clock = Self { ns: 0, wall: 0, next_second: 0 };
        clock.refresh();
        clock
    }

    /// Reads the monotonic clock.
    pub fn tick(&mut self) {
        self.ns = monotonic();
    }

    /// Reads the monotonic clock, and the wall clock when its next second has begun.
    #[inline]
    pub fn refresh(&mut self) {
        self.tick();
        if self.ns >= self.next_second {
            let wall = wall();
            self.wall = wall.seconds;
            self.next_second = self.ns + (NS_PER_SECOND - u64::from(wall.nanos));
        }
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

    /// The times of a request that ends now, for the log. `began` is when the application was called, in nanoseconds of this
    /// clock; `None` when it was not. `queued` is how long the request has waited for a permit, in nanoseconds.
    pub fn timing(&self, began: Option<u64>, queued: u64) -> Timing {
        let micros = began.map_or(0, |began| self.ns.saturating_sub(began) / NS_PER_MICRO);
        Timing { began: self.wall.saturating_sub(micros / MICROS), micros, queued: queued / NS_PER_MICRO }
    }
}
