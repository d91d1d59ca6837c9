//! How many workers there are and which give way: one rule for crashes, reloads, worn workers and TTIN, TTOU, WINCH.
//!
//! Three things hold at all times. Missing workers are made good at once. A worker gives way only when enough others are ready.
//! Beyond the wanted number there are never more than the surge: those that boot to replace, and those that drain.

use std::time::Instant;

use crate::channel::Order;
use crate::status::ExitCause;

use super::super::event::{Action, Note, SlotIndex};
use super::{LONGEST, Place, PlaceState, ServerPhase, Supervisor};

/// Workers beyond the wanted number while worn ones are replaced.
const RECYCLE_SURGE: usize = 1;

impl Supervisor {
    /// Moves the workers one step towards what is wanted.
    pub(super) fn balance(&mut self, now: Instant) {
        let target = if self.stopped { 0 } else { self.wanted };
        match self.phase {
            ServerPhase::Starting => while self.count(|_| true) < target && self.add(now) {},
            ServerPhase::Serving => self.balance_towards(target, now),
            ServerPhase::Stopping { .. } | ServerPhase::Done => {}
        }
    }

    fn balance_towards(&mut self, target: usize, now: Instant) {
        while self.count(is_ready) > target {
            let Some(slot) = self.first_to_leave() else { break };
            // With the last ones nobody is left to take their connections over.
            let order = if target > 0 { Order::Retire } else { Order::Vacate };
            self.retire(slot, order, now);
        }
        let surge = self.surge(target);
        while self.count(|_| true) > target + surge {
            // What boots is waited for, and gives way when it is ready.
            let Some(place) = self.places.iter_mut().rev().find(|place| matches!(place.state, PlaceState::Waiting { .. })) else {
                break;
            };
            (place.state, place.owed) = (PlaceState::Empty, false);
        }
        while self.count(|_| true) < target && self.add(now) {}
        while self.count(|place| !self.is_stale(place)) < target && self.taken() < target + surge && self.add(now) {}
        self.watch_degradation(target, now);
        self.finish_reload(target);
    }

    /// Adds a wanted worker; `false` when there is no room.
    pub(super) fn add(&mut self, now: Instant) -> bool {
        let Some(slot) = self.free_place() else { return false };
        self.places[slot.0].owed = true;
        self.fork(slot, self.current, self.policy.boot_timeout, now);
        true
    }

    /// How many of the wanted places are like this.
    fn count(&self, like: impl Fn(&Place) -> bool) -> usize {
        self.places.iter().filter(|place| place.owed && like(place)).count()
    }

    /// Workers that live, leaving ones included, and those that are about to; the canary of a reload has its place besides, and
    /// lost ones do not count.
    pub(super) fn taken(&self) -> usize {
        let canary = self.reload.canary();
        self.places
            .iter()
            .enumerate()
            .filter(|(index, place)| {
                !matches!(place.state, PlaceState::Empty | PlaceState::Lost) && canary != Some(SlotIndex(*index))
            })
            .count()
    }

    /// Whether the place's worker gives way to a new one.
    fn is_stale(&self, place: &Place) -> bool {
        place.worn || place.generation < self.current
    }

    fn surge(&self, target: usize) -> usize {
        let stale_ready = |place: &Place| is_ready(place) && self.is_stale(place);
        match self.count(stale_ready) {
            0 => 0,
            _ if self.count(|place| place.generation < self.current) > 0 => self.policy.surge.min(target),
            _ => RECYCLE_SURGE,
        }
    }

    /// Of the workers that serve: the stale one that has served longest, else the last. Where workers wear out faster than they
    /// are replaced, each is replaced in its time.
    fn first_to_leave(&self) -> Option<SlotIndex> {
        let serving = self.places.iter().enumerate().filter(|(_, place)| place.owed);
        let mut serving = serving.filter_map(|(index, place)| Some((SlotIndex(index), place, ready_since(place)?)));
        let stale = serving.clone().filter(|(_, place, _)| self.is_stale(place)).min_by_key(|(_, _, since)| *since);
        stale.or_else(|| serving.next_back()).map(|(slot, _, _)| slot)
    }

    fn retire(&mut self, slot: SlotIndex, order: Order, now: Instant) {
        let until = Some(now + self.policy.graceful_timeout.min(LONGEST));
        let replaced = self.places[slot.0].generation < self.current;
        let why = if replaced { self.reload.cause() } else { ExitCause::Scale };
        let place = &mut self.places[slot.0];
        place.state = PlaceState::Leaving { until, hurried: false };
        place.owed = false;
        place.why.get_or_insert(why);
        self.actions.push(Action::Order(slot, order));
    }

    /// Informs the workers that leave already and hand their connections over: nobody stays to take them.
    pub(super) fn vacate_the_leaving(&mut self) {
        let leaving = |place: &Place| matches!(place.state, PlaceState::Leaving { hurried: false, .. });
        let slots = self.places.iter().enumerate().filter(|(_, place)| leaving(place)).map(|(index, _)| SlotIndex(index));
        self.actions.extend(slots.map(|slot| Action::Order(slot, Order::Vacate)));
    }

    /// Says when fewer workers serve than wanted because new ones fail, and when that is over.
    fn watch_degradation(&mut self, wanted: usize, now: Instant) {
        let ready = self.count(is_ready);
        let failing = |place: &Place| matches!(place.state, PlaceState::Waiting { until, .. } if until > now);
        if ready >= wanted && self.degraded {
            self.degraded = false;
            self.tell(Note::Recovered(ready));
        } else if ready < wanted && !self.degraded && self.count(failing) > 0 {
            self.degraded = true;
            self.tell(Note::Degraded { ready, wanted });
        }
    }

    /// Says when the last worker of an old generation has given way, and continues with the next reload.
    fn finish_reload(&mut self, target: usize) {
        let fresh = |place: &Place| is_ready(place) && place.generation == self.current;
        let old = self.count(|place| place.generation < self.current);
        if self.reload.is_rolling() && old == 0 && self.count(fresh) >= target {
            self.tell(Note::Reloaded(self.current));
            self.reload.rolled();
            self.reload_if_queued();
        }
    }
}

fn is_ready(place: &Place) -> bool {
    ready_since(place).is_some()
}

/// Since when its worker has served.
fn ready_since(place: &Place) -> Option<Instant> {
    let PlaceState::Ready { since } = place.state else { return None };
    Some(since)
}
