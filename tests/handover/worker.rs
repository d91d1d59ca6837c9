//! The part of the worker that the executor sees: stand-ins beside the real files.

#[path = "ctx.rs"]
pub mod ctx;
#[path = "event_loop.rs"]
pub mod event_loop;
#[path = "threads.rs"]
pub mod threads;
#[path = "work.rs"]
pub mod work;
pub mod connection {
    /// A request by number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Token(pub usize);
}
pub mod job {
    pub use super::work::QueuedRequest;
}
