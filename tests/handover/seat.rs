//! The application and who may call it.

use std::cell::{Cell, RefCell};

use super::connection::Token;
use super::event_loop::NONE;
use super::job::{Letter, Served, Work};
use super::member::{MAIN, Member};
use super::pace::TICK_NS;
use super::sync::{Arc, Condvar, Mutex};

/// What a request does in the application.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Quick,
    /// Returns after two ticks by the owner's clock.
    Long,
    /// Returns when another thread has taken the loop.
    UntilTaken,
    /// Returns when `Opens` is called.
    Waits,
    Opens,
    /// One block more after the call.
    Stream,
}

#[derive(Debug, Default)]
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().expect("no panic") = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let mut open = self.open.lock().expect("no panic");
        while !*open {
            open = self.opened.wait(open).expect("no panic");
        }
    }
}

/// What happens to the worker.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub slots: usize,
    /// Whether requests go to other threads at once.
    pub slow: bool,
    pub requests: &'static [Kind],
    /// What the handlers of signals do, one after the other.
    pub handlers: &'static [Kind],
    /// Whether the requests come when every handler is on its way, or the other way round.
    pub handlers_first: bool,
    /// Whether the loop fails at once.
    pub fails: bool,
}

/// What all threads see. loom runs one thread at a time and changes only where its own types are used: counters are plain cells.
pub struct World {
    pub plan: Plan,
    /// How often each request was begun.
    pub calls: Vec<Cell<usize>>,
    inside: RefCell<Vec<Member>>,
    /// For each request, opened when the loop is taken while it is called; then for the handler, opened whenever it is taken.
    taken: Vec<Gate>,
    gate: Gate,
    /// Handlers that have begun.
    handled: Cell<usize>,
    /// Whether the loop was told to send the answers that it holds.
    pub sent: Cell<bool>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let calls = plan.requests.iter().map(|_| Cell::new(0)).collect();
        let taken = (0..=plan.requests.len()).map(|_| Gate::default()).collect();
        let (inside, handled) = (RefCell::default(), Cell::new(0));
        Self { plan, calls, inside, taken, gate: Gate::default(), handled, sent: Cell::new(false) }
    }

    pub fn check(&self) {
        assert!(self.calls.iter().all(|calls| calls.get() == 1), "calls: {:?}", self.calls);
        assert!(self.inside.borrow().is_empty());
        assert_eq!(self.handled.get(), self.plan.handlers.len());
    }

    /// Opened when the loop is taken from this call; from any, for the handler.
    pub fn taken(&self, token: Token) -> &Gate {
        &self.taken[token.0.min(self.plan.requests.len())]
    }

    fn enter(&self, member: Member) {
        let mut inside = self.inside.borrow_mut();
        assert!(!inside.contains(&member));
        inside.push(member);
        assert!(inside.len() <= self.plan.slots, "more calls than slots");
        assert!(self.plan.slots > 1 || member == MAIN, "the application left the main thread");
    }

    fn leave(&self, member: Member) {
        self.inside.borrow_mut().retain(|&other| other != member);
    }
}

pub struct App;

impl App {
    pub fn release(&mut self) {}
}

/// The owner's clock, as old as it can be: it knows only of calls.
pub struct Clock(u64);

impl Clock {
    pub fn ns(&self) -> u64 {
        self.0
    }
}

pub struct Seat {
    world: Arc<World>,
    pub app: App,
    pub clock: Clock,
    pub member: Member,
    pub may_call: bool,
    pub streams: u64,
    pub job: Option<Token>,
}

impl Seat {
    pub fn new(world: Arc<World>, member: Member) -> Self {
        let may_call = world.plan.slots > 1 || member == MAIN;
        Self { world, app: App, clock: Clock(0), member, may_call, streams: 0, job: None }
    }

    pub fn serve(&mut self, work: Work) -> Served {
        match work {
            Work::Call => {
                let token = self.job.take().expect("a call has a job");
                self.call(token)
            }
            Work::Parcel(parcel) => self.call(parcel.0),
            Work::Advance(member) => {
                assert_eq!(member, self.member, "a stream left its thread");
                self.world.enter(self.member);
                self.world.leave(self.member);
                self.streams -= 1;
                Served::Whole
            }
            Work::Signals => {
                assert_eq!(self.member, MAIN, "a handler left the main thread");
                let number = self.world.handled.get();
                self.world.handled.set(number + 1);
                match self.world.plan.handlers[number] {
                    Kind::Quick => {}
                    Kind::UntilTaken => self.world.taken(NONE).wait(),
                    Kind::Waits => self.world.gate.wait(),
                    Kind::Long | Kind::Opens | Kind::Stream => unreachable!("no handler does that"),
                }
                Served::Handled
            }
        }
    }

    pub fn letter(&mut self, token: Token, served: Served, _: bool) -> Letter {
        Letter { from: self.member, token, served, next: None }
    }

    fn call(&mut self, token: Token) -> Served {
        let (world, member) = (&self.world, self.member);
        let calls = &world.calls[token.0];
        calls.set(calls.get() + 1);
        world.enter(member);
        let served = match world.plan.requests[token.0] {
            Kind::Quick => Served::Whole,
            Kind::Long => {
                self.clock.0 += 2 * TICK_NS;
                Served::Whole
            }
            Kind::UntilTaken => {
                world.taken(token).wait();
                Served::Whole
            }
            Kind::Waits => {
                world.gate.wait();
                Served::Whole
            }
            Kind::Opens => {
                world.gate.open();
                Served::Whole
            }
            Kind::Stream => {
                self.streams += 1;
                Served::Begun(member)
            }
        };
        world.leave(member);
        served
    }
}
