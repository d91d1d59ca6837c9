//! Where threads without the loop leave their completions, and what wakes the loop to read them.

use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;

use crate::log::error::Log;
use crate::sys::process::exit_now;

use crate::worker::EXIT_FAILED;
use crate::worker::descriptors::replaced;
use crate::worker::work::Completion;

/// The way to the loop; clones are the same one.
#[derive(Clone)]
pub struct Completions {
    /// The receiver is in the loop.
    pub completed: Sender<Completion>,
    /// Wakes the loop's poll.
    pub waker: Arc<Waker>,
    /// Gets the reason when the worker has to end.
    pub log: Log,
}

impl Completions {
    /// Leaves a completion and wakes the loop.
    pub fn post(&self, completion: Completion) {
        // The receiver is in the loop, which outlives every call.
        let _ = self.completed.send(completion);
        if let Err(error) = self.waker.wake() {
            // Without it the thread that has the loop may sleep for ever.
            let why = replaced(&format_args!("the loop cannot be woken ({error})"));
            self.log.critical(format_args!("the event loop failed: {why}; the worker ends"));
            exit_now(EXIT_FAILED);
        }
    }
}
