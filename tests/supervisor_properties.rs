//! The supervisor's invariants over random histories: workers that obey, fail, crash or hang, operators that change their mind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tapster::channel::{BootError, Order, Report};
use tapster::master::event::{Action, Event, Request, Slot};
use tapster::master::supervisor::{BACKOFF_MAX, RESTART_WINDOW, RESTARTS, Supervisor};
use tapster::sys::process::Exit;

const GRACEFUL: Duration = Duration::from_secs(30);
const CRASH: Exit = Exit::Signal { number: 11, core: false };
const KILLED: Exit = Exit::Signal { number: 9, core: false };

/// Something that may happen next; slots are counted modulo the number of workers.
#[derive(Clone, Debug)]
enum Step {
    Wait(Duration),
    Ready(usize),
    BootFailed(usize, bool),
    Draining(usize),
    Ends(usize, Exit),
    RefuseNextFork,
    Asked(Request),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0usize..8;
    let milliseconds = prop_oneof![0u64..50, 100u64..2_000, 5_000u64..40_000];
    let exit = prop_oneof![Just(Exit::Code(0)), Just(Exit::Code(4)), Just(CRASH), Just(KILLED)];
    let other = prop_oneof![
        Just(Request::Reload),
        Just(Request::ReopenLogs),
        Just(Request::Upgrade),
        Just(Request::MoreWorkers),
        Just(Request::FewerWorkers),
        Just(Request::StopWorkers)
    ];
    prop_oneof![
        8 => milliseconds.prop_map(|time| Step::Wait(Duration::from_millis(time))),
        8 => slot.clone().prop_map(Step::Ready),
        2 => (slot.clone(), any::<bool>()).prop_map(|(slot, app)| Step::BootFailed(slot, app)),
        1 => slot.clone().prop_map(Step::Draining),
        8 => (slot, exit).prop_map(|(slot, exit)| Step::Ends(slot, exit)),
        1 => Just(Step::RefuseNextFork),
        1 => other.prop_map(Step::Asked),
    ]
}

fn stop() -> impl Strategy<Value = Step> {
    prop_oneof![Just(Step::Asked(Request::Stop)), Just(Step::Asked(Request::QuickStop))]
}

/// The world as the supervisor's actions shape it, and what must always hold in it.
struct World {
    supervisor: Supervisor,
    now: Instant,
    /// Whether each slot has a process.
    alive: Vec<bool>,
    /// Restarts of the last moments.
    restarts: VecDeque<Instant>,
    starting: bool,
    stopping: bool,
    ready_told: bool,
    refuse_fork: bool,
    exit: Option<i32>,
}

impl World {
    fn start(workers: usize) -> Self {
        let mut world = Self {
            supervisor: Supervisor::new(workers, GRACEFUL),
            now: Instant::now(),
            alive: vec![false; workers],
            restarts: VecDeque::new(),
            starting: true,
            stopping: false,
            ready_told: false,
            refuse_fork: false,
            exit: None,
        };
        world.event(Event::Start);
        world.starting = false;
        world
    }

    fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.supervisor.handle(event, self.now) {
                assert_eq!(self.exit, None, "nothing follows the exit, but {action:?}");
                self.act(action, &mut events);
            }
        }
        assert!(self.exit.is_some() || self.supervisor.next_deadline().is_none_or(|at| at > self.now), "what is due was done");
    }

    fn act(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Fork(slot) => {
                assert!(!self.stopping, "a server that stops forks nobody");
                assert!(!self.alive[slot.0], "a slot has one worker");
                if !self.starting {
                    self.count_restart();
                }
                if std::mem::take(&mut self.refuse_fork) {
                    events.push_back(Event::ForkFailed { slot, why: "refused".into() });
                } else {
                    self.alive[slot.0] = true;
                }
            }
            Action::Order(slot, Order::Drain | Order::Quit) => assert!(self.alive[slot.0] && self.stopping),
            Action::Kill(slot) => {
                assert!(std::mem::take(&mut self.alive[slot.0]), "only the living are killed");
                events.push_back(Event::Ended { slot, exit: KILLED });
            }
            Action::StopListening => {
                assert!(!self.stopping, "it is said once");
                self.stopping = true;
            }
            Action::ReopenLogs => {}
            Action::NotifyReady => {
                assert!(!self.ready_told && self.alive.iter().all(|alive| *alive));
                self.ready_told = true;
            }
            Action::Tell(_) => {}
            Action::Exit(code) => {
                assert!(self.stopping && !self.alive.contains(&true), "the last worker is gone");
                self.exit = Some(code);
            }
        }
    }

    fn count_restart(&mut self) {
        self.restarts.retain(|at| *at + RESTART_WINDOW > self.now);
        self.restarts.push_back(self.now);
        assert!(self.restarts.len() <= RESTARTS, "at most {RESTARTS} restarts a second");
    }

    fn step(&mut self, step: Step) {
        if self.exit.is_some() {
            return;
        }
        let workers = self.alive.len();
        match step {
            Step::Wait(time) => self.wait(time),
            Step::Ready(slot) => self.report(slot % workers, Report::Ready("Python".into())),
            Step::BootFailed(slot, app) => self.report(slot % workers, Report::BootFailed(BootError { app, text: "x".into() })),
            Step::Draining(slot) => self.report(slot % workers, Report::Draining),
            Step::Ends(slot, exit) => {
                if std::mem::take(&mut self.alive[slot % workers]) {
                    self.event(Event::Ended { slot: Slot(slot % workers), exit });
                }
            }
            Step::RefuseNextFork => self.refuse_fork = true,
            Step::Asked(request) => self.event(Event::Asked(request)),
        }
    }

    fn report(&mut self, slot: usize, report: Report) {
        if self.alive[slot] {
            self.event(Event::Reported { slot: Slot(slot), report });
        }
    }

    /// Lets time pass as the master's loop does: waking at each deadline on the way.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.supervisor.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.event(Event::Tick);
        }
        self.now = end;
    }
}

proptest! {
    #[test]
    fn every_history_keeps_the_rules(workers in 1usize..6, steps in prop::collection::vec(prop_oneof![40 => step(), 1 => stop()], 0..120)) {
        let mut world = World::start(workers);
        for step in steps {
            world.step(step);
        }
    }

    #[test]
    fn every_dead_worker_is_replaced_or_the_server_ends(workers in 1usize..6, steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::start(workers);
        for step in steps {
            world.step(step);
        }
        world.refuse_fork = false;
        world.wait(GRACEFUL + BACKOFF_MAX + RESTART_WINDOW * workers as u32);
        prop_assert!(world.exit.is_some() || world.alive.iter().all(|alive| *alive));
    }

    #[test]
    fn a_stop_ends_the_server_in_time_whatever_the_workers_do(
        workers in 1usize..6,
        before in prop::collection::vec(step(), 0..60),
        stop in stop(),
        after in prop::collection::vec(prop_oneof![4 => step(), 1 => stop()], 0..20),
    ) {
        let mut world = World::start(workers);
        for step in before.into_iter().chain([stop]).chain(after) {
            world.step(step);
        }
        prop_assert!(world.stopping);
        // A hanging worker is killed: no step after the last deadline is needed for the end.
        world.wait(GRACEFUL + Duration::from_secs(10));
        prop_assert!(world.exit.is_some());
    }

    #[test]
    fn a_server_that_was_ready_ends_with_0_when_it_is_told_to(
        workers in 1usize..6,
        steps in prop::collection::vec(step(), 0..60),
        stop in stop(),
    ) {
        let mut world = World::start(workers);
        for slot in 0..workers {
            world.step(Step::Ready(slot));
        }
        for step in steps {
            world.step(step);
        }
        prop_assert!(!world.stopping, "nothing but an operator stops it");
        world.step(stop);
        world.wait(GRACEFUL + Duration::from_secs(10));
        prop_assert_eq!(world.exit, Some(0));
    }
}
