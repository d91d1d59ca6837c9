//! The gate of a reload: configuration, then one worker of the new generation, and only then the others.
//!
//! ```text
//! Idle ──HUP──▶ Reading ──configuration is good──▶ Canary ──ready──▶ Rolling ──no old worker is left──▶ Idle
//!                  └──────────── bad ────────────────┴── fails ──▶ Idle, the old generation serves on
//! ```
//! A HUP that comes outside of Idle is kept until Idle comes again; several are one. A change of the sources (`--reload`) does not
//! wait: what boots is killed, and the gate begins anew.

use std::time::Instant;

use crate::status::ExitCause;

use super::super::event::{Action, Generation, Note, Policy, ReloadFailure, SlotIndex, UpgradeFailure};
use super::{KILL_GRACE, PlaceState, ServerPhase, Supervisor};

/// Where a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReloadStep {
    Idle,
    Reading,
    Canary { slot: SlotIndex, policy: Policy },
    Rolling,
}

/// The reload under way and the one after it.
#[derive(Clone, Debug)]
pub(super) struct Reload {
    step: ReloadStep,
    /// The last generation that was begun, whether it came to serve or not.
    latest: Generation,
    queued: bool,
    /// Whether it is the second half of an upgrade.
    upgrade: bool,
    /// Why the workers that it replaces leave.
    cause: ExitCause,
}

impl Reload {
    /// None, in a server of this generation.
    pub(super) fn new(latest: Generation) -> Self {
        Self { step: ReloadStep::Idle, latest, queued: false, upgrade: false, cause: ExitCause::Reload }
    }

    /// The place of the first worker of the new generation, while it decides.
    pub(super) fn canary(&self) -> Option<SlotIndex> {
        match self.step {
            ReloadStep::Canary { slot, .. } => Some(slot),
            ReloadStep::Idle | ReloadStep::Reading | ReloadStep::Rolling => None,
        }
    }

    /// Whether none is under way or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.step == ReloadStep::Idle && !self.queued
    }

    /// Whether it is the second half of an upgrade.
    pub(super) fn is_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Why the workers that it replaces leave.
    pub(super) fn cause(&self) -> ExitCause {
        self.cause
    }

    /// The last generation that was begun.
    pub(super) fn latest(&self) -> Generation {
        self.latest
    }

    /// Whether the new generation replaces the old one.
    pub(super) fn is_rolling(&self) -> bool {
        self.step == ReloadStep::Rolling
    }

    /// The old generation is gone.
    pub(super) fn rolled(&mut self) {
        self.step = ReloadStep::Idle;
    }

    /// The server stops: nothing is loaded any more. Whether the configuration is being read.
    pub(super) fn cancel(&mut self) -> bool {
        self.queued = false;
        std::mem::replace(&mut self.step, ReloadStep::Idle) == ReloadStep::Reading
    }
}

impl Supervisor {
    /// The generation of the worker in the slot.
    pub fn generation(&self, slot: SlotIndex) -> Option<Generation> {
        self.places.get(slot.0).map(|place| place.generation)
    }

    /// Whether a worker boots.
    pub fn is_booting(&self) -> bool {
        self.places.iter().any(|place| matches!(place.state, PlaceState::Booting { .. }))
    }

    pub(super) fn reload_asked(&mut self) {
        if self.reload.step == ReloadStep::Idle && self.phase == ServerPhase::Serving {
            self.begin_reload();
        } else {
            self.reload.queued = true;
            self.tell(Note::ReloadQueued);
        }
    }

    pub(super) fn reload_if_queued(&mut self) {
        if self.reload.step == ReloadStep::Idle && std::mem::take(&mut self.reload.queued) {
            self.begin_reload();
        }
    }

    /// Replaces the workers of the program that this process was before.
    pub(super) fn reload_for_upgrade(&mut self) {
        self.reload.upgrade = true;
        self.begin_reload();
    }

    /// The sources have changed. A worker that boots has read some of them before, and may never end its boot because of what was
    /// mended now: it is killed, and what it was to be begins anew.
    pub(super) fn sources_changed(&mut self, now: Instant) {
        let starting = match self.phase {
            ServerPhase::Starting => true,
            ServerPhase::Serving => false,
            ServerPhase::Stopping { .. } | ServerPhase::Done => return,
        };
        if self.reload.upgrade {
            // That of the program before goes on.
            return self.reload_asked();
        }
        for (index, place) in self.places.iter_mut().enumerate() {
            if let PlaceState::Booting { .. } = place.state {
                (place.state, place.owed) = (PlaceState::Killed { until: now + KILL_GRACE }, false);
                self.actions.push(Action::Kill(SlotIndex(index)));
            }
        }
        if starting {
            // `balance` makes the killed ones good. Those that are ready have loaded what was there before.
            self.reload.queued |= self.places.iter().any(|place| place.owed);
            return;
        }
        match self.reload.step {
            // It has read nothing of the application yet.
            ReloadStep::Reading => return,
            ReloadStep::Canary { .. } => self.actions.push(Action::Discard(self.reload.latest)),
            ReloadStep::Idle | ReloadStep::Rolling => {}
        }
        self.begin_reload();
    }

    fn begin_reload(&mut self) {
        self.reload.latest.0 += 1;
        self.reload.step = ReloadStep::Reading;
        self.reload.cause = if self.reload.upgrade { ExitCause::Upgrade } else { ExitCause::Reload };
        self.tell(Note::Reloading(self.reload.latest));
        self.actions.push(Action::Read(self.reload.latest));
    }

    pub(super) fn configuration_read(&mut self, result: Result<Policy, String>, now: Instant) {
        if self.reload.step != ReloadStep::Reading {
            return;
        }
        let policy = match result {
            Ok(policy) => policy,
            Err(why) => return self.fail_reload(ReloadFailure::Configuration(why)),
        };
        let Some(slot) = self.free_place() else { return self.fail_reload(ReloadFailure::NoPlace) };
        self.reload.step = ReloadStep::Canary { slot, policy };
        self.fork(slot, self.reload.latest, policy.boot_timeout, now);
    }

    /// The canary is ready: its generation serves from now on.
    pub(super) fn promote(&mut self, slot: SlotIndex) {
        let ReloadStep::Canary { policy, .. } = self.reload.step else { return };
        self.reload.step = ReloadStep::Rolling;
        self.reload.upgrade = false;
        self.current = self.reload.latest;
        self.policy = policy;
        let most = self.most_workers();
        self.wanted = policy.workers.min(most);
        self.stopped = false;
        self.places[slot.0].owed = true;
        for place in self.places.iter_mut().filter(|place| matches!(place.state, PlaceState::Waiting { .. })) {
            place.generation = self.current;
        }
        if policy.workers > most {
            self.tell(Note::WorkersLimit(most));
        }
        self.tell(Note::Adopted(self.current));
        self.actions.push(Action::Adopt(self.current));
    }

    /// The canary has ended.
    pub(super) fn canary_failed(&mut self) {
        self.fail_reload(ReloadFailure::Worker);
    }

    fn fail_reload(&mut self, why: ReloadFailure) {
        let failed = self.reload.latest;
        self.reload.step = ReloadStep::Idle;
        let serves = self.current;
        let upgrade = std::mem::take(&mut self.reload.upgrade);
        self.tell(match upgrade {
            true => Note::UpgradeFailed { why: UpgradeFailure::Load(failed, why), serves },
            false => Note::ReloadFailed { failed, why, serves },
        });
        self.actions.push(Action::Discard(failed));
        self.reload_if_queued();
    }
}
