//! Tapster: a prefork WSGI server for Linux.
//!
//! The binary is a thin wrapper around [`run`]. The module map, the life of a request and of a signal are in
//! ARCHITECTURE.md; `tests/architecture.rs` enforces who may import whom.

pub mod channel;
pub mod cli;
pub mod config;
pub mod http;
pub mod log;
pub mod master;
pub mod net;
pub mod scoreboard;
pub mod sys;
pub mod worker;
#[cfg(feature = "python")]
pub mod wsgi;

/// Runs the command with these arguments (the first is the program) and returns its exit code.
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> i32 {
    match cli::parse(args) {
        Ok(cli::Command::Print(text)) => {
            print!("{text}");
            0
        }
        Ok(cli::Command::Serve(..) | cli::Command::CheckConfig(..)) => todo!(),
        Err(error) => {
            eprintln!("tapster: {error}");
            2
        }
    }
}
