//! A bound on the life of each server under test: a test that waits for something that never comes, in a loop of its own, would
//! hold up everything behind it. Its server is killed instead, and the test fails at its next request.

use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// No test needs a server for so long, also on a busy machine; the random requests of tests/differential.rs have their own time
/// added.
const LIFE_LIMIT: Duration = Duration::from_secs(600);

/// Pause between two looks at the servers that live.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The servers that live: process group, test, end.
static LIVING: Mutex<Vec<(i32, String, Instant)>> = Mutex::new(Vec::new());

/// A server whose life is bounded until this value is dropped.
#[derive(Debug)]
pub struct Lifetime(i32);

impl Lifetime {
    /// Bounds the life of this process group, which belongs to the current thread's test.
    pub fn of(group: i32) -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| drop(std::thread::spawn(watch)));
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let random = std::env::var("TAPSTER_DIFFERENTIAL_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let end = Instant::now() + LIFE_LIMIT + Duration::from_secs(random);
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).push((group, test, end));
        Self(group)
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).retain(|(group, ..)| *group != self.0);
    }
}

fn watch() {
    loop {
        std::thread::sleep(LOOK_EVERY);
        let now = Instant::now();
        // The lock is held, so that no group has gone and its number been taken meanwhile.
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).retain(|(group, test, end)| {
            let late = *end <= now;
            if late {
                // Past the capture of the test's output, which nobody sees while the test hangs.
                let text =
                    format!("{test}: its server {group} lives for over {LIFE_LIMIT:?}, so the test hangs; killing the server\n");
                let _ = nix::unistd::write(std::io::stderr(), text.as_bytes());
                // ESRCH: it has ended by itself.
                let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
            }
            !late
        });
    }
}
