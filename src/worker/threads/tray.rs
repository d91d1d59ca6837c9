//! Requests that wait for an application slot and lie ready for the next thread that is back from a call.
//!
//! Without it each of them costs two changes of thread while a slot stands empty: the completion wakes the owner of the loop, and the
//! owner's mail wakes the thread. A thread that takes its next request itself, before it posts the completion of the last one, needs
//! neither. The completion says what it took.
//!
//! The loop fills the tray only while every slot is taken. So whoever finds it empty has posted a completion, and the loop, which
//! reads that completion, serves what lies on the tray before anything else: nothing is forgotten there.

use std::collections::VecDeque;

use super::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::worker::connection::Token;
use crate::worker::job::QueuedRequest;

/// Requests on the tray at most: as many threads may come back before the loop has filled it again. More would only be
/// out of the loop's sight for longer.
pub const TRAY: usize = 4;

type Laid = (Token, Box<QueuedRequest>);

/// The tray; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Tray(Arc<Mutex<VecDeque<Laid>>>);

impl Tray {
    fn laid(&self) -> MutexGuard<'_, VecDeque<Laid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays a request behind the others.
    pub fn lay(&self, token: Token, queued: Box<QueuedRequest>) {
        self.laid().push_back((token, queued));
    }

    /// Takes the first.
    pub fn take(&self) -> Option<Laid> {
        self.laid().pop_front()
    }

    /// Takes the last.
    pub fn take_last(&self) -> Option<Laid> {
        self.laid().pop_back()
    }

    /// Takes this connection's back; `None` when a thread has it already.
    pub fn withdraw(&self, token: Token) -> Option<Box<QueuedRequest>> {
        let mut laid = self.laid();
        let index = laid.iter().position(|(other, _)| *other == token)?;
        laid.remove(index).map(|(_, queued)| queued)
    }
}
