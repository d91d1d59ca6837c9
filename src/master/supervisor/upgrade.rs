//! The upgrade: the gate in front of exec, and the way of the workers through it.
//!
//! ```text
//! Idle ──USR2──▶ Queued ──no reload is under way──▶ Trying ──fit──▶ exec ─ ─ in the new program ─ ─▶ reload
//!   ▲                                                  │              │
//!   └──────────────────── not fit, no answer, ─────────┴──── fails ───┘
//! ```
//! A second USR2 is the same upgrade. After exec everything is as in a reload, and fails as one: the earlier workers continue to
//! serve.

use std::time::{Duration, Instant};

use super::super::event::{Action, Generation, Life, Note, Policy, SlotIndex, UpgradeFailure, WorkerLife};
use super::{LONGEST, Place, PlaceState, Reload, ServerPhase, Supervisor};

/// Longest time that a new program takes to say whether it can continue: it reads its configuration and loads nothing.
pub const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an upgrade is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    Idle,
    Queued,
    Trying { until: Instant },
}

impl Upgrade {
    /// When the trial is over.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Trying { until } => Some(until),
            Self::Idle | Self::Queued => None,
        }
    }
}

impl Supervisor {
    /// The policy of a server that has become another program: it serves `current`, the last generation that was begun is
    /// `latest`, and it has these workers. [`super::Event::Start`] begins the reload that replaces them.
    pub fn adopt(
        policy: Policy,
        capacity: usize,
        (current, latest): (Generation, Generation),
        (wanted, stopped): (usize, bool),
        workers: &[WorkerLife],
        now: Instant,
    ) -> Self {
        let new = Self::new(policy, capacity);
        let wanted = wanted.clamp(1, new.most_workers());
        let reload = Reload::new(latest);
        let mut supervisor = Self { phase: ServerPhase::Serving, current, wanted, stopped, reload, ..new };
        for worker in workers {
            supervisor.take_over(worker, now);
        }
        supervisor
    }

    fn take_over(&mut self, worker: &WorkerLife, now: Instant) {
        let empty = Place::empty(self.current);
        let index = worker.slot.0;
        if index >= self.places.len() {
            self.places.resize(index + 1, empty);
        }
        let after = |left: Duration| now + left.min(LONGEST);
        let state = match worker.life {
            Life::Booting { left } => PlaceState::Booting { until: left.map(after) },
            Life::Ready { ago } => PlaceState::Ready { since: now.checked_sub(ago).unwrap_or(now) },
            Life::Leaving { left, hurried } => PlaceState::Leaving { until: left.map(after), hurried },
            Life::Ending { left } => PlaceState::Failed { kill_at: after(left) },
        };
        let ready = if let PlaceState::Ready { since } = state { Some(since) } else { None };
        self.places[index] =
            Place { state, generation: worker.generation, owed: worker.owed, worn: worker.worn, why: worker.why, ready, ..empty };
    }

    /// The generation that serves and the last one that was begun.
    pub fn generations(&self) -> (Generation, Generation) {
        (self.current, self.reload.latest())
    }

    /// How many workers are wanted, and whether an operator has stopped them.
    pub fn wanted(&self) -> (usize, bool) {
        (self.wanted, self.stopped)
    }

    /// The life of the worker in the slot, for the next program; `None` where none lives.
    pub fn life(&self, slot: SlotIndex, now: Instant) -> Option<WorkerLife> {
        let left = |at: Instant| at.saturating_duration_since(now);
        let place = self.places.get(slot.0)?;
        let life = match place.state {
            PlaceState::Empty | PlaceState::Waiting { .. } => return None,
            PlaceState::Booting { until } => Life::Booting { left: until.map(left) },
            PlaceState::Ready { since } => Life::Ready { ago: now.saturating_duration_since(since) },
            PlaceState::Leaving { until, hurried } => Life::Leaving { left: until.map(left), hurried },
            PlaceState::Failed { kill_at } => Life::Ending { left: left(kill_at) },
            PlaceState::Aborted { .. } | PlaceState::Killed { .. } | PlaceState::Lost => Life::Ending { left: Duration::ZERO },
        };
        Some(WorkerLife { slot, generation: place.generation, life, owed: place.owed, worn: place.worn, why: place.why })
    }

    /// Whether a new program is tried, or takes over.
    pub(super) fn is_upgrading(&self) -> bool {
        matches!(self.upgrade, Upgrade::Trying { .. }) || self.reload.is_upgrade()
    }

    pub(super) fn upgrade_asked(&mut self) {
        if self.upgrade != Upgrade::Idle {
            return;
        }
        self.upgrade = Upgrade::Queued;
        if !self.may_upgrade() {
            self.tell(Note::UpgradeQueued);
        }
    }

    /// Whether nothing is under way that the next program would not know of: a reload, a report of a worker that hung.
    pub fn may_upgrade(&self) -> bool {
        let reported = self.places.iter().all(|place| !matches!(place.state, PlaceState::Aborted { .. }));
        self.phase == ServerPhase::Serving && self.reload.is_idle() && reported
    }

    pub(super) fn upgrade_if_queued(&mut self, now: Instant) {
        if self.upgrade == Upgrade::Queued && self.may_upgrade() {
            self.upgrade = Upgrade::Trying { until: now + TRIAL_TIMEOUT };
            self.actions.push(Action::TryUpgrade);
        }
    }

    pub(super) fn tried(&mut self, outcome: Result<(), String>) {
        self.upgrade = Upgrade::Idle;
        match outcome {
            Ok(()) if self.may_upgrade() => self.actions.push(Action::Upgrade),
            // A reload has begun meanwhile.
            Ok(()) if self.phase == ServerPhase::Serving => self.upgrade = Upgrade::Queued,
            Ok(()) => {}
            Err(why) => self.tell(Note::UpgradeFailed { why: UpgradeFailure::Program(why), serves: self.current }),
        }
    }

    pub(super) fn meet_trial(&mut self, now: Instant) {
        if self.upgrade.until().is_some_and(|until| until <= now) {
            self.cancel_upgrade();
            let why = format!("the new program gave no answer within {} s", TRIAL_TIMEOUT.as_secs());
            self.tell(Note::UpgradeFailed { why: UpgradeFailure::Program(why), serves: self.current });
        }
    }

    /// Nothing is tried any more.
    pub(super) fn cancel_upgrade(&mut self) {
        if let Upgrade::Trying { .. } = self.upgrade {
            self.actions.push(Action::EndTrial);
        }
        self.upgrade = Upgrade::Idle;
    }
}
