//! Everything between the settings and the first fork, in the order that leaves nothing half-started: what can be refused without
//! touching anything, then logs, then the pid file, then sockets. All of it as the user that starts the server; the workers
//! become another one later.

use std::io;
use std::sync::Arc;

use crate::config::{Bind, Endpoint, Notice, Protocol, Settings};
use crate::handoff::Queue;
use crate::net::listener::Listener;
use crate::net::{activation, bind};
use crate::scoreboard::Scoreboard;
use crate::sys::{privileges as rights, process, signals as masks, time};

use super::awake_clock::AwakeClock;
use super::changes::Changes;
use super::command::Program;
use super::credentials::Credentials;
use super::event::{Generation, Policy, code};
use super::exposed;
use super::generations::{Generations, Kit};
use super::hooks::HookKeeper;
use super::ledger::Ledger;
use super::looks::Looks;
use super::molds::MoldKeeper;
use super::notify::{self, Notifier};
use super::patrol::Patrol;
use super::pidfile::Pidfile;
use super::privileges::{self, Identity};
use super::ready::ReadyFd;
use super::refusal::{StartError, complain, reason, refuse};
use super::renewal::RenewalKeeper;
use super::server::{Reread, Server};
use super::service::Service;
use super::signals::Signals;
use super::status::Doors;
use super::supervisor::Supervisor;
use super::table::Table;
use super::terminal;
use super::watch::WatchKeeper;

/// Places for workers beyond twice the number of workers: for operators that want more of them later.
const SPARE_PLACES: usize = 64;

/// Makes everything that the workers inherit.
pub fn prepare(settings: Arc<Settings>, notices: &[Notice], reread: Reread, program: Program) -> Result<Server, StartError> {
    let helper = program.helper().clone();
    let Program { command, afresh, .. } = program;
    let ready = settings.ready_fd.map(adopt_ready).transpose()?;
    refuse_service(&settings)?;
    if let Some(mask) = settings.umask {
        process::set_umask(mask);
    }
    masks::ignore_write_errors();
    let identity = privileges::resolve(&settings).or_else(|why| refuse(code::USAGE, why))?;
    let terminal = identity.as_ref().map_or(Ok(()), |_| terminal::keep_for_writing());
    let now = time::wall().seconds;
    let credentials = Credentials::read(&settings, now).or_else(|why| refuse(code::USAGE, why))?;
    let kit = Kit::open(settings.clone(), credentials, None, command.dir())?;
    let log = &kit.log;
    let refusal = |why: String| {
        // The readers of the log want to know it as well as those of standard error.
        if !kit.logs.on_stderr() {
            log.critical(format_args!("{why}"));
        }
        StartError { code: code::FAILED, why }
    };
    for notice in notices {
        log.write(notice.level, format_args!("{notice}"));
    }
    for warning in kit.logs.unread(&settings) {
        complain(&warning);
    }
    if let Some(credentials) = &kit.credentials {
        credentials.certificates.tell(log);
    }
    if let Err(error) = terminal {
        log.warning(format_args!(
            "workers can read what is typed into the terminal: it cannot be opened for writing only: {error}"
        ));
    }
    if let Some(warning) = identity.as_ref().and_then(Identity::warning) {
        log.warning(format_args!("{warning}"));
    }
    if identity.is_some() {
        for warning in exposed::warnings(&settings, kit.logs.files()) {
            log.warning(format_args!("{warning}"));
        }
    }
    if rights::is_root() && settings.user.is_none() {
        log.warning(format_args!("the application runs as root, and so does whoever breaks into it; give --user"));
    }
    let notifier = Notifier::from_environment().unwrap_or_else(|why| {
        log.warning(format_args!("{why}"));
        Notifier::nobody()
    });
    let pidfile = settings.pid_file.as_deref().map(Pidfile::create).transpose();
    let pidfile = pidfile.map_err(refusal)?;
    if let Err(error) = process::raise_descriptor_limit() {
        log.warning(format_args!("the limit of open files stays as it is: {error}"));
    }
    let policy = kit.policy();
    let capacity = capacity(&policy);
    let scoreboard = Scoreboard::new(capacity, settings.all_threads());
    let scoreboard = scoreboard.or_else(|error| refuse(code::FAILED, format!("cannot map the scoreboard: {error}")))?;
    let owner = identity.as_ref().map(|identity| (identity.ids.uid, identity.ids.gid));
    let listeners = bind::bind_all_for(&settings, owner).map_err(|error| refusal(error.0))?;
    if kit.credentials.is_some() && !listeners.iter().any(Listener::is_encrypted) {
        log.warning(format_args!(
            "--certfile is given, and no address is encrypted: the sockets that were passed are unix sockets, or speak a gateway's protocol"
        ));
    }
    let doors = Doors::open(&settings, log).map_err(refusal)?;
    let queue = Queue::new();
    let queue = queue.or_else(|error| refuse(code::FAILED, format!("cannot make the queue of the workers: {error}")))?;
    let signals = catch_signals().or_else(|error| refuse(code::FAILED, format!("cannot catch signals: {error}")))?;
    Ok(Server {
        supervisor: Supervisor::new(policy, capacity),
        table: Table::new(),
        service: Service::new(&settings, identity, pidfile, notifier),
        generations: Generations::new(Generation(1), kit),
        scoreboard: Arc::new(scoreboard),
        listeners,
        queue,
        signals,
        reread,
        ready,
        pace: AwakeClock::new(),
        patrol: Patrol::new(),
        python: String::new(),
        hooks: HookKeeper::new(helper),
        watch: WatchKeeper::new(&settings),
        molds: MoldKeeper::default(),
        command,
        afresh,
        reading: None,
        trial: None,
        becoming: false,
        orphans: false,
        renewal: RenewalKeeper::new(now),
        births: 0,
        looks: Looks::default(),
        ledger: Ledger::default(),
        listener_looks: Default::default(),
        doors,
        petitions: Default::default(),
        repeats: Default::default(),
        inquiries: Vec::new(),
        pushing: Default::default(),
        changes: Changes::default(),
        started: time::wall(),
    })
}

/// How many workers there can be at once: for each a successor, and some more.
pub(super) fn capacity(policy: &Policy) -> usize {
    2 * (policy.workers + policy.surge) + SPARE_PLACES
}

/// Listens on the sockets that a service manager has passed, or else a web server, unless the settings say where to listen.
pub fn use_passed_sockets(settings: &mut Settings, notices: &mut Vec<Notice>) -> Result<(), StartError> {
    let passed = activation::take();
    let passed = passed.or_else(|error| refuse(code::FAILED, format!("cannot clean the environment of LISTEN_FDS: {error}")))?;
    let Some(passed) = passed else {
        use_input(settings, notices);
        return Ok(());
    };
    if !settings.binds_given {
        settings.binds = passed.endpoints().map(Bind::plain).collect();
        return Ok(());
    }
    passed.leave(&settings.binds);
    if !passed.endpoints().any(|passed| settings.binds.iter().any(|bind| bind.endpoint == passed)) {
        let text = format!("sockets of the service manager ({}) are not used, because --bind is given", passed.names);
        notices.push(Notice::warning(text));
    }
    Ok(())
}

/// Listens on standard input, if that is a listening socket, as web servers start a gateway, unless the settings say where to listen.
fn use_input(settings: &mut Settings, notices: &mut Vec<Notice>) {
    if !activation::is_input_listening() {
        return;
    }
    let input = Endpoint::Fd(0);
    if !settings.binds_given {
        let protocol = if settings.protocol == Protocol::Http { Protocol::FastCgi } else { settings.protocol };
        let text = format!(
            "standard input is a listening socket, as of a web server that starts gateways: it speaks {}",
            protocol.name()
        );
        notices.push(Notice::info(text));
        settings.binds = vec![Bind { endpoint: input, protocol: Some(protocol), https: false }];
    } else if settings.binds.iter().all(|bind| bind.endpoint != input) {
        let text = "standard input is a listening socket, and is not used, because --bind is given (fastcgi:fd://0)";
        notices.push(Notice::warning(text.to_owned()));
    }
}

/// Refuses what is for development under a service manager: tracebacks are for those who write the application.
fn refuse_service(settings: &Settings) -> Result<(), StartError> {
    let managed = std::env::var_os(notify::VARIABLES[0]).is_some_and(|place| !place.is_empty());
    match settings.watch() {
        Some(_) if managed => refuse(
            code::USAGE,
            "--reload is for development and shows tracebacks to everybody, and this server was started by a service manager \
             (NOTIFY_SOCKET); leave it out, and send SIGHUP (systemctl reload) after a deployment",
        ),
        Some(_) | None => Ok(()),
    }
}

fn adopt_ready(number: i32) -> Result<ReadyFd, StartError> {
    ReadyFd::adopt(number).or_else(|error| refuse(code::USAGE, format!("--ready-fd {number}: {}", reason(&error))))
}

pub(super) fn catch_signals() -> io::Result<Signals> {
    let signals = Signals::install()?;
    masks::unblock_all()?;
    Ok(signals)
}
