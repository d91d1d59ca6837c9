//! The life of a worker: boot (interpreter, application), say ready, serve, drain, leave.

mod accept;
pub mod app;
mod body;
mod breakage;
mod clock;
mod connection;
mod control;
mod ctx;
mod deadline;
mod descriptors;
mod event_loop;
mod files;
mod gateway;
mod hijack;
mod job;
mod kept;
mod life;
mod link;
pub mod mold;
mod overload;
mod preface;
mod read_buffer;
mod registrar;
mod relay;
mod rules;
mod send;
mod sources;
mod streaming;
mod tally;
mod threads;
mod timers;
mod tls;
mod token;
mod trust;
mod warmup;
mod wire;
mod work;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::{BootError, Breakage, Report, WorkerEnd};
use crate::config::Settings;
use crate::handoff::Queue;
use crate::log::access::Format;
use crate::log::error::{Log, RecordCounter};
use crate::log::sink::Sink;
use crate::mold::BirthEnd;
use crate::net::listener::{Address, Listener};
use crate::scoreboard::Scoreboard;
use crate::sys::forked::Inheritance;
use crate::sys::process::exit_now;
use crate::sys::signals::Blocked;
use crate::sys::time::wall;
use crate::sys::title::Title;
use crate::tls::material::Material;

use accept::share::Share;
use app::{App, Outlet, Renounce, Reply, Request, ToldSources, WorkerFacts};
use body::disk::{Disk, MEMORY_FILES_MAX, Storage};
use body::spool::BodyBudget;
use breakage::{BreakableApp, BreakageState};
use control::Control;
use ctx::{CtxParts, ThreadCtx};
use deadline::alarm::Alarms;
use event_loop::EventLoop;
use files::FileServer;
use gateway::Gateways;
use kept::InputBudget;
use life::HookThreads;
use preface::Gate;
use tally::Reminder;
use threads::thread_id::MAIN;
use tls::Terminator;

/// How long a leaving worker keeps an idle connection, so that a request that is already on its way is answered and not reset,
/// in milliseconds.
const DRAIN_IDLE_MS: u64 = 500;

/// A boot that takes longer gets a line in the log.
const SLOW_BOOT: Duration = Duration::from_secs(2);

/// The worker left by an order.
const EXIT_OK: i32 = 0;

/// The worker failed while it served.
const EXIT_FAILED: i32 = 1;

/// The worker could not boot.
const EXIT_BOOT: i32 = 3;

/// The application could not be loaded.
const EXIT_APP: i32 = 4;

/// The interpreter, as a worker describes it that has no application.
const NO_APP_LOADED: &str = "the application cannot be loaded";

/// The data that a worker starts with: the master makes all of it before the fork.
pub struct Boot {
    /// Settings of this generation.
    pub settings: Arc<Settings>,
    /// Listening sockets, in the order of the settings' binds.
    pub listeners: Vec<Listener>,
    /// The hand-off queue.
    pub queue: Queue,
    /// Number of the slot, from 0.
    pub slot: usize,
    /// Workers in all, for messages.
    pub workers: usize,
    /// How many workers the server had started with this one, from 1.
    pub age: u64,
    /// Whether it serves a page that says why, if the application cannot be loaded, instead of failing to boot (`--reload`).
    pub stands_in: bool,
    /// The shared scoreboard.
    pub scoreboard: Arc<Scoreboard>,
    /// The worker's end of its socketpair with the master.
    pub channel: WorkerEnd,
    /// Every signal that an operator sends is blocked. The worker drops this after it has installed its own handlers, and signals that came meanwhile
    /// are delivered. SIGTERM also comes when the master dies; INT, QUIT, HUP, USR1, USR2, TTIN, TTOU and WINCH have handlers
    /// that do nothing. Handlers for TERM and those must be registered with signal-hook, which keeps one of its own for each.
    pub signals: Blocked,
    /// Error log of this worker.
    pub log: Log,
    /// Access log and its compiled format.
    pub access: Option<(Arc<Sink>, Arc<Format>)>,
    /// Where the interpreter writes the stacks of all threads when a signal ends the worker; the master reads it.
    pub stacks: File,
    /// Certificates, keys and secrets for the listeners that are encrypted ([`Listener::is_encrypted`]).
    pub tls: Option<Material>,
    /// What makes this process a mold, which forks workers instead of being one; its slot and age mean nothing then.
    pub mold: Option<MoldBirth>,
}

/// What a mold has besides what it passes on to its workers.
pub struct MoldBirth {
    /// Where orders come from.
    pub births: BirthEnd,
    /// What shows the title of its process, and of those that it forks.
    pub title: Option<Title>,
}

/// The data for loading an application.
pub struct LoadContext<'a> {
    /// Settings of this generation.
    pub settings: &'a Settings,
    /// Addresses of the listeners, in the order of the settings' binds.
    pub addresses: Vec<Address>,
    /// Whether each of them is encrypted.
    pub encrypted: Vec<bool>,
    /// The function that children of the application run first.
    pub renounce: Renounce,
    /// Workers in all.
    pub workers: usize,
    /// What hooks learn of the worker.
    pub facts: WorkerFacts,
    /// Error log of this worker.
    pub log: &'a Log,
    /// Environ variables that the access log's format asks for.
    pub environ_names: Vec<String>,
    /// Descriptor of [`Boot::stacks`].
    pub stacks: i32,
    /// To be told where the application was loaded from, also when it could not be loaded; `None`: nobody asks.
    pub sources: Option<ToldSources>,
}

/// An application and its description of the interpreter (`Python 3.11.7`).
pub type Loaded = (Box<dyn App>, String);

/// Runs the worker with the application that `load` makes; returns the exit code of its process.
pub fn run(boot: Boot, load: impl FnOnce(&LoadContext<'_>) -> Result<Loaded, BootError>) -> i32 {
    run_as(boot, false, load)
}

/// As [`run`], for a worker that a mold has forked, which has been warmed up.
pub fn run_molded(boot: Boot, load: impl FnOnce(&LoadContext<'_>) -> Result<Loaded, BootError>) -> i32 {
    run_as(boot, true, load)
}

fn run_as(mut boot: Boot, is_molded: bool, load: impl FnOnce(&LoadContext<'_>) -> Result<Loaded, BootError>) -> i32 {
    boot.log = boot.log.counting(Arc::new(SlotRecords { board: boot.scoreboard.clone(), slot: boot.slot }));
    let (log, access) = (boot.log.clone(), boot.access.as_ref().map(|(sink, _)| sink.clone()));
    let code = live(boot, is_molded, load).unwrap_or_else(|error| {
        log.critical(format_args!("worker failed: {error}"));
        EXIT_FAILED
    });
    access.inspect(|sink| sink.finish());
    log.finish();
    code
}

/// Counts the records of a worker in its slot.
#[derive(Debug)]
struct SlotRecords {
    board: Arc<Scoreboard>,
    slot: usize,
}

impl RecordCounter for SlotRecords {
    fn count(&self, severity: usize) {
        self.board.slot(self.slot).count_record(severity);
    }
}

fn live(boot: Boot, is_molded: bool, load: impl FnOnce(&LoadContext<'_>) -> Result<Loaded, BootError>) -> io::Result<i32> {
    // This comes before the application is loaded: its import may take long, and an order to leave must not kill the worker in
    // the middle of it.
    let logs = (boot.log.sink(), boot.access.as_ref().map(|(sink, _)| sink.clone()));
    let (listeners, [sender, receiver]) = (boot.listeners.iter().map(AsFd::as_fd), boot.queue.ends());
    let watched = boot.settings.watch().map(|_| boot.channel.try_clone()).transpose()?;
    let own = [Some(boot.channel.as_fd()), Some(sender), Some(receiver), watched.as_ref().map(AsFd::as_fd)];
    let children = Inheritance::new(&listeners.collect::<Vec<_>>(), &own.into_iter().flatten().collect::<Vec<_>>());
    let children = Arc::new(children);
    let alarms = deadline::alarm::alarms(boot.settings.all_threads());
    let breakage = BreakageState::default();
    let (control, signals) = Control::new(boot.channel, logs, breakage.clone())?;
    drop(boot.signals);
    let told = watched.map(sources::outlet);
    let place = LoadContext {
        settings: &boot.settings,
        addresses: boot.listeners.iter().map(|listener| listener.address().clone()).collect(),
        encrypted: boot.listeners.iter().map(Listener::is_encrypted).collect(),
        renounce: renounce(children.clone(), alarms.clone()),
        workers: boot.workers,
        facts: facts(&boot.scoreboard, boot.slot, boot.age),
        log: &boot.log,
        stacks: boot.stacks.as_raw_fd(),
        sources: told.clone(),
        environ_names: boot.access.as_ref().map_or_else(Vec::new, |(_, format)| format.environ_names().to_vec()),
    };
    let began = Instant::now();
    let reminder = Reminder::default();
    let encrypted = boot.listeners.iter().map(Listener::is_encrypted);
    let terminator = boot.tls.zip(boot.settings.tls.clone());
    let terminator = terminator.map(|(material, settings)| Terminator::new(&material, settings, encrypted)).transpose();
    let (terminator, unusable) = terminator.map_or_else(|text| (None, Some(BootError { app: false, text })), |tls| (tls, None));
    // The application may change the working directory.
    let files = FileServer::open(&boot.settings, boot.slot == 0, (&boot.log, &reminder));
    let (files, unopened) = files.map_or_else(|error| (None, Some(error)), |files| (files, None));
    let loaded = unusable.or(unopened).map_or_else(|| load(&place), Err).and_then(|(mut app, description)| {
        let loading = began.elapsed();
        if !is_molded {
            warmup::run_all(&boot.settings, &mut *app)?;
        }
        tell_slow_boot(&boot.settings, &boot.log, began.elapsed(), loading);
        Ok((app, description))
    });
    let (app, description) = match loaded {
        Ok((app, description)) if boot.settings.watch().is_some() => {
            (Box::new(BreakableApp::new(app, breakage)) as Box<dyn App>, description)
        }
        Ok(loaded) => loaded,
        Err(error) if error.app && boot.stands_in => {
            let text = error.text.trim_end();
            boot.log.error(format_args!("the application cannot be loaded; a page says so until it is mended: {text}"));
            breakage.set(Breakage { saved: wall().seconds, text: error.text });
            (Box::new(BreakableApp::none(breakage)) as Box<dyn App>, NO_APP_LOADED.to_owned())
        }
        Err(error) => {
            let code = if error.app { EXIT_APP } else { EXIT_BOOT };
            if control.report(&Report::BootFailed(error.clone())).is_err() {
                boot.log.critical(format_args!("{}", error.text));
            }
            return Ok(code);
        }
    };
    let share = (boot.workers > 1).then(|| Share::new(boot.scoreboard.clone(), boot.slot));
    let (settings, storage) = storage(boot.settings, boot.slot, &boot.log);
    let limit = if settings.limit_spool == 0 { u64::MAX } else { settings.limit_spool };
    let disk = Disk::new(boot.scoreboard.clone(), boot.slot, storage, limit, &reminder);
    let parts = CtxParts {
        settings: settings.clone(),
        log: boot.log,
        access: boot.access,
        scoreboard: boot.scoreboard,
        slot: boot.slot,
        bodies: BodyBudget::new(settings.body_buffer, disk),
        memory: InputBudget::new(&reminder),
        passage: Arc::default(),
        gate: Gate::of(&settings, &reminder),
        gateways: Gateways::of(&settings, &reminder),
        tls: terminator,
        files,
        alarms,
    };
    let mut ctx = parts.ctx(app, MAIN);
    ctx.app.tell_signals(signals);
    let now = ctx.clock.ms();
    let event_loop = EventLoop::new(boot.listeners, control, boot.queue, &settings, share, (now, &parts.log, &reminder));
    let mut event_loop = event_loop.map_err(cannot_set_up)?;
    children.add_poll(event_loop.as_fd());
    if let (Some(sources), Some(told)) = (ctx.app.sources(), told) {
        sources::follow(sources, told)?;
    }
    let hooks = HookThreads::new(ctx.app.life_hooks());
    event_loop.hooks = hooks.clone();
    let main = group(&event_loop, &ctx, &parts, boot.workers == 1).map_err(cannot_set_up)?;
    // All steps that a lack of descriptors or threads can fail are done.
    event_loop.ready(description, quota(&settings).map(|quota| ctx.requests() + quota))?;
    main.work(&mut ctx, Some(Box::new(event_loop)))?;
    ctx.end_iteration();
    ctx.unblock_sigpipe();
    hooks.wait(&mut *ctx.app);
    ctx.app.finish();
    Ok(EXIT_OK)
}

/// Where bodies are that do not fit into memory, and the settings with the limit that holds there. Called when the environment is
/// that of the application, which may name the temporary directory.
fn storage(mut settings: Arc<Settings>, slot: usize, log: &Log) -> (Arc<Settings>, Storage) {
    let error = match Storage::find() {
        Ok(storage) => return (settings, storage),
        Err(error) => error,
    };
    let limit = match settings.limit_spool {
        0 => MEMORY_FILES_MAX,
        limit => limit.min(MEMORY_FILES_MAX),
    };
    Arc::make_mut(&mut settings).limit_spool = limit;
    // One of the workers says it for all.
    if slot == 0 {
        log.warning(format_args!(
            "the temporary directory {} cannot be written: {error}; bodies beyond --body-buffer are kept in memory, {limit} bytes of all \
             workers together (TMPDIR names another directory)",
            std::env::temp_dir().display()
        ));
    }
    (settings, Storage::Memory)
}

/// What hooks learn of a worker: the requests of its slot that those before it had served are not its own.
fn facts(scoreboard: &Arc<Scoreboard>, slot: usize, age: u64) -> WorkerFacts {
    let (board, before) = (scoreboard.clone(), scoreboard.requests(slot));
    WorkerFacts { age, requests: Arc::new(move || board.requests(slot).wrapping_sub(before)) }
}

/// The error of a worker that has no event loop or not all of its threads.
fn cannot_set_up(error: io::Error) -> io::Error {
    let mut text = format!("cannot set up its event loop and threads: {error}");
    if error.raw_os_error().is_some() || text.contains(NO_PYTHON_THREAD) {
        text += "; raise the limits of open files and of threads (ulimit -n, ulimit -u; LimitNOFILE=, TasksMax=)";
    }
    io::Error::new(error.kind(), text)
}

/// The message of CPython when the operating system gives it no thread.
const NO_PYTHON_THREAD: &str = "can't start new thread";

/// Runs first in a forked child. It cannot report a failure to anybody; then the child keeps the descriptors that it has.
fn renounce(inheritance: Arc<Inheritance>, alarms: Alarms) -> Renounce {
    Arc::new(move || {
        alarms.iter().for_each(deadline::alarm::Alarm::forbid_return);
        let _ = inheritance.renounce();
    })
}

/// Logs how long a slow boot took, and on what.
fn tell_slow_boot(settings: &Settings, log: &Log, whole: Duration, loading: Duration) {
    if whole < SLOW_BOOT {
        return;
    }
    let seconds = |time: Duration| time.as_secs_f64();
    let hint = if settings.boot_profile { "" } else { "; --boot-profile shows the slowest imports" };
    log.info(format_args!(
        "slow boot: {:.1} s, {:.1} s of it for interpreter and application, {:.1} s for --warmup{hint}",
        seconds(whole),
        seconds(loading),
        seconds(whole.saturating_sub(loading))
    ));
}

/// Requests of one worker's life, with its own share of chance; `None`: no limit.
fn quota(settings: &Settings) -> Option<u64> {
    use std::hash::BuildHasher;
    // The keys of a hasher are the only random numbers that std offers.
    let chance = std::hash::RandomState::new().hash_one(std::process::id());
    let jitter = chance % (settings.max_requests_jitter + 1);
    (settings.max_requests > 0).then_some(settings.max_requests + jitter)
}

/// Starts the other threads for this loop; returns the place of this one. `is_alone`: the server has no other worker.
fn group(
    event_loop: &EventLoop,
    ctx: &ThreadCtx,
    parts: &CtxParts,
    is_alone: bool,
) -> io::Result<threads::executor::ThreadHandle> {
    let (completed, desks) = event_loop.ends();
    let mut places = threads::executor::group(parts.settings.all_threads(), completed, desks, is_alone)?.into_iter();
    let Some(main) = places.next() else { unreachable!("a worker has at least one thread") };
    for place in places {
        let parts = parts.clone();
        if parts.settings.threads == 1 {
            let blocked = Blocked::all()?;
            std::thread::Builder::new().name(IO_THREAD.to_owned()).spawn(move || {
                let mut ctx = parts.ctx(Box::new(NoApp), place.thread());
                ctx.may_call = false;
                keep_working(&place, &mut ctx);
            })?;
            drop(blocked);
        } else {
            // No signal is blocked: programs that the application starts on this thread would inherit the mask. The kernel
            // prefers the main thread for signals of the process, and every handler may run anywhere.
            let name = format!("tapster-{}", place.thread().index());
            let body = move |app: Box<dyn App>| keep_working(&place, &mut parts.ctx(app, place.thread()));
            ctx.app.spawn(&name, Box::new(body))?;
        }
    }
    Ok(main)
}

/// The life of a thread beside the main thread. It ends with the process, or ends the process when its loop fails.
fn keep_working(place: &threads::executor::ThreadHandle, ctx: &mut ThreadCtx) {
    let _worker = EndsWithThread;
    if let Err(error) = place.work(ctx, None) {
        ctx.log.critical(format_args!("the event loop failed: {error}; the worker ends"));
        exit_now(EXIT_FAILED);
    }
}

/// Ends the worker when the thread that has this panics: the loop may be lost with it, and only a new worker helps.
struct EndsWithThread;

impl Drop for EndsWithThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            exit_now(EXIT_FAILED);
        }
    }
}

/// Name of the thread that only does I/O (pthread_setname_np(3): at most 15 bytes).
const IO_THREAD: &str = "tapster-io";

/// The application of a thread that never calls it.
struct NoApp;

impl App for NoApp {
    fn call(&mut self, _: Request<'_>, _: &mut Vec<u8>, _: &mut dyn Outlet) -> Reply {
        unreachable!("the loop gives work only to threads that may call")
    }

    fn release(&mut self) {}

    fn spawn(&self, _: &str, _: Box<dyn FnOnce(Box<dyn App>) + Send>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
