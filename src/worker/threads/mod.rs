//! The threads of a worker: which of them runs the loop, which the application, and how work and results pass between them.

pub mod completions;
pub mod desk;
pub mod executor;
pub mod mailbox;
pub mod pace;
pub mod precedence;
pub mod sync;
pub mod thread_id;
pub mod wakeup;
