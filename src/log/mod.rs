//! The error log and the access log: formats compiled once, whole lines in one write, descriptors that can be replaced.

pub mod access;
pub mod error;
pub mod escape;
pub mod format;
mod json;
pub mod sink;
mod stamp;
mod syslog;
