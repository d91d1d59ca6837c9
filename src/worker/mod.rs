//! The life of a worker: boot (interpreter, application), say ready, serve, drain, leave.

mod accept;
mod answer;
pub mod app;
mod clock;
mod connection;
mod control;
mod event_loop;
mod job;
mod output;
mod request;
mod seat;
mod spool;
mod timers;
mod trust;
mod upload;
mod warmup;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use crate::channel::{BootError, Report, WorkerEnd};
use crate::config::Settings;
use crate::log::access::Format;
use crate::log::error::Log;
use crate::log::sink::Sink;
use crate::net::listener::{Address, Listener};
use crate::scoreboard::Scoreboard;
use crate::sys::signals::Blocked;

use app::App;
use control::Control;
use event_loop::{EventLoop, Step};
use job::{Done, Work};
use seat::Seat;

/// How long a leaving worker keeps an idle connection, so that a request that is already on its way is answered and not reset,
/// in milliseconds.
const DRAIN_IDLE_MS: u64 = 500;

/// The worker left as it was told to.
const EXIT_OK: i32 = 0;

/// The worker failed while it served.
const EXIT_FAILED: i32 = 1;

/// The worker could not boot.
const EXIT_BOOT: i32 = 3;

/// The application could not be loaded.
const EXIT_APP: i32 = 4;

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
    /// Where the interpreter writes the stacks of all threads when a signal ends the worker; the master reads it.
    pub stacks: File,
}

/// What an application is loaded with.
pub struct Place<'a> {
    /// Settings of this generation.
    pub settings: &'a Settings,
    /// Addresses of the listeners, in the order of the settings' binds.
    pub addresses: Vec<Address>,
    /// Number of the slot, from 0.
    pub slot: usize,
    /// Workers in all.
    pub workers: usize,
    /// Error log of this worker.
    pub log: &'a Log,
    /// Environ variables that the access log's format asks for.
    pub environ_names: Vec<String>,
    /// Descriptor of [`Boot::stacks`].
    pub stacks: i32,
}

/// An application and what it says of its interpreter (`Python 3.11.7`).
pub type Loaded = (Box<dyn App>, String);

/// Lives the worker's life with the application that `load` makes; returns the exit code of its process.
pub fn run(boot: Boot, load: impl FnOnce(&Place<'_>) -> Result<Loaded, BootError>) -> i32 {
    let log = boot.log.clone();
    live(boot, load).unwrap_or_else(|error| {
        log.critical(format_args!("worker failed: {error}"));
        EXIT_FAILED
    })
}

fn live(boot: Boot, load: impl FnOnce(&Place<'_>) -> Result<Loaded, BootError>) -> io::Result<i32> {
    // Before the application is loaded: its import may take long, and an order to leave must not kill in the middle of it.
    let logs = (boot.log.sink(), boot.access.as_ref().map(|(sink, _)| sink.clone()));
    let control = Control::new(boot.channel, logs)?;
    drop(boot.signals);
    let place = Place {
        settings: &boot.settings,
        addresses: boot.listeners.iter().map(|listener| listener.address().clone()).collect(),
        slot: boot.slot,
        workers: boot.workers,
        log: &boot.log,
        stacks: boot.stacks.as_raw_fd(),
        environ_names: boot.access.as_ref().map_or_else(Vec::new, |(_, format)| format.environ_names().to_vec()),
    };
    let loaded = load(&place).and_then(|(mut app, description)| {
        if let Some(warmup) = &boot.settings.warmup {
            warmup::run(warmup, &mut *app, &boot.settings)?;
        }
        Ok((app, description))
    });
    let (app, description) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            let code = if error.app { EXIT_APP } else { EXIT_BOOT };
            if control.report(&Report::BootFailed(error.clone())).is_err() {
                boot.log.critical(format_args!("{}", error.text));
            }
            return Ok(code);
        }
    };
    let mut seat = Seat::new(app, &boot.settings, boot.log, boot.access, boot.scoreboard, boot.slot);
    let shared = boot.workers > 1;
    let mut event_loop = EventLoop::new(boot.listeners, control, &boot.settings, shared, seat.clock.ms())?;
    event_loop.ready(description)?;
    work(&mut event_loop, &mut seat)?;
    drop(event_loop);
    seat.end_turn();
    seat.app.finish();
    Ok(EXIT_OK)
}

/// Serves until the worker is told to leave and has nothing left to do: the application runs on the thread of the loop.
fn work(event_loop: &mut EventLoop, seat: &mut Seat) -> io::Result<()> {
    loop {
        let Step::Work(token, work) = event_loop.next(seat)? else { return Ok(()) };
        let mut more = Some((token, work));
        while let Some((token, work)) = more {
            let done = match work {
                Work::Call => Done::Called(seat.call()),
                Work::Advance(mut answer) => {
                    let step = answer.advance(seat);
                    Done::Advanced(answer, step)
                }
            };
            more = event_loop.resume(token, done, seat);
        }
    }
}
