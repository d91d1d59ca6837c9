//! The messages between the master and a worker: one SOCK_SEQPACKET socketpair per worker, one message a packet.
//!
//! A packet is a kind byte followed by the payload. Workers answer nothing; a closed channel means that the other side is gone.

/// From a worker to the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The application is loaded and the loop runs; the text describes the interpreter (`Python 3.11.7`).
    Ready(String),
    /// The worker cannot boot.
    BootFailed(BootError),
    /// The worker has stopped accepting and finishes what it has.
    Draining,
}

/// Why a worker cannot boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootError {
    /// Whether the application could not be loaded (exit code 4) or the worker itself failed (exit code 3).
    pub app: bool,
    /// What, where, why, with the application's traceback; many lines.
    pub text: String,
}

/// From the master to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Graceful: stop accepting, answer what was accepted, leave.
    Drain,
    /// Quick: finish the request that runs, leave.
    Quit,
}
