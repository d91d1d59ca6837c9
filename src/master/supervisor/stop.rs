//! The end of the server: drain, then quit, then kill, each with its time.

use std::time::{Duration, Instant};

use crate::channel::Order;
use crate::status::ExitCause;

use super::super::event::{Action, Note, SlotIndex};
use super::{LONGEST, PlaceState, ServerPhase, Supervisor};

/// Time that a quick stop leaves to the requests that run.
pub const QUIT_GRACE: Duration = Duration::from_secs(5);

/// Time to leave after a drain has used up its own (`--graceful-timeout`).
pub const QUIT_GRACE_AFTER_DRAIN: Duration = Duration::from_secs(1);

/// Time that a stop leaves to a worker that is still booting. It serves nobody, unless its report is on the way.
pub const BOOT_GRACE: Duration = Duration::from_secs(1);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopStage {
    Drain { until: Instant },
    Quit { until: Instant },
    Kill,
}

impl StopStage {
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
            Order::Drain => StopStage::Drain { until: now + self.policy.graceful_timeout.min(LONGEST) },
            Order::Quit | Order::Vacate | Order::Retire | Order::Ping => StopStage::Quit { until: now + QUIT_GRACE },
        };
        self.enter(code, stage, order, now);
    }

    fn enter(&mut self, code: i32, stage: StopStage, order: Order, now: Instant) {
        if matches!(self.phase, ServerPhase::Starting | ServerPhase::Serving) {
            self.actions.push(Action::StopListening);
        }
        self.phase = ServerPhase::Stopping { code, stage };
        if self.reload.cancel() {
            self.actions.push(Action::EndReading);
        }
        self.cancel_upgrade();
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            place.owed = false;
            let (next, told) = match place.state {
                PlaceState::Waiting { .. } | PlaceState::Empty => (PlaceState::Empty, false),
                PlaceState::Booting { until } => {
                    let grace = now + BOOT_GRACE;
                    (PlaceState::Booting { until: Some(until.map_or(grace, |until| until.min(grace))) }, true)
                }
                PlaceState::Ready { .. } | PlaceState::Leaving { .. } => {
                    (PlaceState::Leaving { until: None, hurried: false }, true)
                }
                state @ (PlaceState::Failed { .. }
                | PlaceState::Aborted { .. }
                | PlaceState::Killed { .. }
                | PlaceState::Lost) => (state, false),
            };
            place.state = next;
            if told {
                place.why.get_or_insert(ExitCause::Stop);
                self.actions.push(Action::Order(SlotIndex(index), order));
            }
        }
    }

    pub(super) fn kill_all(&mut self, code: i32, now: Instant) {
        self.phase = ServerPhase::Stopping { code, stage: StopStage::Kill };
        for index in 0..self.places.len() {
            match self.places[index].state {
                PlaceState::Booting { .. }
                | PlaceState::Failed { .. }
                | PlaceState::Ready { .. }
                | PlaceState::Leaving { .. } => {
                    self.kill(SlotIndex(index), now);
                }
                PlaceState::Aborted { killed: false, .. } => self.kill(SlotIndex(index), now),
                PlaceState::Aborted { killed: true, .. } | PlaceState::Killed { .. } | PlaceState::Lost => {}
                PlaceState::Empty | PlaceState::Waiting { .. } => {}
            }
        }
    }

    pub(super) fn meet_stage(&mut self, now: Instant) {
        match self.phase {
            ServerPhase::Stopping { code, stage: StopStage::Drain { until } } if until <= now => {
                self.tell(Note::DrainTimeout(self.policy.graceful_timeout));
                self.enter(code, StopStage::Quit { until: now + QUIT_GRACE_AFTER_DRAIN }, Order::Quit, now);
            }
            ServerPhase::Stopping { code, stage: StopStage::Quit { until } } if until <= now => self.kill_all(code, now),
            ServerPhase::Stopping { .. } | ServerPhase::Starting | ServerPhase::Serving | ServerPhase::Done => {}
        }
    }

    pub(super) fn end_when_empty(&mut self) {
        if let ServerPhase::Stopping { code, .. } = self.phase
            && self.places.iter().all(|place| matches!(place.state, PlaceState::Empty | PlaceState::Lost))
        {
            self.phase = ServerPhase::Done;
            self.actions.push(Action::Exit(code));
        }
    }
}
