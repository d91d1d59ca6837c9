//! The master: binds, forks workers, watches them, obeys signals. Pure Rust, one thread, no interpreter.
//!
//! Everything that happens becomes an [`event::Event`]; the [`supervisor`] answers with actions, which `server` performs. A forked
//! worker does not live inside the master's frames: it returns from [`run`] as an [`Outcome`].

use std::sync::Arc;

use crate::config::Settings;
use crate::worker;

pub mod event;
mod generations;
mod memory;
mod notes;
mod pace;
mod patrol;
mod ready;
mod server;
mod signals;
mod start;
pub mod supervisor;
mod table;
mod watch;

pub use event::code;
pub use start::Reread;

/// What a process is when [`run`] returns.
pub enum Outcome {
    /// The master, which ends with this code.
    Exit(i32),
    /// A new worker.
    Worker(Box<worker::Boot>),
}

/// Serves until told to stop. The `warnings` of the configuration go to the error log; `reread` is asked at a reload. Returns in the master at the end, and in
/// each worker at its beginning.
pub fn run(settings: Settings, warnings: &[String], reread: Reread) -> Outcome {
    match start::prepare(Arc::new(settings), warnings, reread) {
        Ok(server) => server.run(),
        Err(refusal) => {
            start::complain(&refusal.why);
            Outcome::Exit(refusal.code)
        }
    }
}
