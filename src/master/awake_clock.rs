//! The master's time, without what it has slept through: a machine that was paused, a control group that was frozen, a disk that
//! let nobody write. Everything that has a deadline stood still as well.

use std::time::{Duration, Instant};

/// How late the master may be before it counts as having stood still.
const LATE: Duration = Duration::from_secs(1);

/// The clock of deadlines.
#[derive(Debug)]
pub struct AwakeClock {
    lost: Duration,
    /// When the last sleep ended.
    woke: Instant,
}

impl AwakeClock {
    /// Nothing lost yet.
    pub fn new() -> Self {
        Self { lost: Duration::ZERO, woke: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.at(Instant::now())
    }

    fn at(&self, real: Instant) -> Instant {
        real.checked_sub(self.lost).unwrap_or(real)
    }

    /// Whether the master has stood still since its last sleep: what is seen now is not to be judged before the next
    /// [`AwakeClock::woken`].
    pub fn stands_still(&self) -> bool {
        self.late_at(Instant::now())
    }

    fn late_at(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.woke) > LATE
    }

    /// A sleep has ended that began at `began` and was to last `planned` at most (real time); whether the master has stood still,
    /// then or while it was at work before.
    pub fn woken(&mut self, began: Instant, planned: Option<Duration>) -> bool {
        self.woken_at(began, planned, Instant::now())
    }

    fn woken_at(&mut self, began: Instant, planned: Option<Duration>, now: Instant) -> bool {
        let work = began.saturating_duration_since(self.woke);
        let late = planned.map_or(Duration::ZERO, |planned| now.saturating_duration_since(began).saturating_sub(planned));
        self.woke = now;
        let lost = [work, late].into_iter().filter(|time| *time > LATE).sum();
        self.lost += lost;
        !lost.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_sleep_that_lasts_as_planned_is_nothing_special() {
        let mut pace = AwakeClock::new();
        let began = pace.woke;
        assert!(!pace.woken_at(began, Some(10 * SECOND), began + 10 * SECOND));
        assert!(!pace.woken_at(began + 10 * SECOND, None, began + 500 * SECOND), "nothing was due");
        assert_eq!(pace.at(began + 500 * SECOND), began + 500 * SECOND);
    }

    #[test]
    fn standing_still_at_work_is_known_before_the_next_sleep() {
        let mut pace = AwakeClock::new();
        let began = pace.woke;
        pace.woken_at(began, Some(SECOND), began + SECOND);
        assert!(!pace.late_at(began + 2 * SECOND));
        assert!(pace.late_at(began + 5 * SECOND));
        assert!(pace.woken_at(began + 5 * SECOND, Some(SECOND), began + 5 * SECOND));
        assert!(!pace.late_at(began + 6 * SECOND));
    }

    #[test]
    fn what_was_slept_through_is_not_counted() {
        let mut pace = AwakeClock::new();
        let began = pace.woke;
        assert!(pace.woken_at(began, Some(SECOND), began + 100 * SECOND));
        assert_eq!(pace.at(began + 100 * SECOND), began + SECOND);
        assert!(pace.woken_at(began + 130 * SECOND, Some(SECOND), began + 130 * SECOND), "it was held up at work");
        assert_eq!(pace.at(began + 130 * SECOND), began + SECOND);
    }
}
