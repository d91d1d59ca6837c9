//! The application and the right to call it.

use std::cell::{Cell, RefCell};

use super::connection::Token;
use super::event_loop::NONE;
use super::threads::pace::TICK_NS;
use super::threads::sync::{Arc, Condvar, Mutex};
use super::threads::thread_id::{MAIN, ThreadId};
use super::work::{Completion, QueuedRequest, Served, Work};

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
    /// Keeps the interpreter until every other request is answered.
    Holds,
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
    /// Preemptions of one run at most.
    pub preemptions: usize,
    /// Whether a busy owner puts the timer off.
    pub puts_off: bool,
    pub slots: usize,
    /// Whether requests go to other threads at once.
    pub slow: bool,
    pub requests: &'static [Kind],
    /// What the handlers of signals do, one after the other.
    pub handlers: &'static [Kind],
    /// Whether the requests come when every handler is on its way, or before.
    pub handlers_first: bool,
    /// Whether there is memory for requests that leave their thread context.
    pub memory: bool,
    /// Whether the loop fails at once.
    pub fails: bool,
    /// The loop's treatment of requests that wait for the interpreter.
    pub desks: Desked,
}

/// The fate of a request that waits for the interpreter when the loop has nothing else to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desked {
    /// It still waits.
    Wait,
    /// Another worker has it.
    HandedOver,
    /// It is taken back once, and waits for a permit again.
    Requeued,
}

/// The state that all threads see. loom runs one thread at a time and changes only where its own types are used: counters are
/// plain cells.
pub struct World {
    pub plan: Plan,
    /// How often each request was begun.
    pub calls: Vec<Cell<usize>>,
    inside: RefCell<Vec<ThreadId>>,
    /// For each request, opened when the loop is taken while it is called; then for the handler, opened whenever it is taken.
    taken: Vec<Gate>,
    gate: Gate,
    /// Whether a call keeps the interpreter, and who waits for it.
    kept: Mutex<bool>,
    free: Condvar,
    /// Opened when every request is answered but those that keep the interpreter.
    served: Gate,
    /// Handlers that have begun.
    handled: Cell<usize>,
    /// Whether the loop was asked to send the answers that it holds.
    pub sent: Cell<bool>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let calls = plan.requests.iter().map(|_| Cell::new(0)).collect();
        let taken = (0..=plan.requests.len()).map(|_| Gate::default()).collect();
        let (inside, handled) = (RefCell::default(), Cell::new(0));
        let (gate, served, kept, free) = (Gate::default(), Gate::default(), Mutex::new(false), Condvar::default());
        Self { plan, calls, inside, taken, gate, kept, free, served, handled, sent: Cell::new(false) }
    }

    /// Waits for the interpreter.
    fn wait_for_interpreter(&self) {
        let mut kept = self.kept.lock().expect("no panic");
        while *kept {
            kept = self.free.wait(kept).expect("no panic");
        }
    }

    fn keep_interpreter(&self) {
        *self.kept.lock().expect("no panic") = true;
        self.served.wait();
        *self.kept.lock().expect("no panic") = false;
        self.free.notify_all();
    }

    /// Another worker serves this request.
    pub fn hand_over(&self, token: Token) {
        let calls = &self.calls[token.0];
        calls.set(calls.get() + 1);
    }

    /// So many answers were given to each request.
    pub fn tell_answered(&self, answered: &[usize]) {
        let keeps = |index: usize| matches!(self.plan.requests[index], Kind::Holds);
        if (0..answered.len()).any(keeps) && (0..answered.len()).all(|index| keeps(index) || answered[index] > 0) {
            self.served.open();
        }
    }

    pub fn check(&self) {
        assert!(self.calls.iter().all(|calls| calls.get() == 1), "calls: {:?}", self.calls);
        assert!(self.inside.borrow().is_empty());
        assert_eq!(self.handled.get(), self.plan.handlers.len());
    }

    /// The loop was taken from this call: wakes the call if it waits for that, and handlers, which wait for any.
    pub fn tell_taken(&self, calling: Token) {
        if calling != NONE && matches!(self.plan.requests[calling.0], Kind::UntilTaken) {
            self.taken(calling).open();
        }
        if self.plan.handlers.iter().any(|handler| matches!(handler, Kind::UntilTaken)) {
            self.taken(NONE).open();
        }
    }

    fn taken(&self, token: Token) -> &Gate {
        &self.taken[token.0.min(self.plan.requests.len())]
    }

    fn enter(&self, thread: ThreadId) {
        let mut inside = self.inside.borrow_mut();
        assert!(!inside.contains(&thread));
        inside.push(thread);
        assert!(inside.len() <= self.plan.slots, "more calls than slots");
        assert!(self.plan.slots > 1 || thread == MAIN, "the application left the main thread");
    }

    fn leave(&self, thread: ThreadId) {
        self.inside.borrow_mut().retain(|&other| other != thread);
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

pub struct ThreadCtx {
    world: Arc<World>,
    pub app: App,
    pub clock: Clock,
    pub thread: ThreadId,
    pub may_call: bool,
    pub streams: u64,
    pub job: Option<Token>,
}

impl ThreadCtx {
    pub fn new(world: Arc<World>, thread: ThreadId) -> Self {
        let may_call = world.plan.slots > 1 || thread == MAIN;
        Self { world, app: App, clock: Clock(0), thread, may_call, streams: 0, job: None }
    }

    pub fn serve(&mut self, work: Work, desk: impl FnOnce() -> Option<Box<QueuedRequest>>) -> Served {
        match work {
            Work::Call => {
                let token = self.job.take().expect("a call has a job");
                self.call(token)
            }
            Work::Desk => {
                self.world.wait_for_interpreter();
                desk().map_or(Served::Withdrawn, |queued| self.call(queued.0))
            }
            Work::Advance(thread) => {
                assert_eq!(thread, self.thread, "a stream left its thread");
                self.world.enter(self.thread);
                self.world.leave(self.thread);
                self.streams -= 1;
                Served::Whole
            }
            Work::Signals => {
                assert_eq!(self.thread, MAIN, "a handler left the main thread");
                let number = self.world.handled.get();
                self.world.handled.set(number + 1);
                match self.world.plan.handlers[number] {
                    Kind::Quick => {}
                    Kind::UntilTaken => self.world.taken(NONE).wait(),
                    Kind::Waits => self.world.gate.wait(),
                    Kind::Long | Kind::Opens | Kind::Stream | Kind::Holds => unreachable!("no handler does that"),
                }
                Served::Handled
            }
        }
    }

    pub fn completion(&mut self, token: Token, served: Served, _: bool) -> Completion {
        Completion { from: self.thread, token, served }
    }

    fn call(&mut self, token: Token) -> Served {
        let (world, thread) = (&self.world, self.thread);
        let calls = &world.calls[token.0];
        calls.set(calls.get() + 1);
        world.enter(thread);
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
            Kind::Holds => {
                world.keep_interpreter();
                Served::Whole
            }
            Kind::Stream => {
                self.streams += 1;
                Served::Begun(thread)
            }
        };
        world.leave(thread);
        served
    }
}
