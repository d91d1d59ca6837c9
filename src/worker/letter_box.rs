//! Where threads without the loop leave their letters, and what wakes the loop to read them.

use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;

use crate::log::error::Log;
use crate::sys::process::exit_now;

use super::EXIT_FAILED;
use super::descriptors::taken;
use super::job::Letter;

/// The way to the loop; clones are the same one.
#[derive(Clone)]
pub struct LetterBox {
    /// The receiver is in the loop.
    pub letters: Sender<Letter>,
    /// Wakes the loop's poll.
    pub waker: Arc<Waker>,
    /// For why the worker ends.
    pub log: Log,
}

impl LetterBox {
    /// Leaves a letter and wakes the loop.
    pub fn post(&self, letter: Letter) {
        // The receiver is in the loop, which outlives every call.
        let _ = self.letters.send(letter);
        if let Err(error) = self.waker.wake() {
            // Whoever has the loop may sleep for ever without it.
            let why = taken(&format_args!("the loop cannot be woken ({error})"));
            self.log.critical(format_args!("the event loop failed: {why}; the worker ends"));
            exit_now(EXIT_FAILED);
        }
    }
}
