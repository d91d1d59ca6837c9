//! Where the master sleeps: what can wake it, and for how long it sleeps otherwise.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::master::event::SlotIndex;
use crate::master::status::Knock;
use crate::master::trial::Trial;
use crate::net::mend;
use crate::sys::{host, time};

use super::Server;

/// How often it is tried to say that lines of the log were lost where nothing tells when the log can be written again (a full
/// disk, a system log that is gone).
const SAY_LOST_EVERY: Duration = Duration::from_secs(1);

/// What a descriptor that has woken the master stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The caller of a daemon has left, or a worker has printed something.
    Service,
    /// This worker has sent reports, or has closed its end.
    Worker(SlotIndex),
    /// A signal was caught.
    Signal,
    /// The program on trial has said something.
    Trial,
    /// The configuration is read.
    Reading,
    /// The files of certificates were looked at.
    Looking,
    /// The hook process has said something.
    Hooks,
    /// A mold has said something.
    Mold,
    /// The watcher of the sources has said something.
    Watcher,
    /// A listening socket was shut down.
    Listener,
    /// An operator comes, or one that is here can go on.
    Door(Knock),
    /// There is room for what waits: lines of the log, messages to the service manager.
    Reader,
}

impl Server {
    /// Sleeps until something happens or is due; returns what has happened, in the order in which it is to be looked at.
    pub(super) fn wait(&mut self) -> io::Result<Vec<Woken>> {
        let (wakes, mut fds): (Vec<Woken>, Vec<PollFd<'_>>) = self.sources().unzip();
        let planned = self.until_next();
        let began = Instant::now();
        // Rounded up: a millisecond too early would be a turn for nothing.
        let timeout = planned.map(|time| PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX));
        match host::idle(|| poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE))) {
            // The signal that interrupted it is in the pipe.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // An interrupted poll has written nothing: no events, and the pipe wakes the next one.
        let mut woken: Vec<Woken> =
            wakes.into_iter().zip(&fds).filter(|(_, fd)| fd.any().unwrap_or(true)).map(|(wake, _)| wake).collect();
        // The service has several descriptors, one after the other.
        woken.dedup();
        if self.pace.woken(began, planned) {
            self.patrol.overslept(time::monotonic());
        }
        Ok(woken)
    }

    /// The descriptors to wait for. Reports come before signals, and with them the dead.
    fn sources(&self) -> impl Iterator<Item = (Woken, PollFd<'_>)> {
        let service = self.service.descriptors().into_iter().map(|fd| (Woken::Service, fd));
        let workers = self.table.channels().map(|(slot, channel)| (Woken::Worker(slot), channel.as_fd()));
        let signals = [(Woken::Signal, self.signals.as_fd())];
        let trial = self.trial.as_ref().and_then(Trial::words).map(|words| (Woken::Trial, words));
        let hooks = self.hooks.descriptors().map(|fd| (Woken::Hooks, fd));
        let reading = self.reading.as_ref().map(|(_, reading)| (Woken::Reading, reading.answer()));
        let looking = self.renewal.looking.as_ref().map(|errand| (Woken::Looking, errand.answer()));
        let watcher = self.watch.socket().map(|socket| (Woken::Watcher, socket));
        let molds = self.molds.channels().map(|channel| (Woken::Mold, channel));
        let readable = service
            .chain(workers)
            .chain(signals)
            .chain(trial)
            .chain(reading)
            .chain(looking)
            .chain(hooks)
            .chain(watcher)
            .chain(molds);
        let listeners = if self.until_listening().is_none() { &self.listeners[..] } else { &[] };
        let doors = self.doors.descriptors().map(|(knock, fd, flags)| (Woken::Door(knock), PollFd::new(fd, flags)));
        let late = self.generations.logs().filter(|logs| logs.own().is_waiting()).map(|logs| logs.own().as_fd());
        let readers = late.chain(self.service.notifier.waiting()).map(|fd| (Woken::Reader, PollFd::new(fd, PollFlags::POLLOUT)));
        readable
            .map(|(wake, fd)| (wake, PollFd::new(fd, PollFlags::POLLIN)))
            .chain(readers)
            .chain(listeners.iter().map(|listener| (Woken::Listener, PollFd::new(listener.as_fd(), mend::SHUT_DOWN))))
            .chain(doors)
    }

    /// Writes what waits for its reader, and says what was lost meanwhile.
    pub(super) fn catch_up(&self) {
        self.service.notifier.catch_up();
        for logs in self.generations.logs() {
            if logs.own().is_behind() {
                logs.own().catch_up_now();
            }
        }
    }

    /// How long until something is due.
    fn until_next(&self) -> Option<Duration> {
        let deadline = self.supervisor.next_deadline().map(|at| at.saturating_duration_since(self.pace.now()));
        let service = self.service.next_deadline(self.supervisor.ready_workers());
        let service = service.map(|at| at.saturating_duration_since(Instant::now()));
        let hooks = self.hooks.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let doors = self.doors.next_deadline().into_iter().chain(self.petitions.next_deadline());
        let doors = doors.chain(self.inquiries.iter().map(|inquiry| inquiry.look)).min();
        let doors = doors.map(|at| at.saturating_duration_since(Instant::now()));
        let pushing = self.pushing.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let reading = self.reading.as_ref().map(|(_, reading)| reading.until().saturating_duration_since(Instant::now()));
        let renewal = self.renewal.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let watcher = self.watch.next_deadline(self.supervisor.is_booting());
        let watcher = watcher.map(|at| at.saturating_duration_since(Instant::now()));
        let molds = self.next_of_molds().map(|at| at.saturating_duration_since(Instant::now()));
        let orphans = self.orphans.then_some(Duration::ZERO);
        // What the log has lost for another reason than a full pipe.
        let lost =
            self.generations.logs().any(|logs| logs.own().is_behind() && !logs.own().is_waiting()).then_some(SAY_LOST_EVERY);
        deadline
            .into_iter()
            .chain(orphans)
            .chain(lost)
            .chain(service)
            .chain(hooks)
            .chain(doors)
            .chain(reading)
            .chain(renewal)
            .chain(pushing)
            .chain(watcher)
            .chain(molds)
            .chain(self.until_listening())
            .chain(self.next_listener_look())
            .chain(self.patrol.wait(time::monotonic()))
            .min()
    }
}
