//! The life of a worker: boot (interpreter, application), say ready, serve, drain, leave.

pub mod app;

use std::sync::Arc;

use crate::channel::WorkerEnd;
use crate::config::Settings;
use crate::log::access::Format;
use crate::log::error::Log;
use crate::log::sink::Sink;
use crate::net::listener::Listener;
use crate::scoreboard::Scoreboard;
use crate::sys::signals::Blocked;

/// What a worker is born with: everything is made by the master before the fork.
pub struct Boot {
    /// Settings of this generation.
    pub settings: Arc<Settings>,
    /// Listening sockets, in the order of the settings' binds.
    pub listeners: Vec<Listener>,
    /// Number of the slot, from 0.
    pub slot: usize,
    /// Workers in all, for messages.
    pub workers: usize,
    /// The shared scoreboard.
    pub scoreboard: Arc<Scoreboard>,
    /// The worker's end of its socketpair with the master.
    pub channel: WorkerEnd,
    /// Every signal is blocked. The worker drops this after it has installed its own handlers, and what came meanwhile is
    /// delivered. SIGTERM also comes when the master dies; INT, QUIT, HUP, USR1, USR2, TTIN, TTOU and WINCH have handlers that do
    /// nothing. Handlers for TERM and those must be registered with signal-hook, which keeps one of its own for each.
    pub signals: Blocked,
    /// Error log of this worker.
    pub log: Log,
    /// Access log and its compiled format.
    pub access: Option<(Arc<Sink>, Arc<Format>)>,
}

/// Lives the worker's life; returns the exit code of its process.
pub fn run(boot: Boot) -> i32 {
    let _ = boot;
    todo!()
}
