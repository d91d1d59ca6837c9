//! Where threads without the loop leave their letters, and what wakes the loop to read them.

use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;

use super::job::Letter;

/// The way to the loop; clones are the same one.
#[derive(Clone)]
pub struct LetterBox {
    /// The receiver is in the loop.
    pub letters: Sender<Letter>,
    /// Wakes the loop's poll.
    pub waker: Arc<Waker>,
}

impl LetterBox {
    /// Leaves a letter and wakes the loop.
    pub fn post(&self, letter: Letter) {
        // The receiver is in the loop, which outlives every call.
        let _ = self.letters.send(letter);
        // Fails only when the poll is gone, with the loop.
        let _ = self.waker.wake();
    }
}
