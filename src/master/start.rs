//! Everything between the settings and the first fork, in the order that leaves nothing half-started: what can be refused without
//! touching anything, then logs, then sockets.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{AppSpec, Code, LogTarget, Settings};
use crate::log::access::Format;
use crate::log::error::{Log, Who};
use crate::log::sink::Sink;
use crate::net::listener;
use crate::scoreboard::Scoreboard;
use crate::sys::{process, signals as masks};

use super::event::code;
use super::ready::ReadyFd;
use super::server::Server;
use super::signals::Signals;
use super::supervisor::Supervisor;
use super::table::Table;

/// Why the server cannot start.
#[derive(Debug)]
pub struct Refusal {
    /// Exit code.
    pub code: i32,
    /// One line: what, where, why, what to do.
    pub why: String,
}

fn refuse<T>(code: i32, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, why: why.into() })
}

/// Tells whoever started the server, on standard error.
pub fn complain(why: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "tapster: {why}");
}

/// Makes everything that the workers inherit.
pub fn prepare(settings: Arc<Settings>, warnings: &[String]) -> Result<Server, Refusal> {
    let format = Format::compile(&settings.access_format);
    let format = format.or_else(|error| refuse(code::USAGE, format!("--access-logformat: {}", error.0)))?;
    check_paths(&settings)?;
    let ready = settings.ready_fd.map(adopt_ready).transpose()?;
    if let Some(mask) = settings.umask {
        process::set_umask(mask);
    }
    masks::ignore_write_errors();
    let log = Log::new(Arc::new(open(&settings.error_log, "error")?), settings.log_level, Who::Master);
    let access = settings.access_log.as_ref().map(|target| open(target, "access")).transpose()?;
    for warning in warnings {
        log.warning(format_args!("{warning}"));
    }
    if let Err(error) = process::raise_descriptor_limit() {
        log.warning(format_args!("the limit of open files stays as it is: {error}"));
    }
    let workers = settings.workers.unwrap_or_else(process::usable_cores);
    let scoreboard = Scoreboard::new(workers);
    let scoreboard = scoreboard.or_else(|error| refuse(code::FAILED, format!("cannot map the scoreboard: {error}")))?;
    let listeners = listener::bind_all(&settings).or_else(|error| {
        if settings.error_log != LogTarget::Stderr {
            log.critical(format_args!("{error}"));
        }
        refuse(code::FAILED, error.0)
    })?;
    let signals = catch_signals().or_else(|error| refuse(code::FAILED, format!("cannot catch signals: {error}")))?;
    Ok(Server {
        supervisor: Supervisor::new(workers, settings.graceful_timeout),
        table: Table::new(workers),
        workers,
        scoreboard: Arc::new(scoreboard),
        access: access.map(|sink| (Arc::new(sink), Arc::new(format))),
        settings,
        listeners,
        signals,
        log,
        ready,
        python: String::new(),
    })
}

/// Refuses a working directory or an application file that does not exist. Whether the application can be loaded, its worker says.
fn check_paths(settings: &Settings) -> Result<(), Refusal> {
    if let Some(dir) = &settings.chdir
        && !dir.is_dir()
    {
        return refuse(code::USAGE, format!("--chdir {}: no such directory", dir.display()));
    }
    let Some(file) = app_file(settings) else { return Ok(()) };
    match file.metadata() {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(_) => refuse(code::APP, format!("cannot load {}: it is not a file", file.display())),
        Err(error) => refuse(code::APP, format!("cannot load {}: {}", file.display(), reason(&error))),
    }
}

fn app_file(settings: &Settings) -> Option<PathBuf> {
    match &settings.app {
        AppSpec::Target { code: Code::File(path), .. } => Some(settings.chdir.as_deref().unwrap_or(Path::new("")).join(path)),
        AppSpec::Target { code: Code::Module(_), .. } | AppSpec::Welcome => None,
    }
}

fn adopt_ready(number: i32) -> Result<ReadyFd, Refusal> {
    ReadyFd::adopt(number).or_else(|error| refuse(code::USAGE, format!("--ready-fd {number}: {}", reason(&error))))
}

fn open(target: &LogTarget, which: &str) -> Result<Sink, Refusal> {
    let place = match target {
        LogTarget::Stdout => "standard output".into(),
        LogTarget::Stderr => "standard error".into(),
        LogTarget::File(path) => path.display().to_string(),
    };
    Sink::open(target).or_else(|error| refuse(code::FAILED, format!("cannot open the {which} log {place}: {}", reason(&error))))
}

fn catch_signals() -> io::Result<Signals> {
    let signals = Signals::install()?;
    masks::unblock_all()?;
    Ok(signals)
}

/// The system's reason as a clause: `no such file or directory`.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
