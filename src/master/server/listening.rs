//! The master looks after what all workers share: listening sockets and the hand-off queue. Any process that has one
//! can shut it down for all (shutdown(2)), such as an application that closes a number once too often.

use std::ops::ControlFlow::{self, Continue};
use std::time::{Duration, Instant};

use crate::handoff::Queue;
use crate::master::event::Event;
use crate::net::mend::{self, Mended};

use super::{Ending, Server};

/// Pause after a socket was mended: an application that shuts it down again and again must not keep the master busy.
const PAUSE: Duration = Duration::from_millis(250);

/// Shortest time between two looks at sockets that report nothing. Each look takes two system calls for each socket, and operators
/// may wake the master a thousand times a second.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// When the listening sockets were looked after.
#[derive(Debug, Default)]
pub(in crate::master) struct ListenerLooks {
    /// When one was last made to listen again.
    mended: Option<Instant>,
    /// When they were last looked at.
    looked: Option<Instant>,
    /// Whether a turn has left that out since then.
    owed: bool,
}

impl Server {
    /// Whether the listening sockets are looked at now; otherwise when.
    pub(super) fn until_listening(&self) -> Option<Duration> {
        let next = self.listener_looks.mended.filter(|_| !self.listeners.is_empty())? + PAUSE;
        Some(next.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// When a look is made up for that a turn has left out.
    pub(super) fn next_listener_look(&self) -> Option<Duration> {
        let looked = self.listener_looks.looked.filter(|_| self.listener_looks.owed)?;
        Some((looked + LOOK_EVERY).saturating_duration_since(Instant::now()))
    }

    /// Listens again where a socket does not any more. When that cannot be, the server ends: nobody would come in any more. Done
    /// in each turn of the loop, but no more often than [`LOOK_EVERY`] unless one has `reported` its shutdown, since nothing wakes
    /// the master for a socket that a worker has connected to somebody.
    pub(super) fn mend_listeners(&mut self, reported: bool) -> ControlFlow<Ending> {
        if self.until_listening().is_some() {
            return Continue(());
        }
        let now = Instant::now();
        let looks = &mut self.listener_looks;
        looks.owed = !reported && looks.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY);
        if looks.owed {
            return Continue(());
        }
        looks.looked = Some(now);
        let owner = self.service.owner();
        let settings = self.generations.current().settings.clone();
        for index in 0..self.listeners.len() {
            if !mend::is_shut_down(&self.listeners[index]) {
                continue;
            }
            self.listener_looks.mended = Some(Instant::now());
            let address = self.listeners[index].place();
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
                    self.molds.renew();
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

    /// From now on only the workers accept, what has begun to come.
    pub(super) fn stop_listening(&mut self) {
        for listener in &self.listeners {
            if let Err(error) = listener.hold_off() {
                self.log().debug(format_args!("{} takes connections to the end: {error}", listener.place()));
            }
        }
        self.listeners.clear();
    }

    /// A queue that still is one for the next worker. Those that have the old one keep their connections.
    pub(super) fn mend_queue(&mut self) -> std::io::Result<()> {
        if self.queue.is_shut_down() {
            self.queue = Queue::new()?;
            self.log().warning(format_args!("the hand-off queue was shut down; new workers get another one"));
        }
        Ok(())
    }
}
