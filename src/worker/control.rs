//! The reasons for a worker to leave: orders of the master, signals, the master's death.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGQUIT, SIGTERM};

use crate::certificates;
use crate::channel::{Breakage, DISMISSALS_MAX, LogName, Message, Order, Report, WorkerEnd};
use crate::config::{Level, signals};
use crate::log::sink::Sink;
use crate::sys::signals::named;
use crate::tls::material::Material;

use super::breakage::BreakageState;
use super::descriptors::{Purpose, is_replaced};

/// Signals of an operator that mean something to a worker too.
const OURS: [i32; 2] = [SIGTERM, SIGQUIT];

/// Signals that concern the master alone. A worker catches and forgets them: a terminal sends some to the whole group, and
/// their default would kill. They are caught, not ignored, so that programs which the application starts get their defaults.
fn not_ours() -> impl Iterator<Item = i32> {
    let asked = signals::TABLE.iter().filter(|row| row.meaning != signals::SignalMeaning::Reap);
    asked.filter_map(|row| named(row.name)).map(|signal| signal as i32).filter(|signal| !OURS.contains(signal))
}

/// The channel to the master and the worker's own signals.
#[derive(Debug)]
pub struct Control {
    channel: WorkerEnd,
    dismissed: UnixStream,
    quit: UnixStream,
    /// A byte for each signal that the application handles.
    signals: UnixStream,
    /// The sinks of the error log and the access log, which the master gives new files.
    logs: (Arc<Sink>, Option<Arc<Sink>>),
    /// Why the saved code is not served.
    breakage: BreakageState,
    /// How often SIGTERM was reported to the master.
    dismissals: u32,
    /// Whether the master's end of the channel is closed.
    orphaned: bool,
    /// Whether an order to leave quickly came from the master, or the master is gone.
    quits_with_all: bool,
    /// Why it cannot be read, if it is not closed.
    failure: Option<io::Error>,
    /// Whether the logs were reopened since the last check.
    new_logs: bool,
    /// The level of the error log that came since the last look.
    log_level: Option<Level>,
    /// The file for stacks that came since the last look.
    stacks: Option<File>,
    /// What TLS is to be spoken with, if that came since the last look.
    tls: Option<Material>,
}

impl Control {
    /// Installs the signal handlers. SIGTERM is reported to the master; after SIGQUIT the worker leaves quickly. The descriptor
    /// is the pipe for [`super::app::App::tell_signals`].
    pub fn new(channel: WorkerEnd, logs: (Arc<Sink>, Option<Arc<Sink>>), breakage: BreakageState) -> io::Result<(Self, OwnedFd)> {
        for signal in not_ours() {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        let (signals, writer) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let (dismissed, quit) = (self_pipe(SIGTERM)?, self_pipe(SIGQUIT)?);
        let control = Self {
            channel,
            dismissed,
            quit,
            signals,
            logs,
            breakage,
            dismissals: 0,
            orphaned: false,
            quits_with_all: false,
            failure: None,
            new_logs: false,
            log_level: None,
            stacks: None,
            tls: None,
        };
        Ok((control, writer.into()))
    }

    /// Registers everything under one token.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        for fd in [self.channel.as_fd(), self.dismissed.as_fd(), self.quit.as_fd(), self.signals.as_fd()] {
            registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Sends the master a report; a master that is gone shows in [`Self::orders`].
    pub fn report(&self, report: &Report) -> io::Result<()> {
        self.channel.send(report)
    }

    /// Why the channel cannot be read, unless the master is gone; returned once.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Whether the order to leave quickly is one to all workers, as far as the worker can know, and not a signal to this one.
    pub fn quits_with_all(&self) -> bool {
        self.quits_with_all
    }

    /// Whether the logs were reopened since the last call.
    pub fn has_new_logs(&mut self) -> bool {
        std::mem::take(&mut self.new_logs)
    }

    /// The level of the error log that came since the last call.
    pub fn take_log_level(&mut self) -> Option<Level> {
        self.log_level.take()
    }

    /// The file for the stacks of all threads, if they were asked for since the last call.
    pub fn take_stacks(&mut self) -> Option<File> {
        self.stacks.take()
    }

    /// Certificates, keys and secrets of TLS, if others came since the last call.
    pub fn take_tls(&mut self) -> Option<Material> {
        self.tls.take()
    }

    /// The descriptors that live as long as it, but the system log, which is connected again when needed.
    pub fn descriptors(&self) -> Vec<(BorrowedFd<'_>, Purpose)> {
        let logs = [Some(&self.logs.0), self.logs.1.as_ref()].into_iter().flatten();
        let logs = logs.filter(|sink| sink.is_file()).map(|sink| (sink.as_fd(), Purpose::Log));
        let pipes = [&self.dismissed, &self.quit, &self.signals].map(|pipe| (pipe.as_fd(), Purpose::Signals));
        [(self.channel.as_fd(), Purpose::Channel)].into_iter().chain(pipes).chain(logs).collect()
    }

    /// Whether signals that the application handles have come since the last call.
    pub fn has_signals(&mut self) -> bool {
        has_byte(&mut self.signals)
    }

    /// The strongest order that has come since the last call. A dead master counts as the order to leave quickly.
    pub fn orders(&mut self) -> Option<Order> {
        let mut strongest = None;
        let mut take = |order| strongest = strongest.max(Some(order));
        if has_byte(&mut self.dismissed) && self.dismissals < DISMISSALS_MAX {
            self.dismissals += 1;
            // A service manager that ends a server sends it to all processes: only the master knows what it means. A failure
            // means that the master is gone, which the channel shows below.
            let _ = self.channel.send(&Report::Dismissed);
        }
        if has_byte(&mut self.quit) {
            take(Order::Quit);
        }
        while !self.orphaned {
            match self.channel.receive() {
                Ok(Some(Message::Order(order))) => {
                    self.quits_with_all |= order == Order::Quit;
                    take(order);
                }
                Ok(Some(Message::Logs(files))) => {
                    self.new_logs = true;
                    for (name, file) in files {
                        let sink = match name {
                            LogName::Error => Some(&self.logs.0),
                            LogName::Access => self.logs.1.as_ref(),
                        };
                        // It fails for no open descriptor; on a failure the old file is still written.
                        let _ = sink.map(|sink| sink.replace(&file));
                    }
                }
                Ok(Some(Message::Breakage(file))) => {
                    // It is the master's own file, so it can be read.
                    if let Ok(breakage) = Breakage::read(&file.into()) {
                        self.breakage.set(breakage);
                    }
                }
                Ok(Some(Message::LogLevel(number))) => self.log_level = Level::of_number(number),
                Ok(Some(Message::Stacks(file))) => self.stacks = Some(file.into()),
                // It is the master's own file, so it can be read.
                Ok(Some(Message::Tls(file))) => self.tls = certificates::unseal(&file.into()).ok().or(self.tls.take()),
                Ok(None) => break,
                Err(error) => {
                    (self.orphaned, self.quits_with_all) = (true, true);
                    if is_replaced(&error) {
                        self.failure = Some(error);
                    }
                    take(Order::Quit);
                }
            }
        }
        strongest
    }
}

/// A pipe that gets a byte at each `signal`.
fn self_pipe(signal: i32) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, writer)?;
    Ok(reader)
}

/// Empties the pipe; returns whether there was anything.
fn has_byte(pipe: &mut UnixStream) -> bool {
    let mut buffer = [0; 64];
    let mut found = false;
    while matches!(pipe.read(&mut buffer), Ok(count) if count > 0) {
        found = true;
    }
    found
}
