//! Whether an answer may wait in the outbox ([`crate::worker::send::outbox`]).

use crate::worker::threads::pace::TICK_NS;

use super::ThreadCtx;

/// Quicker calls send their answers at once although others wait, in nanoseconds: such clients are awake anyhow, and workers that share
/// cores with them stay evenly busy.
const HOLD_FROM_NS: u64 = 20_000;

/// Larger answers are sent at once, in bytes: copying them costs more than it saves.
const HOLD_MAX: usize = 16 * 1024;

impl ThreadCtx {
    /// Other requests wait for this thread, or none does.
    #[inline]
    pub(in crate::worker) fn set_crowded(&mut self, crowded: bool) {
        self.crowded = crowded && self.spent >= HOLD_FROM_NS;
    }

    /// A piece of work in the application took so many nanoseconds. A request may take several, and a quick one says little about
    /// the next request.
    #[inline]
    pub(in crate::worker) fn note_time(&mut self, took: u64) {
        self.spent = took.max(self.spent - self.spent / 8);
    }

    /// Whether the answer in `out` may wait: another request waits for this thread and calls are so quick that they keep the loop.
    /// `follows`: earlier answers to the same client wait already.
    #[inline]
    pub(in crate::worker) fn may_hold(&self, follows: bool) -> bool {
        let waits = self.crowded || (self.has_input() && !self.writes);
        (follows || (waits && self.spent < TICK_NS)) && self.out.len() <= HOLD_MAX
    }
}
