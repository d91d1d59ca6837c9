//! The source watcher as its parent sees it ([`crate::watch`]): there as long as the server, if that has `--reload`, and made anew when it
//! dies. Nothing waits for it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::channel::Breakage;
use crate::config::{AppSpec, Code, Settings, WatchEngine};
use crate::log::error::Log;
use crate::sys::process::Pid;
use crate::sys::time::wall;
use crate::watch::{self, WatchOrder, WatchReport};

use super::event::Generation;

/// Pause before a watcher that has died is made again.
const PAUSE: Duration = Duration::from_secs(1);

/// Most reports that are taken in one round: others wait for the master too.
const REPORTS_PER_TURN: usize = 8;

/// Most lists of one generation that are kept for a watcher that takes the place of another one, and most bytes of them.
const LISTS_MAX: usize = 64;
const LISTS_BYTES_MAX: usize = 1 << 20;

/// Changes in a row, each while workers boot because of the one before, after which the next one waits: the application may write
/// one of its own modules whenever it is loaded.
const STREAK_MAX: u32 = 8;

/// How long such a change waits for the end of the boots, at most; and in any case.
const HELD_MAX: Duration = Duration::from_secs(10);
const HELD_MIN: Duration = Duration::from_secs(2);

/// Keeps the watcher.
pub struct WatchKeeper {
    engine: Option<WatchEngine>,
    process: Option<(Pid, OwnedFd)>,
    /// When the next one is to be made.
    due: Option<Instant>,
    /// What the settings name.
    named: WatchOrder,
    lists: BTreeMap<Generation, Vec<WatchOrder>>,
    pace: ChangePace,
    /// When the last change was noticed, in seconds since 1970.
    changed: Option<u64>,
    /// What the last boot that has failed said.
    failure: Option<String>,
}

impl WatchKeeper {
    /// Without a process; one is made if the settings want it.
    pub fn new(settings: &Settings) -> Self {
        let engine = settings.watch();
        let named = named(settings);
        Self {
            engine,
            process: None,
            due: engine.map(|_| Instant::now()),
            named,
            lists: BTreeMap::new(),
            pace: ChangePace::default(),
            changed: None,
            failure: None,
        }
    }

    /// How the process that is due now is to watch; `None`: there is one, or it is not time.
    pub fn wanted(&self, now: Instant) -> Option<WatchEngine> {
        self.engine.filter(|_| self.process.is_none() && self.due.is_some_and(|at| at <= now))
    }

    /// The process was made, with this socket to it.
    pub fn made(&mut self, pid: Pid, socket: OwnedFd) {
        self.process = Some((pid, socket));
        self.due = None;
        // The lists first: they say since when changes count. Those in a directory that is watched already are not looked for.
        self.lists.values().flatten().chain([&self.named]).for_each(|order| self.tell(order));
    }

    /// It could not be made: it is tried again.
    pub fn not_made(&mut self, error: &io::Error, log: &Log) {
        log.error(format_args!("changes of the sources are not noticed: the watcher cannot be made: {error}"));
        self.due = Some(Instant::now() + PAUSE);
    }

    /// What to wait for.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|(_, socket)| socket.as_fd())
    }

    /// When something is to be done without an event.
    pub fn next_deadline(&self, booting: bool) -> Option<Instant> {
        self.due.into_iter().chain(self.pace.until(booting, Instant::now())).min()
    }

    /// A worker that began to load `since` then, in nanoseconds since 1970, has named directories.
    pub fn take_sources(&mut self, generation: Generation, since: u64, list: String) {
        if self.engine.is_none() {
            return;
        }
        let order = WatchOrder::Sources { generation: generation.0, since, list };
        self.tell(&order);
        let kept = self.lists.entry(generation).or_default();
        let bytes = |order: &WatchOrder| if let WatchOrder::Sources { list, .. } = order { list.len() } else { 0 };
        if kept.len() < LISTS_MAX && kept.iter().chain([&order]).map(bytes).sum::<usize>() <= LISTS_BYTES_MAX {
            kept.push(order);
        }
    }

    /// This generation serves.
    pub fn adopt(&mut self, generation: Generation, settings: &Settings) {
        if self.engine.is_none() {
            return;
        }
        self.lists.retain(|named, _| *named >= generation);
        self.tell(&WatchOrder::Adopted(generation.0));
        let named = named(settings);
        if named != self.named {
            self.tell(&named);
            self.named = named;
        }
    }

    /// A boot has failed, for this reason.
    pub fn note_failure(&mut self, text: &str) {
        if self.engine.is_some() {
            self.failure = Some(text.to_owned());
        }
    }

    /// The last load has failed, for this reason, or for that of its boot. Returns what workers are to be told.
    pub fn fail(&mut self, why: Option<&str>) -> Option<Breakage> {
        self.engine?;
        self.tell(&WatchOrder::Failed);
        let text = why.map(str::to_owned).or(self.failure.take());
        let text = text.unwrap_or_else(|| "the new worker has ended before it was ready; the log says more".into());
        // A reload by a signal has no change.
        Some(Breakage { saved: self.changed.take().unwrap_or_else(|| wall().seconds), text })
    }

    fn tell(&self, order: &WatchOrder) {
        // One that is dead, or does not read, shows by itself: nothing that it misses is lost for good, since each load names all.
        let _ = self.process.as_ref().map(|(_, socket)| watch::tell(socket, order));
    }

    /// What has changed and is to be loaded now, as one text. `booting`: whether a worker boots.
    pub fn changes(&mut self, booting: bool, log: &Log) -> Option<String> {
        for _ in 0..REPORTS_PER_TURN {
            let Some((pid, socket)) = &self.process else { break };
            match watch::hear(socket) {
                Ok(WatchReport::Changed(what)) => self.pace.put(what.chars().filter(|c| !c.is_control()).collect()),
                Ok(WatchReport::Trouble(what)) => log.warning(format_args!("--reload: {}", what.escape_debug())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    log.error(format_args!("the watcher of the sources has ended ({error}); another one is made"));
                    // It may still be there, if it has sent what no watcher sends.
                    put_down(*pid);
                    self.process = None;
                    self.due = Some(Instant::now() + PAUSE);
                }
            }
        }
        let what = self.pace.take(booting, Instant::now(), log)?;
        self.changed = Some(wall().seconds);
        self.failure = None;
        Some(what)
    }

    /// Whether this is its process.
    pub fn owns(&self, pid: Pid) -> bool {
        self.process.as_ref().is_some_and(|(own, _)| *own == pid)
    }

    /// Ends the process for good.
    pub fn end(&mut self) {
        self.engine = None;
        self.due = None;
        if let Some((pid, socket)) = self.process.take() {
            drop(socket);
            put_down(pid);
        }
    }
}

/// Kills the process, which nobody owns from then on: it is collected as any orphan, when it has ended.
fn put_down(pid: Pid) {
    // It was not waited for, so that the number is still its own.
    let _ = kill(pid, Signal::SIGKILL);
}

fn named(settings: &Settings) -> WatchOrder {
    // The watcher has another directory.
    let absolute = |file: &Path| std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let base = absolute(settings.chdir.as_deref().unwrap_or(Path::new(".")));
    let directory = |app: &AppSpec| match app {
        AppSpec::Target { code: Code::File(path), .. } => base.join(path).parent().map(Path::to_owned),
        AppSpec::Target { code: Code::Module(_), .. } | AppSpec::Object { .. } | AppSpec::Welcome => None,
    };
    let apps = settings.apps().filter_map(directory);
    let code = settings.python.pythonpath.iter().map(|dir| base.join(dir)).chain(apps).chain([base.clone()]);
    WatchOrder::Named {
        files: settings.reload_extra_files.iter().chain(&settings.config_file).map(|file| absolute(file).into()).collect(),
        code: code.map(Into::into).collect(),
    }
}

/// How soon a change is loaded: at once, unless changes come whenever workers boot.
#[derive(Debug, Default)]
struct ChangePace {
    waiting: Option<String>,
    last: Option<Instant>,
    streak: u32,
    warned: bool,
}

impl ChangePace {
    fn put(&mut self, what: String) {
        self.waiting = Some(what);
    }

    /// When a change that waits is loaded.
    fn until(&self, booting: bool, now: Instant) -> Option<Instant> {
        self.waiting.as_ref()?;
        let last = self.last.filter(|_| self.streak >= STREAK_MAX);
        Some(last.map_or(now, |last| last + if booting { HELD_MAX } else { HELD_MIN }))
    }

    fn take(&mut self, booting: bool, now: Instant, log: &Log) -> Option<String> {
        let due = self.until(booting, now)? <= now;
        if !due {
            if !std::mem::replace(&mut self.warned, true) {
                log.warning(format_args!(
                    "--reload: {} changes whenever the application is loaded; if the application writes it, it should do so elsewhere",
                    self.waiting.as_deref().unwrap_or_default()
                ));
            }
            return None;
        }
        (self.streak, self.warned) = if booting || self.streak >= STREAK_MAX && self.is_recent(now) {
            (self.streak.saturating_add(1), self.warned)
        } else {
            (0, false)
        };
        self.last = Some(now);
        self.waiting.take()
    }

    /// Whether the last load was not long ago.
    fn is_recent(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.duration_since(last) < HELD_MAX)
    }
}
