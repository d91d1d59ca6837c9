//! Work that the loop asks a thread to do in the application, and its result.

use super::app::{Fate, Produced};
use super::job::QueuedRequest;
use super::kept::Kept;
use super::streaming::Streaming;
use super::token::Token;
use crate::worker::send::output::Output;
use crate::worker::threads::thread_id::{MAIN, ThreadId};

/// Work that the loop asks a thread to do in the application.
#[derive(Debug)]
pub enum Work {
    /// Call it with the thread's job.
    Call,
    /// Call it with the request at the thread's desk, if it is still there.
    Desk,
    /// Ask a stream for its next block.
    Advance(Box<Streaming>),
    /// Drop a stream whose client is gone: its `close()` runs.
    Drop(Box<Streaming>),
    /// Run the application's handlers of signals that have come.
    Signals,
}

impl Work {
    /// The thread that must do it: a stream stays on the thread that began it, and handlers of signals run on the main one.
    /// `None`: any.
    pub fn thread(&self) -> Option<ThreadId> {
        match self {
            Self::Call | Self::Desk => None,
            Self::Advance(answer) | Self::Drop(answer) => Some(answer.thread()),
            Self::Signals => Some(MAIN),
        }
    }
}

/// The result of work; rendered bytes are in the thread's output.
#[derive(Debug)]
pub enum Served {
    /// The call rendered its whole answer; unsent bytes of `write()` go before it.
    Whole(Option<Box<Output>>, Fate),
    /// The call returned a stream.
    Begun(Option<Box<Output>>, Box<Streaming>),
    /// The stream took a step that is not its last; unsent bytes of `write()` go before the rendered ones.
    Produced(Option<Box<Output>>, Box<Streaming>, Produced),
    /// The stream has ended and is closed; likewise.
    Ended(Option<Box<Output>>, Fate),
    /// The stream is dropped.
    Dropped,
    /// The handlers have run.
    Handled,
    /// The request was not begun: its client has left while it waited. It is logged.
    Gone,
    /// The request was taken back from the thread's desk before it was begun.
    Withdrawn,
}

impl Served {
    /// The stream in it, which must be dropped by the application's side.
    pub fn into_answer(self) -> Option<Box<Streaming>> {
        match self {
            Self::Begun(_, answer) | Self::Produced(_, answer, _) => Some(answer),
            Self::Whole(..) | Self::Ended(..) | Self::Dropped | Self::Handled | Self::Gone | Self::Withdrawn => None,
        }
    }
}

/// The report of a thread without the loop to the loop's owner.
#[derive(Debug)]
pub struct Completion {
    /// The sender.
    pub from: ThreadId,
    /// The connection that it served.
    pub token: Token,
    /// The result of its work.
    pub served: Served,
    /// The bytes that it rendered.
    pub out: Vec<u8>,
    /// Input of the connection that the sender's thread context still had.
    pub rest: Option<Box<Kept>>,
    /// Memory for the next request that is given away, which the sender needs no more.
    pub spare: Option<Box<QueuedRequest>>,
    /// Whether the call took longer than a tick.
    pub slow: bool,
}
