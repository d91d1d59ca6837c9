//! The master's policy, pure: an event and the time go in, actions come out. No system call, no clock.
//!
//! ```text
//! server:  Starting ──all ready──▶ Serving ──TERM──▶ Drain ──timeout, INT──▶ Quit ──timeout, INT──▶ Kill ──all gone──▶ Done
//!             └──a worker cannot boot, INT, QUIT──────────────────────────────▲
//! slot:    Empty ─▶ Booting ──Ready──▶ Ready ──ordered, or by itself──▶ Leaving ─▶ Empty
//!             ▲        └─BootFailed─▶ Failed ─┐   └──died──┐
//!             └────────────── Waiting ◀──────┴────────────┘      (any) ──SIGKILL──▶ Killed ─▶ Empty
//! ```
//!
//! While the server starts, a worker that cannot boot ends it: a restart loop would hide the reason. Later a worker that dies is
//! replaced in its slot, at once for the first time, then with growing pauses, and never more than [`RESTARTS`] a second.

use std::time::{Duration, Instant};

use crate::channel::{BootError, Order, Report};

use super::event::{Action, Event, Exit, Note, Request, Slot, code};

/// Most replacements that start within [`RESTART_WINDOW`]: a crash loop must not become the machine's main work.
pub const RESTARTS: usize = 2;

/// See [`RESTARTS`].
pub const RESTART_WINDOW: Duration = Duration::from_secs(1);

/// Pause before the second restart of a slot in a row; it doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// Longest pause: a repaired application is back within this time.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A worker that was ready for this long was well; its death is a first one.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Time that a quick stop leaves to the requests that run.
pub const QUIT_GRACE: Duration = Duration::from_secs(5);

/// Time to leave after a drain has used up its own (`--graceful-timeout`).
pub const QUIT_GRACE_AFTER_DRAIN: Duration = Duration::from_secs(1);

/// Longest graceful timeout, so that a deadline can always be computed.
const LONGEST_DRAIN: Duration = Duration::from_secs(365 * 24 * 3600);

/// Time that a stop leaves to a worker that is still booting. It serves nobody, unless its report is on the way.
pub const BOOT_GRACE: Duration = Duration::from_secs(1);

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing, for good.
    Empty,
    /// Nothing until then.
    Waiting { until: Instant },
    /// A worker that loads; a stopping server gives it until `kill_at`.
    Booting { kill_at: Option<Instant> },
    /// A worker that could not boot and is about to end.
    Failed { kill_at: Instant },
    /// A worker that serves.
    Ready { since: Instant },
    /// A worker that was told to leave, or does so by itself.
    Leaving { kill_at: Option<Instant> },
    /// A worker that was sent SIGKILL.
    Killed,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    state: State,
    /// Restarts in a row without a healthy life between them.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Stopping { code: i32, stage: Stage },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Drain { until: Instant },
    Quit { until: Instant },
    Kill,
}

/// The state of the server as the policy sees it.
#[derive(Clone, Debug)]
pub struct Supervisor {
    places: Vec<Place>,
    phase: Phase,
    graceful_timeout: Duration,
    /// When the last restarts began, the oldest first.
    restarts: [Option<Instant>; RESTARTS],
    actions: Vec<Action>,
}

impl Supervisor {
    /// The policy for this many workers (at least one), none of them started.
    pub fn new(workers: usize, graceful_timeout: Duration) -> Self {
        Self {
            places: vec![Place { state: State::Empty, failures: 0 }; workers],
            phase: Phase::Starting,
            graceful_timeout: graceful_timeout.min(LONGEST_DRAIN),
            restarts: [None; RESTARTS],
            actions: Vec::new(),
        }
    }

    /// Takes in one event; returns what must be done now.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Start => self.start(),
            Event::Asked(request) => self.asked(request, now),
            Event::Reported { slot, report } => self.reported(slot, report, now),
            Event::Ended { slot, exit } => self.ended(slot, exit, now),
            Event::ForkFailed { slot, why } => self.fork_failed(slot, why, now),
            Event::Tick => {}
        }
        self.meet_deadlines(now);
        self.end_when_empty();
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stage = match self.phase {
            Phase::Stopping { stage: Stage::Drain { until } | Stage::Quit { until }, .. } => Some(until),
            Phase::Stopping { stage: Stage::Kill, .. } | Phase::Starting | Phase::Serving | Phase::Done => None,
        };
        self.places.iter().filter_map(|place| self.deadline(place)).chain(stage).min()
    }

    /// Workers that serve.
    pub fn ready_workers(&self) -> usize {
        self.places.iter().filter(|place| matches!(place.state, State::Ready { .. })).count()
    }

    fn deadline(&self, place: &Place) -> Option<Instant> {
        match place.state {
            State::Waiting { until } => Some(self.restart_allowed_at().map_or(until, |allowed| allowed.max(until))),
            State::Booting { kill_at } | State::Leaving { kill_at } => kill_at,
            State::Failed { kill_at } => Some(kill_at),
            State::Empty | State::Ready { .. } | State::Killed => None,
        }
    }

    fn restart_allowed_at(&self) -> Option<Instant> {
        self.restarts[0].map(|oldest| oldest + RESTART_WINDOW)
    }

    fn start(&mut self) {
        for index in 0..self.places.len() {
            self.fork(Slot(index));
        }
    }

    fn fork(&mut self, slot: Slot) {
        self.places[slot.0].state = State::Booting { kill_at: None };
        self.actions.push(Action::Fork(slot));
    }

    fn tell(&mut self, note: Note) {
        self.actions.push(Action::Tell(note));
    }

    fn asked(&mut self, request: Request, now: Instant) {
        match (request, self.phase) {
            (Request::Stop, Phase::Starting | Phase::Serving) => self.stop(code::OK, Order::Drain, now),
            (Request::QuickStop, Phase::Starting | Phase::Serving) => self.stop(code::OK, Order::Quit, now),
            (Request::QuickStop, Phase::Stopping { code, stage: Stage::Drain { .. } }) => self.stop(code, Order::Quit, now),
            (Request::QuickStop, Phase::Stopping { code, .. }) => self.kill_all(code),
            (Request::Stop, Phase::Stopping { .. }) => self.tell(Note::AlreadyStopping),
            (Request::Stop | Request::QuickStop, Phase::Done) => {}
            (Request::ReopenLogs, _) => self.actions.push(Action::ReopenLogs),
            (Request::Reload | Request::Upgrade | Request::MoreWorkers | Request::FewerWorkers | Request::StopWorkers, _) => {
                self.tell(Note::Unsupported(request))
            }
        }
    }

    fn reported(&mut self, slot: Slot, report: Report, now: Instant) {
        let state = self.places[slot.0].state;
        match (report, state) {
            (Report::Ready(_), State::Booting { .. }) => self.ready(slot, now),
            (Report::BootFailed(why), State::Booting { .. }) => {
                self.places[slot.0].state = State::Failed { kill_at: now + BOOT_GRACE };
                self.boot_failed(slot, why, now);
            }
            (Report::Draining, State::Ready { since }) => {
                self.forgive(slot, since, now);
                self.places[slot.0].state = State::Leaving { kill_at: Some(now + self.graceful_timeout) };
            }
            // What a worker says twice, or says of an order that it was given, changes nothing.
            (Report::Ready(_) | Report::BootFailed(_) | Report::Draining, _) => {}
        }
    }

    fn ready(&mut self, slot: Slot, now: Instant) {
        self.places[slot.0].state = match self.phase {
            Phase::Starting | Phase::Serving => State::Ready { since: now },
            // Its order waits in the channel.
            Phase::Stopping { .. } | Phase::Done => State::Leaving { kill_at: None },
        };
        if self.phase == Phase::Starting && self.places.iter().all(|place| matches!(place.state, State::Ready { .. })) {
            self.phase = Phase::Serving;
            self.actions.push(Action::NotifyReady);
        }
    }

    fn boot_failed(&mut self, slot: Slot, why: BootError, now: Instant) {
        match self.phase {
            Phase::Starting => {
                let code = if why.app { code::APP } else { code::BOOT };
                self.tell(Note::BootFailed { slot, why, fatal: true });
                self.stop(code, Order::Quit, now);
            }
            Phase::Serving => self.tell(Note::BootFailed { slot, why, fatal: false }),
            // The others fail for the same reason; it is told once.
            Phase::Stopping { .. } | Phase::Done => {}
        }
    }

    fn ended(&mut self, slot: Slot, exit: Exit, now: Instant) {
        let state = std::mem::replace(&mut self.places[slot.0].state, State::Empty);
        let stopping = matches!(self.phase, Phase::Stopping { .. } | Phase::Done);
        let starting = self.phase == Phase::Starting;
        match state {
            State::Booting { .. } if stopping => {}
            State::Booting { .. } => {
                self.tell(Note::Died { slot, exit, booting: true, fatal: starting });
                if starting {
                    self.stop(code::BOOT, Order::Quit, now);
                } else {
                    self.restart(slot, now);
                }
            }
            State::Failed { .. } if stopping => {}
            State::Failed { .. } => self.restart(slot, now),
            State::Leaving { .. } if exit == Exit::Code(0) => {
                if !stopping {
                    self.tell(Note::Left(slot));
                    self.restart(slot, now);
                }
            }
            State::Ready { since } => {
                self.forgive(slot, since, now);
                self.lost(slot, exit, now);
            }
            State::Leaving { .. } => self.lost(slot, exit, now),
            State::Killed if stopping => {}
            State::Killed => self.restart(slot, now),
            // Not a worker of this server.
            State::Empty | State::Waiting { .. } => self.places[slot.0].state = state,
        }
    }

    fn fork_failed(&mut self, slot: Slot, why: String, now: Instant) {
        self.places[slot.0].state = State::Empty;
        self.tell(Note::ForkFailed { slot, why });
        match self.phase {
            Phase::Starting => self.stop(code::BOOT, Order::Quit, now),
            Phase::Serving => self.restart(slot, now),
            Phase::Stopping { .. } | Phase::Done => {}
        }
    }

    /// A worker that served has ended, and not in order: whoever leaves in order says so first.
    fn lost(&mut self, slot: Slot, exit: Exit, now: Instant) {
        self.tell(Note::Died { slot, exit, booting: false, fatal: false });
        match self.phase {
            Phase::Starting | Phase::Serving => self.restart(slot, now),
            Phase::Stopping { .. } | Phase::Done => {}
        }
    }

    /// A worker that was ready since then ends: earlier failures of its slot count only if it did not live long.
    fn forgive(&mut self, slot: Slot, since: Instant, now: Instant) {
        if now.duration_since(since) >= HEALTHY_AFTER {
            self.places[slot.0].failures = 0;
        }
    }

    /// Plans a replacement: at once after the first failure, later with a pause that doubles.
    fn restart(&mut self, slot: Slot, now: Instant) {
        let place = &mut self.places[slot.0];
        let wait = match place.failures {
            0 => Duration::ZERO,
            failures => BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF_MAX),
        };
        place.failures = place.failures.saturating_add(1);
        place.state = State::Waiting { until: now + wait };
        if !wait.is_zero() {
            self.tell(Note::Pause { slot, wait });
        }
    }

    /// Tells everybody to leave, or to leave more quickly.
    fn stop(&mut self, code: i32, order: Order, now: Instant) {
        self.tell(Note::Stopping(order));
        let stage = match order {
            Order::Drain => Stage::Drain { until: now + self.graceful_timeout },
            Order::Quit => Stage::Quit { until: now + QUIT_GRACE },
        };
        self.enter(code, stage, order, now);
    }

    fn enter(&mut self, code: i32, stage: Stage, order: Order, now: Instant) {
        if matches!(self.phase, Phase::Starting | Phase::Serving) {
            self.actions.push(Action::StopListening);
        }
        self.phase = Phase::Stopping { code, stage };
        for index in 0..self.places.len() {
            let state = &mut self.places[index].state;
            let (next, told) = match *state {
                State::Waiting { .. } | State::Empty => (State::Empty, false),
                State::Booting { kill_at } => (State::Booting { kill_at: kill_at.or(Some(now + BOOT_GRACE)) }, true),
                State::Ready { .. } | State::Leaving { .. } => (State::Leaving { kill_at: None }, true),
                State::Failed { .. } | State::Killed => (*state, false),
            };
            *state = next;
            if told {
                self.actions.push(Action::Order(Slot(index), order));
            }
        }
    }

    fn kill_all(&mut self, code: i32) {
        self.phase = Phase::Stopping { code, stage: Stage::Kill };
        for index in 0..self.places.len() {
            match self.places[index].state {
                State::Booting { .. } | State::Failed { .. } | State::Ready { .. } | State::Leaving { .. } => {
                    self.kill(Slot(index))
                }
                State::Empty | State::Waiting { .. } | State::Killed => {}
            }
        }
    }

    fn kill(&mut self, slot: Slot) {
        self.places[slot.0].state = State::Killed;
        self.tell(Note::Killing(slot));
        self.actions.push(Action::Kill(slot));
    }

    fn meet_deadlines(&mut self, now: Instant) {
        match self.phase {
            Phase::Stopping { code, stage: Stage::Drain { until } } if until <= now => {
                self.tell(Note::DrainTimeout(self.graceful_timeout));
                self.enter(code, Stage::Quit { until: now + QUIT_GRACE_AFTER_DRAIN }, Order::Quit, now);
            }
            Phase::Stopping { code, stage: Stage::Quit { until } } if until <= now => self.kill_all(code),
            Phase::Stopping { .. } | Phase::Starting | Phase::Serving | Phase::Done => {}
        }
        for index in 0..self.places.len() {
            match self.places[index].state {
                State::Booting { kill_at: Some(at) } | State::Leaving { kill_at: Some(at) } | State::Failed { kill_at: at }
                    if at <= now =>
                {
                    self.kill(Slot(index));
                }
                State::Booting { .. }
                | State::Leaving { .. }
                | State::Failed { .. }
                | State::Ready { .. }
                | State::Waiting { .. }
                | State::Empty
                | State::Killed => {}
            }
        }
        while self.restart_allowed_at().is_none_or(|allowed| allowed <= now) {
            let Some(slot) = self.longest_waiting(now) else { break };
            self.restarts.rotate_left(1);
            self.restarts[RESTARTS - 1] = Some(now);
            self.fork(slot);
        }
    }

    /// The slot whose pause was over first.
    fn longest_waiting(&self, now: Instant) -> Option<Slot> {
        let pause_over = |(index, place): (usize, &Place)| {
            if let State::Waiting { until } = place.state { Some((until, Slot(index))) } else { None }
        };
        let first = self.places.iter().enumerate().filter_map(pause_over).min();
        first.filter(|(until, _)| *until <= now).map(|(_, slot)| slot)
    }

    fn end_when_empty(&mut self) {
        if let Phase::Stopping { code, .. } = self.phase
            && self.places.iter().all(|place| place.state == State::Empty)
        {
            self.phase = Phase::Done;
            self.actions.push(Action::Exit(code));
        }
    }
}

#[cfg(test)]
mod tests;
