//! The application of the tests: it answers with the target of the request, in the way that the target asks for.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tapster::config::Settings;
use tapster::http::response::{Context, Encoder};
use tapster::http::terms::Terms;
use tapster::worker::app::{App, Fate, Outlet, Reply, Request};

use super::native::{CountedBlocks, PATIENCE, Worker, end, summary};

/// The gate that slow calls wait for.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    /// Calls that have come there.
    reached: usize,
    /// Those that have not passed yet.
    inside: usize,
}

impl Gate {
    pub fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Closes it after those that were let through, however late they wake up.
    pub fn close(&self) {
        let state = self.state.lock().unwrap();
        let (mut state, _) = self.changed.wait_timeout_while(state, PATIENCE, |state| state.inside > 0).unwrap();
        assert_eq!(state.inside, 0, "they did not go through");
        state.open = false;
    }

    /// How many calls have come there.
    pub fn reached(&self) -> usize {
        self.state.lock().unwrap().reached
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.reached += 1;
        state.inside += 1;
        let (mut state, _) = self.changed.wait_timeout_while(state, PATIENCE, |state| !state.open).unwrap();
        state.inside -= 1;
        self.changed.notify_all();
        assert!(state.open, "nobody opened the gate");
    }
}

/// Length of a large answer.
pub const LARGE: usize = 15_000;

/// Answers with the request's target. The begin of the target says how.
pub struct Echo(Arc<Gate>);

impl App for Echo {
    fn call(&mut self, request: Request<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Reply {
        let context = Context { terms: Terms { head_only: false, ..request.terms }, date: request.date, id: b"" };
        let mut target = request.head.target.of(request.bytes).to_vec();
        if target.starts_with(b"/large") {
            target.resize(LARGE, b'x');
        }
        let mut encoder = Encoder::begin(out, &context, b"200 OK").unwrap();
        if target.starts_with(b"/gate") {
            self.0.pass();
            // Longer than any quick call.
            std::thread::sleep(Duration::from_millis(2));
        } else if target.starts_with(b"/spin") {
            // Long enough for other requests to arrive meanwhile, and too short for another thread to take the loop.
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_micros(400) {}
        }
        if target.starts_with(b"/blocks") {
            // Byte by byte.
            let mut bytes = target.into_iter();
            return Reply::Blocks(Box::new(CountedBlocks::new(encoder.finish(None), move || {
                bytes.next().map(|byte| vec![byte])
            })));
        }
        let mut encoding = encoder.finish(Some(target.len() as u64));
        let size = if target.len() == LARGE { LARGE } else { 3 };
        for part in target.chunks(size) {
            encoding.block(out, part);
            if target.starts_with(b"/hint") {
                // The first part alone; the rest is rendered.
                if encoding.sent() == 3 {
                    outlet.push(out).unwrap();
                    if target.ends_with(b"gate") {
                        self.0.pass();
                    }
                }
                continue;
            }
            if target.starts_with(b"/write") && outlet.push(out).is_err() {
                return Reply::Complete(summary(&encoding, Fate::Cut));
            }
        }
        Reply::Complete(end(&mut encoding, out))
    }

    fn release(&mut self) {}

    fn spawn(&self, name: &str, body: Box<dyn FnOnce(Box<dyn App>) + Send>) -> std::io::Result<()> {
        let app = Self(self.0.clone());
        std::thread::Builder::new().name(name.to_owned()).spawn(move || body(Box::new(app))).map(drop)
    }
}

/// A worker with this application.
pub fn start(change: impl FnOnce(&mut Settings)) -> (Worker, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    (Worker::start(Echo(gate.clone()), change), gate)
}
