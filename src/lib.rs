//! Tapster: a prefork WSGI server for Linux.
//!
//! The binary is a thin wrapper around [`run`]. The module map, the life of a request and of a signal are in
//! ARCHITECTURE.md; `tests/architecture.rs` enforces who may import whom.

use std::io::{self, Write};

use master::code;

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

/// Runs the command with these arguments (the first is the program) and returns its exit code. A worker does not return: its
/// process ends here.
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> i32 {
    match cli::parse(args) {
        Ok(cli::Command::Print(text)) => print(&text),
        Ok(cli::Command::CheckConfig(settings, warnings)) => todo!("{settings:?} {warnings:?}"),
        Ok(cli::Command::Serve(settings, warnings)) => match master::run(*settings, &warnings) {
            master::Outcome::Exit(code) => code,
            // Not by returning: the caller's exit handlers are the master's.
            master::Outcome::Worker(boot) => sys::process::exit_now(worker::run(*boot)),
        },
        Err(error) => {
            complain(&error.to_string());
            code::USAGE
        }
    }
}

fn print(text: &str) -> i32 {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads only the first lines (`tapster --help | head`) has what it wants.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {error}"));
            code::FAILED
        }
        Ok(()) | Err(_) => code::OK,
    }
}

/// Writes one line to standard error.
fn complain(why: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "tapster: {why}");
}
