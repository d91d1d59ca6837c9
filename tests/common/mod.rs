//! The harness of the integration tests: the real binary in its own process group and a fresh directory, port 0, a ready line,
//! bounded waits, and a look at the error log at the end of each test.
//!
//! Each test binary uses a part of it.
#![allow(dead_code, reason = "every test binary compiles the whole harness and uses a part of it")]

pub mod browser;
pub mod cgroup;
pub mod client;
pub mod clock;
pub mod crowd;
pub mod deploy;
pub mod errorlog;
pub mod handoff;
pub mod lifetime;
pub mod load;
pub mod manual;
pub mod place;
pub mod procfs;
pub mod relay;
pub mod server;
pub mod status;
pub mod tls;
pub mod tools;
pub mod user;
pub mod venv;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Longest wait for something that is expected to happen at once. Generous, because the machine may be busy with other tests;
/// reaching it is a failure, so that no test gets faster or slower by it.
pub const SOON: Duration = Duration::from_secs(20);

/// Longest wait for what follows boots of workers one after the other, as the end of a reload does: [`SOON`] for each of a few. A
/// boot takes seconds where others have the processors.
pub const ROLLED: Duration = SOON.saturating_mul(4);

/// Pause between two looks at a state that nobody announces (the process table, a file).
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The directory of the Python test applications.
pub fn apps() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/apps")
}

/// Raises the limit of open files as far as it goes, for this process and the servers that it starts; returns it. The usual 1,024
/// are few where the clients of a test are sockets of this process.
pub fn raise_open_files() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit is allowed");
    hard
}

/// Looks every few milliseconds until `look` returns something; fails after `limit`, naming `what` was awaited.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
