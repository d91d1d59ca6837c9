//! The master: binds, forks workers, watches them, obeys signals. Pure Rust, one thread, no interpreter.
//!
//! Everything that happens becomes an [`event::Event`]; the [`supervisor`] answers with actions, which `server` performs. A forked
//! worker does not live inside the master's frames: it returns from [`run`] as an [`Outcome`].

use std::sync::Arc;

use crate::config::Settings;
use crate::worker;

mod capture;
mod daemon;
pub mod event;
mod generations;
mod logs;
mod memory;
mod notes;
pub mod notify;
mod pace;
mod patrol;
mod pidfile;
pub mod privileges;
mod ready;
mod server;
mod service;
mod signals;
mod start;
pub mod supervisor;
mod table;
mod watch;
mod watchdog;

pub use event::code;
pub use start::Reread;

use daemon::Side;

/// What a process is when [`run`] returns.
pub enum Outcome {
    /// The master, which ends with this code.
    Exit(i32),
    /// A new worker.
    Worker(Box<worker::Boot>),
}

/// Serves until told to stop. The `warnings` of the configuration go to the error log; `reread` is asked at a reload. Returns in the
/// master at the end, and in each worker at its beginning.
pub fn run(mut settings: Settings, warnings: &[String], reread: Reread) -> Outcome {
    let mut warnings = warnings.to_vec();
    // Before a daemon is forked off: the sockets are for the process that was started.
    if let Err(error) = start::use_passed_sockets(&mut settings, &mut warnings) {
        return refused(&error);
    }
    let caller = match settings.daemon.then(daemon::detach).transpose() {
        Ok(None) => None,
        Ok(Some(Side::Daemon(caller))) => Some(caller),
        Ok(Some(Side::Caller(code))) => return Outcome::Exit(code),
        Err(error) => return refused(&start::Refusal { code: code::FAILED, why: format!("--daemon: {error}") }),
    };
    match start::prepare(Arc::new(settings), &warnings, reread) {
        Ok(mut server) => {
            if let Some(caller) = caller {
                server.service.started_by(caller);
            }
            server.run()
        }
        Err(refusal) => {
            let outcome = refused(&refusal);
            if let Some(caller) = caller {
                caller.tell(refusal.code);
            }
            outcome
        }
    }
}

fn refused(refusal: &start::Refusal) -> Outcome {
    start::complain(&refusal.why);
    Outcome::Exit(refusal.code)
}
