//! The hook process: where the functions of a gunicorn file run that gunicorn's master calls. The master here runs no Python, so it
//! starts this program once more, with [`OPTION`], and tells it what happens.
//!
//! ```text
//! master ── birth, events (one packet each) ──▶ hook process
//!        ◀── reports ──────────────────────────
//! ```
//! The process gets its end of a packet socket as its standard input and the error log as its standard output, and puts them
//! elsewhere before it does anything else. It calls one function after the other. At the end of the packets it ends.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stdin, getppid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{Settings, signals};
use crate::log::error::{Log, Who};
use crate::log::sink::Sink;
use crate::sys::title::Title;
use crate::sys::{scm, signals as masks};

/// The hidden option. People do not use it, so it is in no table.
pub const OPTION: &str = "--run-hooks";

/// Longest packet in bytes: settings, and the traceback of a report.
pub const PACKET_MAX: usize = 128 * 1024;

/// What the process is born with: the first packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookBirth {
    /// Settings of the generation, with the hooks in them.
    pub settings: Settings,
    /// Workers of the generation.
    pub workers: usize,
    /// Process id of the master.
    pub master: u32,
    /// Title of the process.
    pub title: String,
    /// The socket of the system log, if the error log goes there.
    pub system_log: Option<OsString>,
}

/// What happens: the packets after the first. Some come with a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookEvent {
    /// The server starts, and waits for the report.
    Starting,
    /// All workers are ready for the first time, or the process takes the place of another one.
    Ready,
    /// A new generation serves.
    Reloaded,
    /// A worker was forked.
    Forked {
        /// Its process id.
        pid: i32,
        /// How many workers the server had started with it.
        age: u64,
    },
    /// A worker has ended.
    Ended {
        /// Its process id.
        pid: i32,
        /// As above.
        age: u64,
    },
    /// So many workers are wanted.
    Workers {
        /// Now.
        new: usize,
        /// Before.
        old: Option<usize>,
    },
    /// The master is about to become another program.
    Upgrading,
    /// The server ends, and waits for the report.
    Exiting,
    /// The error log was opened again; the descriptor comes with it.
    NewLog,
}

/// What the process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookReport {
    /// An event that the server waits for is done with.
    Done,
    /// The file cannot be executed, or `on_starting` has raised: why, in several lines.
    Failed(String),
}

/// What calls the functions.
pub trait HookRunner {
    /// Calls the functions for this event. The error is that of one whose failure fails the start.
    fn handle(&mut self, event: &HookEvent) -> Result<(), String>;

    /// Lets other threads of the runtime run until the next call.
    fn release(&mut self);

    /// Runs the exit handlers.
    fn finish(&mut self);
}

/// Whether this process is to be a hook process; the arguments begin with the program's name.
pub fn is_ordered(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|arg| arg == OPTION)
}

/// Sends a packet.
pub fn send(socket: &impl AsFd, packet: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    scm::send(socket, &serde_json::to_vec(packet)?, descriptors).map(drop)
}

/// Receives a packet; `None` at the end.
pub fn receive<P: DeserializeOwned>(socket: &impl AsFd) -> io::Result<Option<(P, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; PACKET_MAX];
    let (count, descriptors) = loop {
        match scm::receive(socket, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => break received?,
        }
    };
    if count == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buffer[..count])?, descriptors)))
}

/// What a hook process begins with.
pub struct HookStart {
    socket: OwnedFd,
    log: OwnedFd,
    /// The first packet.
    pub birth: HookBirth,
}

impl HookStart {
    /// Takes over what the master has passed.
    pub fn take() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        dup2_stdin(OpenOptions::new().read(true).open("/dev/null")?)?;
        let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "this is only for a master of tapster");
        let (birth, descriptors) = receive(&socket)?.ok_or_else(ended)?;
        let log = descriptors.into_iter().next().ok_or_else(ended)?;
        Ok(Self { socket, log, birth })
    }

    /// Makes this process end with the master. Call it once it has its user.
    pub fn follow_master(&self) -> io::Result<()> {
        // Nobody could tell a function that does not end to do so.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if u32::try_from(getppid().as_raw()) != Ok(self.birth.master) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the master has gone"));
        }
        Ok(())
    }

    /// Serves to the end, with what `start` makes of the birth and the error log.
    pub fn serve<R: HookRunner>(self, start: impl FnOnce(&HookBirth, &Log) -> Result<R, String>) -> io::Result<()> {
        let Self { socket, log, birth } = self;
        if let Some(mut title) = Title::take() {
            title.set(&birth.title);
        }
        masks::ignore_write_errors();
        let sink = Arc::new(Sink::adopt(log, birth.system_log.clone().map(PathBuf::from))?);
        let log = Log::new(sink.clone(), birth.settings.log_level, Who::Hooks);
        let mut runner = match start(&birth, &log) {
            Ok(runner) => runner,
            Err(why) => {
                log.finish();
                return send(&socket, &HookReport::Failed(why), &[]);
            }
        };
        forget_signals()?;
        loop {
            runner.release();
            let Some((event, descriptors)) = receive::<HookEvent>(&socket)? else { break };
            if let (HookEvent::NewLog, Some(file)) = (&event, descriptors.first()) {
                sink.replace(file)?;
                continue;
            }
            let handled = runner.handle(&event);
            if matches!(event, HookEvent::Starting | HookEvent::Exiting) {
                let report = handled.map_or_else(HookReport::Failed, |()| HookReport::Done);
                match send(&socket, &report, &[]) {
                    // The master has not waited, which its log says.
                    Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
                    sent => sent?,
                }
            }
        }
        runner.finish();
        log.finish();
        Ok(())
    }
}

/// Catches the signals that are meant for the master, and does nothing: a terminal, or a service manager, sends some to all
/// processes, and the end of this one comes by the socket. They are not ignored: programs that a function starts would inherit that.
fn forget_signals() -> io::Result<()> {
    let asked = signals::TABLE.iter().filter(|row| row.meaning != signals::SignalMeaning::Reap);
    for signal in asked.filter_map(|row| masks::named(row.name)) {
        signal_hook::flag::register(signal as i32, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}
