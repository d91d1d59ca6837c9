//! The supervisor's invariants over random histories: workers that obey, fail, crash or hang, operators that change their mind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tapster::channel::{BootError, Order, Report};
use tapster::master::event::{Action, Event, Generation, Hang, Note, OperatorRequest, Policy, SlotIndex, Wear};
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
    /// And whether a client had reached it.
    Ends(usize, Exit, bool),
    Stuck(usize),
    Worn(usize),
    RefuseNextFork,
    RefuseNextConfiguration,
    SourcesChanged,
    Asked(OperatorRequest),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0usize..8;
    let milliseconds = prop_oneof![0u64..50, 100u64..2_000, 5_000u64..40_000];
    let exit = prop_oneof![Just(Exit::Code(0)), Just(Exit::Code(4)), Just(CRASH), Just(KILLED)];
    let other = prop_oneof![
        3 => Just(OperatorRequest::Reload),
        1 => Just(OperatorRequest::ReopenLogs),
        1 => Just(OperatorRequest::Upgrade),
        1 => Just(OperatorRequest::MoreWorkers),
        1 => Just(OperatorRequest::FewerWorkers),
        1 => Just(OperatorRequest::StopWorkers)
    ];
    prop_oneof![
        8 => milliseconds.prop_map(|time| Step::Wait(Duration::from_millis(time))),
        8 => slot.clone().prop_map(Step::Ready),
        2 => (slot.clone(), any::<bool>()).prop_map(|(slot, app)| Step::BootFailed(slot, app)),
        1 => slot.clone().prop_map(Step::Draining),
        1 => slot.clone().prop_map(Step::Stuck),
        1 => slot.clone().prop_map(Step::Worn),
        8 => (slot, exit, any::<bool>()).prop_map(|(slot, exit, reached)| Step::Ends(slot, exit, reached)),
        1 => Just(Step::RefuseNextFork),
        1 => Just(Step::RefuseNextConfiguration),
        2 => Just(Step::SourcesChanged),
        3 => other.prop_map(Step::Asked),
    ]
}

/// Failures without a cause, or, in workers that clients had `reached`, caused by those.
fn failure(reached: bool) -> impl Strategy<Value = Step> {
    let slot = 0usize..8;
    let milliseconds = prop_oneof![0u64..50, 100u64..2_000];
    prop_oneof![
        2 => milliseconds.prop_map(|time| Step::Wait(Duration::from_millis(time))),
        2 => slot.clone().prop_map(Step::Ready),
        2 => slot.clone().prop_map(|slot| Step::BootFailed(slot, true)),
        8 => slot.clone().prop_map(move |slot| Step::Ends(slot, CRASH, reached)),
        1 => slot.prop_map(Step::Stuck),
        1 => Just(Step::RefuseNextFork),
    ]
}

fn stop() -> impl Strategy<Value = Step> {
    prop_oneof![Just(Step::Asked(OperatorRequest::Stop)), Just(Step::Asked(OperatorRequest::QuickStop))]
}

/// Room for workers: enough for every history.
const CAPACITY: usize = 24;

/// A process as the supervisor's actions shaped it.
#[derive(Clone, Copy, Debug)]
struct Worker {
    generation: Generation,
    ready: bool,
    /// Has the order to leave, or leaves by itself.
    leaving: bool,
    /// Said that it cannot boot, or sent SIGABRT.
    doomed: bool,
}

/// The world as the supervisor's actions shape it, and what must always hold in it.
struct World {
    supervisor: Supervisor,
    policy: Policy,
    now: Instant,
    /// The process of each slot.
    alive: Vec<Option<Worker>>,
    /// Whether nothing but failures makes the supervisor fork: then each fork is a restart.
    only_failures: bool,
    /// Whether clients may have caused all failures: then half of the workers may boot at once besides.
    only_crashes: bool,
    /// Restarts of the last moments.
    restarts: VecDeque<Instant>,
    /// Workers wanted now.
    wanted: usize,
    current: Generation,
    stopping: bool,
    ready_told: bool,
    refuse_fork: bool,
    refuse_configuration: bool,
    exit: Option<i32>,
}

impl World {
    fn start(workers: usize) -> Self {
        let policy = Policy { workers, graceful_timeout: GRACEFUL, boot_timeout: None, surge: 1 + workers % 2, max_age: None };
        let mut world = Self {
            supervisor: Supervisor::new(policy, CAPACITY),
            policy,
            now: Instant::now(),
            alive: vec![None; CAPACITY],
            only_failures: false,
            only_crashes: false,
            restarts: VecDeque::new(),
            wanted: workers,
            current: Generation(1),
            stopping: false,
            ready_told: false,
            refuse_fork: false,
            refuse_configuration: false,
            exit: None,
        };
        world.event(Event::Start);
        world
    }

    /// Workers that serve, or are to.
    fn serving(&self, like: impl Fn(&Worker) -> bool) -> usize {
        self.alive.iter().flatten().filter(|worker| !worker.leaving && like(worker)).count()
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
            Action::Fork(slot, generation) => {
                assert!(!self.stopping, "a server that stops forks nobody");
                assert!(self.alive[slot.0].is_none(), "a slot has one worker");
                assert!(generation >= self.current, "nobody is forked for a generation that is gone");
                if self.only_failures {
                    self.count_restart();
                }
                if self.only_crashes {
                    let booting = self.alive.iter().flatten().filter(|worker| !worker.ready && !worker.doomed).count();
                    self.restarts.retain(|at| *at + RESTART_WINDOW > self.now);
                    if booting >= self.wanted.div_ceil(2) {
                        self.count_restart();
                    }
                }
                if std::mem::take(&mut self.refuse_fork) {
                    events.push_back(Event::ForkFailed { slot, why: "refused".into() });
                } else {
                    self.alive[slot.0] = Some(Worker { generation, ready: false, leaving: false, doomed: false });
                }
            }
            Action::Order(slot, order @ (Order::Retire | Order::Vacate)) => {
                let worker = self.alive[slot.0].as_mut().expect("only the living are told");
                assert!(worker.ready && !self.stopping);
                worker.leaving = true;
                assert_eq!(order == Order::Retire, self.wanted > 0, "connections are handed over when somebody stays");
                assert!(self.serving(|worker| worker.ready) >= self.wanted, "whoever gives way is not needed");
            }
            Action::Order(slot, Order::Quit) if !self.stopping => {
                assert!(self.alive[slot.0].is_some_and(|worker| worker.leaving), "it had its time");
            }
            Action::Order(slot, Order::Drain | Order::Quit) => assert!(self.alive[slot.0].is_some() && self.stopping),
            Action::Order(_, Order::Ping) => panic!("a ping is no policy"),
            Action::Kill(slot) => {
                assert!(self.alive[slot.0].is_some(), "only the living are killed");
                self.alive[slot.0] = None;
                events.push_back(Event::Ended { slot, exit: KILLED, reached: false });
            }
            Action::Abort(slot) => self.alive[slot.0].as_mut().expect("only the living are aborted").doomed = true,
            Action::Read(generation) => {
                assert!(generation > self.current && !self.stopping);
                let refused = std::mem::take(&mut self.refuse_configuration);
                events.push_back(Event::Read(if refused { Err("refused".into()) } else { Ok(self.policy) }));
            }
            Action::Adopt(generation) => {
                assert!(generation > self.current && self.serving(|worker| worker.ready && worker.generation == generation) == 1);
                (self.current, self.wanted) = (generation, self.policy.workers);
            }
            Action::Discard(generation) => assert!(generation > self.current, "what serves is not given up"),
            Action::StopListening => {
                assert!(!self.stopping, "it is said once");
                self.stopping = true;
            }
            Action::ReopenLogs | Action::EndTrial | Action::EndReading => {}
            Action::TryUpgrade => {
                assert!(!self.stopping, "a server that stops tries nothing");
                events.push_back(Event::Tried(Ok(())));
            }
            Action::Upgrade => {
                assert!(!self.stopping, "a server that stops becomes nothing else");
                let lives: Vec<_> = (0..CAPACITY).filter_map(|slot| self.supervisor.life(SlotIndex(slot), self.now)).collect();
                assert_eq!(lives.len(), self.alive.iter().flatten().count(), "nobody is forgotten");
                let (generations, wanted) = (self.supervisor.generations(), self.supervisor.wanted());
                self.supervisor = Supervisor::adopt(self.policy, CAPACITY, generations, wanted, &lives, self.now);
                events.push_back(Event::Start);
            }
            Action::NotifyReady => {
                assert!(!self.ready_told && self.serving(|worker| !worker.ready && !worker.doomed) == 0);
                self.ready_told = true;
            }
            Action::Tell(Note::Workers(count)) => self.wanted = count,
            Action::Tell(Note::WorkersStopping) => self.wanted = 0,
            Action::Tell(_) => {}
            Action::Exit(code) => {
                assert!(self.stopping && self.alive.iter().all(Option::is_none), "the last worker is gone");
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
        match step {
            Step::Wait(time) => self.wait(time),
            Step::Ready(slot) => self.report(slot, Report::Ready("Python".into())),
            Step::BootFailed(slot, app) => self.report(slot, Report::BootFailed(BootError { app, text: "x".into() })),
            Step::Draining(slot) => self.report(slot, Report::Draining),
            Step::Stuck(slot) => {
                if self.alive[slot].is_some() {
                    self.event(Event::Stuck { slot: SlotIndex(slot), hang: Hang::Call(GRACEFUL) });
                }
            }
            Step::SourcesChanged => self.event(Event::SourcesChanged),
            Step::Worn(slot) => self.event(Event::Worn { slot: SlotIndex(slot), wear: Wear::Memory(1) }),
            Step::Ends(slot, exit, reached) => {
                if self.alive[slot].take().is_some() {
                    self.event(Event::Ended { slot: SlotIndex(slot), exit, reached });
                }
            }
            Step::RefuseNextFork => self.refuse_fork = true,
            Step::RefuseNextConfiguration => self.refuse_configuration = true,
            Step::Asked(request) => self.event(Event::Asked(request)),
        }
    }

    fn report(&mut self, slot: usize, report: Report) {
        let Some(worker) = &mut self.alive[slot] else { return };
        // A worker says only what fits its state.
        match report {
            _ if worker.doomed => return,
            Report::Ready(_) if worker.ready => return,
            Report::Ready(_) => worker.ready = true,
            Report::BootFailed(_) if worker.ready => return,
            Report::BootFailed(_) => worker.doomed = true,
            Report::Draining if !worker.ready => return,
            Report::Draining => worker.leaving = true,
            Report::Worn
            | Report::Starved
            | Report::Dismissed
            | Report::Stuck
            | Report::Stranded
            | Report::Failed(_)
            | Report::Sources(_) => {}
        }
        self.event(Event::Reported { slot: SlotIndex(slot), report });
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
    fn whatever_fails_is_tried_at_most_twice_a_second(workers in 1usize..6, steps in prop::collection::vec(failure(false), 0..200)) {
        let mut world = World::start(workers);
        for slot in 0..workers {
            world.step(Step::Ready(slot));
        }
        world.only_failures = true;
        for step in steps {
            world.step(step);
        }
    }

    #[test]
    fn whoever_crashes_workers_makes_at_most_half_of_them_boot_and_two_more_a_second(
        workers in 1usize..6,
        steps in prop::collection::vec(failure(true), 0..200)
    ) {
        let mut world = World::start(workers);
        for slot in 0..workers {
            world.step(Step::Ready(slot));
        }
        world.only_crashes = true;
        for step in steps {
            world.step(step);
        }
    }

    #[test]
    fn nobody_waits_for_a_worker_that_a_client_has_crashed(workers in 1usize..6, slots in prop::collection::vec(0usize..6, 0..200)) {
        let mut world = World::start(workers);
        for slot in 0..workers {
            world.step(Step::Ready(slot));
        }
        for slot in slots {
            world.step(Step::Ends(slot % workers, CRASH, true));
            prop_assert_eq!(world.serving(|_| true), workers);
            world.step(Step::Ready(slot % workers));
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
        prop_assert!(world.exit.is_some() || world.serving(|_| true) >= world.wanted);
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
