//! Requests that were given to a thread and that it has not begun, because it still waits for the interpreter.
//!
//! C code may keep the interpreter for as long as it likes. So a request that begins while others are in the application lies on the
//! desk of its thread until that thread has the interpreter. From there either the thread takes it and begins it, or the owner of the
//! loop takes it back, for another worker or for another wait: exactly one of the two. A request that is not begun has no deadline of
//! the application, and none that is taken back is run twice.

use super::connection::Token;
use super::job::Parcel;
use super::member::Member;
use super::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Laid = (Token, Box<Parcel>);

/// The desks of all threads; clones are the same ones.
#[derive(Clone)]
pub struct Desks(Arc<Vec<Mutex<Option<Laid>>>>);

/// What became of a request on a desk.
pub enum Look {
    /// Its thread has it.
    Begun,
    /// It lies there.
    Lies,
    /// It is taken back.
    Back(Box<Parcel>),
}

impl Desks {
    /// Empty ones for so many threads.
    pub fn new(members: usize) -> Self {
        Self(Arc::new((0..members).map(|_| Mutex::new(None)).collect()))
    }

    fn of(&self, member: Member) -> MutexGuard<'_, Option<Laid>> {
        self.0[member.0].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a request to a thread. One at a time: a thread gets the next one when it has begun the last, or has found it gone.
    pub fn lay(&self, member: Member, token: Token, parcel: Box<Parcel>) {
        let before = self.of(member).replace((token, parcel));
        debug_assert!(before.is_none(), "a request on another");
    }

    /// The thread has the interpreter: takes its request. `None`: it was taken back.
    pub fn take(&self, member: Member) -> Option<Box<Parcel>> {
        self.of(member).take().map(|(_, parcel)| parcel)
    }

    /// Takes this connection's request back if it still lies there and `may` agrees.
    pub fn take_back(&self, member: Member, token: Token, may: impl FnOnce(&Parcel) -> bool) -> Look {
        let mut laid = self.of(member);
        match laid.take_if(|(other, _)| *other == token) {
            None => Look::Begun,
            Some((token, parcel)) if !may(&parcel) => {
                *laid = Some((token, parcel));
                Look::Lies
            }
            Some((_, parcel)) => Look::Back(parcel),
        }
    }
}
