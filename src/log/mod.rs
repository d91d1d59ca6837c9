//! The error log and the access log: formats compiled once, whole lines in one write, descriptors that can be replaced.

pub mod access;
pub mod error;
pub mod escape;
pub mod format;
mod json;
pub mod sink;
pub mod stamp;
mod syslog;

/// A number of things in words: `1 worker`, `2 workers`.
pub fn count(number: u64, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}
