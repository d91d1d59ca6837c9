//! USR2: the master becomes another program in the same process, and its workers, sockets and logs stay.
//!
//! ```text
//! USR2 ─▶ trial: NEW --check-state < state ──no──▶ "upgrade failed", nothing has changed
//!                │yes
//!                ▼
//!         block signals, keep descriptors open, exec NEW ──fails──▶ as above
//!                │
//!                ▼  same process id, same children
//!         adopt: read the state, take the descriptors over, catch signals, unblock them
//!                │
//!                ▼
//!         reload to a new generation, whose workers are the new program; if they fail, the old ones go on serving
//! ```
//!
//! Exec in place, not a second master beside the first: whoever started the server (systemd, supervisord, a pid file) knows one
//! process id, and it stays; there is never a time with two masters that could both be sent a signal; and the workers keep their
//! parent, so their ends are waited for as before. What it costs is that there is no way back after exec, hence the trial.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::fchdir;

use crate::channel::{LogName, MasterEnd};
use crate::config::{Bind, Settings};
use crate::log::error::{Log, Who};
use crate::net::listener::{self, FileMark, Listener};
use crate::scoreboard::Scoreboard;
use crate::sys::exec::exec;
use crate::sys::fd::inherited;
use crate::sys::process::{Pid, unset_env};
use crate::sys::signals::Blocked;
use crate::sys::{memory, time};

use super::event::{Event, Slot, code};
use super::logs::Logs;
use super::notify::Notifier;
use super::pidfile::Pidfile;
use super::privileges;
use super::server::Server;
use super::service::Service;
use super::start::{self, Refusal, refuse};
use super::state::{self, State};
use super::supervisor::Supervisor;
use super::table::{Child, Table};
use super::trial::Trial;

/// Names the descriptor of the state to the new program, which removes it from its environment.
const VARIABLE: &str = "TAPSTER_STATE_FD";

impl Server {
    /// Starts the trial of the program that the server was started with, as it is now on the disk.
    pub(super) fn try_upgrade(&mut self) -> Option<Event> {
        self.log.info(format_args!("upgrade: trying {}", self.command.program().display()));
        match Trial::start(&self.command, &self.state()) {
            Ok(trial) => {
                self.trial = Some(trial);
                None
            }
            Err(why) => Some(Event::Tried(Err(why))),
        }
    }

    /// The end of the trial, if it has ended.
    pub(super) fn trial_outcome(&mut self) -> Option<Event> {
        let outcome = self.trial.as_mut()?.outcome()?;
        self.trial = None;
        let program = self.command.program().display();
        Some(Event::Tried(outcome.map_err(|why| format!("{program}: {why}"))))
    }

    /// Becomes the new program. It returns only when that failed.
    pub(super) fn become_new(&mut self) -> Event {
        match self.exec() {
            Ok(never) => match never {},
            Err(error) => Event::Tried(Err(format!("cannot execute {}: {error}", self.command.program().display()))),
        }
    }

    fn exec(&mut self) -> io::Result<std::convert::Infallible> {
        let blocked = Blocked::all()?;
        // What was caught and not yet looked at would be forgotten with this program's memory.
        self.signals.give_back()?;
        let state = memory::file("tapster-state", &self.state().render(process::id())?)?;
        let number = OsString::from(state.as_raw_fd().to_string());
        let here = File::open(".")?;
        std::env::set_current_dir(self.command.dir())?;
        let mut keep = self.descriptors();
        keep.push(state.as_fd());
        let error = exec(self.command.program(), self.command.argv(), (VARIABLE, &number), &keep, blocked);
        fchdir(here)?;
        Err(error)
    }

    /// Everything that must stay open; the same that [`Server::state`] names.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.scoreboard.as_fd()];
        fds.extend(self.listeners.iter().map(AsFd::as_fd));
        fds.extend(self.table.channels().map(|(_, channel)| channel.as_fd()));
        fds.extend(self.service.outputs().map(|(.., reader)| reader));
        fds
    }

    fn state(&self) -> State {
        let listening = |listener: &Listener| state::Listening {
            fd: listener.as_raw_fd(),
            file: listener.file().map(|mark| state::File {
                path: mark.path.clone().into(),
                device: mark.device,
                inode: mark.inode,
            }),
        };
        State {
            command: self.command.clone(),
            generation: 1,
            python: self.python.clone(),
            binds: binds(&self.settings),
            listeners: self.listeners.iter().map(listening).collect(),
            children: self.table.alive().map(|(slot, child)| saved(slot, child)).collect(),
            scoreboard: self.scoreboard.as_fd().as_raw_fd(),
            slots: self.workers,
            outputs: self.service.outputs().map(output).collect(),
            pid_file: self.service.pidfile().map(|path| path.into()),
        }
    }
}

fn binds(settings: &Settings) -> Vec<String> {
    settings.binds.iter().map(ToString::to_string).collect()
}

fn output((slot, pid, reader): (usize, Pid, BorrowedFd<'_>)) -> state::Output {
    state::Output { slot, pid: pid.as_raw(), fd: reader.as_raw_fd() }
}

fn saved(slot: Slot, child: &Child) -> state::Child {
    let age = u64::try_from(child.born.elapsed().as_nanos()).unwrap_or(u64::MAX);
    state::Child {
        slot: slot.0,
        pid: child.pid.as_raw(),
        channel: child.channel().map(|channel| channel.as_fd().as_raw_fd()),
        generation: 1,
        born: time::monotonic().saturating_sub(age),
    }
}

/// The state that the program which this process was before has left, if it was a master.
pub fn inherited_state() -> Result<Option<State>, Refusal> {
    let failed = |why: String| Refusal { code: code::FAILED, why: format!("{VARIABLE}: {why}") };
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
    unset_env(&[VARIABLE]).map_err(|error| failed(error.to_string()))?;
    let number = value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| failed("not a descriptor".into()))?;
    let file = inherited(number).map_err(|error| failed(error.to_string()))?;
    let (state, master) = State::read(File::from(file)).map_err(|why| failed(why.to_string()))?;
    if master != process::id() {
        return Err(failed(format!("the state is that of process {master}")));
    }
    Ok(Some(state))
}

/// Whether a server with this state, read from `source`, could go on with these settings in this program.
pub fn check(settings: &Settings, source: impl io::Read) -> Result<(), Refusal> {
    // All that could keep it from going on, and what cannot be undone is not done.
    start::check(settings)?;
    privileges::resolve(settings).or_else(|why| refuse(code::USAGE, why))?;
    Logs::open(settings).or_else(|why| refuse(code::FAILED, why))?;
    let state = State::read(source);
    state.map(drop).or_else(|why| refuse(code::FAILED, why.to_string()))
}

/// Goes on with a server whose state was inherited.
pub fn adopt(mut settings: Settings, warnings: &[String], state: State) -> Result<Server, Refusal> {
    let format = start::check(&settings)?;
    let identity = privileges::resolve(&settings).or_else(|why| refuse(code::USAGE, why))?;
    // Opened and not inherited: the files may be others now.
    let logs = Logs::open(&settings).or_else(|why| refuse(code::FAILED, why))?;
    let error_sink = logs.sink(LogName::Error).expect("there always is an error log");
    let log = Log::new(error_sink, settings.log_level, Who::Master);
    for warning in warnings {
        log.warning(format_args!("{warning}"));
    }
    let failed = |what: &str, error: io::Error| Refusal { code: code::FAILED, why: format!("cannot take over {what}: {error}") };
    let bound: Vec<Bind> = state.binds.iter().filter_map(|text| Bind::parse(text).ok()).collect();
    if settings.binds_given && settings.binds != bound {
        let kept = state.binds.join(", ");
        log.warning(format_args!("--bind cannot change without a restart; the server goes on listening on {kept}"));
    }
    settings.binds = bound;
    let settings = Arc::new(settings);
    let listeners = state.listeners.into_iter().map(|socket| adopt_listener(socket, &settings)).collect::<Result<_, _>>();
    let listeners: Vec<Listener> = listeners.or_else(|error| refuse(code::FAILED, error.to_string()))?;
    let workers = start::workers(&settings).max(state.slots);
    let scoreboard = inherited(state.scoreboard).and_then(|memory| Scoreboard::adopt(memory, workers));
    let scoreboard = scoreboard.map_err(|error| failed("the scoreboard", error))?;
    let mut table = Table::new(workers);
    for child in &state.children {
        let child_of = adopt_child(child).map_err(|error| failed("a worker", error))?;
        table.put(Slot(child.slot), child_of);
    }
    let slots: Vec<Slot> = state.children.iter().map(|child| Slot(child.slot)).collect();
    let notifier = Notifier::from_environment().unwrap_or_else(|why| {
        log.warning(format_args!("{why}"));
        Notifier::nobody()
    });
    let pidfile = state.pid_file.and_then(|path| Pidfile::adopt(Path::new(&path)));
    let outputs = state.outputs.iter().map(|output| Ok((output.slot, Pid::from_raw(output.pid), inherited(output.fd)?)));
    let outputs = outputs.collect::<io::Result<_>>().map_err(|error| failed("the output of a worker", error))?;
    let signals = start::catch_signals().map_err(|error| failed("the signals", error))?;
    log.info(format_args!(
        "upgrade: this is tapster {} now, with {} workers of before and their sockets",
        env!("CARGO_PKG_VERSION"),
        slots.len()
    ));
    Ok(Server {
        supervisor: Supervisor::adopt(workers, settings.graceful_timeout, &slots, Instant::now()),
        table,
        workers,
        scoreboard: Arc::new(scoreboard),
        access: logs.sink(LogName::Access).map(|sink| (sink, Arc::new(format))),
        service: Service::adopt(&settings, identity, pidfile, notifier, outputs),
        logs,
        settings,
        listeners,
        signals,
        log,
        // It was said when the server started.
        ready: None,
        python: state.python,
        command: state.command,
        trial: None,
    })
}

fn adopt_listener(socket: state::Listening, settings: &Settings) -> Result<Listener, listener::BindError> {
    let mark = |file: state::File| FileMark { path: PathBuf::from(file.path), device: file.device, inode: file.inode };
    listener::adopt(socket.fd, socket.file.map(mark), settings)
}

fn adopt_child(child: &state::Child) -> io::Result<Child> {
    let channel = child.channel.map(|fd| inherited(fd).map(MasterEnd::adopt)).transpose()?;
    let now = Instant::now();
    let age = Duration::from_nanos(time::monotonic().saturating_sub(child.born));
    Ok(Child::adopted(Pid::from_raw(child.pid), now.checked_sub(age).unwrap_or(now), channel))
}
