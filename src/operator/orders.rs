//! Commands that change something.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::status::{ChangeKind, Document};

use super::client::{ANSWER_TIME, AskError, ControlAnswer, ask};
use super::show::{self, clean};
use super::{Done, OperatorFailure, code};

/// Pause between two looks at something that takes its time.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much longer than the server the command waits for its answer.
const EXTRA: Duration = Duration::from_secs(5);

/// The answer to a command.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    message: Option<String>,
    error: Option<String>,
}

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

/// What an answer means.
fn judge(answer: &ControlAnswer) -> Result<Done, OperatorFailure> {
    let said: Said = serde_json::from_str(&answer.body).unwrap_or_default();
    match answer.status {
        200..=299 => Ok((code::OK, format!("{}\n", clean(&said.message.unwrap_or_default())))),
        status => {
            let why = said.error.unwrap_or_else(|| format!("the server answers {status}"));
            let code = if status == 504 { code::LATE } else { code::FAILED };
            Err(OperatorFailure { code, why: clean(&why) })
        }
    }
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
