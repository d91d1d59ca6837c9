//! Whether an answer leaves at once or may wait for others ([`super::outbox`]).

use super::outbox::Outbox;
use crate::worker::threads::pace::TICK_NS;

/// Quicker calls send their answers at once although others wait, in nanoseconds: such clients are awake anyhow, and workers that
/// share cores with them stay evenly busy.
const HOLD_FROM_NS: u64 = 20_000;

/// Larger answers are sent at once, in bytes: copying them costs more than it saves.
const HOLD_MAX: usize = 16 * 1024;

/// The facts by which a thread decides about sending.
#[derive(Debug, Default)]
pub struct SendPolicy {
    /// Whole answers that wait for others, while this thread has the loop.
    pub outbox: Outbox,
    /// Whether sockets of other connections are ready and wait for this thread, and calls are not so quick that this does not
    /// matter.
    pub crowded: bool,
    /// Whether the application has ever sent something during a call (`write()`, early hints).
    pub writes: bool,
    /// How long pieces of work take in the application, in nanoseconds: the last one, or slowly less than those before it.
    spent: u64,
}

impl SendPolicy {
    /// Other requests wait for this thread, or none does.
    #[inline]
    pub fn set_crowded(&mut self, crowded: bool) {
        self.crowded = crowded && self.spent >= HOLD_FROM_NS;
    }

    /// Notes that a piece of work in the application took so many nanoseconds. A request may take several, and a quick one shows
    /// little about the next request.
    #[inline]
    pub fn note_time(&mut self, took: u64) {
        self.spent = took.max(self.spent - self.spent / 8);
    }

    /// Whether a whole answer of `len` bytes may wait: another request waits for this thread (`has_input`: one of the same
    /// client), and calls are so quick that they keep the loop. `follows`: earlier answers to the same client wait already.
    #[inline]
    pub fn may_hold(&self, follows: bool, has_input: bool, len: usize) -> bool {
        let waits = self.crowded || (has_input && !self.writes);
        (follows || (waits && self.spent < TICK_NS)) && len <= HOLD_MAX
    }

    /// Whether the outbox must be sent before a call that takes as long as the last one; `now` in nanoseconds of the loop's
    /// clock.
    #[inline]
    pub fn is_due(&self, now: u64) -> bool {
        self.outbox.is_due(now, self.spent)
    }
}
