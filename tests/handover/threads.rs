//! The real files of the threads, on stand-ins for what waits and wakes.

#[path = "../../src/worker/threads/desk.rs"]
pub mod desk;
#[path = "../../src/worker/threads/executor.rs"]
pub mod executor;
#[path = "completions.rs"]
pub mod completions;
#[path = "../../src/worker/threads/mailbox.rs"]
pub mod mailbox;
#[path = "../../src/worker/threads/thread_id.rs"]
#[allow(dead_code, reason = "the model asks less than the worker")]
pub mod thread_id;
#[path = "sync.rs"]
pub mod sync;
#[path = "../../src/worker/threads/tray.rs"]
#[allow(dead_code, reason = "the model asks less than the worker")]
pub mod tray;
#[path = "wakeup.rs"]
pub mod wakeup;
pub mod pace {
    pub const TICK_NS: u64 = 1_000_000;
}

