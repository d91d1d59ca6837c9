//! The primitives by which the threads of a worker exchange things. They use only these names, so that tests/handover.rs can
//! replace them by its own and try every order in which the threads may run.

pub use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
pub use std::sync::{Arc, PoisonError};
#[cfg(not(tsan))]
pub use std::sync::{Condvar, Mutex, MutexGuard};

pub use crossbeam_utils::atomic::AtomicCell;

pub use crate::sys::time::monotonic;

#[cfg(tsan)]
pub use seen::{Condvar, Mutex, MutexGuard};

/// Locks whose order ThreadSanitizer sees (scripts/tsan). A thread that had to wait for a lock of std takes it inside of std,
/// which is not instrumented; so each access to the guarded data is preceded by an access of its own that is.
#[cfg(tsan)]
mod seen {
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::{AcqRel, Acquire};
    use std::sync::{self, LockResult, PoisonError, WaitTimeoutResult};
    use std::time::Duration;

    #[derive(Debug, Default)]
    pub struct Mutex<T> {
        inner: sync::Mutex<T>,
        order: AtomicBool,
    }

    pub struct MutexGuard<'a, T> {
        /// `None` while a condition is waited for.
        inner: Option<sync::MutexGuard<'a, T>>,
        order: &'a AtomicBool,
    }

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self { inner: sync::Mutex::new(value), order: AtomicBool::new(false) }
        }

        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            self.order.load(Acquire);
            Ok(MutexGuard { inner: Some(inner), order: &self.order })
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.inner.as_ref().expect("it is held")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.inner.as_mut().expect("it is held")
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.order.swap(true, AcqRel);
        }
    }

    #[derive(Debug, Default)]
    pub struct Condvar(sync::Condvar);

    impl Condvar {
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }

        pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            guard.order.swap(true, AcqRel);
            let inner = guard.inner.take().expect("it is held");
            guard.inner = Some(self.0.wait(inner).unwrap_or_else(PoisonError::into_inner));
            guard.order.load(Acquire);
            Ok(guard)
        }

        pub fn wait_timeout<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            time: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
            guard.order.swap(true, AcqRel);
            let inner = guard.inner.take().expect("it is held");
            let (inner, result) = self.0.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner);
            guard.inner = Some(inner);
            guard.order.load(Acquire);
            Ok((guard, result))
        }
    }
}
