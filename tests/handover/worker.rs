//! The part of the worker that the executor sees: stand-ins beside the real files.

#[path = "ctx.rs"]
pub mod ctx;
#[path = "event_loop.rs"]
pub mod event_loop;
#[path = "job.rs"]
pub mod job;
#[path = "../../src/worker/precedence.rs"]
#[allow(dead_code, reason = "the model asks less than the worker")]
pub mod precedence;
#[path = "threads.rs"]
pub mod threads;
pub mod connection {
    /// A request by number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Token(pub usize);
}
