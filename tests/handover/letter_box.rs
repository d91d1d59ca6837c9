//! Letters and the waker of the poll: first the letter, then the wake; the loop takes the wake first, then the letters.

use std::collections::VecDeque;

use super::job::Letter;
use super::sync::{Arc, Condvar, Mutex};

#[derive(Default)]
struct Ends {
    letters: Mutex<VecDeque<Letter>>,
    woken: Mutex<bool>,
    poll: Condvar,
}

#[derive(Clone, Default)]
pub struct LetterBox(Arc<Ends>);

impl LetterBox {
    pub fn post(&self, letter: Letter) {
        self.0.letters.lock().expect("no panic").push_back(letter);
        *self.0.woken.lock().expect("no panic") = true;
        self.0.poll.notify_one();
    }

    pub fn take(&self) -> Option<Letter> {
        self.0.letters.lock().expect("no panic").pop_front()
    }

    pub fn wait(&self) {
        let mut woken = self.0.woken.lock().expect("no panic");
        while !*woken {
            woken = self.0.poll.wait(woken).expect("no panic");
        }
        *woken = false;
    }
}
