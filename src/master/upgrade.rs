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
//!         reload to a new generation, whose workers are the new program; if they fail, the old ones keep serving
//! ```
//!
//! Exec in place, not a second master beside the first: systemd, supervisord or a pid file, whichever started the server, knows
//! one process id, and it stays; there is never a time with two masters that could both be sent a signal; and the workers keep
//! their parent, so their ends are waited for as before. What it costs is that there is no way back after exec, hence the trial.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::{MasterEnd, Order};
use crate::config::{Bind, Notice, Settings};
use crate::handoff::{self, Queue};
use crate::log::count;
use crate::log::error::{Log, Who};
use crate::net::bind;
use crate::net::listener::Listener;
use crate::scoreboard::Scoreboard;
use crate::sys::fd::inherited;
use crate::sys::process::{Pid, unset_env};
use crate::sys::time::{self, Wall};

use super::awake_clock::AwakeClock;
use super::changes::Changes;
use super::command::Program;
use super::credentials::Credentials;
use super::event::{Life, WorkerLife, code};
use super::generations::{Generations, Kit};
use super::hooks::HookKeeper;
use super::looks::Looks;
use super::molds::{Mold, MoldKeeper};
use super::notify::Notifier;
use super::patrol::Patrol;
use super::pidfile::Pidfile;
use super::privileges;
use super::refusal::{StartError, refuse};
use super::renewal::RenewalKeeper;
use super::server::{self, Reread, Server};
use super::service::Service;
use super::start;
use super::state::{self, SavedState};
use super::status::{self, Door, Doors};
use super::supervisor::Supervisor;
use super::table::{Child, Table};
use super::terminal;
use super::watch::WatchKeeper;

/// Names the descriptor of the state to the new program, which removes it from its environment.
pub(super) const VARIABLE: &str = "TAPSTER_STATE_FD";

/// The state that the program which this process was before has left, if it was a master.
pub fn inherited_state() -> Result<Option<SavedState>, StartError> {
    let failed = |why: String| StartError { code: code::FAILED, why: format!("{VARIABLE}: {why}") };
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
    unset_env(&[VARIABLE]).map_err(|error| failed(error.to_string()))?;
    let number = value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| failed("not a descriptor".into()))?;
    let file = inherited(number).map_err(|error| failed(error.to_string()))?;
    let (state, master) = SavedState::read(File::from(file)).map_err(|why| failed(why.to_string()))?;
    if master != process::id() {
        return Err(failed(format!("the state is that of process {master}")));
    }
    Ok(Some(state))
}

/// Whether a server with this state, read from `source`, could continue with these settings in this program. Its descriptors are
/// open here too, and everything that [`adopt`] does to take them over is done, but nothing that the server would notice: a
/// worker may have changed what it shares with the master.
pub fn check(settings: &Settings, source: impl io::Read) -> Result<(), StartError> {
    privileges::resolve(settings).or_else(|why| refuse(code::USAGE, why))?;
    let (state, _) = SavedState::read(source).or_else(|why| refuse(code::FAILED, why.to_string()))?;
    let mut settings = settings.clone();
    keep_shape(&mut settings, &state);
    let settings = Arc::new(settings);
    // They are read here to be refused here: the server goes on with those of the state, and its reload reads them again.
    let credentials = Credentials::read(&settings, time::wall().seconds).or_else(|why| refuse(code::USAGE, why))?;
    let kit = Kit::open(settings.clone(), credentials, None, state.command.dir())?;
    for socket in state.listeners.iter().chain(state.doors.iter().map(|door| &door.socket)) {
        bind::examine(socket.fd).or_else(|error| refuse(code::FAILED, error.to_string()))?;
    }
    claim(&state, &kit).map(drop)
}

/// Sockets, whether they are encrypted, and the shape of the scoreboard stay; the reload that follows reports what the settings say of them now.
fn keep_shape(settings: &mut Settings, state: &SavedState) {
    settings.threads = state.threads;
    if settings.tls.is_some() != state.tls.is_some() {
        settings.tls = state.tls.as_ref().map(|tls| tls.settings.clone());
    }
    settings.binds = state.binds.iter().filter_map(|text| Bind::parse(text).ok()).collect();
}

/// What is taken over besides the listening sockets, which other processes may look at.
struct Estate {
    scoreboard: Scoreboard,
    queue: Queue,
    same_queue: bool,
    children: Vec<Child>,
    outputs: Vec<(Who, Pid, OwnedFd)>,
    molds: Vec<Mold>,
}

/// Takes over the descriptors of a state, without using any of them.
fn claim(state: &SavedState, kit: &Kit) -> Result<Estate, StartError> {
    let failed =
        |what: &str, error: io::Error| StartError { code: code::FAILED, why: format!("cannot take over {what}: {error}") };
    let [slots, calls] = state.scoreboard.map(inherited);
    let memory = slots.and_then(|slots| Ok([slots, calls?]));
    // The scoreboard cannot grow.
    let scoreboard = memory.and_then(|memory| Scoreboard::adopt(memory, state.slots, kit.settings.all_threads()));
    let scoreboard = scoreboard.map_err(|error| failed("the scoreboard", error))?;
    let same_queue = state.queue.version == handoff::VERSION;
    let queue = adopt_queue(&state.queue).map_err(|error| failed("the queue of the workers", error))?;
    let children = state.children.iter().map(|child| {
        let mut adopted = adopt_child(child, &kit.settings)?;
        (adopted.logs, adopted.other_queue) = (Some(kit.logs.clone()), !same_queue);
        Ok(adopted)
    });
    let children = children.collect::<io::Result<_>>().map_err(|error| failed("a worker", error))?;
    let who = |output: &state::OutputState| if output.mold { Who::Mold } else { Who::Worker(output.slot) };
    let outputs = state.outputs.iter().map(|output| Ok((who(output), Pid::from_raw(output.pid), inherited(output.fd)?)));
    let outputs = outputs.collect::<io::Result<_>>().map_err(|error| failed("the output of a worker", error))?;
    let molds = state.molds.iter().map(adopt_mold).collect::<io::Result<_>>().map_err(|error| failed("a mold", error))?;
    Ok(Estate { scoreboard, queue, same_queue, children, outputs, molds })
}

/// Continues a server whose state was inherited.
pub fn adopt(
    mut settings: Settings,
    notices: &[Notice],
    reread: Reread,
    (state, program): (SavedState, Program),
) -> Result<Server, StartError> {
    keep_shape(&mut settings, &state);
    let known = state.ledger.looked_up.as_ref().filter(|(target, _)| settings.statsd_host.as_ref() == Some(target));
    settings.statsd_address = known.map(|(_, address)| *address);
    let looked_up = if known.is_some() { Ok(()) } else { server::look_up(&mut settings) };
    let settings = Arc::new(settings);
    let identity = privileges::resolve(&settings).or_else(|why| refuse(code::USAGE, why))?;
    if identity.is_some() {
        // A program before this one may have left it open for reading. If that stays so, it was said at the start.
        let _ = terminal::keep_for_writing();
    }
    // The logs are opened and not inherited: they may be others now.
    let credentials = state.tls.as_ref().map(|tls| tls.credentials.clone());
    let kit = Kit::open(settings.clone(), credentials, None, state.command.dir())?;
    kit.logs.own().owe(state.lost_lines);
    for notice in notices {
        kit.log.write(notice.level, format_args!("{notice}"));
    }
    if let Err(why) = looked_up {
        kit.log.warning(format_args!("{why}; no metrics are sent until a reload"));
    }
    let estate = claim(&state, &kit)?;
    let listeners = state.listeners.into_iter().enumerate().map(|(index, socket)| adopt_listener(index, socket, &settings));
    let listeners: Vec<Listener> =
        listeners.collect::<Result<_, _>>().or_else(|error| refuse(code::FAILED, error.to_string()))?;
    let doors = state.doors.into_iter().filter_map(|door| adopt_door(door, &kit.log)).collect();
    let (policy, capacity) = (kit.policy(), state.slots);
    let (pace, mut patrol, mut table) = (AwakeClock::new(), Patrol::new(), Table::new());
    for (child, adopted) in state.children.iter().zip(estate.children) {
        let slot = child.life.slot;
        if let (Life::Leaving { hurried: false, .. }, false, Some(channel)) =
            (child.life.life, estate.same_queue, &adopted.channel)
        {
            // What it hands over, no worker of this program takes. It fails only for a worker that is gone.
            let _ = channel.send(Order::Vacate);
        }
        table.put(slot, adopted);
        if let Life::Ready { .. } | Life::Leaving { .. } = child.life.life {
            table.set_ready_before(slot);
            patrol.begin(slot, time::monotonic());
        }
    }
    let notifier = Notifier::from_environment().unwrap_or_else(|why| {
        kit.log.warning(format_args!("{why}"));
        Notifier::nobody()
    });
    let pidfile = adopt_pidfile(state.pid_file, state.pid_lock).unwrap_or_else(|error| {
        kit.log.warning(format_args!("the pid file does not keep a second server from starting: it cannot be locked: {error}"));
        None
    });
    let signals = start::catch_signals().or_else(|error| refuse(code::FAILED, format!("cannot catch signals: {error}")))?;
    kit.log.info(format_args!(
        "upgrade: this is tapster {} now, with the sockets and {} of the program before",
        env!("CARGO_PKG_VERSION"),
        count(state.children.len() as u64, "worker")
    ));
    let lives: Vec<WorkerLife> = state.children.iter().map(|child| child.life).collect();
    let (generations, wanted) = ((state.current, state.latest), (state.wanted, state.stopped));
    Ok(Server {
        supervisor: Supervisor::adopt(policy, capacity, generations, wanted, &lives, pace.now()),
        watch: WatchKeeper::new(&settings),
        molds: MoldKeeper::adopt(estate.molds),
        service: Service::adopt(&settings, identity, pidfile, notifier, estate.outputs),
        hooks: HookKeeper::adopt(program.helper.unwrap_or_else(|| state.command.clone()), &kit),
        generations: Generations::new(state.current, kit),
        listeners,
        queue: estate.queue,
        scoreboard: Arc::new(estate.scoreboard),
        signals,
        table,
        reread,
        pace,
        patrol,
        // It was said when the server started.
        ready: None,
        python: state.python,
        command: state.command,
        afresh: program.afresh,
        reading: None,
        trial: None,
        becoming: false,
        // Some may have ended unheard while the programs changed.
        orphans: true,
        renewal: RenewalKeeper::new(time::wall().seconds),
        births: state.births,
        looks: Looks::default(),
        ledger: state.ledger,
        listener_looks: Default::default(),
        doors: Doors::new(doors),
        petitions: Default::default(),
        repeats: Default::default(),
        inquiries: Vec::new(),
        pushing: Default::default(),
        changes: Changes::after_upgrade(state.changes),
        started: Wall { seconds: state.started, nanos: 0 },
    })
}

fn adopt_listener(index: usize, socket: state::Listening, settings: &Settings) -> Result<Listener, bind::BindError> {
    let listener = bind::adopt(socket.fd, socket.own, socket.file.map(state::File::mark), settings)?;
    Ok(match settings.binds.get(index) {
        Some(bind) => bind::speaking(listener, bind, settings),
        None => listener.speaking(settings.protocol),
    })
}

/// A door that cannot be kept is lost: the application is served without it.
fn adopt_door(door: state::DoorState, log: &Log) -> Option<Door> {
    let file = door.socket.file.map(state::File::mark);
    status::adopt(door.socket.fd, door.socket.own, file, door.control)
        .inspect_err(|why| log.error(format_args!("upgrade: a door for operators is lost until the next start: {why}")))
        .ok()
}

/// Connections whose messages this program does not know are left to the earlier workers, which hold their queue too.
fn adopt_queue(queue: &state::QueueState) -> io::Result<Queue> {
    let [sender, receiver] = queue.ends.map(inherited);
    let ends = [sender?, receiver?];
    if queue.version == handoff::VERSION { Ok(Queue::adopt(ends)) } else { Queue::new() }
}

fn adopt_pidfile(path: Option<OsString>, lock: Option<i32>) -> io::Result<Option<Pidfile>> {
    let Some(path) = path else { return Ok(None) };
    Pidfile::adopt(Path::new(&path), lock.map(inherited).transpose()?)
}

fn adopt_child(child: &state::ChildState, settings: &Settings) -> io::Result<Child> {
    let channel = child.channel.map(|fd| inherited(fd).map(MasterEnd::adopt)).transpose()?;
    let stacks = inherited(child.stacks)?.into();
    let now = Instant::now();
    let age = Duration::from_nanos(time::monotonic().saturating_sub(child.born));
    let born = now.checked_sub(age).unwrap_or(now);
    let mut adopted = Child::adopted(Pid::from_raw(child.pid), born, channel, stacks);
    (adopted.timeout, adopted.max_memory) = (settings.timeout, settings.max_worker_rss);
    (adopted.age, adopted.mold) = (child.age, child.mold.map(Pid::from_raw));
    Ok(adopted)
}

fn adopt_mold(mold: &state::MoldState) -> io::Result<Mold> {
    let (channel, stacks) = (MasterEnd::adopt(inherited(mold.channel)?), inherited(mold.stacks)?.into());
    Ok(Mold::adopted(mold.generation, Pid::from_raw(mold.pid), channel, stacks))
}
