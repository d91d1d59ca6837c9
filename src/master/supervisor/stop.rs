//! The end of the server: drain, then quit, then kill, each with its time.

use std::time::{Duration, Instant};

use crate::channel::Order;

use super::super::event::{Action, Note, Slot};
use super::{LONGEST, Phase, State, Supervisor};

/// Time that a quick stop leaves to the requests that run.
pub const QUIT_GRACE: Duration = Duration::from_secs(5);

/// Time to leave after a drain has used up its own (`--graceful-timeout`).
pub const QUIT_GRACE_AFTER_DRAIN: Duration = Duration::from_secs(1);

/// Time that a stop leaves to a worker that is still booting. It serves nobody, unless its report is on the way.
pub const BOOT_GRACE: Duration = Duration::from_secs(1);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Drain { until: Instant },
    Quit { until: Instant },
    Kill,
}

impl Stage {
    /// When it is over.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Drain { until } | Self::Quit { until } => Some(until),
            Self::Kill => None,
        }
    }
}

impl Supervisor {
    /// Orders all workers to leave, or to leave more quickly.
    pub(super) fn stop(&mut self, code: i32, order: Order, now: Instant) {
        self.tell(Note::Stopping(order));
        let stage = match order {
            Order::Drain => Stage::Drain { until: now + self.policy.graceful_timeout.min(LONGEST) },
            Order::Quit | Order::Vacate | Order::Retire | Order::Ping => Stage::Quit { until: now + QUIT_GRACE },
        };
        self.enter(code, stage, order, now);
    }

    fn enter(&mut self, code: i32, stage: Stage, order: Order, now: Instant) {
        if matches!(self.phase, Phase::Starting | Phase::Serving) {
            self.actions.push(Action::StopListening);
        }
        self.phase = Phase::Stopping { code, stage };
        self.reload.cancel();
        self.cancel_upgrade();
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            place.owed = false;
            let (next, told) = match place.state {
                State::Waiting { .. } | State::Empty => (State::Empty, false),
                State::Booting { until } => {
                    let grace = now + BOOT_GRACE;
                    (State::Booting { until: Some(until.map_or(grace, |until| until.min(grace))) }, true)
                }
                State::Ready { .. } | State::Leaving { .. } => (State::Leaving { until: None, hurried: false }, true),
                state @ (State::Failed { .. } | State::Aborted { .. } | State::Killed { .. } | State::Lost) => (state, false),
            };
            place.state = next;
            if told {
                self.actions.push(Action::Order(Slot(index), order));
            }
        }
    }

    pub(super) fn kill_all(&mut self, code: i32, now: Instant) {
        self.phase = Phase::Stopping { code, stage: Stage::Kill };
        for index in 0..self.places.len() {
            match self.places[index].state {
                State::Booting { .. } | State::Failed { .. } | State::Ready { .. } | State::Leaving { .. } => {
                    self.kill(Slot(index), now);
                }
                State::Aborted { killed: false, .. } => self.kill(Slot(index), now),
                State::Aborted { killed: true, .. } | State::Killed { .. } | State::Lost => {}
                State::Empty | State::Waiting { .. } => {}
            }
        }
    }

    pub(super) fn meet_stage(&mut self, now: Instant) {
        match self.phase {
            Phase::Stopping { code, stage: Stage::Drain { until } } if until <= now => {
                self.tell(Note::DrainTimeout(self.policy.graceful_timeout));
                self.enter(code, Stage::Quit { until: now + QUIT_GRACE_AFTER_DRAIN }, Order::Quit, now);
            }
            Phase::Stopping { code, stage: Stage::Quit { until } } if until <= now => self.kill_all(code, now),
            Phase::Stopping { .. } | Phase::Starting | Phase::Serving | Phase::Done => {}
        }
    }

    pub(super) fn end_when_empty(&mut self) {
        if let Phase::Stopping { code, .. } = self.phase
            && self.places.iter().all(|place| matches!(place.state, State::Empty | State::Lost))
        {
            self.phase = Phase::Done;
            self.actions.push(Action::Exit(code));
        }
    }
}
