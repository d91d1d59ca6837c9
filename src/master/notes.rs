//! What the supervisor's notes say in the error log.

use std::fmt::Write;
use std::time::Duration;

use crate::channel::Order;
use crate::config::Level;
use crate::log::count;
use crate::scoreboard::InFlight;

use super::event::{Exit, Generation, Hang, Note, ReloadFailure, SlotIndex, UpgradeFailure, Wear};

/// What is known of the worker that a note is about.
#[derive(Clone, Debug)]
pub struct About {
    /// Process id.
    pub pid: i32,
    /// Since the fork.
    pub age: Duration,
    /// The requests in the application and how long they were there.
    pub serving: Vec<(InFlight, Duration)>,
    /// The stacks of its threads, if it has ended and its interpreter wrote them.
    pub stacks: String,
    /// Whether the kernel has killed because memory ran out since the last note; `None`: the system does not say.
    pub oom: Option<bool>,
}

/// The slot that a note is about.
pub fn subject(note: &Note) -> Option<SlotIndex> {
    match note {
        Note::BootFailed { slot, .. }
        | Note::Died { slot, .. }
        | Note::Hung { slot, .. }
        | Note::Broken { slot, .. }
        | Note::Failed { slot, .. }
        | Note::Left(slot)
        | Note::ForkFailed { slot, .. }
        | Note::Pause { slot, .. }
        | Note::Recycling { slot, .. }
        | Note::Killing(slot)
        | Note::Lost(slot) => Some(*slot),
        Note::Stopping(_)
        | Note::AlreadyStopping
        | Note::DrainTimeout(_)
        | Note::UpgradeQueued
        | Note::UpgradeFailed { .. }
        | Note::Reloading(_)
        | Note::ReloadQueued
        | Note::ReloadFailed { .. }
        | Note::Adopted(_)
        | Note::Reloaded(_)
        | Note::Workers(_)
        | Note::WorkersLimit(_)
        | Note::WorkersStopping
        | Note::WorkersStopped
        | Note::Degraded { .. }
        | Note::Recovered(_) => None,
    }
}

const KILLED: Exit = Exit::Signal { number: libc::SIGKILL, core: false };

/// How severe a note is; a critical one ends the server.
pub fn level(note: &Note) -> Level {
    match note {
        Note::BootFailed { fatal: true, .. }
        | Note::Died { fatal: true, .. }
        | Note::Hung { fatal: true, .. }
        | Note::Broken { fatal: true, .. } => Level::Critical,
        Note::BootFailed { fatal: false, .. }
        | Note::Died { fatal: false, .. }
        | Note::Hung { fatal: false, .. }
        | Note::Broken { fatal: false, .. }
        | Note::Failed { .. }
        | Note::ReloadFailed { .. }
        | Note::UpgradeFailed { .. }
        | Note::Lost(_)
        | Note::ForkFailed { .. } => Level::Error,
        Note::Pause { .. } | Note::DrainTimeout(_) | Note::Killing(_) | Note::WorkersLimit(_) | Note::Degraded { .. } => {
            Level::Warning
        }
        Note::Left(_)
        | Note::Stopping(_)
        | Note::AlreadyStopping
        | Note::Reloading(_)
        | Note::ReloadQueued
        | Note::UpgradeQueued
        | Note::Adopted(_)
        | Note::Reloaded(_)
        | Note::Recycling { .. }
        | Note::Workers(_)
        | Note::WorkersStopping
        | Note::WorkersStopped
        | Note::Recovered(_) => Level::Info,
    }
}

/// The record of a note; `about` is what is known of its subject.
pub fn text(note: &Note, about: Option<&About>) -> String {
    match note {
        Note::BootFailed { slot, why, .. } => format!("{} cannot boot: {}", worker(*slot, about), why.text.trim_end()),
        Note::Died { slot, exit, booting, .. } => died(*slot, *exit, *booting, about),
        Note::Hung { slot, hang, exit, .. } => hung(*slot, *hang, *exit, about),
        Note::Broken { slot, breach, .. } => format!(
            "{} is killed, because it sends the master what no worker sends: {breach}; its application, or who has broken into it, \
             writes to descriptors that are the server's",
            worker(*slot, about)
        ),
        Note::Failed { slot, why } => format!("{} fails: {}", worker(*slot, about), why.trim_end()),
        Note::Left(slot) => format!("{} leaves by itself; it is replaced", worker(*slot, about)),
        Note::ForkFailed { slot, why } => format!("cannot fork worker {}: {why}", slot.0),
        Note::Pause { slot, wait } => format!("worker {} failed again; the next try is in {}", slot.0, seconds(*wait)),
        Note::Stopping(Order::Drain) => "stopping: requests that were accepted are answered first".into(),
        Note::Stopping(Order::Quit | Order::Vacate | Order::Retire | Order::Ping) => {
            "stopping: only the requests that run are finished".into()
        }
        Note::AlreadyStopping => "already stopping; SIGINT or SIGQUIT hurry it".into(),
        Note::DrainTimeout(time) => format!("requests still run after the graceful timeout of {}", seconds(*time)),
        Note::Killing(slot) => format!("{} is killed{}", worker(*slot, about), serving(about).unwrap_or_default()),
        Note::Lost(slot) => format!(
            "{} was killed and does not end: a debugger holds it (TracerPid in /proc/PID/status), or it waits in the kernel for a disk or \
             the network; the server goes on without it",
            worker(*slot, about)
        ),
        Note::Reloading(generation) => format!("reload: {generation} is being loaded"),
        Note::ReloadQueued => "reload: it follows the one that is under way".into(),
        Note::ReloadFailed { failed, why, serves } => {
            format!("reload failed, {serves} keeps serving: {}", reason(*failed, why))
        }
        Note::UpgradeQueued => "upgrade: it follows what is under way".into(),
        Note::UpgradeFailed { why, serves } => {
            let why = match why {
                UpgradeFailure::Program(why) => why.clone(),
                UpgradeFailure::Load(failed, why) => reason(*failed, why),
            };
            format!("upgrade failed, {serves} keeps serving: {why}")
        }
        Note::Adopted(generation) => format!("reload: {generation} is ready; the workers before it give way"),
        Note::Reloaded(generation) => format!("reload done: all workers are of {generation}"),
        Note::Recycling { slot, wear } => {
            let why = match wear {
                Wear::Requests => "has served --max-requests".into(),
                Wear::Descriptors => {
                    "has no descriptor left for connections, since its application has not closed its own, or has \
                                      lowered the limit (RLIMIT_NOFILE)"
                        .into()
                }
                Wear::Dismissed => "was sent SIGTERM".into(),
                Wear::Cut => "has lost its channel, which the application has closed as a rule".into(),
                Wear::Socket => "listens on a socket that was shut down".into(),
                Wear::Stuck => "has a request that does not end".into(),
                Wear::Memory(bytes) => format!("takes {} MiB, more than --max-worker-rss", bytes >> 20),
                Wear::Age(age) => format!("has served for {}, as long as --max-worker-age allows", seconds(*age)),
            };
            format!("{} {why}; it is replaced", worker(*slot, about))
        }
        Note::Workers(count) => format!("workers wanted from now on: {count}"),
        Note::WorkersLimit(count) => format!("the number of workers stays within its limits: {count}"),
        Note::WorkersStopping => "the workers leave; connections wait until SIGTTIN or SIGHUP brings workers back".into(),
        Note::WorkersStopped => "the workers are stopped; SIGTTIN or SIGHUP brings them back".into(),
        Note::Degraded { ready, wanted } => format!("degraded: {ready} of {wanted} workers serve, because new ones fail"),
        Note::Recovered(ready) => format!("recovered: {} in service", count(*ready as u64, "worker")),
    }
}

/// Why the reload to this generation has failed, as a clause.
pub fn reason(failed: Generation, why: &ReloadFailure) -> String {
    match why {
        ReloadFailure::Configuration(why) => why.clone(),
        ReloadFailure::Worker => format!("{failed} cannot boot"),
        ReloadFailure::NoPlace => "too many workers are still leaving".into(),
    }
}

fn worker(slot: SlotIndex, about: Option<&About>) -> String {
    match about {
        Some(about) => format!("worker {} (pid {})", slot.0, about.pid),
        None => format!("worker {}", slot.0),
    }
}

fn died(slot: SlotIndex, exit: Exit, booting: bool, about: Option<&About>) -> String {
    let mut text = format!("{} {exit}", worker(slot, about));
    if let Some(about) = about {
        let _ = write!(text, " after {}", seconds(about.age));
    }
    text += &if booting { ", while it was booting".into() } else { serving(about).unwrap_or(", idle".into()) };
    if exit == KILLED {
        text += match about.and_then(|about| about.oom) {
            Some(true) => "; the kernel killed for lack of memory (oom_kill of the control group)",
            Some(false) => "; memory did not run out, so somebody sent the signal",
            None => "; if nobody sent the signal, memory ran out (see dmesg)",
        };
    }
    append_stacks(&mut text, about);
    text
}

fn hung(slot: SlotIndex, hang: Hang, exit: Exit, about: Option<&About>) -> String {
    let why = match hang {
        Hang::Call(limit) => format!("a request runs for longer than --timeout {}", seconds(limit)),
        Hang::Silent(limit) => format!("it has given no sign for longer than --timeout {}", seconds(limit)),
        Hang::Boot(limit) => format!("it is not ready after --boot-timeout {}", seconds(limit)),
        Hang::Stranded => "it has finished everything but what does not end within --timeout".into(),
    };
    let mut text = format!("{} does not go on and was ended: {why}; it {exit}", worker(slot, about));
    for (call, time) in about.iter().flat_map(|about| &about.serving) {
        let _ = write!(text, "\nrequest: {}", call.describe(*time));
    }
    append_stacks(&mut text, about);
    text
}

fn append_stacks(text: &mut String, about: Option<&About>) {
    if let Some(about) = about.filter(|about| !about.stacks.is_empty()) {
        text.push('\n');
        text.push_str(&about.stacks);
    }
}

fn serving(about: Option<&About>) -> Option<String> {
    let calls: Vec<_> =
        about?.serving.iter().map(|(request, time)| format!("\"{}\" for {}", request.line(), seconds(*time))).collect();
    (!calls.is_empty()).then(|| format!(", serving {}", calls.join(", ")))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::BootError;
    use crate::master::event::Generation;

    const SEGV: Exit = Exit::Signal { number: libc::SIGSEGV, core: true };

    fn about(line: Option<&str>) -> About {
        let call = |line: &str| InFlight { line: line.into(), client: "::1".into(), id: "7f".into(), since: 1, entered: 1 };
        let serving = line.map(|line| (call(line), Duration::from_millis(230))).into_iter().collect();
        About { pid: 77, age: Duration::from_millis(12_340), serving, stacks: String::new(), oom: None }
    }

    fn death(exit: Exit, booting: bool) -> Note {
        Note::Died { slot: SlotIndex(2), exit, booting, fatal: booting }
    }

    #[test]
    fn a_death_is_told_with_what_the_worker_was_serving() {
        assert_eq!(
            text(&death(SEGV, false), Some(&about(Some("GET /crash HTTP/1.1")))),
            "worker 2 (pid 77) was killed by SIGSEGV (core dumped) after 12.3 s, serving \"GET /crash HTTP/1.1\" for 0.2 s"
        );
        assert_eq!(
            text(&death(Exit::Code(3), false), Some(&about(None))),
            "worker 2 (pid 77) exited with code 3 after 12.3 s, idle"
        );
    }

    #[test]
    fn a_kill_that_nobody_sent_is_explained() {
        let killed = Exit::Signal { number: libc::SIGKILL, core: false };
        assert!(text(&death(killed, false), None).ends_with("memory ran out (see dmesg)"));
        for (oom, words) in [(true, "oom_kill"), (false, "somebody sent the signal")] {
            let about = About { oom: Some(oom), ..about(None) };
            assert!(text(&death(killed, false), Some(&about)).contains(words));
        }
    }

    #[test]
    fn a_worker_that_hangs_is_told_with_request_client_and_stacks() {
        let note = Note::Hung {
            slot: SlotIndex(2),
            hang: Hang::Call(Duration::from_millis(200)),
            exit: Exit::Signal { number: libc::SIGABRT, core: false },
            fatal: false,
        };
        let about = About { stacks: "Thread 1:\n  File app.py".into(), ..about(Some("GET /spin HTTP/1.1")) };
        assert_eq!(
            text(&note, Some(&about)),
            "worker 2 (pid 77) does not go on and was ended: a request runs for longer than --timeout 0.2 s; it was killed by \
             SIGABRT\nrequest: GET /spin HTTP/1.1 for 0.2 s, from ::1, request id 7f\nThread 1:\n  File app.py"
        );
    }

    #[test]
    fn a_failed_reload_names_what_serves_on() {
        let why = ReloadFailure::Configuration("workers = 0 (file t.toml line 7): must be 1".into());
        let note = Note::ReloadFailed { failed: Generation(3), why, serves: Generation(2) };
        assert_eq!(text(&note, None), "reload failed, generation 2 keeps serving: workers = 0 (file t.toml line 7): must be 1");
    }

    #[test]
    fn what_ends_the_server_is_critical() {
        let why = BootError { app: true, text: "cannot load app\n".into() };
        let note = Note::BootFailed { slot: SlotIndex(0), why, fatal: true };
        assert_eq!(level(&note), Level::Critical);
        assert_eq!(text(&note, Some(&about(None))), "worker 0 (pid 77) cannot boot: cannot load app");
        assert_eq!(level(&death(SEGV, true)), Level::Critical);
        assert_eq!(level(&death(SEGV, false)), Level::Error);
    }
}
