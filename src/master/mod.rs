//! The master: binds, forks workers, watches them, obeys signals. Pure Rust, one thread, no interpreter.
//!
//! Everything that happens becomes an [`event::Event`]; the [`supervisor`] answers with actions, which `server` performs. A
//! forked worker does not live inside the master's frames: it returns from [`run`] as an [`Outcome`].

use std::io;
use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::config::{Notice, Settings};
use crate::sys::process;

mod awake_clock;
mod capture;
mod changes;
mod command;
mod credentials;
mod daemon;
mod directory;
mod errand;
pub mod event;
mod exposed;
mod gauges;
mod generations;
mod health;
mod hooks;
mod ledger;
mod logs;
mod looks;
mod memory;
mod molds;
mod notes;
pub mod notify;
mod outcome;
mod patrol;
mod pidfile;
pub mod privileges;
mod reading;
mod ready;
mod refusal;
mod renewal;
mod server;
mod service;
mod signals;
mod start;
mod state;
pub mod status;
pub mod supervisor;
mod table;
mod terminal;
mod trial;
mod upgrade;
mod usage;
mod watch;
mod watchdog;

pub use command::{Command, Program};
use daemon::Side;
use event::Generation;
pub use event::code;
pub use outcome::Outcome;
use refusal::StartError;
use server::Server;
pub use server::{Alone, Reread};
use state::SavedState;

/// Why a server with `--debug` does not reload.
const NO_MASTER: &str = "a server with --debug has no master, and does not reload";

/// What this process was before it got to its command line.
pub struct Past {
    program: Program,
    state: Option<SavedState>,
}

impl Past {
    /// Finds out, in a process that `program` has started. Call it before anything reads the environment, and before there are
    /// threads. The error is for the operator, the exit code 1.
    pub fn find(program: Program) -> Result<Self, String> {
        let state = upgrade::inherited_state().map_err(|refusal| refusal.why)?;
        Ok(Self { program, state })
    }

    /// How a process was started that was no server before.
    pub fn into_program(self) -> Program {
        self.program
    }

    /// If it was a server already, which continues: the first generation of this program.
    pub fn first_generation(&self) -> Option<Generation> {
        self.state.as_ref().map(|state| Generation(state.latest.0 + 1))
    }
}

/// The signals that a master handles.
pub fn handled() -> Vec<Signal> {
    signals::all()
}

/// Serves until it is to stop. The `notices` of the configuration go to the error log; `reread` is asked at a reload. Returns in
/// the master at the end, and in each worker at its beginning.
pub fn run(mut settings: Settings, notices: &[Notice], reread: Reread, past: Past) -> Outcome {
    if let Some(state) = past.state {
        return match upgrade::adopt(settings, notices, reread, (state, past.program)) {
            Ok(server) => server.run(),
            Err(refusal) => refused(&refusal),
        };
    }
    let mut notices = notices.to_vec();
    // Before a daemon is forked off: the sockets are for the process that was started.
    if let Err(error) = start::use_passed_sockets(&mut settings, &mut notices) {
        return refused(&error);
    }
    if let Err(why) = server::look_up(&mut settings) {
        return refused(&StartError { code: code::USAGE, why });
    }
    let caller = match settings.daemon.then(daemon::detach).transpose() {
        Ok(None) => None,
        Ok(Some(Side::Daemon(caller))) => Some(caller),
        Ok(Some(Side::Caller(code))) => return Outcome::Exit(code),
        Err(error) => return refused(&StartError { code: code::FAILED, why: format!("--daemon: {error}") }),
    };
    match start::prepare(Arc::new(settings), &notices, reread, past.program) {
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

/// Makes a server of this one process (`--debug`), which is to run the worker. The error is an exit code; it has been said why.
pub fn alone(mut settings: Settings, notices: &[Notice], program: Program) -> Result<Alone, i32> {
    let mut notices = notices.to_vec();
    let prepared = start::use_passed_sockets(&mut settings, &mut notices)
        .and_then(|()| start::prepare(Arc::new(settings), &notices, Box::new(|_| Err(NO_MASTER.to_owned())), program))
        .and_then(Server::alone);
    prepared.map_err(|refusal| {
        refusal::complain(&refusal.why);
        refusal.code
    })
}

/// Whether this program, which takes none of the server's options, was started to answer [`check_state`]. The variable that says so is
/// removed.
pub fn is_on_trial() -> bool {
    // It fails only where it would also fail to serve.
    std::env::var_os(trial::VARIABLE).is_some() && process::unset_env(&[trial::VARIABLE]).is_ok()
}

/// Says whether this program with these settings could take over the server whose state is on standard input: `Ok` has what to
/// print, the error what to say, and the exit code.
pub fn check_state(settings: &Settings) -> Result<String, (String, i32)> {
    match upgrade::check(settings, io::stdin()) {
        Ok(()) => Ok(format!("{}\n", trial::ANSWER)),
        Err(refusal) => Err((refusal.why, refusal.code)),
    }
}

fn refused(refusal: &StartError) -> Outcome {
    refusal::complain(&refusal.why);
    Outcome::Exit(refusal.code)
}
