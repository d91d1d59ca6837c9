//! What makes the server a service: reports to those that wait for it, watch it or look at it; for its workers another user, a
//! title and a place for what they print.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::getpid;

use crate::channel::BootError;
use crate::config::{AppSpec, Settings};
use crate::log::count;
use crate::log::error::{Log, Who};
use crate::sys::privileges::{Gid, Uid};
use crate::sys::process::{self, Pid};
use crate::sys::title::Title;

use super::capture::{self, Captures};
use super::daemon::{self, Caller};
use super::event::{Generation, code};
use super::notify::{self, Notifier};
use super::pidfile::Pidfile;
use super::privileges::Identity;
use super::refusal::complain;
use super::terminal;
use super::watchdog::Watchdog;

/// How often a service manager is asked for more time while the workers boot: well within the shortest start timeout that anybody
/// sets.
const EXTEND_EVERY: Duration = Duration::from_secs(5);

/// How much time is asked for: if the master hangs, the service manager notices this much later.
const EXTEND_BY: Duration = Duration::from_secs(15);

/// Time that a stop may take beyond the graceful timeout: quick stop, SIGKILL, and a bit.
const STOP_EXTRA: Duration = Duration::from_secs(10);

/// The service's side of the master.
#[derive(Debug)]
pub struct Service {
    /// The service manager.
    pub notifier: Notifier,
    watchdog: Option<Watchdog>,
    /// The caller of the daemon, until it has the report.
    caller: Option<Caller>,
    is_daemon: bool,
    captures: Option<Captures>,
    title: Option<Title>,
    /// What the titles show in brackets.
    site: String,
    identity: Option<Identity>,
    /// Removed when dropped.
    pidfile: Option<Pidfile>,
    master: Pid,
    /// When more time for the start is asked for; `None` once the server is ready or stops.
    extend_at: Option<Instant>,
    stopping: bool,
}

impl Service {
    /// The service of this process, which is the master.
    pub fn new(settings: &Settings, identity: Option<Identity>, pidfile: Option<Pidfile>, notifier: Notifier) -> Self {
        let now = Instant::now();
        let site = match (&settings.name, settings.first_app()) {
            (Some(name), _) => name.clone(),
            (None, AppSpec::Target { text, .. } | AppSpec::Object { text }) => text.clone(),
            (None, AppSpec::Welcome) => "welcome page".to_owned(),
        };
        let mut title = Title::take();
        if let Some(title) = &mut title {
            title.set(&format!("tapster: master [{site}]"));
        }
        Self {
            notifier,
            watchdog: Watchdog::from_environment(getpid(), now),
            caller: None,
            is_daemon: false,
            captures: settings.capture_output.then(Captures::default),
            title,
            site,
            identity,
            pidfile,
            master: getpid(),
            extend_at: Some(now + EXTEND_EVERY),
            stopping: false,
        }
    }

    /// The service of a server that has become another program: its caller has the report already, and its workers may still
    /// print.
    pub fn adopt(
        settings: &Settings,
        identity: Option<Identity>,
        pidfile: Option<Pidfile>,
        notifier: Notifier,
        outputs: Vec<(Who, Pid, OwnedFd)>,
    ) -> Self {
        let mut service = Self::new(settings, identity, pidfile, notifier);
        service.is_daemon = settings.daemon;
        service.extend_at = None;
        if !outputs.is_empty() {
            let captures = service.captures.get_or_insert_default();
            outputs.into_iter().for_each(|(who, pid, reader)| captures.add(who, pid, reader));
        }
        service
    }

    /// The name of the server for people: `--name`, else the application.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// The pid file.
    pub fn pidfile(&self) -> Option<&Pidfile> {
        self.pidfile.as_ref()
    }

    /// What is left of the service of a process that has no workers: whom to notify, and the pid file. Its title says so.
    pub fn alone(mut self) -> (Notifier, Option<Pidfile>) {
        let text = format!("tapster: [{}]", self.site);
        if let Some(title) = &mut self.title {
            title.set(&text);
        }
        (std::mem::replace(&mut self.notifier, Notifier::nobody()), self.pidfile.take())
    }

    /// The pipes of captured output: who writes there, its process id, and the master's end.
    pub fn outputs(&self) -> impl Iterator<Item = (Who, Pid, BorrowedFd<'_>)> {
        self.captures.iter().flat_map(Captures::pipes)
    }

    /// The server is a daemon; this one waits for it.
    pub fn started_by(&mut self, caller: Caller) {
        self.caller = Some(caller);
        self.is_daemon = true;
    }

    /// Descriptors that wake the master for [`Self::attend`].
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let captured = self.captures.iter().flat_map(Captures::descriptors);
        self.caller.as_ref().map(AsFd::as_fd).into_iter().chain(captured).collect()
    }

    /// Takes in what came to the descriptors. Whether the server is still wanted: a caller that leaves before it is ready has
    /// given up.
    #[must_use]
    pub fn attend(&mut self, log: &Log) -> bool {
        self.listen_to_workers(log);
        let left = self.caller.as_mut().is_some_and(Caller::has_left);
        if left {
            self.caller = None;
            log.warning(format_args!("whoever started this daemon has left before it was ready"));
        }
        !left
    }

    /// Writes what workers have printed to the log.
    pub fn listen_to_workers(&mut self, log: &Log) {
        if let Some(captures) = &mut self.captures {
            captures.read(log);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self, ready_workers: usize) -> Option<Instant> {
        let watchdog = self.watchdog.as_ref().and_then(|watchdog| watchdog.next(ready_workers));
        watchdog.into_iter().chain(self.extend_at).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, ready_workers: usize, now: Instant) {
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.due(ready_workers, now)) {
            self.notifier.alive();
        }
        if self.extend_at.is_some_and(|at| at <= now) {
            self.notifier.extend(EXTEND_BY);
            self.extend_at = Some(now + EXTEND_EVERY);
        }
    }

    /// The workers are about to be started.
    pub fn starting(&self, workers: usize) {
        if self.extend_at.is_none() {
            return;
        }
        self.notifier.status(&format!("starting {}", count(workers as u64, "worker")));
    }

    /// Every worker is ready: the caller may go.
    pub fn ready(&mut self, workers: usize, addresses: &str, log: &Log) {
        self.extend_at = None;
        if self.is_daemon {
            // The service manager knows the process that it has started, which was the caller.
            self.notifier.main_pid(self.master);
        }
        self.notifier.ready(&serving(workers, addresses));
        if let Some(caller) = self.caller.take() {
            if let Err(error) = daemon::leave_streams() {
                log.warning(format_args!("standard output and error stay those of the caller: {error}"));
            }
            caller.tell(code::OK);
        }
    }

    /// A new generation is loaded.
    pub fn reloading(&self, generation: Generation) {
        self.notifier.reloading(&format!("loading {generation}"));
    }

    /// The reload has ended, well or not.
    pub fn reloaded(&self, status: &str) {
        self.notifier.ready(status);
    }

    /// The server stops; `at_most` is its graceful timeout. Reported once.
    pub fn stopping(&mut self, at_most: Duration) {
        if !self.stopping {
            self.stopping = true;
            self.extend_at = None;
            self.notifier.stopping(at_most + STOP_EXTRA, "stopping");
        }
    }

    /// The server ends with this code; a caller that still waits learns it.
    pub fn end(&mut self, code: i32, log: &Log) {
        self.listen_to_workers(log);
        if let Some(caller) = self.caller.take() {
            caller.tell(code);
        }
    }

    /// Makes the pipe for the output of the next worker or mold, if it is captured: the master's end and the worker's.
    pub fn output(&self) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
        self.captures.is_some().then(capture::pipe).transpose()
    }

    /// Gives a worker's end of such a pipe to the user of the workers: /dev/stdout and /dev/stderr are opened by the owner of the pipe
    /// (proc_pid_fd(5)).
    pub fn give_output(&self, output: &OwnedFd) -> io::Result<()> {
        let Some(identity) = &self.identity else { return Ok(()) };
        identity.own(output)
    }

    /// The process that writes to the pipe has been forked.
    pub fn add_output(&mut self, who: Who, pid: Pid, reader: OwnedFd) {
        if let Some(captures) = &mut self.captures {
            captures.add(who, pid, reader);
        }
    }

    /// To whom the files of unix sockets belong; `None`: the user of this process.
    pub fn owner(&self) -> Option<(Uid, Gid)> {
        self.identity.as_ref().map(|identity| (identity.ids.uid, identity.ids.gid))
    }

    /// The title of the worker in this slot.
    pub fn worker_title(&self, slot: usize) -> String {
        format!("tapster: worker {slot} [{}]", self.site)
    }

    /// The title of a mold.
    pub fn mold_title(&self) -> String {
        format!("tapster: mold [{}]", self.site)
    }

    /// What shows the title of this process, for a fork that has no service.
    pub fn take_title(&mut self) -> Option<Title> {
        self.title.take()
    }

    /// The title of the hook process.
    pub fn hooks_title(&self) -> String {
        format!("tapster: hooks [{}]", self.site)
    }

    /// Makes this process, just forked, what the watcher of the service is. `death` is the signal for the master's death.
    pub fn enter_watcher(&mut self, death: Signal) -> io::Result<()> {
        let text = format!("tapster: source watcher [{}]", self.site);
        if let Some(title) = &mut self.title {
            title.set(&text);
        }
        let Some(identity) = &self.identity else { return Ok(()) };
        terminal::leave()?;
        identity.assume_in_worker(death, self.master).map_err(|error| io::Error::other(error.text))
    }

    /// Makes this process, just forked, what a worker of the service is, under this title. `death` is the signal for the master's death.
    pub fn enter_worker(&mut self, text: &str, output: Option<OwnedFd>, death: Signal) -> Result<(), BootError> {
        let failed = |what: &str, error: io::Error| BootError { app: false, text: format!("{what}: {error}") };
        if let Some(title) = &mut self.title {
            title.set(text);
        }
        process::unset_env(&notify::VARIABLES).map_err(|error| failed("cannot clean the environment", error))?;
        if self.is_daemon {
            daemon::leave_streams().map_err(|error| failed("cannot leave the caller's streams", error))?;
        }
        if self.identity.is_some() {
            terminal::leave().map_err(|error| failed("cannot leave the terminal", error))?;
        }
        if let Some(output) = &output {
            self.give_output(output).map_err(|error| failed("cannot give the captured output to its user", error))?;
        }
        if let Some(output) = output {
            let redirected = nix::unistd::dup2_stdout(&output).and_then(|()| nix::unistd::dup2_stderr(&output));
            redirected.map_err(|errno| failed("cannot capture the output", errno.into()))?;
        }
        match &self.identity {
            Some(identity) => identity.assume_in_worker(death, self.master),
            None => Ok(()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A worker has a copy of the value, but the caller waits for the master's word alone.
        if let Some(caller) = self.caller.take()
            && getpid() == self.master
        {
            complain("the server ends before it is ready");
            caller.tell(code::FAILED);
        }
    }
}

/// The status of a server that serves.
pub fn serving(workers: usize, addresses: &str) -> String {
    format!("serving with {} on {addresses}", count(workers as u64, "worker"))
}
