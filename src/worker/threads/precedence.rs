//! Bytes of the loop that go before those that a call sends by itself (`write()`): answers in the outbox, or blocks in a buffer
//! that another thread has taken. The call waits for a moment until the loop has sent them.

use std::time::Duration;

use super::sync::Ordering::{AcqRel, Acquire, Relaxed};
use super::sync::{AtomicU8, Condvar, Mutex, PoisonError, monotonic};

const FREE: u8 = 0;
const TAKEN: u8 = 1;
/// As `TAKEN`, and a call waits.
const AWAITED: u8 = 2;

/// Whether bytes of the loop go first on one connection. Only the loop sets it and clears it.
#[derive(Debug)]
pub struct Precedence(AtomicU8);

impl Precedence {
    /// No bytes of the loop go first.
    pub fn new() -> Self {
        Self(AtomicU8::new(FREE))
    }

    /// Notes that the loop has bytes that go first.
    pub fn set(&self) {
        // A call that waits already waits for this too.
        let _ = self.0.compare_exchange(FREE, TAKEN, AcqRel, Relaxed);
    }

    /// Whether the loop has such bytes, or may have.
    pub fn is_set(&self) -> bool {
        self.0.load(Acquire) != FREE
    }

    /// Whether the loop has such bytes; then it must wake the call when it has none any more.
    fn is_awaited(&self) -> bool {
        self.0.compare_exchange(TAKEN, AWAITED, AcqRel, Acquire) != Err(FREE)
    }
}

/// Where calls wait for the loop: one place for all threads of a worker, because a call waits so rarely that connections need
/// none of their own.
#[derive(Debug, Default)]
pub struct Passage {
    lock: Mutex<()>,
    free: Condvar,
}

impl Passage {
    /// Notes that the loop has sent those bytes, or never will.
    #[inline]
    pub fn free(&self, precedence: &Precedence) {
        if precedence.0.load(Relaxed) != FREE && precedence.0.swap(FREE, AcqRel) == AWAITED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // A thread that waits has set `AWAITED` under the lock. So it is in its wait by now, or has found the passage free.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.free.notify_all();
    }

    /// Waits until nothing goes first, but not for longer than `patience`; returns whether nothing does.
    pub fn wait(&self, precedence: &Precedence, patience: Duration) -> bool {
        let until = monotonic() + patience.as_nanos() as u64;
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while precedence.is_awaited() {
            let left = until.saturating_sub(monotonic());
            if left == 0 {
                return false;
            }
            lock = self.free.wait_timeout(lock, Duration::from_nanos(left)).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
