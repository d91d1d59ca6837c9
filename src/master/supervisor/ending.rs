//! Why a worker has ended: by what it was told before, or by how it ended.

use crate::status::ExitCause;

use super::super::event::{Exit, Generation, Hang, SlotIndex};
use super::{PlaceState, ServerPhase, Supervisor};

impl Supervisor {
    /// Why the worker of the place has ended in this way, of which [`Event::Ended`] is to follow; `None`: it is no worker of this
    /// server. One that was killed may have been killed by the kernel, which only the system can say.
    pub fn cause(&self, slot: SlotIndex, exit: Exit) -> Option<ExitCause> {
        let place = self.places.get(slot.0)?;
        let stopping = matches!(self.phase, ServerPhase::Stopping { .. });
        let sudden = match exit {
            Exit::Signal { .. } if exit.is_kill() => ExitCause::Killed,
            Exit::Signal { .. } => ExitCause::Crashed,
            Exit::Code(_) => ExitCause::Exited,
        };
        Some(match place.state {
            PlaceState::Empty | PlaceState::Waiting { .. } => return None,
            PlaceState::Booting { .. } if stopping => ExitCause::Stop,
            PlaceState::Booting { .. } | PlaceState::Failed { .. } | PlaceState::Aborted { hang: Hang::Boot(_), .. } => {
                ExitCause::BootFailed
            }
            PlaceState::Aborted { .. } => ExitCause::Timeout,
            PlaceState::Ready { .. } => sudden,
            PlaceState::Leaving { .. } if exit == Exit::Code(0) => place.why.unwrap_or(sudden),
            PlaceState::Leaving { .. } => sudden,
            // By the master: what it leaves for has come before.
            PlaceState::Killed { .. } | PlaceState::Lost if stopping => place.why.unwrap_or(ExitCause::Stop),
            PlaceState::Killed { .. } | PlaceState::Lost => place.why.unwrap_or(sudden),
        })
    }

    /// The generation of the place's worker.
    pub fn generation_of(&self, slot: SlotIndex) -> Option<Generation> {
        self.places.get(slot.0).map(|place| place.generation)
    }
}
