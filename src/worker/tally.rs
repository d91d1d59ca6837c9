//! Events whose number a client or an application determines, and of which the log has a line only now and then.
//!
//! The first event has a line at once. Those in the pause after a line share the next one: at the next event after the pause, or
//! when the loop is reminded that it is over ([`Reminder`]), or when the worker ends.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// When the next line of any tally of a worker is due; clones are the same one.
#[derive(Clone, Debug)]
pub struct Reminder(Arc<AtomicU64>);

impl Default for Reminder {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Reminder {
    /// That time, in milliseconds of the loop's clock; `None`: every event is in a line.
    #[inline]
    pub fn due(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|&due| due < u64::MAX)
    }

    /// There is something to look after at `at`, in milliseconds of the loop's clock.
    #[cold]
    pub fn remind(&self, at: u64) {
        self.0.fetch_min(at, Relaxed);
    }

    /// Whether it has come at `now`. All tallies have to be asked for their [`Tally::rest`] then, which sets it anew.
    #[inline]
    pub fn take(&self, now: u64) -> bool {
        let is_due = self.0.load(Relaxed) <= now;
        if is_due {
            self.0.store(u64::MAX, Relaxed);
        }
        is_due
    }
}

/// The events of one kind that are in no line of the log yet.
#[derive(Debug)]
pub struct Tally {
    count: AtomicU64,
    /// Earliest time of the next line, in milliseconds of the loop's clock.
    next: AtomicU64,
    /// Least time between two lines, in milliseconds.
    pause: u64,
    reminder: Reminder,
}

impl Tally {
    /// One without events.
    pub fn new(pause: u64, reminder: &Reminder) -> Self {
        Self { count: AtomicU64::new(0), next: AtomicU64::new(0), pause, reminder: reminder.clone() }
    }

    /// Counts an event at `now`, in milliseconds of the loop's clock. If a line is due, returns how many events there were since
    /// the last one, this one included.
    pub fn count(&self, now: u64) -> Option<u64> {
        self.count.fetch_add(1, Relaxed);
        self.rest(now)
    }

    /// The events since the last line, if there are any and a line is due at `now` (`u64::MAX`: whatever the time is).
    pub fn rest(&self, now: u64) -> Option<u64> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let due = self.next.load(Relaxed);
        // Of several threads one writes the line.
        if now >= due && self.next.compare_exchange(due, now.saturating_add(self.pause), Relaxed, Relaxed).is_ok() {
            return Some(self.count.swap(0, Relaxed)).filter(|&count| count > 0);
        }
        self.reminder.0.fetch_min(self.next.load(Relaxed), Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_in_one_line() {
        let tally = Tally::new(1_000, &Reminder::default());
        assert_eq!(tally.count(5_000), Some(1));
        assert_eq!((tally.count(5_001), tally.count(5_999)), (None, None));
        assert_eq!((tally.count(6_000), tally.count(6_001)), (Some(3), None));
        assert_eq!((tally.rest(6_999), tally.rest(7_000), tally.rest(9_000)), (None, Some(1), None));
    }

    #[test]
    fn a_reminder_is_due_when_the_first_pause_is_over_after_which_something_is_left() {
        let reminder = Reminder::default();
        let (often, seldom) = (Tally::new(1_000, &reminder), Tally::new(10_000, &reminder));
        assert_eq!((seldom.count(5_000), often.count(5_000), reminder.due()), (Some(1), Some(1), None));
        assert_eq!((seldom.count(5_001), reminder.due()), (None, Some(15_000)));
        assert_eq!((often.count(5_002), reminder.due()), (None, Some(6_000)));
        assert!(!reminder.take(5_999) && reminder.take(6_000));
        assert_eq!((often.rest(6_000), seldom.rest(6_000), reminder.due()), (Some(1), None, Some(15_000)));
        assert!(reminder.take(15_000));
        assert_eq!((often.rest(15_000), seldom.rest(15_000), reminder.due()), (None, Some(1), None));
    }

    #[test]
    fn at_the_end_nothing_is_left() {
        let tally = Tally::new(1_000, &Reminder::default());
        assert_eq!((tally.count(5_000), tally.count(5_001)), (Some(1), None));
        assert_eq!((tally.rest(u64::MAX), tally.rest(u64::MAX)), (Some(1), None));
    }
}
