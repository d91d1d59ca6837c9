//! The master's loop. Its order: nearest deadline as the timeout, poll, reports, signals (and with them the dead), deadlines. Reports
//! come first, so that a worker that is ready is known to be when it is told to leave.

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};

use crate::channel::{self, Report, WorkerEnd};
use crate::config::Settings;
use crate::log::Level;
use crate::log::access::Format;
use crate::log::error::{Log, Who};
use crate::log::sink::Sink;
use crate::net::listener::Listener;
use crate::scoreboard::Scoreboard;
use crate::sys::process::{self, Fork};
use crate::sys::signals::Blocked;
use crate::sys::time;
use crate::worker::Boot;

use super::Outcome;
use super::event::{Action, Event, Note, Request, Slot, code};
use super::logs::Logs;
use super::notes::{self, About};
use super::ready::ReadyFd;
use super::service::Service;
use super::signals::{Meaning, Signals, kept_in_workers};
use super::start::complain;
use super::supervisor::Supervisor;
use super::table::{Child, Table};

/// What a worker gets from the kernel when the master dies, besides the end of its channel: the signal that it takes for an order to
/// leave.
const MASTER_DIED: Signal = Signal::SIGTERM;

/// A running server.
pub struct Server {
    pub(super) settings: Arc<Settings>,
    pub(super) workers: usize,
    pub(super) listeners: Vec<Listener>,
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) log: Log,
    pub(super) access: Option<(Arc<Sink>, Arc<Format>)>,
    pub(super) logs: Logs,
    pub(super) service: Service,
    pub(super) signals: Signals,
    pub(super) table: Table,
    pub(super) supervisor: Supervisor,
    /// Until it is used.
    pub(super) ready: Option<ReadyFd>,
    /// The interpreter, as the workers describe it.
    pub(super) python: String,
}

/// Why the loop is left.
enum End {
    /// The server is over.
    Exit(i32),
    /// This process is a new worker.
    Born(Birth),
}

/// What a worker has of its own.
struct Birth {
    slot: Slot,
    channel: WorkerEnd,
    signals: Blocked,
    /// Where it prints to, if that is captured.
    output: Option<OwnedFd>,
}

/// What woke the loop.
struct Woken {
    talkers: Vec<Slot>,
    signals: bool,
    service: bool,
}

impl Server {
    /// Serves to the end.
    pub fn run(mut self) -> Outcome {
        match self.serve() {
            Break(End::Exit(code)) => Outcome::Exit(code),
            Break(End::Born(mut birth)) => match self.service.enter_worker(birth.slot.0, birth.output.take(), MASTER_DIED) {
                Ok(()) => Outcome::Worker(Box::new(self.into_boot(birth))),
                Err(error) => {
                    // The master waits for it; without a master there is nobody to tell.
                    let _ = birth.channel.send(&Report::BootFailed(error));
                    process::exit_now(code::BOOT)
                }
            },
            Continue(never) => match never {},
        }
    }

    fn serve(&mut self) -> ControlFlow<End, std::convert::Infallible> {
        self.service.starting(self.workers);
        self.feed(Event::Start)?;
        loop {
            let woken = match self.wait() {
                Ok(woken) => woken,
                Err(error) => {
                    self.log.critical(format_args!("the master cannot wait for events: {error}"));
                    return Break(End::Exit(code::FAILED));
                }
            };
            if woken.service && !self.service.attend(&self.log) {
                self.feed(Event::Asked(Request::QuickStop))?;
            }
            for slot in woken.talkers {
                self.hear(slot)?;
            }
            if woken.signals {
                self.obey()?;
            }
            self.feed(Event::Tick)?;
            self.service.tick(self.supervisor.ready_workers(), Instant::now());
        }
    }

    /// Sleeps until something happens or is due.
    fn wait(&self) -> io::Result<Woken> {
        let slots: Vec<Slot> = self.table.channels().map(|(slot, _)| slot).collect();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.table.channels().map(|(_, channel)| PollFd::new(channel.as_fd(), PollFlags::POLLIN)));
        let talkers_end = fds.len();
        fds.extend(self.service.descriptors().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, self.timeout()) {
            // The signal that interrupted it is in the pipe.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // An interrupted poll has written nothing: no events, and the pipe wakes the next one.
        let woken = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let talkers = slots.into_iter().zip(&fds[1..talkers_end]).filter(|(_, fd)| woken(fd)).map(|(slot, _)| slot).collect();
        let service = fds[talkers_end..].iter().any(woken);
        Ok(Woken { talkers, signals: woken(&fds[0]), service })
    }

    fn timeout(&self) -> PollTimeout {
        let service = self.service.next_deadline(self.supervisor.ready_workers());
        let Some(deadline) = self.supervisor.next_deadline().into_iter().chain(service).min() else { return PollTimeout::NONE };
        // Rounded up: a millisecond too early would be a turn for nothing.
        let wait = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    /// Takes in what a worker has to say.
    fn hear(&mut self, slot: Slot) -> ControlFlow<End> {
        for report in self.table.reports(slot) {
            if let Report::Ready(python) = &report {
                self.python.clone_from(python);
            }
            self.feed(Event::Reported { slot, report })?;
        }
        Continue(())
    }

    /// Takes in the signals that have arrived.
    fn obey(&mut self) -> ControlFlow<End> {
        for meaning in self.signals.arrived() {
            match meaning {
                Meaning::Reap => self.bury()?,
                Meaning::Ask(request) => self.feed(Event::Asked(request))?,
            }
        }
        Continue(())
    }

    /// Takes in the deaths of workers, each after the worker's last words.
    fn bury(&mut self) -> ControlFlow<End> {
        let ended = self.table.reap();
        // What they said before, so that the log has it in order.
        self.service.listen_to_workers(&self.log);
        for (slot, exit) in ended {
            self.hear(slot)?;
            self.feed(Event::Ended { slot, exit })?;
        }
        Continue(())
    }

    /// Hands one event to the supervisor and does what it says.
    fn feed(&mut self, event: Event) -> ControlFlow<End> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.supervisor.handle(event, Instant::now()) {
                if let Some(failed) = self.perform(action)? {
                    events.push(failed);
                }
            }
        }
        Continue(())
    }

    /// Performs one action; returns the event that it leads to at once.
    fn perform(&mut self, action: Action) -> ControlFlow<End, Option<Event>> {
        match action {
            Action::Fork(slot) => match self.fork(slot) {
                Ok(None) => {}
                Ok(Some(birth)) => return Break(End::Born(birth)),
                Err(error) => return Continue(Some(Event::ForkFailed { slot, why: error.to_string() })),
            },
            Action::Order(slot, order) => {
                if let Some(channel) = self.table.channel(slot) {
                    // It fails only for a worker that is gone, whose end is about to be told.
                    let _ = channel.send(order);
                }
            }
            Action::Kill(slot) => {
                if let Some(child) = self.table.living(slot) {
                    // The process exists, dead or alive, as long as it was not waited for.
                    let _ = kill(child.pid, Signal::SIGKILL);
                }
            }
            Action::StopListening => self.listeners.clear(),
            Action::Tell(note) => self.tell(&note),
            Action::ReopenLogs => self.reopen_logs(),
            Action::NotifyReady => self.announce(),
            Action::Exit(code) => {
                self.service.end(code, &self.log);
                self.log.info(format_args!("stopped"));
                return Break(End::Exit(code));
            }
        }
        Continue(None)
    }

    /// Forks a worker; `Some` in the new process.
    fn fork(&mut self, slot: Slot) -> io::Result<Option<Birth>> {
        let (master, worker) = channel::pair()?;
        let (reader, output) = self.service.output()?.unzip();
        match process::fork(MASTER_DIED, &kept_in_workers())? {
            Fork::Parent(pid) => {
                self.table.put(slot, Child::new(pid, Instant::now(), master));
                if let Some(reader) = reader {
                    self.service.add_output(slot.0, pid, reader);
                }
                self.log.debug(format_args!("worker {} forked (pid {pid})", slot.0));
                Ok(None)
            }
            Fork::Child(signals) => Ok(Some(Birth { slot, channel: worker, signals, output })),
        }
    }

    /// Turns the copy of the master in a new process into a worker. The master's signals, channels and ready descriptor are closed;
    /// none of that is noticed outside.
    fn into_boot(self, birth: Birth) -> Boot {
        let slot = birth.slot.0;
        self.scoreboard.reset(slot, std::process::id());
        Boot {
            settings: self.settings,
            listeners: self.listeners,
            slot,
            workers: self.workers,
            scoreboard: self.scoreboard,
            channel: birth.channel,
            signals: birth.signals,
            log: self.log.of(Who::Worker(slot)),
            access: self.access,
        }
    }

    /// Opens the logs anew, here and in the workers.
    fn reopen_logs(&self) {
        let reopened = self.logs.reopen();
        for why in &reopened.failures {
            self.log.error(format_args!("{why}"));
        }
        for (slot, channel) in self.table.channels() {
            if let Err(error) = reopened.send(channel) {
                self.log.error(format_args!("worker {} writes its old log files on: {error}", slot.0));
            }
        }
        self.log.info(format_args!("logs opened anew"));
    }

    fn tell(&mut self, note: &Note) {
        if let Note::Stopping(_) = note {
            self.service.stopping(self.settings.graceful_timeout);
        }
        let about = notes::subject(note).and_then(|slot| self.about(slot));
        let text = notes::text(note, about.as_ref());
        let level = notes::level(note);
        self.log.write(level, format_args!("{text}"));
        if level == Level::Critical && !self.logs.on_stderr() {
            complain(&text);
        }
    }

    fn about(&self, slot: Slot) -> Option<About> {
        let child = self.table.child(slot)?;
        let in_flight = self.scoreboard.in_flight(slot.0).into_iter().next();
        let serving = in_flight.map(|request| {
            let time = Duration::from_nanos(time::monotonic().saturating_sub(request.since));
            (request, time)
        });
        Some(About { pid: child.pid.as_raw(), age: child.born.elapsed(), serving })
    }

    /// Says that the server is ready: to the log, and to whoever reads `--ready-fd`.
    fn announce(&mut self) {
        let addresses: Vec<String> = self.listeners.iter().map(|listener| listener.address().to_string()).collect();
        self.log.info(format_args!(
            "tapster {}: {} x {} = {} on {} ({}, pid {})",
            env!("CARGO_PKG_VERSION"),
            count(self.workers, "worker"),
            count(self.settings.threads, "thread"),
            count(self.workers * self.settings.threads, "concurrent request"),
            addresses.join(", "),
            self.python,
            std::process::id(),
        ));
        self.service.ready(self.workers, &addresses.join(", "), &self.log);
        if let Some(ready) = self.ready.take()
            && let Err(error) = ready.announce(&self.listeners)
        {
            self.log.warning(format_args!("nobody reads --ready-fd: {error}"));
        }
    }
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}
