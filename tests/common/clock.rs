//! A clock that stands still while the machine does, or while nobody but others runs on it: that time is nobody's delay.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two ticks.
const EVERY: Duration = Duration::from_millis(5);

/// Most that counts between two ticks: a thread that sleeps 5 ms and comes back later than this shows that others waited as well.
const MOST: Duration = Duration::from_millis(50);

/// The clock; it ticks as long as somebody has it.
#[derive(Debug)]
pub struct Clock(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The time that counted up to the last tick.
    counted: Duration,
    ticked: Instant,
}

impl State {
    fn now(&self) -> Duration {
        self.counted + self.ticked.elapsed().min(MOST)
    }
}

impl Clock {
    /// Begins at zero.
    pub fn start() -> Arc<Self> {
        let clock = Arc::new(Self(Mutex::new(State { counted: Duration::ZERO, ticked: Instant::now() })));
        let ticking = Arc::downgrade(&clock);
        thread::spawn(move || {
            while let Some(clock) = ticking.upgrade() {
                clock.tick();
                drop(clock);
                thread::sleep(EVERY);
            }
        });
        clock
    }

    fn tick(&self) {
        let mut state = self.0.lock().expect("nobody panics with it");
        *state = State { counted: state.now(), ticked: Instant::now() };
    }

    /// The time since the start that counts.
    pub fn now(&self) -> Duration {
        self.0.lock().expect("nobody panics with it").now()
    }
}
