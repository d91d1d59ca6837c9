//! `--debug`: the process that would be the master is the worker, and forks nobody.
//!
//! An attendant has the master's place at the other end of the channel: it hears that the worker is ready, or why it cannot be, and
//! turns the signals of an operator into orders. It needs no interpreter, so on a thread of its own it does that also while the
//! application stands in a debugger.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::channel::{self, Heard, MasterEnd, Order, Report};
use crate::config::signals;
use crate::config::signals::OperatorRequest;
use crate::log::error::Log;
use crate::master::event::code;
use crate::master::notify::Notifier;
use crate::master::pidfile::Pidfile;
use crate::master::ready::{ReadyFd, places};
use crate::master::refusal::{StartError, refuse};
use crate::master::service::serving;
use crate::master::signals::{SignalMeaning, Signals};
use crate::master::table;
use crate::sys::process;
use crate::sys::signals::Blocked;
use crate::sys::terminal::has_hung_up;
use crate::worker::Boot;

use super::Server;

/// The only worker.
const SLOT: usize = 0;

/// A server of one process.
pub struct Alone {
    /// The worker, with all signals blocked.
    pub boot: Boot,
    /// For another thread.
    pub attendant: Attendant,
    /// A byte ends [`Attendant::attend`]. The end of the channel would not do: a process that the application has started may have a
    /// copy.
    pub done: UnixStream,
}

/// What stands in for the master, until the worker is done.
pub struct Attendant {
    /// Until the worker has closed its end.
    channel: Option<MasterEnd>,
    signals: Signals,
    done: UnixStream,
    log: Log,
    ready: Option<ReadyFd>,
    notifier: Notifier,
    pidfile: Option<Pidfile>,
    places: Vec<String>,
    threads: usize,
    graceful_timeout: Duration,
    /// When the process ends, whatever its requests do.
    end_at: Option<Instant>,
    /// Whether it was asked to stop quickly.
    hurried: bool,
}

impl Server {
    /// Makes this process, which has forked nobody, the worker.
    pub fn alone(self) -> Result<Alone, StartError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| StartError { code: code::FAILED, why: format!("cannot {what}: {error}") }
        };
        let (channel, worker) = channel::pair().map_err(failed("make the channel"))?;
        let stacks = table::stacks_file().map_err(failed("make the file for stacks"))?;
        let (done, ended) = UnixStream::pair().map_err(failed("make a pair of sockets"))?;
        let kit = self.generations.current().clone();
        process::set_env(&kit.settings.env).map_err(failed("set the variables of --env"))?;
        let settings = Arc::new(kit.directories.pin(&kit.settings));
        for entered in [kit.directories.enter_start(), kit.directories.enter_chdir()] {
            if let Err(why) = entered {
                return refuse(code::FAILED, why);
            }
        }
        let (notifier, pidfile) = self.service.alone();
        let (log, access) = kit.logs_of_worker(SLOT);
        self.scoreboard.reset(SLOT, std::process::id());
        let attendant = Attendant {
            channel: Some(channel),
            signals: self.signals,
            done: ended,
            log: kit.log.clone(),
            ready: self.ready,
            notifier,
            pidfile,
            places: places(&self.listeners),
            threads: settings.threads,
            graceful_timeout: settings.graceful_timeout,
            end_at: None,
            hurried: false,
        };
        // The worker unblocks them in its own thread once it has its handlers; the attendant's thread needs none.
        let signals = Blocked::all().map_err(failed("block signals"))?;
        let boot = Boot {
            workers: 1,
            age: 1,
            stands_in: false,
            log,
            settings,
            access,
            listeners: self.listeners,
            queue: self.queue,
            slot: SLOT,
            scoreboard: self.scoreboard,
            channel: worker,
            signals,
            stacks,
            tls: kit.credentials.map(|credentials| credentials.material()),
            mold: None,
        };
        Ok(Alone { boot, attendant, done })
    }
}

impl Attendant {
    /// Attends until the worker is done.
    pub fn attend(mut self) {
        loop {
            let woken = self.wait();
            for meaning in self.signals.arrived() {
                if let SignalMeaning::Ask(request) = meaning {
                    self.obey(request);
                }
            }
            self.hear();
            if woken {
                self.log.info(format_args!("stopped"));
                self.log.finish();
                return;
            }
            if self.end_at.is_some_and(|at| at <= Instant::now()) {
                self.log.warning(format_args!("requests do not end within --graceful-timeout; the process ends"));
                self.end_now(code::OK);
            }
        }
    }

    /// Waits for signals, reports and the next deadline. Whether the worker is done.
    fn wait(&mut self) -> bool {
        let left = self.end_at.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let fds = [self.done.as_fd(), self.signals.as_fd()].into_iter().chain(self.channel.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let polled = poll(&mut fds, timeout);
        let is_closed = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL));
        match polled {
            Ok(_) if fds.iter().any(is_closed) => {
                self.log.critical(format_args!(
                    "descriptors of the server are closed, which the application must have done (os.closerange?), and nobody could \
                     stop it any more; the process ends"
                ));
                self.end_now(code::FAILED);
            }
            Ok(_) if fds[0].any() == Some(true) => self.done.read(&mut [0]).is_ok(),
            Ok(_) | Err(Errno::EINTR) => false,
            Err(errno) => {
                self.log.critical(format_args!("cannot wait for signals: {errno}; the process ends"));
                self.end_now(code::FAILED);
            }
        }
    }

    fn obey(&mut self, request: OperatorRequest) {
        match request {
            OperatorRequest::Stop => self.stop("requests are answered"),
            // With the terminal nobody is left who could end it.
            OperatorRequest::Reload if is_terminal_gone() => self.stop("the terminal is gone; requests are answered"),
            OperatorRequest::QuickStop if self.hurried => self.end_now(code::OK),
            OperatorRequest::QuickStop => {
                self.hurried = true;
                self.log.info(format_args!("stopping: the requests that run are finished; once more ends them"));
                self.order(Order::Quit);
            }
            _ => {
                let name =
                    signals::TABLE.iter().find(|row| row.meaning == SignalMeaning::Ask(request)).map_or("?", |row| row.name);
                self.log.warning(format_args!("{name} needs a master, which a server with --debug does not have: start it anew"));
            }
        }
    }

    fn stop(&mut self, what: &str) {
        self.log.info(format_args!("stopping: {what}"));
        self.end_at.get_or_insert(Instant::now() + self.graceful_timeout);
        self.order(Order::Drain);
    }

    fn order(&mut self, order: Order) {
        // Without one it is about to leave.
        if let Some(Err(error)) = self.channel.as_ref().map(|channel| channel.send(order)) {
            self.log.critical(format_args!("the order to stop is not taken: {error}; the process ends"));
            self.end_now(code::FAILED);
        }
    }

    /// Takes in what the worker reports.
    fn hear(&mut self) {
        while let Some(channel) = &self.channel {
            let report = match channel.receive() {
                Heard::Report(report) => report,
                Heard::Nothing => return,
                Heard::End | Heard::Breach(_) => {
                    self.channel = None;
                    return;
                }
            };
            match report {
                Report::Ready(python) => self.announce(&python),
                Report::BootFailed(error) => self.log.critical(format_args!("{}", error.text.trim_end())),
                Report::Failed(why) => self.log.critical(format_args!("{why}")),
                Report::Stuck => {
                    self.log.error(format_args!("a request does not end; with --debug nobody replaces this process"));
                }
                Report::Draining | Report::Worn | Report::Starved | Report::Dismissed | Report::Sources(_) | Report::Stranded => {
                }
            }
        }
    }

    fn announce(&mut self, python: &str) {
        let (addresses, pid) = (self.places.join(", "), std::process::id());
        self.log.info(format_args!(
            "tapster {}: one process with {} on {addresses} ({python}, pid {pid})",
            env!("CARGO_PKG_VERSION"),
            crate::log::count(self.threads as u64, "thread"),
        ));
        self.notifier.ready(&serving(1, &addresses));
        if let Some(ready) = self.ready.take()
            && let Err(error) = ready.announce(&self.places)
        {
            self.log.warning(format_args!("nobody reads --ready-fd: {error}"));
        }
    }

    /// Ends the process without its requests.
    fn end_now(&mut self, code: i32) -> ! {
        self.log.finish();
        drop(self.pidfile.take());
        process::exit_now(code)
    }
}

/// Whether a standard stream was a terminal that has hung up.
fn is_terminal_gone() -> bool {
    has_hung_up(&io::stdin()) || has_hung_up(&io::stdout()) || has_hung_up(&io::stderr())
}
