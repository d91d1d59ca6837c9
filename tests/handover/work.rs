//! Work without a connection.

use super::connection::Token;
use super::threads::thread_id::{MAIN, ThreadId};

#[derive(Debug)]
pub struct QueuedRequest(pub Token);

#[derive(Debug)]
pub enum Work {
    Call,
    Desk,
    Advance(ThreadId),
    Signals,
}

impl Work {
    pub fn thread(&self) -> Option<ThreadId> {
        match self {
            Self::Call | Self::Desk => None,
            Self::Advance(thread) => Some(*thread),
            Self::Signals => Some(MAIN),
        }
    }
}

pub enum Served {
    Whole,
    Begun(ThreadId),
    Handled,
    Withdrawn,
}

pub struct Completion {
    pub from: ThreadId,
    pub token: Token,
    pub served: Served,
}
