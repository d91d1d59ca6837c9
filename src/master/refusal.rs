//! What a start that fails says, and to whom.

use std::io;

use crate::config::LogTarget;
use crate::log::escape;
use crate::log::sink::Sink;

/// Why the server cannot start.
#[derive(Debug)]
pub struct StartError {
    /// Exit code.
    pub code: i32,
    /// One line: what, where, why, what to do.
    pub why: String,
}

/// The error of a start that fails.
pub fn refuse<T>(code: i32, why: impl Into<String>) -> Result<T, StartError> {
    Err(StartError { code, why: why.into() })
}

/// Reports a failure where the server was started, on standard error, which workers may have filled. What the application says of
/// itself may be in it, so it is made harmless as in the log.
pub fn complain(why: &str) {
    // Without standard error there is nobody to report to.
    if let Ok(sink) = Sink::open(&LogTarget::Stderr).and_then(|shared| shared.own()) {
        sink.write(&escape::complaint(why));
        sink.finish();
    }
}

/// The system's reason as a clause: `no such file or directory`.
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
