//! The part of the worker that the executor sees: stand-ins beside the real files.

#[path = "threads.rs"]
pub mod threads;
#[path = "event_loop.rs"]
pub mod event_loop;
#[path = "job.rs"]
pub mod job;
#[path = "ctx.rs"]
pub mod ctx;
pub mod connection {
    /// A request by number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Token(pub usize);
}

