//! Calls that outlast their deadline, as their connection and their thread see them.

use std::fmt;

/// The fate of the client of a call that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateAnswer {
    /// It was answered 504.
    Answered,
    /// It had a part of the answer, which was cut.
    Cut,
    /// It had left before.
    NoClient,
}

impl fmt::Display for LateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "its client was answered 504",
            Self::Cut => "its answer, which had begun, was cut",
            Self::NoClient => "its client has left",
        })
    }
}
