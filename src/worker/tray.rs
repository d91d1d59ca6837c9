//! Requests that wait for an application slot and lie ready for the next thread that is back from a call.
//!
//! Without it each of them costs two changes of thread while a slot stands empty: the letter wakes the owner of the loop, and the
//! owner's mail wakes the thread. A thread that takes its next request itself, before it posts the letter of the last one, needs
//! neither. The letter says what it took.
//!
//! The loop fills the tray only while every slot is taken. So whoever finds it empty has posted a letter, and the loop, which
//! reads that letter, serves what lies on the tray before anything else: nothing is forgotten there.

use std::collections::VecDeque;

use super::connection::Token;
use super::job::Parcel;
use super::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests on the tray at most: as many threads may come back before the loop has filled it again. More would only be
/// out of the loop's sight for longer.
pub const TRAY: usize = 4;

type Laid = (Token, Box<Parcel>);

/// The tray; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Tray(Arc<Mutex<VecDeque<Laid>>>);

impl Tray {
    fn laid(&self) -> MutexGuard<'_, VecDeque<Laid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays a request behind the others.
    pub fn lay(&self, token: Token, parcel: Box<Parcel>) {
        self.laid().push_back((token, parcel));
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
    pub fn withdraw(&self, token: Token) -> Option<Box<Parcel>> {
        let mut laid = self.laid();
        let index = laid.iter().position(|(other, _)| *other == token)?;
        laid.remove(index).map(|(_, parcel)| parcel)
    }
}
