//! When the server reports to the service manager that it lives (sd_watchdog_enabled(3)): at half the interval that it asks for,
//! from the master's loop and only while a worker is ready. So it strikes when the loop hangs, and when nobody serves.

use std::time::{Duration, Instant};

use crate::sys::process::Pid;

/// The shortest interval that is kept: below it the service would do nothing but report that it lives.
const SHORTEST: Duration = Duration::from_millis(1);

/// The watchdog of this process.
#[derive(Debug)]
pub struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Watchdog {
    /// The watchdog that the environment asks for, if it asks this process.
    pub fn from_environment(pid: Pid, now: Instant) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::new(&variable("WATCHDOG_USEC")?, variable("WATCHDOG_PID").as_deref(), pid, now)
    }

    fn new(micros: &str, asked: Option<&str>, pid: Pid, now: Instant) -> Option<Self> {
        if asked.is_some_and(|asked| asked.parse() != Ok(pid.as_raw())) {
            return None;
        }
        let interval = Duration::from_micros(micros.parse().ok().filter(|micros| *micros > 0)?);
        let every = (interval / 2).max(SHORTEST);
        Some(Self { every, next: now + every })
    }

    /// Whether to report it now.
    pub fn due(&mut self, ready_workers: usize, now: Instant) -> bool {
        let due = ready_workers > 0 && self.next <= now;
        if due {
            self.next = now + self.every;
        }
        due
    }

    /// When it is due next. Without a ready worker never: its report will wake the loop.
    pub fn next(&self, ready_workers: usize) -> Option<Instant> {
        (ready_workers > 0).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: Pid = Pid::from_raw(7);

    #[test]
    fn it_is_due_at_half_the_interval_while_a_worker_is_ready() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut watchdog = Watchdog::new("2000000", Some("7"), PID, start).unwrap();
        assert!(!watchdog.due(1, at(999)));
        assert!(watchdog.due(1, at(1000)));
        assert_eq!(watchdog.next(1), Some(at(2000)));
        assert!(!watchdog.due(0, at(2000)));
        assert_eq!(watchdog.next(0), None);
        assert!(watchdog.due(1, at(2001)), "made up for as soon as somebody serves");
    }

    #[test]
    fn who_is_not_asked_has_none() {
        for (micros, pid) in [("0", None), ("x", None), ("", None), ("-5", None), ("1000", Some("8")), ("1000", Some("x"))] {
            assert!(Watchdog::new(micros, pid, PID, Instant::now()).is_none(), "{micros} {pid:?}");
        }
        assert!(Watchdog::new("1", None, PID, Instant::now()).is_some());
    }
}
