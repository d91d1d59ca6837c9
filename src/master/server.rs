//! The master's loop. Its order: nearest deadline as the timeout, poll, reports, signals (and with them the dead), deadlines.
//! Reports come first, so that a worker that is ready is known to be so when it gets the order to leave.

use std::fs::File;
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};

use crate::channel::{self, BootError, Breach, Order, Report, WorkerEnd};
use crate::config::{Level, Settings, keep_fixed};
use crate::lending::Queue;
use crate::log::error::Log;
use crate::net::listener::Listener;
use crate::scoreboard::{InFlight, Scoreboard};
use crate::sys::privileges;
use crate::sys::process::{self, Fork};
use crate::sys::signals::Blocked;
use crate::sys::time;
use crate::worker::Boot;

use super::command::Command;
use super::directory;
use super::event::{Action, Event, Generation, Note, Policy, Request, Slot, UpgradeFailure, code};
use super::generations::{Generations, Kit, WorkerLogs};
use super::logs::Logs;
use super::notes::{self, About};
use super::outcome::Outcome;
use super::pace::Pace;
use super::patrol::Patrol;
use super::ready::ReadyFd;
use super::refusal::complain;
use super::service::{self, Service};
use super::signals::{Meaning, Signals, kept_in_workers};
use super::supervisor::Supervisor;
use super::table::{self, Child, Table};
use super::trial::Trial;

/// What a worker gets from the kernel when the master dies, besides the end of its channel: the signal that it takes for an order
/// to leave.
const MASTER_DIED: Signal = Signal::SIGTERM;

/// Reads arguments, environment and file again: settings and warnings, or one line that says why they cannot be used.
pub type Reread = Box<dyn Fn() -> Result<(Settings, Vec<String>), String>>;

/// A running server.
pub struct Server {
    pub(super) generations: Generations,
    pub(super) listeners: Vec<Listener>,
    pub(super) service: Service,
    pub(super) queue: Queue,
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) signals: Signals,
    pub(super) table: Table,
    pub(super) supervisor: Supervisor,
    pub(super) reread: Reread,
    pub(super) pace: Pace,
    pub(super) patrol: Patrol,
    /// Until it is used.
    pub(super) ready: Option<ReadyFd>,
    /// The interpreter, as the workers describe it.
    pub(super) python: String,
    /// How it was started.
    pub(super) command: Command,
    /// The program that the master is to become.
    pub(super) trial: Option<Trial>,
    /// Whether more processes that nobody else waits for may have ended.
    pub(super) orphans: bool,
    /// When a listening socket was last made to listen again.
    pub(super) mended: Option<Instant>,
}

/// Why the loop is left.
pub(super) enum End {
    /// The server is over.
    Exit(i32),
    /// This process is a new worker.
    Born(Birth),
}

/// What a worker has of its own.
pub(super) struct Birth {
    slot: Slot,
    generation: Generation,
    stacks: File,
    channel: WorkerEnd,
    signals: Blocked,
    /// Where it prints to, if that is captured.
    output: Option<OwnedFd>,
    /// Those of its generation, as they concern it.
    settings: Option<Arc<Settings>>,
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
            Break(End::Exit(code)) => {
                // Workers have put connections there: the last close of one may wait for its client, but not at the end of a
                // process.
                std::mem::forget((self.queue, self.table));
                Outcome::Exit(code)
            }
            Break(End::Born(mut birth)) => match self.enter_worker(&mut birth) {
                Ok(logs) => {
                    let boot = self.into_boot(birth, logs);
                    // Until now other workers of its user could not look into it (ptrace(2)), where descriptors of the master
                    // were open. It fails for no valid argument.
                    let _ = privileges::let_be_inspected();
                    Outcome::Worker(Box::new(boot))
                }
                Err(error) => {
                    // The master waits for it; without a master there is nobody to report to.
                    let _ = birth.channel.send(&Report::BootFailed(error));
                    process::exit_now(code::BOOT)
                }
            },
            Continue(never) => match never {},
        }
    }

    /// Makes this process, just forked, what a worker of its generation is.
    fn enter_worker(&mut self, birth: &mut Birth) -> Result<WorkerLogs, BootError> {
        let kit = self.generations.kit(birth.generation);
        let (directories, logs) = (kit.directories.clone(), kit.logs_of_worker(birth.slot.0));
        let failed = |text: String| BootError { app: false, text };
        birth.settings = Some(Arc::new(directories.pin(&kit.settings)));
        let start = directories.enter_start().map_err(failed)?;
        self.service.enter_worker(birth.slot.0, birth.output.take(), MASTER_DIED)?;
        let chdir = directories.enter_chdir().map_err(failed)?;
        if let Some(name) = start.or(chdir) {
            logs.0.warning(format_args!(
                "the directory of this generation is gone: the application is loaded from what {} is now; a reload makes all \
                 workers the same",
                name.display()
            ));
        }
        Ok(logs)
    }

    fn serve(&mut self) -> ControlFlow<End, std::convert::Infallible> {
        self.service.starting(self.generations.current().workers());
        self.feed(Event::Start)?;
        loop {
            let woken = match self.wait() {
                Ok(woken) => woken,
                Err(error) => {
                    self.log().critical(format_args!("the master cannot wait for events: {error}"));
                    return Break(End::Exit(code::FAILED));
                }
            };
            if woken.service && !self.service.attend(&self.generations.current().log) {
                self.feed(Event::Asked(Request::QuickStop))?;
            }
            let mut dismissed = Vec::new();
            for slot in woken.talkers {
                let heard = self.table.reports(slot);
                dismissed.extend(self.hear(slot, heard)?);
            }
            if woken.signals {
                self.obey()?;
            } else if self.orphans {
                self.bury_orphans();
            }
            self.mend_listeners()?;
            if let Some(tried) = self.trial_outcome() {
                self.feed(tried)?;
            }
            // If the whole server was sent SIGTERM, it stops by now, and nobody is replaced.
            for slot in dismissed {
                self.feed(Event::Reported { slot, report: Report::Dismissed })?;
            }
            self.look_around()?;
            self.feed(Event::Tick)?;
            self.service.tick(self.supervisor.ready_workers(), Instant::now());
        }
    }

    pub(super) fn log(&self) -> &Log {
        &self.generations.current().log
    }

    /// Sleeps until something happens or is due.
    fn wait(&mut self) -> io::Result<Woken> {
        let slots: Vec<Slot> = self.table.channels().map(|(slot, _)| slot).collect();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.table.channels().map(|(_, channel)| PollFd::new(channel.as_fd(), PollFlags::POLLIN)));
        let talkers_end = fds.len();
        fds.extend(self.service.descriptors().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        fds.extend(self.trial.as_ref().and_then(Trial::words).map(|words| PollFd::new(words, PollFlags::POLLIN)));
        let service_end = fds.len();
        fds.extend(self.ears());
        let planned = self.until_next();
        let began = Instant::now();
        // Rounded up: a millisecond too early would be a turn for nothing.
        let timeout = planned.map(|time| PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX));
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE)) {
            // The signal that interrupted it is in the pipe.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // An interrupted poll has written nothing: no events, and the pipe wakes the next one.
        let woken = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let talkers = slots.into_iter().zip(&fds[1..talkers_end]).filter(|(_, fd)| woken(fd)).map(|(slot, _)| slot).collect();
        let signals = woken(&fds[0]);
        let service = fds[talkers_end..service_end].iter().any(woken);
        if self.pace.woken(began, planned) {
            self.patrol.overslept(time::monotonic());
        }
        Ok(Woken { talkers, signals, service })
    }

    /// How long until something is due.
    fn until_next(&self) -> Option<Duration> {
        let deadline = self.supervisor.next_deadline().map(|at| at.saturating_duration_since(self.pace.now()));
        let service = self.service.next_deadline(self.supervisor.ready_workers());
        let service = service.map(|at| at.saturating_duration_since(Instant::now()));
        let orphans = self.orphans.then_some(Duration::ZERO);
        deadline
            .into_iter()
            .chain(orphans)
            .chain(service)
            .chain(self.until_listening())
            .chain(self.patrol.wait(time::monotonic()))
            .min()
    }

    /// Looks for workers that make no progress or take too much.
    fn look_around(&mut self) -> ControlFlow<End> {
        // Before the question, so that a pause after it makes nobody look late.
        let now = time::monotonic();
        if self.pace.stands_still() {
            // The round stays due, and the next turn begins with what was lost.
            return Continue(());
        }
        for event in self.patrol.round(&self.table, &self.scoreboard, &self.supervisor, now) {
            self.feed(event)?;
        }
        Continue(())
    }

    /// Takes in what a worker has to say; returns it when it was dismissed.
    fn hear(&mut self, slot: Slot, (reports, breach): (Vec<Report>, Option<Breach>)) -> ControlFlow<End, Option<Slot>> {
        let mut dismissed = None;
        for report in reports {
            match &report {
                Report::Ready(python) => {
                    self.python.clone_from(python);
                    self.table.set_ready(slot);
                    self.log().debug(format_args!("worker {} is ready", slot.0));
                    self.patrol.begin(slot, time::monotonic());
                }
                Report::Dismissed => {
                    dismissed = Some(slot);
                    continue;
                }
                Report::BootFailed(_)
                | Report::Draining
                | Report::Worn
                | Report::Stuck
                | Report::Stranded
                | Report::Failed(_) => {}
            }
            self.feed(Event::Reported { slot, report })?;
        }
        if let Some(breach) = breach {
            self.feed(Event::Broken { slot, breach })?;
        } else if self.table.living(slot).is_some_and(|child| child.channel.is_none()) {
            self.feed(Event::Cut(slot))?;
        }
        Continue(dismissed)
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
        self.service.listen_to_workers(&self.generations.current().log);
        for (slot, exit) in ended {
            let heard = self.table.last_words(slot);
            self.hear(slot, heard)?;
            self.patrol.end(slot);
            self.scoreboard.slot(slot.0).set_accepts(false);
            self.scoreboard.slot(slot.0).forget_spooled();
            let reached = self.table.child(slot).is_some_and(|child| child.was_reached(&self.scoreboard, slot));
            if self.queue.is_empty() {
                self.scoreboard.settle(slot.0);
            }
            self.feed(Event::Ended { slot, exit, reached })?;
        }
        self.bury_orphans();
        Continue(())
    }

    fn bury_orphans(&mut self) {
        self.orphans =
            process::reap_orphans(|pid| self.table.is_own(pid) || self.trial.as_ref().is_some_and(|trial| trial.is(pid)));
    }

    /// Hands one event to the supervisor and does what it says.
    pub(super) fn feed(&mut self, event: Event) -> ControlFlow<End> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.supervisor.handle(event, self.pace.now()) {
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
            Action::Fork(slot, generation) => match self.fork(slot, generation) {
                Ok(None) => {}
                Ok(Some(birth)) => return Break(End::Born(birth)),
                Err(error) => return Continue(Some(Event::ForkFailed { slot, why: error.to_string() })),
            },
            Action::Order(slot, order) => {
                self.log().debug(format_args!("worker {} is told to leave ({order:?})", slot.0));
                // What a worker with another queue puts there, nobody takes out.
                let strange = self.table.child(slot).is_some_and(|child| child.other_queue);
                let order = if strange { order.max(Order::Vacate) } else { order };
                match self.table.channel(slot) {
                    // It fails only for a worker that is gone, whose end is about to be reported.
                    Some(channel) => _ = channel.send(order),
                    // A worker that cannot ask what the signal means leaves.
                    None => self.send(slot, &[Signal::SIGTERM]),
                }
            }
            Action::Read(generation) => return Continue(Some(Event::Read(self.read(generation)))),
            Action::Adopt(generation) => self.generations.adopt(generation),
            Action::Discard(generation) => {
                self.generations.discard(generation);
                self.generations.current().directories.return_to();
            }
            // A stopped process gets the first signal only when it continues.
            Action::Abort(slot) => self.send(slot, &[Signal::SIGABRT, Signal::SIGCONT]),
            Action::Kill(slot) => self.send(slot, &[Signal::SIGKILL]),
            Action::StopListening => self.stop_listening(),
            Action::Tell(note) => self.tell(&note),
            Action::ReopenLogs => self.reopen_logs(),
            Action::TryUpgrade => return Continue(self.try_upgrade()),
            Action::EndTrial => {
                if let Some(trial) = self.trial.take() {
                    trial.abandon();
                }
            }
            Action::Upgrade => return Continue(Some(self.become_new())),
            Action::NotifyReady => self.announce(),
            Action::Exit(code) => {
                self.service.end(code, &self.generations.current().log);
                self.log().info(format_args!("stopped"));
                return Break(End::Exit(code));
            }
        }
        Continue(None)
    }

    fn send(&self, slot: Slot, signals: &[Signal]) {
        if let Some(child) = self.table.living(slot) {
            for signal in signals {
                // The process exists, dead or alive, as long as it was not waited for.
                let _ = kill(child.pid, *signal);
            }
        }
    }

    /// From now on only the workers accept, what has begun to come.
    fn stop_listening(&mut self) {
        for listener in &self.listeners {
            if let Err(error) = listener.hold_off() {
                self.log().debug(format_args!("{} takes connections to the end: {error}", listener.address()));
            }
        }
        self.listeners.clear();
    }

    /// Reads the configuration and opens what it names, for a new generation, in what the directory of the start is now.
    fn read(&mut self, generation: Generation) -> Result<Policy, String> {
        directory::follow(self.command.dir())?;
        let policy = self.read_here(generation);
        if policy.is_err() {
            self.generations.current().directories.return_to();
        }
        policy
    }

    fn read_here(&mut self, generation: Generation) -> Result<Policy, String> {
        let (mut settings, warnings) = (self.reread)()?;
        let current = self.generations.current();
        if !settings.binds_given {
            // Sockets of a service manager, which nobody names again.
            settings.binds.clone_from(&current.settings.binds);
        }
        let fixed = keep_fixed(&mut settings, &current.settings);
        let kit = Kit::open(Arc::new(settings), Some(current), self.command.dir()).map_err(|refusal| refusal.why)?;
        for warning in &warnings {
            kit.log.warning(format_args!("{warning}"));
        }
        if !fixed.is_empty() {
            let names: Vec<_> = fixed.iter().map(|name| format!("--{name}")).collect();
            kit.log.warning(format_args!("changed, but only a restart can apply it: {}", names.join(", ")));
        }
        let policy = kit.policy();
        self.generations.put(generation, kit);
        Ok(policy)
    }

    /// Forks a worker; `Some` in the new process.
    fn fork(&mut self, slot: Slot, generation: Generation) -> io::Result<Option<Birth>> {
        self.mend_queue()?;
        let (master, worker) = channel::pair()?;
        let (reader, output) = self.service.output()?.unzip();
        let stacks = table::stacks_file()?;
        let copy = stacks.try_clone()?;
        match process::fork(MASTER_DIED, &kept_in_workers())? {
            Fork::Parent(pid) => {
                let kit = self.generations.kit(generation);
                let settings = &kit.settings;
                let mut child = Child::new(pid, self.pace.now(), master, stacks);
                child.logs = Some(kit.logs.clone());
                child.count_from(&self.scoreboard, slot);
                (child.timeout, child.max_memory) = (settings.timeout, settings.max_worker_rss);
                self.table.put(slot, child);
                if let Some(reader) = reader {
                    self.service.add_output(slot.0, pid, reader);
                }
                self.log().debug(format_args!("worker {} of {generation} forked (pid {pid})", slot.0));
                Ok(None)
            }
            Fork::Child(signals) => {
                Ok(Some(Birth { slot, generation, stacks: copy, channel: worker, signals, output, settings: None }))
            }
        }
    }

    /// Turns the copy of the master in a new process into a worker. The master's signals, channels and ready descriptor are
    /// closed; none of that is noticed outside.
    fn into_boot(self, birth: Birth, (log, access): WorkerLogs) -> Boot {
        let slot = birth.slot.0;
        self.scoreboard.reset(slot, std::process::id());
        let kit = self.generations.into_kit(birth.generation);
        Boot {
            workers: kit.workers(),
            log,
            settings: birth.settings.unwrap_or(kit.settings),
            access,
            listeners: self.listeners,
            queue: self.queue,
            slot,
            scoreboard: self.scoreboard,
            channel: birth.channel,
            signals: birth.signals,
            stacks: birth.stacks,
        }
    }

    /// Opens the logs again, here and in the workers, each those of its generation.
    fn reopen_logs(&self) {
        let mut all: Vec<Arc<Logs>> = self.generations.logs().cloned().collect();
        let of_workers = self.table.living_ones().filter_map(|(_, child)| child.logs.clone());
        all.extend(of_workers);
        for index in 0..all.len() {
            let logs = &all[index];
            if all[..index].iter().any(|other| Arc::ptr_eq(other, logs)) {
                continue;
            }
            let reopened = logs.reopen();
            for why in &reopened.failures {
                self.log().error(format_args!("{why}"));
            }
            for (slot, child) in self.table.living_ones() {
                let same = child.logs.as_ref().is_some_and(|other| Arc::ptr_eq(other, logs));
                if let (true, Some(channel)) = (same, &child.channel)
                    && let Err(error) = reopened.send(channel)
                {
                    self.log().error(format_args!("worker {} writes its old log files on: {error}", slot.0));
                }
            }
        }
        self.log().info(format_args!("logs opened anew"));
    }

    fn tell(&mut self, note: &Note) {
        if let Note::Stopping(_) = note {
            self.service.stopping(self.generations.current().settings.graceful_timeout);
        } else if let Note::Reloading(generation) = note {
            self.service.reloading(*generation);
        } else if let Note::Reloaded(generation) = note {
            let serving = service::serving(self.generations.current().workers(), &self.addresses());
            self.service.reloaded(&format!("{serving}, {generation}"));
        } else if let Note::ReloadFailed { serves, .. } = note {
            self.service.reloaded(&format!("reload failed, {serves} keeps serving"));
        } else if let Note::UpgradeFailed { why, serves } = note {
            let status = format!("upgrade failed, {serves} keeps serving");
            match why {
                UpgradeFailure::Program(_) => self.service.notifier.status(&status),
                UpgradeFailure::Load(..) => self.service.reloaded(&status),
            }
        } else if let Note::Degraded { .. } | Note::Recovered(_) = note {
            self.service.notifier.status(&notes::text(note, None));
        }
        let about = notes::subject(note).and_then(|slot| self.about(slot, note));
        let text = notes::text(note, about.as_ref());
        let level = notes::level(note);
        self.log().write(level, format_args!("{text}"));
        if level == Level::Critical && !self.generations.current().logs.on_stderr() {
            complain(&text);
        }
    }

    fn about(&mut self, slot: Slot, note: &Note) -> Option<About> {
        let oom = if notes::is_kill(note) { self.patrol.kills.happened() } else { None };
        let child = self.table.child(slot)?;
        let stacks = if self.table.living(slot).is_none() { child.stacks() } else { String::new() };
        let age = self.pace.now().saturating_duration_since(child.born);
        Some(About { pid: child.pid.as_raw(), age, serving: self.calls(slot), stacks, oom })
    }

    /// The calls of the application that run in a worker, or ran when it died, and for how long; the oldest first.
    fn calls(&self, slot: Slot) -> Vec<(InFlight, Duration)> {
        let now = time::monotonic();
        let since = |call: &InFlight| Duration::from_nanos(now.saturating_sub(call.since));
        self.scoreboard.in_flight(slot.0).into_iter().map(|call| (since(&call), call)).map(|(time, call)| (call, time)).collect()
    }

    /// Where the server listens, for people.
    fn addresses(&self) -> String {
        let addresses: Vec<String> = self.listeners.iter().map(|listener| listener.address().to_string()).collect();
        addresses.join(", ")
    }

    /// Says that the server is ready: to the log, and to the reader of `--ready-fd`.
    fn announce(&mut self) {
        let addresses = self.addresses();
        let settings = &self.generations.current().settings;
        let (workers, threads) = (self.generations.current().workers(), settings.threads);
        self.log().info(format_args!(
            "tapster {}: {} x {} = {} on {} ({}, pid {})",
            env!("CARGO_PKG_VERSION"),
            count(workers, "worker"),
            count(threads, "thread"),
            count(workers * threads, "concurrent request"),
            addresses,
            self.python,
            std::process::id(),
        ));
        self.service.ready(workers, &addresses, &self.generations.current().log);
        if let Some(ready) = self.ready.take()
            && let Err(error) = ready.announce(&self.listeners)
        {
            self.log().warning(format_args!("nobody reads --ready-fd: {error}"));
        }
    }
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}
