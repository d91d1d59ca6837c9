//! The names of `src/worker/threads/sync.rs`, made of loom's types.

use std::cell::RefCell;
use std::sync::LockResult;
use std::time::Duration;

pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
pub use loom::sync::{Arc, Mutex, MutexGuard};
pub use std::sync::PoisonError;

use Ordering::AcqRel;

/// The model has no time but the one of its watch.
pub fn monotonic() -> u64 {
    0
}

/// loom's condition has no `Default`.
#[derive(Debug)]
pub struct Condvar(loom::sync::Condvar);

impl Default for Condvar {
    fn default() -> Self {
        Self(loom::sync::Condvar::new())
    }
}

impl Condvar {
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    /// The time is so long that somebody else must end the wait.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, _: Duration) -> LockResult<(MutexGuard<'a, T>, ())> {
        Ok((self.0.wait(guard).expect("no panic"), ()))
    }
}

/// A cell as crossbeam-utils has it for a value of a pointer's size: each access is one exchange. What is in it is outside of
/// loom's sight; whether it is there is what loom knows, and it orders the accesses as the real cell does.
pub struct AtomicCell<T> {
    full: AtomicBool,
    value: RefCell<Option<T>>,
}

impl<T> AtomicCell<Option<T>> {
    pub fn new(value: Option<T>) -> Self {
        Self { full: AtomicBool::new(value.is_some()), value: RefCell::new(Some(value)) }
    }

    pub fn store(&self, value: Option<T>) {
        let full = value.is_some();
        let before = self.value.replace(Some(value)).flatten();
        assert!(before.is_none(), "a loop was put on another");
        self.full.swap(full, AcqRel);
    }

    pub fn take(&self) -> Option<T> {
        if self.full.swap(false, AcqRel) { self.value.replace(None).flatten() } else { None }
    }
}
