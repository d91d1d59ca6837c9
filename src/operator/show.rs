//! Commands that show something.

use std::path::Path;

use serde::Deserialize;

use crate::status::screen::{self, View};
use crate::status::{Document, ServerState};

use super::answer::{clean, judge};
use super::client::{ANSWER_TIME, AskError, ask};

use super::{Done, OperatorFailure, code};

/// The document of a server.
pub fn document(socket: &Path) -> Result<Document, OperatorFailure> {
    let answer = ask(socket, "GET", "/status.json", ANSWER_TIME)?;
    let read = serde_json::from_str(&answer.body).map_err(|error| error.to_string());
    match (answer.status, read) {
        (200, Ok(document)) => Ok(document),
        (200, Err(error)) => {
            Err(AskError::Nobody(format!("{}: not the figures of a tapster: {}", socket.display(), clean(&error))).into())
        }
        (status, _) => Err(AskError::Nobody(format!("{}: the answer is {status}", socket.display())).into()),
    }
}

/// Shows a server once. The exit code says whether it is as it should be.
pub fn status(socket: &Path, json: bool) -> Result<Done, OperatorFailure> {
    let document = document(socket)?;
    let well = match document.server.state {
        ServerState::Serving | ServerState::Reloading | ServerState::Upgrading => document.capacity.workers_ready > 0,
        ServerState::Starting | ServerState::Degraded | ServerState::Paused | ServerState::Stopping => false,
    };
    let text = match json {
        true => as_json(&document),
        false => screen::frame(&document, None, &View::default()),
    };
    Ok((if well { code::OK } else { code::FAILED }, text))
}

/// Shows the requests in the application.
pub fn requests(socket: &Path, json: bool) -> Result<Done, OperatorFailure> {
    let document = document(socket)?;
    let text = if json { as_json(&document.in_flight) } else { screen::requests(&document) };
    Ok((code::OK, text))
}

/// Shows the stacks of the threads. A worker that cannot answer is a failure, which says why.
pub fn stacks(socket: &Path, worker: Option<usize>, json: bool) -> Result<Done, OperatorFailure> {
    let target = worker.map_or_else(|| "/stacks".to_owned(), |worker| format!("/stacks?worker={worker}"));
    let answer = ask(socket, "GET", &target, ANSWER_TIME)?;
    if answer.status != 200 {
        return judge(&answer);
    }
    let workers: Vec<ShownStacks> = serde_json::from_str(&answer.body).unwrap_or_default();
    let all = workers.iter().all(|worker| worker.stacks.is_some());
    let text = if json {
        answer.body
    } else {
        let shown = workers.iter().map(|ShownStacks { worker, pid, stacks, why }| {
            let text = stacks.as_deref().or(why.as_deref()).unwrap_or("no answer");
            format!("worker {worker} (pid {pid})\n{}\n", clean(text.trim_end()))
        });
        shown.collect::<Vec<_>>().join("\n")
    };
    Ok((if all { code::OK } else { code::FAILED }, text))
}

/// The stacks of a worker.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ShownStacks {
    worker: usize,
    pid: i32,
    stacks: Option<String>,
    why: Option<String>,
}

fn as_json(value: &impl serde::Serialize) -> String {
    // It fails only for maps whose keys are no strings.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
