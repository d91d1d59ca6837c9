//! The mail that threads of a worker send each other.

use std::collections::VecDeque;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::worker::connection::Token;
use crate::worker::event_loop::EventLoop;
use crate::worker::work::Work;

/// An order to another thread.
pub enum Mail {
    /// Be the watcher.
    Watch,
    /// Own the loop.
    Own(Box<EventLoop>),
    /// Do this work: a request, the next blocks of a stream that began on your thread, handlers of signals.
    Help(Token, Work),
    /// The worker leaves; only for the main thread.
    Leave,
}

/// The mail that waits to be read by one thread. A channel would do, but its receivers spin and yield before they sleep, and the
/// watcher waits for more than mail.
#[derive(Default)]
pub struct MailBox {
    inside: Mutex<Inside>,
    arrived: Condvar,
}

#[derive(Default)]
struct Inside {
    mail: VecDeque<Mail>,
    /// Whether its reader waits for its bell ([`super::wakeup`]) instead of the condition.
    by_bell: bool,
}

impl MailBox {
    /// Adds mail; returns whether the reader's bell must be rung.
    #[must_use]
    pub fn put(&self, mail: Mail) -> bool {
        let mut inside = self.inside();
        inside.mail.push_back(mail);
        let by_bell = inside.by_bell;
        drop(inside);
        if !by_bell {
            self.arrived.notify_one();
        }
        by_bell
    }

    /// Waits for mail.
    pub fn wait(&self) -> Mail {
        let mut inside = self.inside();
        inside.by_bell = false;
        loop {
            if let Some(first) = inside.mail.pop_front() {
                return first;
            }
            inside = self.arrived.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the mail that is there. The reader waits for its bell from now on.
    pub fn look(&self) -> Option<Mail> {
        let mut inside = self.inside();
        inside.by_bell = true;
        inside.mail.pop_front()
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
