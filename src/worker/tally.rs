//! Events whose number a client or an application determines, and of which the log has a line only now and then.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The events that are in no line of the log yet.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicU64,
    /// Earliest time of the next line, in milliseconds of the loop's clock.
    next: AtomicU64,
}

impl Tally {
    /// Counts an event at `now`, in milliseconds of the loop's clock. If a line is due, returns how many events there were since
    /// the last one, this one included; the next line is due `pause` milliseconds later. The first line is due at once.
    pub fn count(&self, now: u64, pause: u64) -> Option<u64> {
        self.count.fetch_add(1, Relaxed);
        let due = self.next.load(Relaxed);
        // Of several threads one writes the line.
        let mine = now >= due && self.next.compare_exchange(due, now + pause, Relaxed, Relaxed).is_ok();
        mine.then(|| self.count.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_in_one_line() {
        let tally = Tally::default();
        assert_eq!(tally.count(5_000, 1_000), Some(1));
        assert_eq!((tally.count(5_001, 1_000), tally.count(5_999, 1_000)), (None, None));
        assert_eq!((tally.count(6_000, 1_000), tally.count(6_001, 1_000)), (Some(3), None));
    }
}
