//! The real files of the threads, on stand-ins for what waits and wakes.

#[path = "completions.rs"]
pub mod completions;
#[path = "../../src/worker/threads/desk.rs"]
pub mod desk;
#[path = "../../src/worker/threads/executor.rs"]
pub mod executor;
#[path = "../../src/worker/threads/mailbox.rs"]
pub mod mailbox;
#[path = "sync.rs"]
pub mod sync;
#[path = "../../src/worker/threads/thread_id.rs"]
#[allow(dead_code, reason = "the model asks less than the worker")]
pub mod thread_id;
#[path = "wakeup.rs"]
pub mod wakeup;
pub mod pace {
    pub const TICK_NS: u64 = 1_000_000;
}
#[path = "../../src/worker/threads/precedence.rs"]
#[allow(dead_code, reason = "the model asks less than the worker")]
pub mod precedence;
