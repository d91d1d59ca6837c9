//! The error log and the access log: formats compiled once, whole lines in one write, descriptors that can be replaced.

pub mod access;
pub mod error;
pub mod escape;
pub mod format;
mod json;
pub mod sink;
mod stamp;
mod syslog;

/// Severity; the names are gunicorn's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Details of single connections.
    Debug,
    /// What the server does.
    Info,
    /// What an operator should look at.
    Warning,
    /// What failed.
    Error,
    /// What stops the service.
    Critical,
}

impl Level {
    /// The name in a record, in capitals.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}
