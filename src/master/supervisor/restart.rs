//! When a worker that has died is replaced.
//!
//! One that was well is replaced at once, however often that happens: a request may have ended it, and a client that sends such
//! requests must not keep the others from being answered. Well is a worker that a client had reached, or that was ready for
//! [`HEALTHY_AFTER`]. That it had answered something is not asked for: the first request that a new worker gets may be such a
//! one. The bound is the cost: at most half of the workers boot for that at a time, and none while boots fail.
//!
//! A worker that leaves by itself, or does not even end when it is killed, is replaced in another place, as one that no client
//! had reached: the first time at once, and never so that leaving ones and others are more than twice the workers that are
//! wanted.
//!
//! All others (boots that fail, workers that die by themselves soon after their boot) are tried again with growing pauses, and
//! never more than [`RESTARTS`] a second.

use std::time::{Duration, Instant};

use super::super::event::{Note, SlotIndex};
use super::{Place, PlaceState, Supervisor};

/// Most replacements of failed workers that start within [`RESTART_WINDOW`], besides those of workers that were well: a crash
/// loop must not become the machine's main work.
pub const RESTARTS: usize = 2;

/// See [`RESTARTS`].
pub const RESTART_WINDOW: Duration = Duration::from_secs(1);

/// Pause before the second restart of a place in a row; it doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// Longest pause: a repaired application is back within this time.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A worker that was ready for this long was well, whether a client has reached it or not.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Whether a worker that was ready since then, if ever, and has died was well; `reached`: by a client.
pub(super) fn was_well(ready: Option<Instant>, reached: bool, now: Instant) -> bool {
    ready.is_some_and(|since| reached || now.duration_since(since) >= HEALTHY_AFTER)
}

impl Supervisor {
    /// Plans a replacement: at once for a worker that was `well` and after the first failure, later with a pause that doubles.
    pub(super) fn restart(&mut self, slot: SlotIndex, well: bool, now: Instant) {
        let place = &mut self.places[slot.0];
        if well {
            place.failures = 0;
        }
        let wait = match place.failures {
            0 => Duration::ZERO,
            failures => BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF_MAX),
        };
        place.failures = place.failures.saturating_add(1);
        place.state = PlaceState::Waiting { until: now + wait, prompt: well };
        place.generation = self.current;
        place.owed = true;
        if !wait.is_zero() {
            self.tell(Note::Pause { slot, wait });
        }
    }

    /// Plans a replacement for a worker that still has its place, in another one. Where there is none, its own is kept until it
    /// ends.
    pub(super) fn replace_elsewhere(&mut self, slot: SlotIndex, now: Instant) {
        let old = self.places[slot.0];
        if !old.owed {
            return;
        }
        let Some(other) = self.free_place() else { return };
        self.places[slot.0].owed = false;
        self.places[other.0].failures = old.failures;
        self.restart(other, was_well(old.ready, false, now), now);
    }

    /// Forks again where a pause is over, the longest first: for workers that were well while there is room for boots, else as
    /// often as the limit allows.
    pub(super) fn restart_the_waiting(&mut self, now: Instant) {
        while self.may_boot_promptly() {
            let Some(slot) = self.longest_waiting(now, true) else { break };
            self.fork(slot, self.current, self.policy.boot_timeout, now);
        }
        while self.restart_allowed_at().is_none_or(|allowed| allowed <= now) {
            let Some(slot) = self.longest_waiting(now, false) else { break };
            self.restarts.rotate_left(1);
            self.restarts[RESTARTS - 1] = Some(now);
            self.fork(slot, self.current, self.policy.boot_timeout, now);
        }
    }

    /// Whether there is room for one more boot in the place of a worker that was well: half of the workers may boot, so that a
    /// flood of requests that crash workers leaves as much of the machine to those that serve.
    fn may_boot_promptly(&self) -> bool {
        let booting = self.places.iter().filter(|place| matches!(place.state, PlaceState::Booting { .. })).count();
        !self.boots_fail && booting < self.wanted.div_ceil(2)
    }

    /// The place whose pause was over first, of all or of those that are `prompt`.
    fn longest_waiting(&self, now: Instant, prompt: bool) -> Option<SlotIndex> {
        let pause_over = |(index, place): (usize, &Place)| {
            let PlaceState::Waiting { until, prompt: is } = place.state else { return None };
            (is || !prompt).then_some((until, SlotIndex(index)))
        };
        let first = self.places.iter().enumerate().filter_map(pause_over).min();
        first.filter(|(until, _)| *until <= now).map(|(_, slot)| slot)
    }

    /// When the limit allows one more restart; `None`: now.
    pub(super) fn restart_allowed_at(&self) -> Option<Instant> {
        self.restarts[0].map(|oldest| oldest + RESTART_WINDOW)
    }
}
