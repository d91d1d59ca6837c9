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

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The master's end of a worker's socketpair, non-blocking.
#[derive(Debug)]
pub struct MasterEnd(OwnedFd);

/// The worker's end of its socketpair, non-blocking.
#[derive(Debug)]
pub struct WorkerEnd(OwnedFd);

/// Makes a connected pair, both ends non-blocking and close-on-exec.
pub fn pair() -> std::io::Result<(MasterEnd, WorkerEnd)> {
    todo!()
}

impl WorkerEnd {
    /// Sends a report; a text that does not fit into a packet is cut in its middle.
    pub fn send(&self, report: &Report) -> std::io::Result<()> {
        let _ = (report, &self.0);
        todo!()
    }

    /// The next order; `Ok(None)` when there is none yet; `UnexpectedEof` when the master is gone.
    pub fn receive(&self) -> std::io::Result<Option<Order>> {
        todo!()
    }
}

impl AsFd for WorkerEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl MasterEnd {
    /// Sends an order.
    pub fn send(&self, order: Order) -> std::io::Result<()> {
        let _ = (order, &self.0);
        todo!()
    }

    /// The next report; `Ok(None)` when there is none yet; `UnexpectedEof` when the worker is gone.
    pub fn receive(&self) -> std::io::Result<Option<Report>> {
        todo!()
    }
}

impl AsFd for MasterEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
