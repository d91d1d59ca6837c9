//! What comes of the process that serves.

use crate::worker;

/// What a process is when [`run`](super::run) returns.
pub enum Outcome {
    /// The master, which ends with this code.
    Exit(i32),
    /// A new worker.
    Worker(Box<worker::Boot>),
}
