//! What the supervisor's notes say in the error log.

use std::fmt::Write;
use std::time::Duration;

use crate::channel::Order;
use crate::log::Level;
use crate::scoreboard::InFlight;

use super::event::{Exit, Note, Request, Slot};
use super::signals;

/// What is known of the worker that a note is about.
#[derive(Clone, Debug)]
pub struct About {
    /// Process id.
    pub pid: i32,
    /// Since the fork.
    pub age: Duration,
    /// The request in the application and how long it was there.
    pub serving: Option<(InFlight, Duration)>,
}

/// The slot that a note is about.
pub fn subject(note: &Note) -> Option<Slot> {
    match note {
        Note::BootFailed { slot, .. }
        | Note::Died { slot, .. }
        | Note::Left(slot)
        | Note::ForkFailed { slot, .. }
        | Note::Pause { slot, .. }
        | Note::Killing(slot) => Some(*slot),
        Note::Stopping(_)
        | Note::AlreadyStopping
        | Note::DrainTimeout(_)
        | Note::UpgradeFailed(_)
        | Note::NotNow(_)
        | Note::Unsupported(_) => None,
    }
}

/// How severe a note is; a critical one ends the server.
pub fn level(note: &Note) -> Level {
    match note {
        Note::BootFailed { fatal: true, .. } | Note::Died { fatal: true, .. } => Level::Critical,
        Note::BootFailed { fatal: false, .. }
        | Note::Died { fatal: false, .. }
        | Note::ForkFailed { .. }
        | Note::UpgradeFailed(_) => Level::Error,
        Note::Pause { .. } | Note::DrainTimeout(_) | Note::Killing(_) | Note::NotNow(_) | Note::Unsupported(_) => Level::Warning,
        Note::Left(_) | Note::Stopping(_) | Note::AlreadyStopping => Level::Info,
    }
}

/// The record of a note; `about` is what is known of its subject.
pub fn text(note: &Note, about: Option<&About>) -> String {
    match note {
        Note::BootFailed { slot, why, .. } => format!("{} cannot boot: {}", worker(*slot, about), why.text.trim_end()),
        Note::Died { slot, exit, booting, .. } => died(*slot, *exit, *booting, about),
        Note::Left(slot) => format!("{} left by itself; it is replaced", worker(*slot, about)),
        Note::ForkFailed { slot, why } => format!("cannot fork worker {}: {why}", slot.0),
        Note::Pause { slot, wait } => format!("worker {} failed again; the next try is in {}", slot.0, seconds(*wait)),
        Note::Stopping(Order::Drain) => "stopping: requests that were accepted are answered first".into(),
        Note::Stopping(Order::Quit) => "stopping: only the requests that run are finished".into(),
        Note::AlreadyStopping => "already stopping; SIGINT or SIGQUIT hurry it".into(),
        Note::DrainTimeout(time) => format!("requests still run after the graceful timeout of {}", seconds(*time)),
        Note::Killing(slot) => format!("{} is killed{}", worker(*slot, about), serving(about).unwrap_or_default()),
        Note::UpgradeFailed(why) => format!("upgrade failed, generation 1 keeps serving: {why}"),
        Note::NotNow(request) => format!("{} is ignored: not now", asked(*request)),
        Note::Unsupported(request) => format!("{} is not supported yet in this version", asked(*request)),
    }
}

fn asked(request: Request) -> String {
    let rows: Vec<_> = signals::rows_of(request).map(|row| format!("{} ({})", row.signal, row.text)).collect();
    rows.join(", ")
}

fn worker(slot: Slot, about: Option<&About>) -> String {
    match about {
        Some(about) => format!("worker {} (pid {})", slot.0, about.pid),
        None => format!("worker {}", slot.0),
    }
}

fn died(slot: Slot, exit: Exit, booting: bool, about: Option<&About>) -> String {
    let mut text = format!("{} {exit}", worker(slot, about));
    if let Some(about) = about {
        let _ = write!(text, " after {}", seconds(about.age));
    }
    text += &if booting { ", while it was booting".into() } else { serving(about).unwrap_or(", idle".into()) };
    if exit == (Exit::Signal { number: libc::SIGKILL, core: false }) {
        text += "; if nobody sent the signal, memory ran out (see dmesg)";
    }
    text
}

fn serving(about: Option<&About>) -> Option<String> {
    let (request, time) = about?.serving.as_ref()?;
    Some(format!(", serving \"{}\" for {}", String::from_utf8_lossy(&request.line), seconds(*time)))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::BootError;

    const SEGV: Exit = Exit::Signal { number: libc::SIGSEGV, core: true };

    fn about(line: Option<&str>) -> About {
        let serving = line.map(|line| (InFlight { line: line.into(), since: 1 }, Duration::from_millis(230)));
        About { pid: 77, age: Duration::from_millis(12_340), serving }
    }

    fn death(exit: Exit, booting: bool) -> Note {
        Note::Died { slot: Slot(2), exit, booting, fatal: booting }
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
    }

    #[test]
    fn what_ends_the_server_is_critical() {
        let why = BootError { app: true, text: "cannot load app\n".into() };
        let note = Note::BootFailed { slot: Slot(0), why, fatal: true };
        assert_eq!(level(&note), Level::Critical);
        assert_eq!(text(&note, Some(&about(None))), "worker 0 (pid 77) cannot boot: cannot load app");
        assert_eq!(level(&death(SEGV, true)), Level::Critical);
        assert_eq!(level(&death(SEGV, false)), Level::Error);
    }

    #[test]
    fn what_is_not_supported_is_named_by_signal_and_meaning() {
        assert_eq!(text(&Note::Unsupported(Request::Reload), None), "SIGHUP (reload) is not supported yet in this version");
    }
}
