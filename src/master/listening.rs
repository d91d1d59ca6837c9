//! The master looks after what all workers share: listening sockets and the queue of lent connections. Any process that has one
//! can shut it down for all (shutdown(2)), such as an application that closes a number once too often.

use std::ops::ControlFlow::{self, Continue};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::PollFd;

use crate::lending::Queue;
use crate::net::mend::{self, Mended};

use super::event::Event;
use super::server::{End, Server};

/// Pause after a socket was mended: an application that shuts it down again and again must not keep the master busy.
const PAUSE: Duration = Duration::from_millis(250);

impl Server {
    /// Whether the listening sockets are looked at now; otherwise when.
    pub(super) fn until_listening(&self) -> Option<Duration> {
        let next = self.mended.filter(|_| !self.listeners.is_empty())? + PAUSE;
        Some(next.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// What wakes the master when a listening socket is shut down, and for nothing else.
    pub(super) fn ears(&self) -> Vec<PollFd<'_>> {
        match self.until_listening() {
            Some(_) => Vec::new(),
            None => self.listeners.iter().map(|listener| PollFd::new(listener.as_fd(), mend::SHUT_DOWN)).collect(),
        }
    }

    /// Listens again where a socket does not any more. When that cannot be, the server ends: nobody would come in any more. Done
    /// in each turn of the loop, since nothing wakes the master for a socket that a worker has connected to somebody.
    pub(super) fn mend_listeners(&mut self) -> ControlFlow<End> {
        if self.until_listening().is_some() {
            return Continue(());
        }
        let owner = self.service.owner();
        let settings = self.generations.current().settings.clone();
        for index in 0..self.listeners.len() {
            if !mend::is_shut_down(&self.listeners[index]) {
                continue;
            }
            self.mended = Some(Instant::now());
            let address = self.listeners[index].address().clone();
            let event = match mend::mend(self.listeners.remove(index), &settings, owner) {
                Ok(Mended::Again(listener)) => {
                    self.listeners.insert(index, listener);
                    self.log().error(format_args!("{address} was shut down, by the application as a rule; it listens again"));
                    continue;
                }
                Ok(Mended::Anew(listener)) => {
                    self.listeners.insert(index, listener);
                    self.log().error(format_args!(
                        "{address} was shut down, by the application as a rule; another socket listens there, and the workers are \
                         replaced"
                    ));
                    Event::NewSocket
                }
                Err(error) => {
                    self.log().critical(format_args!("{error}"));
                    Event::Deaf
                }
            };
            let lost = event == Event::Deaf;
            self.feed(event)?;
            if lost {
                // The others are closed by now.
                break;
            }
        }
        Continue(())
    }

    /// A queue that still is one for the next worker. Those that have the old one keep their connections.
    pub(super) fn mend_queue(&mut self) -> std::io::Result<()> {
        if self.queue.is_shut_down() {
            self.queue = Queue::new()?;
            self.log().warning(format_args!("the queue of lent connections was shut down; new workers get another one"));
        }
        Ok(())
    }
}
