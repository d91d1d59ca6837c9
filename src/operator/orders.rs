//! Commands that change something.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::status::{ChangeKind, Document};

use super::answer::{clean, judge};
use super::client::{ANSWER_TIME, AskError, ask};
use super::show;
use super::{Done, OperatorFailure, code};

/// Pause between two looks at something that takes its time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much longer than the server the command waits for its answer.
const EXTRA: Duration = Duration::from_secs(5);

/// Sends a command that is done at once.
pub fn post(socket: &Path, target: &str) -> Result<Done, OperatorFailure> {
    judge(&ask(socket, "POST", target, ANSWER_TIME)?)
}

/// Reloads, and waits for the end where that is asked for.
pub fn reload(socket: &Path, wait: Option<Duration>) -> Result<Done, OperatorFailure> {
    let Some(wait) = wait else { return post(socket, "/reload") };
    let target = format!("/reload?wait={}", wait.as_secs());
    judge(&ask(socket, "POST", &target, wait.saturating_add(EXTRA))?)
}

/// Upgrades. The master becomes another program meanwhile, which ends all connections: so the wait is a look from time to time.
pub fn upgrade(socket: &Path, wait: Option<Duration>) -> Result<Done, OperatorFailure> {
    let before = show::document(socket)?;
    let begun = post(socket, "/upgrade")?;
    let Some(wait) = wait else { return Ok(begun) };
    let until = Instant::now() + wait;
    while Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
        let Ok(now) = show::document(socket) else { continue };
        if let Some(done) = ended(&before, &now) {
            return done;
        }
    }
    Err(OperatorFailure { code: code::LATE, why: format!("the upgrade is not done after {} s; it goes on", wait.as_secs()) })
}

/// The end of the upgrade that was asked for after `before`.
fn ended(before: &Document, now: &Document) -> Option<Result<Done, OperatorFailure>> {
    let change = now.last_change.as_ref()?;
    if change.kind != ChangeKind::Upgrade || change.at_s < before.now_s {
        return None;
    }
    Some(match &change.error {
        None => {
            let text = format!("upgrade done: tapster {}, generation {}\n", now.server.version, change.generation);
            Ok((code::OK, clean(&text)))
        }
        Some(why) => Err(OperatorFailure { code: code::FAILED, why: clean(why) }),
    })
}

/// Stops, and waits until the server is gone where that is asked for.
pub fn stop(socket: &Path, quick: bool, wait: Option<Duration>) -> Result<Done, OperatorFailure> {
    let begun = post(socket, if quick { "/stop?quick" } else { "/stop" })?;
    let Some(wait) = wait else { return Ok(begun) };
    let until = Instant::now() + wait;
    while Instant::now() < until {
        // The socket ends with the process.
        if let Err(AskError::Nobody(_)) = ask(socket, "GET", "/health/live", ANSWER_TIME) {
            return Ok((code::OK, "stopped\n".to_owned()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(OperatorFailure {
        code: code::LATE,
        why: format!("the server has not stopped after {} s; it goes on stopping", wait.as_secs()),
    })
}
