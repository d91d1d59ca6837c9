//! Requests that were given to a thread and that it has not begun, because it still waits for the interpreter.
//!
//! C code may keep the interpreter for as long as it likes. So a request that begins while others are in the application waits at
//! the desk of its thread until that thread has the interpreter. Either the thread takes it and begins it, or the owner of the
//! loop takes it back, for another worker or for another wait: exactly one of the two. The time of `--timeout` does not run
//! before a request is begun, and one that is taken back never runs twice.

use super::sync::{Arc, Mutex, MutexGuard, PoisonError};
use super::thread_id::ThreadId;
use crate::worker::connection::Token;
use crate::worker::job::QueuedRequest;

type Assigned = (Token, Box<QueuedRequest>);

/// The desks of all threads; clones are the same ones.
#[derive(Clone)]
pub struct Desks(Arc<Vec<Mutex<Option<Assigned>>>>);

/// The state of a request at a desk.
pub enum OnDesk {
    /// Its thread has taken it.
    Begun,
    /// It waits.
    Waits,
    /// It was taken back.
    Back(Box<QueuedRequest>),
}

impl Desks {
    /// Empty ones for so many threads.
    pub fn new(threads: usize) -> Self {
        Self(Arc::new((0..threads).map(|_| Mutex::new(None)).collect()))
    }

    fn of(&self, thread: ThreadId) -> MutexGuard<'_, Option<Assigned>> {
        self.0[thread.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a request to a thread. A thread has at most one: it gets the next one when it has begun the last, or has found it
    /// gone.
    pub fn put(&self, thread: ThreadId, token: Token, queued: Box<QueuedRequest>) {
        let before = self.of(thread).replace((token, queued));
        debug_assert!(before.is_none(), "a request on another");
    }

    /// Takes the request of the calling thread, which has the interpreter. `None`: it was taken back.
    pub fn take(&self, thread: ThreadId) -> Option<Box<QueuedRequest>> {
        self.of(thread).take().map(|(_, queued)| queued)
    }

    /// Takes this connection's request back if it still waits and `may` agrees.
    pub fn take_back(&self, thread: ThreadId, token: Token, may: impl FnOnce(&QueuedRequest) -> bool) -> OnDesk {
        let mut assigned = self.of(thread);
        match assigned.take_if(|(other, _)| *other == token) {
            None => OnDesk::Begun,
            Some((token, queued)) if !may(&queued) => {
                *assigned = Some((token, queued));
                OnDesk::Waits
            }
            Some((_, queued)) => OnDesk::Back(queued),
        }
    }
}
