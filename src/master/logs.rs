//! The log files: opened by the master, which may be root, before anything else; opened again on demand and handed to the
//! workers.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::channel::{LogName, MasterEnd};
use crate::config::{LogTarget, Settings};
use crate::log::sink::Sink;

use super::refusal::reason;

/// One log.
#[derive(Clone, Debug)]
struct Opened {
    name: LogName,
    /// As the settings have it.
    wanted: LogTarget,
    syslog: Option<PathBuf>,
    target: LogTarget,
    /// For the workers. Nothing of it is written or read by the master, for they may do anything to an open file that they have.
    sink: Arc<Sink>,
    /// For the master.
    own: Arc<Sink>,
}

/// The logs of a generation.
#[derive(Clone, Debug)]
pub struct Logs {
    all: Vec<Opened>,
}

/// Logs that were opened again, for the workers.
#[derive(Debug)]
pub struct Reopened {
    files: Vec<(LogName, Sink)>,
    /// What could not be opened, one line each; these logs stay in their old files.
    pub failures: Vec<String>,
}

impl Logs {
    /// Opens the logs of the settings. One that is where the `old` settings had it is the same log. The error is one line.
    pub fn open(settings: &Settings, old: Option<&Self>) -> Result<Self, String> {
        let open = |name, wanted| match old.and_then(|old| old.find(name, wanted, settings)) {
            Some(same) => Ok(same),
            None => open(name, wanted, settings),
        };
        let mut all = vec![open(LogName::Error, &settings.error_log)?];
        if let Some(target) = &settings.access_log {
            all.push(open(LogName::Access, target)?);
        }
        Ok(Self { all })
    }

    /// The log that these settings want; a standard stream may have been another file when it was opened.
    fn find(&self, name: LogName, wanted: &LogTarget, settings: &Settings) -> Option<Opened> {
        let same = |log: &&Opened| log.name == name && log.wanted == *wanted && log.syslog == settings.syslog;
        self.all.iter().find(same).cloned()
    }

    /// The master's sink of the error log.
    pub fn own(&self) -> &Arc<Sink> {
        let error = self.all.iter().find(|log| log.name == LogName::Error).map(|log| &log.own);
        error.expect("there always is an error log")
    }

    /// The sink of a log for a new worker, if it is written. Called before the worker becomes another user.
    pub fn for_worker(&self, name: LogName) -> Option<Arc<Sink>> {
        let sink = self.all.iter().find(|log| log.name == name).map(|log| &log.sink)?;
        Some(sink.apart().map_or_else(|_| sink.clone(), Arc::new))
    }

    /// Whether the error log is standard error, which is read where the server was started.
    pub fn on_stderr(&self) -> bool {
        self.all.iter().any(|log| log.name == LogName::Error && log.target == LogTarget::Stderr)
    }

    /// What a daemon would write where nobody reads it.
    pub fn unread(&self, settings: &Settings) -> Vec<String> {
        let lost = |log: &&Opened| settings.daemon && log.target == nowhere();
        let text = |log: &Opened| match log.name {
            LogName::Error => "the daemon is started without an error log: give --error-logfile FILE or --log-syslog",
            LogName::Access => "the daemon is started without an access log: give --access-logfile FILE or --log-syslog",
        };
        self.all.iter().filter(lost).map(|log| text(log).to_owned()).collect()
    }

    /// The files that are written.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.all.iter().filter_map(|log| match &log.target {
            LogTarget::File(path) => Some(path.as_path()),
            LogTarget::Stdout | LogTarget::Stderr | LogTarget::Syslog(_) => None,
        })
    }

    /// Opens files again and connects to the system log again. Standard streams stay what they are.
    pub fn reopen(&self) -> Reopened {
        let mut reopened = Reopened { files: Vec::new(), failures: Vec::new() };
        for log in &self.all {
            match log.target {
                LogTarget::Stdout | LogTarget::Stderr => continue,
                LogTarget::File(_) | LogTarget::Syslog(_) => {}
            }
            let replaced = |new: Sink| {
                log.own.replace(&new.own()?)?;
                log.sink.replace(&new)?;
                Ok(new)
            };
            match Sink::open(&log.target).and_then(replaced) {
                Ok(new) => reopened.files.push((log.name, new)),
                Err(error) => {
                    reopened.failures.push(format!("{}; its old file is written on", failed(log.name, &log.target, &error)))
                }
            }
        }
        reopened
    }
}

impl Reopened {
    /// Hands the logs to a worker.
    pub fn send(&self, worker: &MasterEnd) -> io::Result<()> {
        let apart = self.files.iter().map(|(name, sink)| Ok((*name, sink.apart()?))).collect::<io::Result<Vec<_>>>()?;
        let files: Vec<_> = apart.iter().map(|(name, sink)| (*name, sink.as_fd())).collect();
        worker.send_logs(&files)
    }
}

fn open(name: LogName, wanted: &LogTarget, settings: &Settings) -> Result<Opened, String> {
    let target = place(wanted, settings);
    let opened = Sink::open(&target).and_then(|sink| Ok((sink.own()?, sink)));
    let (own, sink) = opened.map_err(|error| failed(name, &target, &error))?;
    let (own, sink) = (Arc::new(own), Arc::new(sink));
    Ok(Opened { name, wanted: wanted.clone(), syslog: settings.syslog.clone(), target, sink, own })
}

/// Where a log really goes: a standard stream is replaced by the system log if that is asked for, and is given up by a daemon.
fn place(wanted: &LogTarget, settings: &Settings) -> LogTarget {
    let file = match wanted {
        LogTarget::File(_) | LogTarget::Syslog(_) => return wanted.clone(),
        LogTarget::Stdout => is_file(&io::stdout()),
        LogTarget::Stderr => is_file(&io::stderr()),
    };
    match &settings.syslog {
        Some(path) => LogTarget::Syslog(path.clone()),
        None if settings.daemon && !file => nowhere(),
        None => wanted.clone(),
    }
}

/// Whether a standard stream is a file, which outlives its caller.
pub fn is_file(stream: &impl AsFd) -> bool {
    let file = stream.as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|meta| meta.is_file())
}

fn nowhere() -> LogTarget {
    LogTarget::File(PathBuf::from("/dev/null"))
}

fn failed(name: LogName, target: &LogTarget, error: &io::Error) -> String {
    let which = match name {
        LogName::Error => "error",
        LogName::Access => "access",
    };
    let place = match target {
        LogTarget::Stdout => "standard output".into(),
        LogTarget::Stderr => "standard error".into(),
        LogTarget::File(path) => path.display().to_string(),
        LogTarget::Syslog(path) => format!("at the system log {}", path.display()),
    };
    format!("cannot open the {which} log {place}: {}", reason(error))
}
