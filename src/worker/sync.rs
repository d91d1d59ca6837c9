//! What the threads of a worker hand over to each other with. Only these names, so that tests/handover.rs can put its own in their
//! place and try every order in which the threads may run.

pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use crossbeam_utils::atomic::AtomicCell;
