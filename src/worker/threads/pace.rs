//! Whether calls are quick or slow at present, so that a thread need not lose the loop to find out each time.

use std::time::Duration;

/// How long a call may keep the loop: between one and two ticks. The watcher's timer is set to two ticks after the begin of a
/// call, and put off by the first call that begins less than one tick before it fires. So a call that is back within a tick never
/// wakes the watcher of a worker that is alone ([`super::executor::group`]). With a shorter tick ordinary calls of a millisecond
/// would lose the loop, which costs two context switches; with a longer one the others would wait longer. One millisecond was
/// measured to leave others untouched by slow calls.
pub const TICK: Duration = Duration::from_millis(1);

/// [`TICK`] in nanoseconds.
pub const TICK_NS: u64 = TICK.as_nanos() as u64;

/// Weight of one slow call against quick ones: with one slow call in four, calls go to other threads, which costs a quick one two
/// context switches and saves the loop a wait of a tick.
const SLOW: u8 = 4;

/// From this score on calls go to other threads.
const ENOUGH: u8 = 6;

/// Highest score: so many quick calls, less [`ENOUGH`], bring the calls back to the owner of the loop.
const MOST: u8 = 16;

/// The score of the last calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace(u8);

impl Pace {
    /// Counts a call.
    #[inline]
    pub fn note(&mut self, slow: bool) {
        self.0 = if slow { (self.0 + SLOW).min(MOST) } else { self.0.saturating_sub(1) };
    }

    /// Whether calls are slow now.
    pub fn is_slow(self) -> bool {
        self.0 >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(calls: &[bool]) -> bool {
        let mut pace = Pace::default();
        calls.iter().for_each(|&slow| pace.note(slow));
        pace.is_slow()
    }

    #[test]
    fn a_slow_call_among_many_quick_ones_changes_nothing() {
        let calls: Vec<bool> = (0..1000).map(|n| n % 10 == 0).collect();
        assert!((1..calls.len()).all(|end| !after(&calls[..end])));
    }

    #[test]
    fn slow_calls_are_noticed_and_forgotten() {
        assert!(after(&[true, true]));
        assert!(after(&[true; 100]));
        assert!(!after(&[&[true; 100][..], &[false; 11]].concat()));
    }
}
