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
    /// Least time between two lines, or between as many as are allowed at once, in milliseconds.
    pause: u64,
    /// Lines that may follow each other, and how many of them are left.
    lines: u64,
    left: AtomicU64,
    reminder: Reminder,
}

impl Tally {
    /// One without events.
    pub fn new(pause: u64, reminder: &Reminder) -> Self {
        Self::with_lines(1, pause, reminder)
    }

    /// One without events; of those in each pause the first `lines` have a line each.
    pub fn with_lines(lines: u64, pause: u64, reminder: &Reminder) -> Self {
        let (count, next, left) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { count, next, pause, lines, left, reminder: reminder.clone() }
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
        let begins = now >= due && self.next.compare_exchange(due, now.saturating_add(self.pause), Relaxed, Relaxed).is_ok();
        if begins {
            self.left.store(self.lines - 1, Relaxed);
        }
        if begins || self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
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
    fn as_many_events_as_are_allowed_have_a_line_each() {
        let tally = Tally::with_lines(3, 1_000, &Reminder::default());
        let told: Vec<_> = (0..6).map(|n| tally.count(5_000 + n)).collect();
        assert_eq!(told, [Some(1), Some(1), Some(1), None, None, None]);
        assert_eq!((tally.count(6_000), tally.count(6_001), tally.count(6_002)), (Some(4), Some(1), Some(1)));
        assert_eq!((tally.count(6_003), tally.rest(u64::MAX)), (None, Some(1)));
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
