//! The error log and the access log: formats compiled once, whole lines in one write, descriptors that can be replaced.

pub mod access;
pub mod error;
pub mod sink;

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
