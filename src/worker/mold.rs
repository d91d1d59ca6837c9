//! The life of the mold (`--preload`): it loads the application, answers `--warmup`, and forks workers on order until the master is
//! gone or has closed the channel.
//!
//! A worker is a fork of it, but a child of the master, which has made all that is its own: channel, logs, output, stacks. The rest the
//! mold has inherited as a worker would have. Until it is forked, nothing of the loop is made and no thread is started.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::certificates;
use crate::channel::{BootError, LogName, MASTER_DIED, Message, Report, WorkerEnd};
use crate::config::{Level, signals};
use crate::handoff::Queue;
use crate::log::access::Format;
use crate::log::error::{Log, Who};
use crate::log::sink::Sink;
use crate::mold::{BirthEnd, BirthOrder, LogPlace};
use crate::net::listener::Listener;
use crate::scoreboard::Scoreboard;
use crate::sys::connected::connections;
use crate::sys::forked::Inheritance;
use crate::sys::process::{exit_now, fork_sibling};
use crate::sys::signals::{Blocked, named};
use crate::sys::title::Title;
use crate::tls::material::Material;

use super::app::{MoldFacts, MoldedApp, Renounce, WorkerFacts};
use super::{Boot, EXIT_APP, EXIT_BOOT, EXIT_FAILED, EXIT_OK, LoadContext, MoldBirth, Settings, tell_slow_boot, warmup};

/// How a process leaves the life of a mold.
pub enum MoldOutcome<M> {
    /// It is a worker, of this application.
    Born(Box<Boot>, M),
    /// It ends, with this exit code.
    Exit(i32),
}

/// An access log with its compiled format.
type AccessLog = (Arc<Sink>, Arc<Format>);

/// A mold but for its application.
struct Frame {
    settings: Arc<Settings>,
    listeners: Vec<Listener>,
    queue: Queue,
    scoreboard: Arc<Scoreboard>,
    channel: WorkerEnd,
    log: Log,
    format: Option<Arc<Format>>,
    /// Open for as long as the interpreter may write there.
    stacks: File,
    births: BirthEnd,
    title: Option<Title>,
    /// Whether a fork that happens is a worker.
    bears: Arc<AtomicBool>,
}

/// Lives as a mold with the application that `load` makes. Returns in each worker at its beginning, and in the mold at its end.
pub fn run<M: MoldedApp>(boot: Boot, load: impl FnOnce(&LoadContext<'_>) -> Result<(M, String), BootError>) -> MoldOutcome<M> {
    let (log, failed) = (boot.log.clone(), MoldOutcome::Exit(EXIT_FAILED));
    match live(boot, load) {
        Ok(outcome) => outcome,
        Err(error) => {
            log.critical(format_args!("the mold of the workers failed: {error}"));
            log.finish();
            failed
        }
    }
}

fn live<M: MoldedApp>(
    boot: Boot,
    load: impl FnOnce(&LoadContext<'_>) -> Result<(M, String), BootError>,
) -> io::Result<MoldOutcome<M>> {
    let Boot { settings, listeners, queue, workers, scoreboard, channel, signals: blocked, log, access, stacks, mold, .. } = boot;
    let Some(MoldBirth { births, title }) = mold else { return Err(io::Error::other("it was born as a worker")) };
    forget_signals()?;
    drop(blocked);
    let format = access.map(|(_, format)| format);
    let frame =
        Frame { settings, listeners, queue, scoreboard, channel, log, format, stacks, births, title, bears: Arc::default() };
    let began = Instant::now();
    let loaded = load(&LoadContext {
        settings: &frame.settings,
        addresses: frame.listeners.iter().map(|listener| listener.address().clone()).collect(),
        encrypted: frame.listeners.iter().map(Listener::is_encrypted).collect(),
        renounce: frame.renounce(),
        workers,
        facts: WorkerFacts { age: 0, requests: Arc::new(|| 0) },
        log: &frame.log,
        environ_names: Vec::new(),
        stacks: frame.stacks.as_raw_fd(),
        sources: None,
    });
    let warm = loaded.and_then(|(mut app, description)| {
        let loading = began.elapsed();
        warmup::run_all(&frame.settings, &mut *app.probe()?)?;
        tell_slow_boot(&frame.settings, &frame.log, began.elapsed(), loading);
        Ok((app, description))
    });
    match warm {
        Ok((mut app, description)) => {
            let facts = app.settle();
            frame.warn(&facts);
            frame.channel.send(&Report::Ready(description))?;
            frame.bear(app)
        }
        Err(error) => {
            let code = if error.app { EXIT_APP } else { EXIT_BOOT };
            if frame.channel.send(&Report::BootFailed(error.clone())).is_err() {
                frame.log.critical(format_args!("{}", error.text));
            }
            frame.log.finish();
            Ok(MoldOutcome::Exit(code))
        }
    }
}

/// Catches what a terminal or a service manager sends to all processes: the mold ends when the master says so. Caught and not
/// ignored, so that programs which the application starts get their defaults.
fn forget_signals() -> io::Result<()> {
    let asked = signals::TABLE.iter().filter(|row| row.meaning != signals::SignalMeaning::Reap);
    for signal in asked.filter_map(|row| named(row.name)) {
        signal_hook::flag::register(signal as i32, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

impl Frame {
    /// What a child of the application runs first, unless it is a worker.
    fn renounce(&self) -> Renounce {
        let listeners: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
        let [sender, receiver] = self.queue.ends();
        let own = Inheritance::new(&listeners, &[self.channel.as_fd(), self.births.as_fd(), sender, receiver]);
        let bears = self.bears.clone();
        // It cannot report a failure to anybody; then the child keeps what it has.
        Arc::new(move || _ = (!bears.load(Relaxed)).then(|| own.renounce()))
    }

    /// Says what workers share and should not.
    fn warn(&self, facts: &MoldFacts) {
        if !facts.seeded.is_empty() {
            self.log.info(format_args!(
                "random numbers that every worker would have alike are seeded anew in each: {}; generators that the application has made \
                 (numpy.random.default_rng) are its own to seed (hook post_fork, os.register_at_fork)",
                facts.seeded.join(", ")
            ));
        }
        let open = connections();
        let found: Vec<String> = [("threads", &facts.threads), ("connections", &open)]
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(what, list)| format!("{what} ({})", list.join(", ")))
            .collect();
        if !found.is_empty() {
            self.log.warning(format_args!(
                "--preload: the application has {} when it is loaded. Workers are forks of it: none of them has its threads, locks that \
                 these hold stay held, and all of them have the same connections. Begin them in the workers (hook post_fork, \
                 os.register_at_fork(after_in_child=...), or the first request), or leave --preload out",
                found.join(" and ")
            ));
        }
    }

    /// Forks workers until there are no more orders.
    fn bear<M: MoldedApp>(self, mut app: M) -> io::Result<MoldOutcome<M>> {
        let mut takes_orders = true;
        loop {
            app.release();
            let births = if takes_orders { PollFlags::POLLIN } else { PollFlags::empty() };
            let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN), PollFd::new(self.births.as_fd(), births)];
            let waited = poll(&mut fds[..if takes_orders { 2 } else { 1 }], PollTimeout::NONE);
            app.enter();
            match waited {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if takes_orders {
                match self.births.next() {
                    Ok(Some((order, descriptors))) => match self.fork(&order, &mut app)? {
                        Some(blocked) => return Ok(MoldOutcome::Born(self.become_worker(order, descriptors, blocked), app)),
                        None => continue,
                    },
                    Ok(None) => {}
                    // The channel says when to end.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => takes_orders = false,
                    Err(error) => return Err(error),
                }
            }
            if self.is_over() {
                break;
            }
        }
        app.finish();
        self.log.finish();
        Ok(MoldOutcome::Exit(EXIT_OK))
    }

    /// Takes in what the master says; whether it wants the end.
    fn is_over(&self) -> bool {
        loop {
            match self.channel.receive() {
                Ok(Some(Message::Logs(files))) => {
                    for (_, file) in files.iter().filter(|(name, _)| *name == LogName::Error) {
                        // It fails for no open descriptor; on a failure the old file is still written.
                        let _ = self.log.sink().replace(file);
                    }
                }
                Ok(Some(Message::LogLevel(number))) => {
                    if let Some(level) = Level::of_number(number) {
                        self.log.set_level(level);
                    }
                }
                Ok(Some(Message::Order(_) | Message::Breakage(_) | Message::Stacks(_) | Message::Tls(_))) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Forks a worker; `Some` there.
    fn fork<M: MoldedApp>(&self, order: &BirthOrder, app: &mut M) -> io::Result<Option<Blocked>> {
        app.bears(true);
        self.bears.store(true, Relaxed);
        let forked = fork_sibling(MASTER_DIED);
        if !matches!(forked, Ok(Some(_))) {
            // In a worker it stays: its own children have other things to give up.
            self.bears.store(false, Relaxed);
        }
        app.bears(false);
        match forked {
            Ok(forked) => Ok(forked),
            Err(error) => {
                self.births.failed(order.number, &error)?;
                Ok(None)
            }
        }
    }

    /// Makes this process, just forked, a worker, or ends it.
    fn become_worker(mut self, order: BirthOrder, descriptors: Vec<OwnedFd>, blocked: Blocked) -> Box<Boot> {
        if let Some(title) = &mut self.title {
            title.set(&order.title);
        }
        if self.births.born(order.number).is_err() {
            // The master has given the order up: nobody waits for this process.
            exit_now(EXIT_FAILED);
        }
        let mut descriptors = descriptors.into_iter();
        let mut take = || descriptors.next().ok_or_else(|| io::Error::other("a descriptor is missing"));
        let channel = match take() {
            Ok(channel) => WorkerEnd::adopt(channel),
            Err(_) => exit_now(EXIT_FAILED),
        };
        match self.assume(&order, &mut take) {
            Ok((log, access, stacks, tls)) => {
                self.scoreboard.reset(order.slot, process::id());
                Box::new(Boot {
                    settings: self.settings,
                    listeners: self.listeners,
                    queue: self.queue,
                    slot: order.slot,
                    workers: order.workers,
                    age: order.age,
                    stands_in: false,
                    scoreboard: self.scoreboard,
                    channel,
                    signals: blocked,
                    log,
                    access,
                    stacks,
                    tls,
                    mold: None,
                })
            }
            Err(error) => {
                let text = format!("the worker cannot take over what it is born with: {error}");
                // The master waits for it; without a master there is nobody to report to.
                let _ = channel.send(&Report::BootFailed(BootError { app: false, text }));
                exit_now(EXIT_BOOT)
            }
        }
    }

    /// Takes over what is the worker's own: its logs and the file for its stacks, what it has to speak TLS; and its output.
    fn assume(
        &self,
        order: &BirthOrder,
        take: &mut impl FnMut() -> io::Result<OwnedFd>,
    ) -> io::Result<(Log, Option<AccessLog>, File, Option<Material>)> {
        let stacks = File::from(take()?);
        let sink = |fd: OwnedFd, place: &LogPlace| Sink::adopt(fd, place.system_log.as_ref().map(PathBuf::from)).map(Arc::new);
        let level = Level::of_number(order.log_level).unwrap_or_default();
        let log = Log::new(sink(take()?, &order.error_log)?, level, Who::Worker(order.slot));
        let access = match (&order.access_log, &self.format) {
            (Some(place), Some(format)) => Some((sink(take()?, place)?, format.clone())),
            (Some(_), None) => return Err(io::Error::other("an access log without a format")),
            (None, _) => None,
        };
        if order.captured {
            let output = take()?;
            nix::unistd::dup2_stdout(&output).and_then(|()| nix::unistd::dup2_stderr(&output))?;
        }
        let tls = if order.encrypts { Some(certificates::unseal(&File::from(take()?))?) } else { None };
        Ok((log, access, stacks, tls))
    }
}
