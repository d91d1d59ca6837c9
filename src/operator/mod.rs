//! The commands of an operator (`tapster status`, `tapster reload`, ...): a client of a running server's control socket.
//!
//! A command says what came of it by its exit code ([`code`]), figures and answers on standard output, and on standard error why
//! something is not done. What a server says is shown without its control characters: a terminal must not obey it.

mod answer;
mod client;
mod find;
mod orders;
mod show;
mod top;

use std::path::PathBuf;
use std::time::Duration;

use client::AskError;

/// The exit codes of the commands.
pub mod code {
    /// Done.
    pub const OK: i32 = 0;
    /// Failed, or the server is not as it should be.
    pub const FAILED: i32 = 1;
    /// Wrong usage.
    pub const USAGE: i32 = 2;
    /// Nobody answers.
    pub const NOBODY: i32 = 3;
    /// Not done in time.
    pub const LATE: i32 = 4;
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `--control-socket`.
    pub socket: Option<PathBuf>,
    /// `--name`.
    pub name: Option<String>,
    /// What to do.
    pub verb: Verb,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Show the server.
    Status {
        /// As the document.
        json: bool,
    },
    /// Show the server until the user has seen enough.
    Top {
        /// Time between two looks.
        interval: Duration,
        /// One frame only.
        once: bool,
    },
    /// Show the requests in the application.
    Requests {
        /// As JSON.
        json: bool,
    },
    /// Load configuration and application again.
    Reload {
        /// How long to wait for its end; `None`: not at all.
        wait: Option<Duration>,
    },
    /// Become the program on the disk.
    Upgrade {
        /// How long to wait for its end; `None`: not at all.
        wait: Option<Duration>,
    },
    /// End the server.
    Stop {
        /// Whether only the requests that run are finished.
        quick: bool,
        /// How long to wait for its end; `None`: not at all.
        wait: Option<Duration>,
    },
    /// Have so many workers.
    Scale(usize),
    /// Show the stacks of the threads.
    Stacks {
        /// Of this worker; `None`: of all.
        worker: Option<usize>,
        /// As JSON.
        json: bool,
    },
    /// Record this severity and above.
    LogLevel(String),
    /// Open the logs again.
    Reopen,
}

impl Verb {
    /// Whether the server is only looked at.
    fn only_shows(&self) -> bool {
        match self {
            Self::Status { .. } | Self::Top { .. } | Self::Requests { .. } | Self::Stacks { .. } => true,
            Self::Reload { .. } | Self::Upgrade { .. } | Self::Stop { .. } => false,
            Self::Scale(_) | Self::LogLevel(_) | Self::Reopen => false,
        }
    }
}

/// What a command could not do.
#[derive(Debug, PartialEq, Eq)]
pub struct OperatorFailure {
    /// Exit code.
    pub code: i32,
    /// Why, for standard error.
    pub why: String,
}

impl From<AskError> for OperatorFailure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Nobody(why) => Self { code: code::NOBODY, why },
            AskError::Late(why) => Self { code: code::LATE, why },
        }
    }
}

/// What a command leaves: its exit code and the text for standard output.
pub type Done = (i32, String);

/// Carries a command out. The text is for standard output.
pub fn run(operation: &Operation) -> Result<Done, OperatorFailure> {
    let socket = find::socket(operation)?;
    match &operation.verb {
        Verb::Status { json } => show::status(&socket, *json),
        Verb::Top { interval, once } => top::run(&socket, *interval, *once),
        Verb::Requests { json } => show::requests(&socket, *json),
        Verb::Reload { wait } => orders::reload(&socket, *wait),
        Verb::Upgrade { wait } => orders::upgrade(&socket, *wait),
        Verb::Stop { quick, wait } => orders::stop(&socket, *quick, *wait),
        Verb::Scale(count) => orders::post(&socket, &format!("/workers?count={count}")),
        Verb::Stacks { worker, json } => show::stacks(&socket, *worker, *json),
        Verb::LogLevel(level) => orders::post(&socket, &format!("/log-level?level={level}")),
        Verb::Reopen => orders::post(&socket, "/reopen"),
    }
}
