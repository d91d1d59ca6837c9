//! What belongs to a generation: its settings, its logs and its directories. The sockets belong to all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::LogName;
use crate::config::{AppSpec, Code, LogConfig, Settings};
use crate::log::access::Format;
use crate::log::error::{Log, RecordCounts, Who};
use crate::log::sink::Sink;
use crate::sys::process;

use super::credentials::Credentials;
use super::directory::Directories;
use super::event::{Generation, Policy, code};
use super::logs::Logs;
use super::refusal::{StartError, reason, refuse};

/// The error log of a worker, and its access log with the compiled format.
pub type WorkerLogs = (Log, Option<(Arc<Sink>, Arc<Format>)>);

/// What workers of one generation are made with.
#[derive(Clone, Debug)]
pub struct Kit {
    /// Settings.
    pub settings: Arc<Settings>,
    /// Error log of the master.
    pub log: Log,
    /// The logs' files.
    pub logs: Arc<Logs>,
    /// Records of the master since it became this program, of all generations together.
    pub records: Arc<RecordCounts>,
    /// The compiled format of the access log, if that is written.
    access: Option<Arc<Format>>,
    /// Where its workers load the application.
    pub directories: Arc<Directories>,
    /// What it has to speak TLS, if it does.
    pub credentials: Option<Credentials>,
}

impl Kit {
    /// Opens what the settings name, in the working directory, which is known as `start`. A log that is where the `old`
    /// generation has it is the same log.
    pub fn open(
        settings: Arc<Settings>,
        credentials: Option<Credentials>,
        old: Option<&Self>,
        start: &Path,
    ) -> Result<Self, StartError> {
        let format = Format::compile(&settings.access_format);
        let format = format.or_else(|error| refuse(code::USAGE, format!("--access-logformat: {}", error.0)))?;
        check_paths(&settings)?;
        let directories = Directories::open(start, settings.chdir.as_deref()).or_else(|why| refuse(code::USAGE, why))?;
        let logs = Logs::open(&settings, old.map(|old| &*old.logs)).or_else(|why| refuse(code::FAILED, why))?;
        let records = old.map_or_else(Default::default, |old| old.records.clone());
        let log = Log::new(logs.own().clone(), settings.log_level, Who::Master).counting(records.clone());
        let access = settings.access_log.is_some().then(|| Arc::new(format));
        if settings.preload && !settings.uses_mold() {
            let why = match settings.watch() {
                _ if settings.debug => "with --debug there is one process",
                Some(_) => "with --reload each worker loads it",
                None => "the program has loaded it",
            };
            log.info(format_args!("--preload: no process of its own loads the application: {why}"));
        }
        Ok(Self { settings, log, logs: Arc::new(logs), records, access, directories: Arc::new(directories), credentials })
    }

    /// The logs of the worker in this slot, in its process before that becomes another user: error log, access log with its
    /// format.
    pub fn logs_of_worker(&self, slot: usize) -> WorkerLogs {
        self.logs_of(Who::Worker(slot))
    }

    /// The same for another process.
    pub fn logs_of(&self, who: Who) -> WorkerLogs {
        let error = self.logs.for_worker(LogName::Error).unwrap_or_else(|| self.log.sink());
        let access = self.logs.for_worker(LogName::Access);
        (Log::new(error, self.log.level(), who), access.zip(self.access.clone()))
    }

    /// Workers wanted.
    pub fn workers(&self) -> usize {
        match self.settings.workers {
            Some(workers) => workers,
            // The web server starts as many servers as it wants.
            None if self.settings.is_spawned() => 1,
            None => process::usable_cores(),
        }
    }

    /// What the supervisor works by.
    pub fn policy(&self) -> Policy {
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        Policy {
            workers: self.workers(),
            graceful_timeout: self.settings.graceful_timeout,
            boot_timeout: some(self.settings.boot_timeout),
            surge: self.settings.reload_surge,
            max_age: some(self.settings.max_worker_age),
        }
    }
}

/// The generations of which workers may still be made.
#[derive(Debug)]
pub struct Generations {
    kits: BTreeMap<Generation, Kit>,
    current: Generation,
}

impl Generations {
    /// The one that serves, or is to.
    pub fn new(current: Generation, kit: Kit) -> Self {
        Self { kits: BTreeMap::from([(current, kit)]), current }
    }

    /// The one that serves.
    pub fn current(&self) -> &Kit {
        &self.kits[&self.current]
    }

    /// The same, to be changed.
    pub fn current_mut(&mut self) -> &mut Kit {
        self.kits.get_mut(&self.current).expect("the generation that serves is always there")
    }

    /// Whether another one is tried.
    pub fn is_trying(&self) -> bool {
        self.kits.len() > 1
    }

    /// Whether this one serves, or is to from the start.
    pub fn is_current(&self, generation: Generation) -> bool {
        generation == self.current
    }

    /// Whether workers of this one may still be made.
    pub fn has(&self, generation: Generation) -> bool {
        self.kits.contains_key(&generation)
    }

    /// One of them; the one that serves instead of one that is gone.
    pub fn kit(&self, generation: Generation) -> &Kit {
        self.kits.get(&generation).unwrap_or_else(|| self.current())
    }

    /// A new one is tried.
    pub fn put(&mut self, generation: Generation, kit: Kit) {
        self.kits.insert(generation, kit);
    }

    /// This one serves from now on; the others are forgotten.
    pub fn adopt(&mut self, generation: Generation) {
        if let Some(kit) = self.kits.remove(&generation) {
            self.kits = BTreeMap::from([(generation, kit)]);
            self.current = generation;
        }
    }

    /// This one is not tried any more.
    pub fn discard(&mut self, generation: Generation) {
        if generation != self.current {
            self.kits.remove(&generation);
        }
    }

    /// The logs of all of them.
    pub fn logs(&self) -> impl Iterator<Item = &Arc<Logs>> {
        self.kits.values().map(|kit| &kit.logs)
    }

    /// Takes out the kit that a new worker is made with.
    pub fn into_kit(mut self, generation: Generation) -> Kit {
        let current = self.current;
        let kit = self.kits.remove(&generation).or_else(|| self.kits.remove(&current));
        kit.expect("the generation that serves is always there")
    }
}

/// Refuses a working directory or an application file that does not exist. Whether the application can be loaded, its worker
/// says.
fn check_paths(settings: &Settings) -> Result<(), StartError> {
    if let Some(dir) = &settings.chdir
        && !dir.is_dir()
    {
        return refuse(code::USAGE, format!("--chdir {}: no such directory", dir.display()));
    }
    if let Some(LogConfig::File(file)) = &settings.log_config {
        let file = settings.chdir.as_deref().unwrap_or(Path::new("")).join(file);
        if let Err(error) = file.metadata() {
            return refuse(code::USAGE, format!("--log-config {}: {}", file.display(), reason(&error)));
        }
    }
    for file in settings.reload_extra_files.iter().filter(|_| settings.watch().is_some()) {
        if let Err(error) = file.metadata() {
            return refuse(code::USAGE, format!("--reload-extra-file {}: {}", file.display(), reason(&error)));
        }
    }
    check_app_file(settings, &settings.app, "")?;
    settings.mounts.iter().try_for_each(|mount| check_app_file(settings, &mount.app, &mount.in_messages()))
}

/// `before` stands in front of a message.
fn check_app_file(settings: &Settings, app: &AppSpec, before: &str) -> Result<(), StartError> {
    let file = match app {
        AppSpec::Target { code: Code::File(path), .. } => settings.chdir.as_deref().unwrap_or(Path::new("")).join(path),
        AppSpec::Target { code: Code::Module(_), .. } | AppSpec::Object { .. } | AppSpec::Welcome => return Ok(()),
    };
    match file.metadata() {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(_) => refuse(code::APP, format!("{before}cannot load {}: it is not a file", file.display())),
        Err(error) => refuse(code::APP, format!("{before}cannot load {}: {}", file.display(), reason(&error))),
    }
}
