//! Completions and the waker of the poll: first the completion, then the wake; the loop takes the wake first, then the
//! completions.

use std::collections::VecDeque;

use super::super::work::Completion;
use super::sync::{Arc, Condvar, Mutex};

#[derive(Default)]
struct Ends {
    completed: Mutex<VecDeque<Completion>>,
    woken: Mutex<bool>,
    poll: Condvar,
}

#[derive(Clone, Default)]
pub struct Completions(Arc<Ends>);

impl Completions {
    pub fn post(&self, completion: Completion) {
        self.0.completed.lock().expect("no panic").push_back(completion);
        *self.0.woken.lock().expect("no panic") = true;
        self.0.poll.notify_one();
    }

    pub fn take(&self) -> Option<Completion> {
        self.0.completed.lock().expect("no panic").pop_front()
    }

    pub fn wait(&self) {
        let mut woken = self.0.woken.lock().expect("no panic");
        while !*woken {
            woken = self.0.poll.wait(woken).expect("no panic");
        }
        *woken = false;
    }
}
