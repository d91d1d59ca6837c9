//! The master's policy, pure: an event and the time go in, actions come out. No system call, no clock.
//!
//! ```text
//! server:  Starting ──all ready──▶ Serving ──TERM──▶ Drain ──timeout, INT──▶ Quit ──timeout, INT──▶ Kill ──all gone──▶ Done
//!             └──a worker cannot boot, INT, QUIT──────────────────────────────▲
//! place:   Empty ─▶ Booting ──Ready──▶ Ready ──ordered, or by itself──▶ Leaving ─▶ Empty
//!             ▲        ├─BootFailed─▶ Failed ─┐   ├──died──┐
//!             │        └───makes no progress──┼───┴─▶ Aborted ─┐        (any) ──SIGKILL──▶ Killed ─▶ Empty
//!             │                               │                │                           └─does not end─▶ Lost ─▶ Empty
//!             └────────────── Waiting ◀───────┴────────────────┘
//! ```
//!
//! While the server starts, a worker that cannot boot ends it: a restart loop would hide the reason. Later a worker that dies is
//! replaced in its place. How soon is in `restart`.
//!
//! How many workers there are, and which of them give way to others, is decided in one place, `balance`, whatever the cause: a
//! reload, a signal, a worn worker. The gate that a new generation must pass is in `reload`, the end of the server in `stop`.

use std::time::{Duration, Instant};

use crate::channel::{Breach, Order, Report};
use crate::status::{ExitCause, ServerState};

use super::event::{Action, Event, Exit, Generation, Hang, Note, OperatorRequest, Policy, SlotIndex, Wear, code};

mod balance;
mod ending;
mod reload;
mod restart;
mod stop;
mod upgrade;

use reload::Reload;
pub use restart::{BACKOFF_FIRST, BACKOFF_MAX, HEALTHY_AFTER, RESTART_WINDOW, RESTARTS};
use stop::StopStage;
pub use stop::{BOOT_GRACE, QUIT_GRACE, QUIT_GRACE_AFTER_DRAIN};
pub use upgrade::TRIAL_TIMEOUT;
use upgrade::Upgrade;

/// Time between SIGABRT and SIGKILL: for the stacks of a few hundred threads, and for a small core file.
pub const ABORT_GRACE: Duration = Duration::from_millis(1_500);

/// How long a worker whose channel is closed has to end: the kernel closes the descriptors of a process before it reports its
/// end.
pub const CUT_GRACE: Duration = Duration::from_millis(500);

/// How long a worker has to end after SIGKILL: the kernel may have much memory to give back. One that does not end is lost: a
/// debugger keeps the parent from waiting for it (ptrace(2)), which can be of the worker's own making, or a thread of it sleeps
/// in the kernel (a network file system that does not answer).
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// Longest timeout, so that a deadline can always be computed.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaceState {
    /// Nothing, for good.
    Empty,
    /// Nothing until then; a `prompt` one takes the place of a worker that was well.
    Waiting { until: Instant, prompt: bool },
    /// A worker that loads, until then at the latest.
    Booting { until: Option<Instant> },
    /// A worker that could not boot and is about to end.
    Failed { kill_at: Instant },
    /// A worker that serves.
    Ready { since: Instant },
    /// A worker that has the order to leave, or does so by itself. Once hurried it finishes what runs and nothing else.
    Leaving { until: Option<Instant>, hurried: bool },
    /// A worker that made no progress and was sent SIGABRT, until then; once `killed`, SIGKILL has followed.
    Aborted { until: Instant, killed: bool, hang: Hang },
    /// A worker that was sent SIGKILL, and should have ended by then.
    Killed { until: Instant },
    /// A worker that does not end although it was killed. Nobody waits for it.
    Lost,
}

impl PlaceState {
    /// Whether there is a process.
    fn lives(self) -> bool {
        !matches!(self, Self::Empty | Self::Waiting { .. })
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    state: PlaceState,
    generation: Generation,
    /// Whether its end is made good here: the place is one of the wanted ones.
    owed: bool,
    /// Whether its worker is to give way to a new one of the same generation.
    worn: bool,
    /// Why its worker leaves, or is to.
    why: Option<ExitCause>,
    /// When its worker was ready.
    ready: Option<Instant>,
    /// When its worker is replaced because its channel is closed, unless it has ended by then.
    cut: Option<Instant>,
    /// Restarts in a row without a worker that was well between them.
    failures: u32,
}

impl Place {
    /// Nobody is in it.
    fn empty(generation: Generation) -> Self {
        Self { state: PlaceState::Empty, generation, owed: false, worn: false, why: None, ready: None, cut: None, failures: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerPhase {
    Starting,
    Serving,
    Stopping { code: i32, stage: StopStage },
    Done,
}

/// The state of the server as the policy sees it.
#[derive(Clone, Debug)]
pub struct Supervisor {
    places: Vec<Place>,
    /// Most places there can be.
    capacity: usize,
    phase: ServerPhase,
    policy: Policy,
    /// The generation that serves.
    current: Generation,
    /// Workers wanted while they are not stopped.
    wanted: usize,
    /// Whether an operator has stopped the workers and kept the master.
    stopped: bool,
    reload: Reload,
    degraded: bool,
    /// Whether the last boot that has ended failed.
    boots_fail: bool,
    /// When the last restarts began, the oldest first.
    restarts: [Option<Instant>; RESTARTS],
    upgrade: Upgrade,
    actions: Vec<Action>,
}

impl Supervisor {
    /// The policy for a server that has room for `capacity` workers at once (more than twice `policy.workers`), none of them
    /// started.
    pub fn new(policy: Policy, capacity: usize) -> Self {
        Self {
            places: Vec::new(),
            capacity,
            phase: ServerPhase::Starting,
            policy,
            current: Generation(1),
            wanted: policy.workers,
            stopped: false,
            reload: Reload::new(Generation(1)),
            degraded: false,
            boots_fail: false,
            restarts: [None; RESTARTS],
            upgrade: Upgrade::Idle,
            actions: Vec::new(),
        }
    }

    /// Takes in one event; returns what must be done now.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Start => self.start(now),
            Event::Asked(request) => self.asked(request, now),
            Event::Reported { slot, report } => self.reported(slot, report, now),
            Event::Ended { slot, exit, reached } => self.ended(slot, exit, reached, now),
            Event::ForkFailed { slot, why } => self.fork_failed(slot, why, now),
            Event::Read(result) => self.configuration_read(result, now),
            Event::Stuck { slot, hang } => self.stuck(slot, hang, now),
            Event::Broken { slot, breach } => self.broken(slot, breach, now),
            Event::Worn { slot, wear } => self.wear_out(slot, wear),
            Event::Cut(slot) => self.cut(slot, now),
            Event::NewSocket => self.replace_all(),
            Event::Deaf => self.deaf(now),
            Event::Tried(outcome) => self.tried(outcome),
            Event::Scale(workers) => self.scale(workers),
            Event::SourcesChanged => self.sources_changed(now),
            Event::Tick => {}
        }
        self.meet_deadlines(now);
        self.balance(now);
        self.restart_the_waiting(now);
        self.upgrade_if_queued(now);
        self.end_when_empty();
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stage = match self.phase {
            ServerPhase::Stopping { stage, .. } => stage.until(),
            ServerPhase::Starting | ServerPhase::Serving | ServerPhase::Done => None,
        };
        self.places.iter().filter_map(|place| self.deadline(place)).chain(stage).chain(self.upgrade.until()).min()
    }

    /// Whether a worker of the place leaves, so that nothing of its loop can be expected.
    pub fn is_leaving(&self, slot: SlotIndex) -> bool {
        self.places.get(slot.0).is_none_or(|place| !matches!(place.state, PlaceState::Ready { .. }))
    }

    /// Workers that serve.
    pub fn ready_workers(&self) -> usize {
        self.places.iter().filter(|place| matches!(place.state, PlaceState::Ready { .. })).count()
    }

    /// What the server does, for people and probes.
    pub fn state(&self) -> ServerState {
        match self.phase {
            ServerPhase::Starting => ServerState::Starting,
            ServerPhase::Stopping { .. } | ServerPhase::Done => ServerState::Stopping,
            ServerPhase::Serving if self.is_upgrading() => ServerState::Upgrading,
            ServerPhase::Serving if !self.reload.is_idle() => ServerState::Reloading,
            ServerPhase::Serving if self.ready_workers() == 0 => ServerState::Paused,
            ServerPhase::Serving if self.degraded => ServerState::Degraded,
            ServerPhase::Serving => ServerState::Serving,
        }
    }

    fn deadline(&self, place: &Place) -> Option<Instant> {
        match place.state {
            PlaceState::Waiting { until, .. } => Some(self.restart_allowed_at().map_or(until, |allowed| allowed.max(until))),
            PlaceState::Booting { until } | PlaceState::Leaving { until, .. } => until,
            PlaceState::Failed { kill_at } => Some(kill_at),
            PlaceState::Aborted { until, .. } | PlaceState::Killed { until } => Some(until),
            PlaceState::Ready { since } => self.age_limit(place, since).into_iter().chain(place.cut).min(),
            PlaceState::Empty | PlaceState::Lost => None,
        }
    }

    /// When a worker that is ready has become too old.
    fn age_limit(&self, place: &Place, since: Instant) -> Option<Instant> {
        let limited = self.phase == ServerPhase::Serving && place.owed && !place.worn && place.generation == self.current;
        self.policy.max_age.filter(|_| limited).map(|age| since + age.min(LONGEST))
    }

    fn start(&mut self, now: Instant) {
        match self.phase {
            ServerPhase::Starting => (0..self.wanted).for_each(|_| _ = self.add(now)),
            // Adopted: the workers are there, and those of this program are to follow.
            ServerPhase::Serving | ServerPhase::Stopping { .. } | ServerPhase::Done => self.reload_for_upgrade(),
        }
    }

    /// Forks a worker of this generation into an empty or waiting place.
    fn fork(&mut self, slot: SlotIndex, generation: Generation, boot_timeout: Option<Duration>, now: Instant) {
        let until = boot_timeout.map(|time| now + time.min(LONGEST));
        let place = &mut self.places[slot.0];
        place.state = PlaceState::Booting { until };
        place.generation = generation;
        (place.worn, place.why, place.ready, place.cut) = (false, None, None, None);
        self.actions.push(Action::Fork(slot, generation));
    }

    /// An empty place, if there is room for one more worker.
    fn free_place(&mut self) -> Option<SlotIndex> {
        let empty = self.places.iter().position(|place| place.state == PlaceState::Empty);
        let index = empty.or((self.places.len() < self.capacity).then_some(self.places.len()))?;
        let place = Place::empty(self.current);
        if index == self.places.len() {
            self.places.push(place)
        } else {
            self.places[index] = place
        }
        Some(SlotIndex(index))
    }

    /// Most workers that can be wanted: each may have a successor beside it, and the canary has its own place.
    pub fn most_workers(&self) -> usize {
        (self.capacity.saturating_sub(1) / 2).max(1)
    }

    fn place(&mut self, slot: SlotIndex) -> Option<&mut Place> {
        self.places.get_mut(slot.0)
    }

    fn tell(&mut self, note: Note) {
        self.actions.push(Action::Tell(note));
    }

    fn asked(&mut self, request: OperatorRequest, now: Instant) {
        match (request, self.phase) {
            (OperatorRequest::Stop, ServerPhase::Starting | ServerPhase::Serving) => self.stop(code::OK, Order::Drain, now),
            (OperatorRequest::QuickStop, ServerPhase::Starting | ServerPhase::Serving) => self.stop(code::OK, Order::Quit, now),
            (OperatorRequest::QuickStop, ServerPhase::Stopping { code, stage: StopStage::Drain { .. } }) => {
                self.stop(code, Order::Quit, now)
            }
            (OperatorRequest::QuickStop, ServerPhase::Stopping { code, .. }) => self.kill_all(code, now),
            (_, ServerPhase::Done) => {}
            (OperatorRequest::ReopenLogs, _) => self.actions.push(Action::ReopenLogs),
            (_, ServerPhase::Stopping { .. }) => self.tell(Note::AlreadyStopping),
            (OperatorRequest::Reload, ServerPhase::Starting | ServerPhase::Serving) => self.reload_asked(),
            (
                OperatorRequest::MoreWorkers | OperatorRequest::FewerWorkers | OperatorRequest::StopWorkers,
                ServerPhase::Starting | ServerPhase::Serving,
            ) => {
                self.resize(request);
            }
            (OperatorRequest::Upgrade, ServerPhase::Starting | ServerPhase::Serving) => self.upgrade_asked(),
        }
    }

    /// A worker more or less, or none until further notice.
    fn resize(&mut self, request: OperatorRequest) {
        match request {
            OperatorRequest::MoreWorkers if self.stopped => self.stopped = false,
            OperatorRequest::FewerWorkers | OperatorRequest::StopWorkers if self.stopped => {
                return self.tell(Note::WorkersStopped);
            }
            OperatorRequest::StopWorkers => {
                self.stopped = true;
                self.tell(Note::WorkersStopping);
                return self.vacate_the_leaving();
            }
            OperatorRequest::MoreWorkers if self.wanted >= self.most_workers() => {
                return self.tell(Note::WorkersLimit(self.wanted));
            }
            OperatorRequest::MoreWorkers => self.wanted += 1,
            OperatorRequest::FewerWorkers if self.wanted == 1 => return self.tell(Note::WorkersLimit(1)),
            OperatorRequest::FewerWorkers => self.wanted -= 1,
            OperatorRequest::Stop
            | OperatorRequest::QuickStop
            | OperatorRequest::Reload
            | OperatorRequest::ReopenLogs
            | OperatorRequest::Upgrade => return,
        }
        self.tell(Note::Workers(self.wanted));
    }

    /// So many workers, as far as there are places for them.
    fn scale(&mut self, workers: usize) {
        if !matches!(self.phase, ServerPhase::Starting | ServerPhase::Serving) {
            return self.tell(Note::AlreadyStopping);
        }
        self.stopped = false;
        self.wanted = workers.clamp(1, self.most_workers());
        if self.wanted != workers {
            self.tell(Note::WorkersLimit(self.wanted));
        }
        self.tell(Note::Workers(self.wanted));
    }

    fn reported(&mut self, slot: SlotIndex, report: Report, now: Instant) {
        let stopping = matches!(self.phase, ServerPhase::Stopping { .. });
        let until = (!stopping).then(|| now + self.policy.graceful_timeout.min(LONGEST));
        let Some(place) = self.place(slot) else { return };
        match (report, place.state) {
            (Report::Ready(_), PlaceState::Booting { .. }) if stopping => {
                place.state = PlaceState::Leaving { until: None, hurried: false };
            }
            (Report::Ready(_), PlaceState::Booting { .. }) => {
                place.state = PlaceState::Ready { since: now };
                place.ready = Some(now);
                self.boots_fail = false;
                self.ready(slot);
            }
            (Report::BootFailed(why), PlaceState::Booting { .. }) => {
                place.state = PlaceState::Failed { kill_at: now + BOOT_GRACE };
                let code = if why.app { code::APP } else { code::BOOT };
                let fatal = self.phase == ServerPhase::Starting;
                if !stopping {
                    self.tell(Note::BootFailed { slot, why, fatal });
                }
                if fatal {
                    self.stop(code, Order::Quit, now);
                }
            }
            (Report::Draining, PlaceState::Ready { .. }) => {
                // By itself: a worker with the order to leave is Leaving already.
                place.state = PlaceState::Leaving { until, hurried: false };
                place.why.get_or_insert(ExitCause::Exited);
                self.tell(Note::Left(slot));
                if self.taken() < 2 * self.wanted {
                    self.replace_elsewhere(slot, now);
                }
            }
            (Report::Failed(why), PlaceState::Ready { .. } | PlaceState::Leaving { .. }) => self.tell(Note::Failed { slot, why }),
            (Report::Worn, PlaceState::Ready { .. }) => self.wear_out(slot, Wear::Requests),
            (Report::Starved, PlaceState::Ready { .. }) => self.wear_out(slot, Wear::Descriptors),
            (Report::Dismissed, PlaceState::Ready { .. }) => self.wear_out(slot, Wear::Dismissed),
            (Report::Stuck, PlaceState::Ready { .. }) => self.wear_out(slot, Wear::Stuck),
            (Report::Stranded, PlaceState::Ready { .. } | PlaceState::Leaving { .. }) => self.stuck(slot, Hang::Stranded, now),
            // What crossed an order on its way, or is said twice.
            (Report::Ready(_) | Report::BootFailed(_) | Report::Draining | Report::Worn | Report::Dismissed, _) => {}
            (Report::Starved | Report::Stuck | Report::Stranded | Report::Failed(_) | Report::Sources(_), _) => {}
        }
    }

    fn ready(&mut self, slot: SlotIndex) {
        if self.reload.canary() == Some(slot) {
            self.promote(slot);
        }
        let all = self.places.iter().filter(|place| place.owed).all(|place| matches!(place.state, PlaceState::Ready { .. }));
        if all && self.phase == ServerPhase::Starting {
            self.phase = ServerPhase::Serving;
            self.actions.push(Action::NotifyReady);
            self.reload_if_queued();
        }
    }

    fn ended(&mut self, slot: SlotIndex, exit: Exit, reached: bool, now: Instant) {
        let starting = self.phase == ServerPhase::Starting;
        let stopping = matches!(self.phase, ServerPhase::Stopping { .. });
        let Some(place) = self.place(slot) else { return };
        let (state, owed, ready) = (place.state, place.owed, place.ready);
        if !state.lives() {
            // Not a worker of this server.
            return;
        }
        (place.state, place.owed) = (PlaceState::Empty, false);
        let mut fatal = false;
        match state {
            // A stop may have crossed the end of the boot.
            PlaceState::Booting { .. } if stopping => {}
            PlaceState::Booting { .. } => {
                fatal = starting;
                self.tell(Note::Died { slot, exit, booting: true, fatal });
            }
            PlaceState::Aborted { hang, .. } => {
                fatal = starting && matches!(hang, Hang::Boot(_));
                self.tell(Note::Hung { slot, hang, exit, fatal });
            }
            // A worker that leaves in order says so first.
            PlaceState::Leaving { .. } if exit == Exit::Code(0) => {}
            PlaceState::Ready { .. } => {
                self.tell(Note::Died { slot, exit, booting: false, fatal: false });
            }
            PlaceState::Leaving { .. } => self.tell(Note::Died { slot, exit, booting: false, fatal: false }),
            PlaceState::Failed { .. }
            | PlaceState::Killed { .. }
            | PlaceState::Lost
            | PlaceState::Empty
            | PlaceState::Waiting { .. } => {}
        }
        // Of a canary its generation knows.
        self.boots_fail |= ready.is_none() && owed;
        if fatal {
            self.stop(code::BOOT, Order::Quit, now);
        } else if self.reload.canary() == Some(slot) {
            self.canary_failed();
        } else if owed {
            self.restart(slot, restart::was_well(ready, reached, now), now);
        }
    }

    fn fork_failed(&mut self, slot: SlotIndex, why: String, now: Instant) {
        self.tell(Note::ForkFailed { slot, why });
        let Some(place) = self.place(slot) else { return };
        let owed = std::mem::take(&mut place.owed);
        place.state = PlaceState::Empty;
        if self.phase == ServerPhase::Starting {
            self.stop(code::BOOT, Order::Quit, now);
        } else if self.reload.canary() == Some(slot) {
            self.canary_failed();
        } else if owed {
            self.boots_fail = true;
            self.restart(slot, false, now);
        }
    }

    /// A worker makes no progress: it is ended so that its interpreter can still say where it is.
    fn stuck(&mut self, slot: SlotIndex, hang: Hang, now: Instant) {
        let Some(place) = self.place(slot) else { return };
        match place.state {
            PlaceState::Booting { .. } | PlaceState::Ready { .. } | PlaceState::Leaving { .. } => {
                place.state = PlaceState::Aborted { until: now + ABORT_GRACE, killed: false, hang };
                self.actions.push(Action::Abort(slot));
            }
            PlaceState::Empty | PlaceState::Waiting { .. } | PlaceState::Failed { .. } => {}
            PlaceState::Aborted { .. } | PlaceState::Killed { .. } | PlaceState::Lost => {}
        }
    }

    /// A worker does not keep to the rules of its channel: nothing that it would do before its end is wanted.
    fn broken(&mut self, slot: SlotIndex, breach: Breach, now: Instant) {
        let fatal = self.phase == ServerPhase::Starting;
        let Some(place) = self.place(slot) else { return };
        if !place.state.lives() || matches!(place.state, PlaceState::Killed { .. } | PlaceState::Lost) {
            return;
        }
        place.state = PlaceState::Killed { until: now + KILL_GRACE };
        place.why = Some(ExitCause::Crashed);
        self.tell(Note::Broken { slot, breach, fatal });
        self.actions.push(Action::Kill(slot));
        if fatal {
            self.stop(code::BOOT, Order::Quit, now);
        }
    }

    /// The channel of a worker is closed. One that is about to end needs no other care.
    fn cut(&mut self, slot: SlotIndex, now: Instant) {
        let Some(place) = self.place(slot) else { return };
        if place.state.lives() {
            place.cut = Some(now + CUT_GRACE);
        }
    }

    /// A listening socket was made again: all workers have the old one, and those that boot too.
    fn replace_all(&mut self) {
        for index in 0..self.places.len() {
            self.wear_out(SlotIndex(index), Wear::Socket);
            let place = &mut self.places[index];
            if matches!(place.state, PlaceState::Booting { .. }) {
                (place.worn, place.why) = (true, Some(Wear::Socket.into()));
            }
        }
    }

    /// A listening socket is lost for good.
    fn deaf(&mut self, now: Instant) {
        if matches!(self.phase, ServerPhase::Starting | ServerPhase::Serving) {
            self.stop(code::FAILED, Order::Drain, now);
        }
    }

    /// A worker has had its share; `balance` decides when it gives way.
    fn wear_out(&mut self, slot: SlotIndex, wear: Wear) {
        // What does not end does so also before the last worker is ready.
        let serving = self.phase == ServerPhase::Serving
            || (matches!(wear, Wear::Stuck | Wear::Cut) && self.phase == ServerPhase::Starting);
        let Some(place) = self.place(slot) else { return };
        if serving && place.owed && !place.worn && matches!(place.state, PlaceState::Ready { .. }) {
            (place.worn, place.why) = (true, Some(wear.into()));
            self.tell(Note::Recycling { slot, wear });
        }
    }

    fn kill(&mut self, slot: SlotIndex, now: Instant) {
        let state = &mut self.places[slot.0].state;
        let end = now + KILL_GRACE;
        if let PlaceState::Aborted { until, killed, .. } = state {
            // Its report says everything.
            (*until, *killed) = (end, true);
        } else {
            *state = PlaceState::Killed { until: end };
            self.tell(Note::Killing(slot));
        }
        self.actions.push(Action::Kill(slot));
    }

    /// A worker that was killed does not end: its place is not kept for it, and nobody waits for it at the end of the server.
    fn lose(&mut self, slot: SlotIndex, now: Instant) {
        self.places[slot.0].state = PlaceState::Lost;
        self.tell(Note::Lost(slot));
        if self.phase == ServerPhase::Starting {
            self.stop(code::BOOT, Order::Quit, now);
        } else if self.reload.canary() == Some(slot) {
            self.canary_failed();
        } else {
            self.replace_elsewhere(slot, now);
        }
    }

    fn meet_deadlines(&mut self, now: Instant) {
        self.meet_stage(now);
        self.meet_trial(now);
        let stopping = matches!(self.phase, ServerPhase::Stopping { .. });
        for index in 0..self.places.len() {
            let (slot, place) = (SlotIndex(index), self.places[index]);
            match place.state {
                PlaceState::Booting { until: Some(at) } if at <= now && stopping => self.kill(slot, now),
                PlaceState::Booting { until: Some(at) } if at <= now => {
                    self.stuck(slot, Hang::Boot(self.policy.boot_timeout.unwrap_or_default()), now);
                }
                PlaceState::Leaving { until: Some(at), hurried: false } if at <= now => {
                    self.places[index].state = PlaceState::Leaving { until: Some(now + QUIT_GRACE_AFTER_DRAIN), hurried: true };
                    self.actions.push(Action::Order(slot, Order::Quit));
                }
                PlaceState::Leaving { until: Some(at), hurried: true } if at <= now => self.kill(slot, now),
                PlaceState::Failed { kill_at } if kill_at <= now => self.kill(slot, now),
                PlaceState::Aborted { until: at, killed: false, .. } if at <= now => self.kill(slot, now),
                PlaceState::Aborted { until: at, killed: true, .. } | PlaceState::Killed { until: at } if at <= now => {
                    self.lose(slot, now)
                }
                PlaceState::Ready { .. } if place.cut.is_some_and(|at| at <= now) => {
                    self.places[index].cut = None;
                    self.wear_out(slot, Wear::Cut);
                }
                PlaceState::Ready { since } if self.age_limit(&place, since).is_some_and(|at| at <= now) => {
                    self.wear_out(slot, Wear::Age(now.duration_since(since)));
                }
                PlaceState::Booting { .. }
                | PlaceState::Leaving { .. }
                | PlaceState::Failed { .. }
                | PlaceState::Aborted { .. }
                | PlaceState::Ready { .. }
                | PlaceState::Waiting { .. }
                | PlaceState::Empty
                | PlaceState::Killed { .. }
                | PlaceState::Lost => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
