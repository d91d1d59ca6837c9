//! The timer and the bells, and the time: it passes only when the timer fires, which it does as soon as somebody waits for it,
//! for until a thread runs any time may pass.

use std::io;

use super::sync::{Condvar, Mutex};
use super::thread_id::ThreadId;

struct State {
    now: u64,
    at: Option<u64>,
    rung: Vec<bool>,
}

pub struct Wakeups {
    state: Mutex<State>,
    changed: Condvar,
}

impl Wakeups {
    pub fn new(threads: usize) -> io::Result<Self> {
        let state = State { now: 1, at: None, rung: vec![false; threads] };
        Ok(Self { state: Mutex::new(state), changed: Condvar::default() })
    }

    pub fn now(&self) -> u64 {
        self.state.lock().expect("no panic").now
    }

    pub fn set(&self, at: u64) {
        self.state.lock().expect("no panic").at = Some(at);
        self.changed.notify_all();
    }

    pub fn ring(&self, thread: ThreadId) {
        self.state.lock().expect("no panic").rung[thread.index()] = true;
        self.changed.notify_all();
    }

    pub fn wait(&self, thread: ThreadId) -> io::Result<bool> {
        let mut state = self.state.lock().expect("no panic");
        loop {
            if std::mem::take(&mut state.rung[thread.index()]) {
                return Ok(false);
            }
            if state.at.is_some() {
                return Ok(true);
            }
            state = self.changed.wait(state).expect("no panic");
        }
    }

    pub fn clear(&self) -> io::Result<bool> {
        let mut state = self.state.lock().expect("no panic");
        let at = state.at.take();
        state.now = state.now.max(at.unwrap_or(0));
        Ok(at.is_some())
    }
}
