//! The application `deploy` under load: the parts that the scenarios of operation share.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::load::{Load, Plan, Tally};
use super::server::{Running, Server};

/// Workers of the scenarios.
pub const WORKERS: usize = 4;

/// Pause of each client between two requests: eight of them ask a few hundred times a second.
const PAUSE: Duration = Duration::from_millis(20);

/// Longest wait for one answer: beyond it the answer is late.
pub const LATE: Duration = Duration::from_secs(3);

/// A server of `deploy` with four workers.
pub fn server() -> Server {
    let server = Server::new("deploy").workers(WORKERS);
    let dir = server.temp().display().to_string();
    server.env("DEPLOY_DIR", dir)
}

/// Changes a file that the application reads.
pub fn set(running: &Running, name: &str, text: &str) {
    fs::write(running.temp().join(name), text).expect("the temp directory is writable");
}

/// How often the application was imported.
pub fn boots(running: &Running) -> usize {
    fs::read_to_string(running.temp().join("boots")).map_or(0, |text| text.lines().count())
}

/// Eight clients on kept connections and eight on new ones.
pub struct Both {
    kept: Load,
    new: Load,
}

/// Starts them.
pub fn load(running: &Running) -> Both {
    let plan = |keep_alive| Plan { pause: PAUSE, keep_alive, ..Plan::new(running.address()) };
    let both = Both { kept: plan(true).start(), new: plan(false).start() };
    both.wait_for_more(100);
    both
}

impl Both {
    /// Waits until each kind got so many more answers.
    #[track_caller]
    pub fn wait_for_more(&self, count: u64) {
        self.kept.wait_for_more(count);
        self.new.wait_for_more(count);
    }

    /// Stops them: nothing was refused, reset, cut, wrong or late, and at no time was nobody answered for longer than `gap`,
    /// during which an answer is not late.
    #[track_caller]
    pub fn assert_flawless(self, gap: Duration) {
        for (kind, tally) in ["kept", "new"].into_iter().zip(self.stop()) {
            tally.assert_flawless();
            eprintln!("{kind} connections: {} answered, slowest {:?}, longest gap {:?}", tally.ok, tally.slowest, tally.gap);
            assert!(tally.slowest < LATE.max(gap), "late on {kind} connections: {:?}", tally.slowest);
            assert!(tally.gap < gap, "nobody was answered on {kind} connections for {:?}", tally.gap);
        }
    }

    /// Stops them and returns their answers.
    pub fn stop(self) -> [Tally; 2] {
        [self.kept.stop(), self.new.stop()]
    }
}

/// Sends HUP and waits for the record that has `part`; how many such records there are is `count`.
#[track_caller]
pub fn reload(running: &Running, part: &str, count: usize) {
    running.signal(Signal::SIGHUP);
    wait_for_records(running, part, count);
}

/// Waits until the log has so many records with `part`.
#[track_caller]
pub fn wait_for_records(running: &Running, part: &str, count: usize) {
    super::wait_for(&format!("{count} records with {part:?}"), super::ROLLED, || {
        let found = running.log().records().iter().filter(|record| record.text.contains(part)).count();
        (found >= count).then_some(())
    });
}
