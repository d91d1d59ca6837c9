//! The master's loop. Its order: nearest deadline as the timeout, poll, reports, signals (and with them the dead), deadlines.
//! Reports come first, so that a worker that is ready is known to be so when it gets the order to leave.

mod alone;
mod birth;
mod doors;
mod figures;
mod listening;
mod mold;
mod push;
mod renewal;
mod reopen;
mod repeats;
mod stacks;
mod upgrade;
mod wait;
mod watch;
mod words;

pub use alone::Alone;

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::channel::{Breach, Order, Report};
use crate::handoff::Queue;
use crate::hooks::HookEvent;
use crate::log::error::Log;
use crate::net::listener::Listener;
use crate::scoreboard::Scoreboard;
use crate::status::ExitCause;
use crate::sys::time::Wall;
use crate::sys::{process, time};

use super::awake_clock::AwakeClock;
use super::changes::Changes;
use super::command::{Afresh, Command};
use super::event::{Action, Event, Exit, Generation, OperatorRequest, SlotIndex, code};
use super::gauges;
use super::generations::Generations;
use super::hooks::HookKeeper;
use super::ledger::{CutRequest, Ledger, WorkerExit, millis};
use super::looks::Looks;
use super::molds::MoldKeeper;
use super::outcome::Outcome;
use super::patrol::Patrol;
use super::reading::{Reading, SettingsRead};
use super::ready::ReadyFd;
use super::refusal::complain;
use super::renewal::RenewalKeeper;
use super::service::Service;
use super::signals::{SignalMeaning, Signals};
use super::status::Doors;
use super::supervisor::Supervisor;
use super::table::{Child, Table};
use super::trial::Trial;
use super::watch::WatchKeeper;
use birth::Birth;
use doors::Petitions;
use listening::ListenerLooks;
pub use push::{Pushing, look_up};
use repeats::Repeats;
use stacks::Inquiry;
use wait::Woken;

/// Reads arguments, environment and file again, for this generation: settings and notices, or one line that says why they cannot be
/// used. It is called in a copy of the master.
pub type Reread = Box<dyn Fn(Generation) -> SettingsRead>;

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
    pub(super) pace: AwakeClock,
    pub(super) patrol: Patrol,
    /// Until it is used.
    pub(super) ready: Option<ReadyFd>,
    /// The interpreter, as the workers describe it.
    pub(super) python: String,
    /// How it was started.
    pub(super) command: Command,
    /// The command that a worker executes after the fork, to be a program of its own; `None`: it goes on as a copy.
    pub(super) afresh: Option<Afresh>,
    /// The reading of the configuration for this generation.
    pub(super) reading: Option<(Generation, Reading)>,
    /// The program that the master is to become.
    pub(super) trial: Option<Trial>,
    /// Whether it was fit, and the hook process is waited for.
    pub(super) becoming: bool,
    /// Whether more processes that nobody else waits for may have ended.
    pub(super) orphans: bool,
    /// The hook process.
    pub(super) hooks: HookKeeper,
    /// The watcher of the sources.
    pub(super) watch: WatchKeeper,
    /// The processes that workers are forked from (`--preload`).
    pub(super) molds: MoldKeeper,
    /// How certificates are renewed.
    pub(super) renewal: RenewalKeeper,
    /// How many workers it has started.
    pub(super) births: u64,
    /// What it counts and remembers.
    pub(super) ledger: Ledger,
    /// What the system says of it.
    pub(super) looks: Looks,
    /// When the listening sockets were looked after.
    pub(super) listener_looks: ListenerLooks,
    /// Where operators come in.
    pub(super) doors: Doors,
    /// Those of them that wait for the end of a reload.
    pub(super) petitions: Petitions,
    /// What they were told last.
    pub(super) repeats: Repeats,
    /// Those of them that wait for the stacks of workers.
    pub(super) inquiries: Vec<Inquiry>,
    /// What statsd is told.
    pub(super) pushing: Pushing,
    /// Reloads and upgrades so far.
    pub(super) changes: Changes,
    /// When the server was started.
    pub(super) started: Wall,
}

/// Why the loop is left.
pub(super) enum Ending {
    /// The server is over.
    Exit(i32),
    /// This process is a new worker.
    Born(Box<Birth>),
}

impl Server {
    /// Serves to the end.
    pub fn run(mut self) -> Outcome {
        match self.serve() {
            Break(Ending::Exit(code)) => {
                // Workers have put connections there: the last close of one may wait for its client, but not at the end of a
                // process.
                std::mem::forget((self.queue, self.table));
                Outcome::Exit(code)
            }
            Break(Ending::Born(birth)) => Outcome::Worker(Box::new(self.become_worker(*birth))),
            Continue(never) => match never {},
        }
    }

    fn serve(&mut self) -> ControlFlow<Ending, std::convert::Infallible> {
        self.service.starting(self.generations.current().workers());
        self.begin_pushing();
        let title = self.service.hooks_title();
        match self.hooks.begin(self.generations.current(), &title) {
            Ok(true) => {}
            Ok(false) => {
                // After an upgrade: before it forks.
                self.hooks.tick(self.generations.current(), &title);
                self.feed(Event::Start)?;
            }
            Err(why) => return Break(self.cannot_start(&why)),
        }
        loop {
            let woken = match self.wait() {
                Ok(woken) => woken,
                Err(error) => {
                    self.log().critical(format_args!("the master cannot wait for events: {error}"));
                    return Break(Ending::Exit(code::FAILED));
                }
            };
            let (mut dismissed, mut knocks) = (Vec::new(), Vec::new());
            for wake in &woken {
                match *wake {
                    Woken::Service => {
                        if !self.service.attend(&self.generations.current().log) {
                            self.feed(Event::Asked(OperatorRequest::QuickStop))?;
                        }
                    }
                    Woken::Worker(slot) => {
                        let heard = self.table.reports(slot);
                        dismissed.extend(self.hear(slot, heard)?);
                    }
                    Woken::Signal => self.obey()?,
                    Woken::Door(knock) => knocks.push(knock),
                    // They are looked at in each turn.
                    Woken::Trial
                    | Woken::Reading
                    | Woken::Looking
                    | Woken::Listener
                    | Woken::Hooks
                    | Woken::Reader
                    | Woken::Watcher
                    | Woken::Mold => {}
                }
            }
            if self.orphans && !woken.contains(&Woken::Signal) {
                self.bury_orphans();
            }
            match self.hooks.started() {
                Some(Ok(())) => self.feed(Event::Start)?,
                Some(Err(why)) => return Break(self.cannot_start(&why)),
                None => self.hooks.tick(self.generations.current(), &title),
            }
            self.mend_listeners(woken.contains(&Woken::Listener))?;
            self.tend_molds()?;
            self.watch_sources()?;
            if let Some(tried) = self.trial_outcome() {
                self.feed(tried)?;
            }
            if let Some(failed) = self.become_new() {
                self.feed(failed)?;
            }
            if let Some(read) = self.reading_outcome() {
                self.feed(read)?;
            }
            self.renew_certificates();
            // If the whole server was sent SIGTERM, it stops by now, and nobody is replaced.
            for slot in dismissed {
                self.feed(Event::Reported { slot, report: Report::Dismissed })?;
            }
            self.look_around()?;
            self.feed(Event::Tick)?;
            // Last, so that the figures have all that has happened.
            self.receive_operators(&knocks)?;
            self.push_figures(Instant::now());
            self.catch_up();
            self.service.tick(self.supervisor.ready_workers(), Instant::now());
        }
    }

    pub(super) fn log(&self) -> &Log {
        &self.generations.current().log
    }

    /// Looks for workers that make no progress or take too much.
    fn look_around(&mut self) -> ControlFlow<Ending> {
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
    fn hear(
        &mut self,
        slot: SlotIndex,
        (reports, breach): (Vec<Report>, Option<Breach>),
    ) -> ControlFlow<Ending, Option<SlotIndex>> {
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
                Report::Sources(list) => {
                    self.take_sources(slot, list.clone());
                    continue;
                }
                Report::BootFailed(_)
                | Report::Draining
                | Report::Worn
                | Report::Starved
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
    fn obey(&mut self) -> ControlFlow<Ending> {
        for meaning in self.signals.arrived() {
            match meaning {
                SignalMeaning::Reap => self.bury()?,
                // To a process that Apache has started, it is the signal of a graceful end, as in FastCGI's own library.
                SignalMeaning::Ask(OperatorRequest::ReopenLogs) if self.generations.current().settings.is_spawned() => {
                    self.feed(Event::Asked(OperatorRequest::Stop))?;
                }
                SignalMeaning::Ask(request) => self.feed(Event::Asked(request))?,
            }
        }
        Continue(())
    }

    /// Takes in the deaths of workers, each after the worker's last words.
    fn bury(&mut self) -> ControlFlow<Ending> {
        let ended = self.table.reap(time::monotonic());
        // What they said before, so that the log has it in order.
        self.service.listen_to_workers(&self.generations.current().log);
        for (slot, exit, cpu) in ended {
            let heard = self.table.last_words(slot);
            self.hear(slot, heard)?;
            self.patrol.end(slot);
            if let Some(child) = self.table.child(slot)
                && let Err(why) = gauges::forget(&self.generations.current().settings, child.pid)
            {
                self.log().warning(format_args!("the gauges of a dead worker stay: {why}"));
            }
            if let Some(child) = self.table.child(slot) {
                let ended = HookEvent::Ended { pid: child.pid.as_raw(), age: child.age };
                self.hooks.tell(ended, &self.generations.current().log);
            }
            self.scoreboard.slot(slot.0).set_accepts(false);
            self.scoreboard.slot(slot.0).forget_spooled();
            self.note_end(slot, exit, cpu);
            let reached = self.table.child(slot).is_some_and(|child| child.was_reached(&self.scoreboard, slot));
            if self.queue.is_empty() {
                self.scoreboard.settle(slot.0);
            }
            self.feed(Event::Ended { slot, exit, reached })?;
            self.end_calls(slot);
        }
        self.bury_orphans();
        Continue(())
    }

    /// Counts the end of a worker, and remembers it with what it was serving.
    fn note_end(&mut self, slot: SlotIndex, exit: Exit, cpu: Duration) {
        let Some(cause) = self.supervisor.cause(slot, exit) else { return };
        let oom = if exit.is_kill() { self.patrol.kills.happened() } else { None };
        let requests: Vec<_> = self.calls(slot).iter().map(|(call, time)| CutRequest::of(call, *time)).collect();
        let Some(child) = self.table.child_mut(slot) else { return };
        child.oom = oom;
        let at_end = WorkerExit {
            at_s: time::wall().as_secs_f64(),
            slot: slot.0,
            pid: child.pid.as_raw(),
            generation: self.supervisor.generation_of(slot).map_or(0, |generation| generation.0),
            cause: if cause == ExitCause::Killed && oom == Some(true) { ExitCause::OutOfMemory } else { cause },
            detail: (exit != Exit::Code(0)).then(|| exit.to_string()),
            lived_ms: millis(self.pace.now().saturating_duration_since(child.born)),
            requests,
        };
        self.ledger.ended(at_end, cpu);
    }

    /// Ends the calls of a worker that is dead, unless the slot has another one by now: the log has told them.
    pub(super) fn end_calls(&self, slot: SlotIndex) {
        if let Some(at) = self.table.child(slot).and_then(Child::ended_at) {
            self.scoreboard.end_calls(slot.0, at);
        }
    }

    /// Ends a server that has no worker yet.
    fn cannot_start(&mut self, why: &str) -> Ending {
        self.hooks.abandon(&self.generations.current().log);
        self.log().critical(format_args!("{why}"));
        if !self.generations.current().logs.on_stderr() {
            complain(why);
        }
        self.service.end(code::BOOT, &self.generations.current().log);
        self.log().finish();
        Ending::Exit(code::BOOT)
    }

    fn bury_orphans(&mut self) {
        self.orphans = process::reap_orphans(|pid| self.is_known(pid));
    }

    /// Hands one event to the supervisor and does what it says.
    pub(super) fn feed(&mut self, event: Event) -> ControlFlow<Ending> {
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
    fn perform(&mut self, action: Action) -> ControlFlow<Ending, Option<Event>> {
        match action {
            Action::Order(slot, _) if self.molds.has_unborn(slot) => return Continue(self.end_unborn(slot, Exit::Code(0))),
            // The mold says where it is, and its end is that of the worker.
            Action::Abort(slot) if self.molds.abort(slot) => {}
            Action::Abort(slot) | Action::Kill(slot) if self.molds.has_unborn(slot) => {
                return Continue(self.end_unborn(slot, Exit::KILLED));
            }
            Action::Fork(slot, generation) => match self.fork(slot, generation) {
                Ok(None) => {}
                Ok(Some(birth)) => return Break(Ending::Born(Box::new(birth))),
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
            Action::Read(generation) => return Continue(self.begin_reading(generation)),
            Action::EndReading => self.end_reading(),
            Action::Adopt(generation) => {
                let old = self.generations.current().logs.own().clone();
                self.generations.adopt(generation);
                self.begin_pushing();
                if !Arc::ptr_eq(&old, self.generations.current().logs.own()) {
                    self.ledger.lost_before += old.lost_ever();
                }
                self.molds.adopt_unborn(generation);
                self.watch.adopt(generation, &self.generations.current().settings);
                self.hooks.reload(self.generations.current());
            }
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
                    self.orphans = true;
                }
            }
            Action::Upgrade => return Continue(self.begin_to_become()),
            Action::NotifyReady => self.announce(),
            Action::Exit(code) => {
                self.push_now();
                self.watch.end();
                self.molds.end();
                self.hooks.end(&self.generations.current().log);
                self.service.end(code, &self.generations.current().log);
                self.log().info(format_args!("stopped"));
                self.log().finish();
                // A program that has called the server goes on.
                self.bury_orphans();
                return Break(Ending::Exit(code));
            }
        }
        Continue(None)
    }

    fn send(&self, slot: SlotIndex, signals: &[Signal]) {
        if let Some(child) = self.table.living(slot) {
            for signal in signals {
                // The process exists, dead or alive, as long as it was not waited for.
                let _ = kill(child.pid, *signal);
            }
        }
    }
}
