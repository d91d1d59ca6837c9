//! What the error log is told about the configuration.

use std::fmt;

use super::logs::Level;

/// One record for the error log: a configuration that works, and what its owner should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Severity.
    pub level: Level,
    /// One line without a line end: what, where, and what follows.
    pub text: String,
}

impl Notice {
    /// Something that is as it should be.
    pub fn info(text: impl Into<String>) -> Self {
        Self { level: Level::Info, text: text.into() }
    }

    /// Something that its owner probably wants otherwise.
    pub fn warning(text: impl Into<String>) -> Self {
        Self { level: Level::Warning, text: text.into() }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
