//! The loop's clock: the monotonic one is read once after each poll and once after each call of the application, the wall clock
//! once a second, and nowhere else. Between two reads of the wall clock the monotonic one stands for it.

use crate::log::access::Timing;
use crate::sys::time::{NS_PER_MS, Wall, monotonic, wall};

/// Nanoseconds in a second.
const NS_PER_SECOND: u64 = 1_000_000_000;

/// Times of the current iteration of the loop.
#[derive(Debug)]
pub struct Clock {
    ns: u64,
    /// The same in milliseconds: they are asked for several times in an iteration.
    ms: u64,
    wall: u64,
    /// What the wall clock, in nanoseconds since the epoch, is ahead of the monotonic one; wraps.
    ahead: u64,
    /// When the wall clock's next second begins, in nanoseconds of the monotonic clock. When the wall clock is set, this clock is
    /// wrong until then.
    next_second: u64,
}

impl Clock {
    /// A clock that shows the present.
    pub fn new() -> Self {
        let mut clock = Self { ns: 0, ms: 0, wall: 0, ahead: 0, next_second: 0 };
        clock.tick();
        clock
    }

    /// Reads the monotonic clock, and the wall clock when its next second has begun.
    #[inline]
    pub fn tick(&mut self) {
        self.ns = monotonic();
        self.ms = self.ns / NS_PER_MS;
        if self.ns >= self.next_second {
            self.set(wall());
        }
    }

    #[cold]
    fn set(&mut self, wall: Wall) {
        self.wall = wall.seconds;
        let nanos = wall.seconds.wrapping_mul(NS_PER_SECOND).wrapping_add(wall.nanos.into());
        self.ahead = nanos.wrapping_sub(self.ns);
        self.next_second = self.ns + (NS_PER_SECOND - u64::from(wall.nanos));
    }

    /// Nanoseconds of the monotonic clock, which master and workers share.
    pub fn ns(&self) -> u64 {
        self.ns
    }

    /// Milliseconds of the monotonic clock: the unit of connection deadlines.
    pub fn ms(&self) -> u64 {
        self.ms
    }

    /// Seconds since the epoch, for the Date header and the log.
    pub fn wall(&self) -> u64 {
        self.wall
    }

    /// The times of a request that ends now, for the log. `began` is when the application was called, in nanoseconds of this
    /// clock; `None` when it was not. `queued` is how long the request has waited for a permit before, in nanoseconds.
    pub fn timing(&self, began: Option<u64>, queued: u64) -> Timing {
        let began = began.unwrap_or(self.ns);
        Timing {
            arrived: began.saturating_sub(queued).wrapping_add(self.ahead) / NS_PER_SECOND,
            lasted: self.ns.saturating_sub(began),
            queued,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_800_000_000;

    /// A clock that was set at a second of its own, a quarter of a second after the wall clock's 100th.
    fn clock() -> Clock {
        let mut clock = Clock { ns: 7 * NS_PER_SECOND, ms: 0, wall: 0, ahead: 0, next_second: 0 };
        clock.set(Wall { seconds: EPOCH + 100, nanos: 250_000_000 });
        clock
    }

    #[test]
    fn a_request_has_the_second_in_which_it_came() {
        let mut clock = clock();
        let began = clock.ns;
        for (lasted, queued, arrived) in [
            (0, 0, 100),
            (NS_PER_SECOND * 9, 0, 100),
            (0, NS_PER_SECOND / 4, 100),
            (NS_PER_SECOND * 9, NS_PER_SECOND / 2, 99),
            (NS_PER_SECOND / 2, NS_PER_SECOND * 3, 97),
        ] {
            clock.ns = began + lasted;
            let timing = clock.timing(Some(began), queued);
            assert_eq!((timing.arrived, timing.lasted, timing.queued), (EPOCH + arrived, lasted, queued));
        }
        clock.ns = began + NS_PER_SECOND * 3 / 4;
        let timing = clock.timing(None, NS_PER_SECOND);
        assert_eq!((timing.arrived, timing.lasted), (EPOCH + 100, 0), "one that was not called ends now");
    }

    #[test]
    fn the_wall_clock_is_read_again_when_its_second_is_over() {
        let mut clock = Clock::new();
        (clock.wall, clock.next_second) = (0, clock.ns + NS_PER_SECOND * 3_600);
        clock.tick();
        assert_eq!(clock.wall(), 0);
        clock.next_second = clock.ns;
        clock.tick();
        assert!(clock.wall().abs_diff(wall().seconds) <= 1);
    }
}
