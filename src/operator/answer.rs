//! What the answer to a command means, and how it is shown.

use serde::Deserialize;

use super::client::ControlAnswer;
use super::{Done, OperatorFailure, code};

/// The answer to a command.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    message: Option<String>,
    error: Option<String>,
}

/// What an answer means.
pub fn judge(answer: &ControlAnswer) -> Result<Done, OperatorFailure> {
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

/// Text of a server for a terminal: control characters would be orders to it.
pub fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() && character != '\n' { '?' } else { character }).collect()
}
