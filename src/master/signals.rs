//! The signals of the master, in one table, and the pipe that brings them into its loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::event::Request;

/// What a signal means to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A child has ended.
    Reap,
    /// An operator asks.
    Ask(Request),
}

/// One signal.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The signal.
    pub signal: Signal,
    /// What it means.
    pub meaning: Meaning,
    /// The meaning in words.
    pub text: &'static str,
}

/// Every signal that the master handles. None of them ends it by omission.
pub const TABLE: [Row; 10] = [
    Row { signal: Signal::SIGTERM, meaning: Meaning::Ask(Request::Stop), text: "graceful stop" },
    Row { signal: Signal::SIGINT, meaning: Meaning::Ask(Request::QuickStop), text: "quick stop, a second one at once" },
    Row { signal: Signal::SIGQUIT, meaning: Meaning::Ask(Request::QuickStop), text: "quick stop, a second one at once" },
    Row { signal: Signal::SIGHUP, meaning: Meaning::Ask(Request::Reload), text: "reload" },
    Row { signal: Signal::SIGUSR1, meaning: Meaning::Ask(Request::ReopenLogs), text: "reopen the logs" },
    Row { signal: Signal::SIGUSR2, meaning: Meaning::Ask(Request::Upgrade), text: "upgrade the binary" },
    Row { signal: Signal::SIGTTIN, meaning: Meaning::Ask(Request::MoreWorkers), text: "one worker more" },
    Row { signal: Signal::SIGTTOU, meaning: Meaning::Ask(Request::FewerWorkers), text: "one worker less" },
    Row { signal: Signal::SIGWINCH, meaning: Meaning::Ask(Request::StopWorkers), text: "stop the workers, keep the master" },
    Row { signal: Signal::SIGCHLD, meaning: Meaning::Reap, text: "a worker has ended" },
];

/// Signals whose handlers stay in a forked worker, where they do nothing: a terminal and many operators send them to the whole
/// process group, but they are meant for the master. Handlers, unlike ignored signals, are not inherited by the programs that the
/// application starts. (And signal-hook believes that its handlers stay for ever: a worker could not install another.)
pub fn kept_in_workers() -> Vec<Signal> {
    TABLE.iter().filter(|row| row.meaning != Meaning::Reap).map(|row| row.signal).collect()
}

/// The rows of a request.
pub fn rows_of(request: Request) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| row.meaning == Meaning::Ask(request))
}

/// Caught signals, waiting in a pipe. Dropping it leaves handlers that do nothing.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// Catches every signal of the table from now on.
    pub fn install() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        // A full pipe wakes as well as an empty one: the handler must not wait.
        write.set_nonblocking(true)?;
        let numbers = TABLE.map(|row| row.signal as i32);
        Ok(Self { delivery: SignalDelivery::with_pipe(read, write, SignalOnly, numbers)? })
    }

    /// What has arrived since the last call, each signal once.
    pub fn arrived(&mut self) -> Vec<Meaning> {
        self.rows().map(|row| row.meaning).collect()
    }

    /// Sends what has arrived to this process again. Called with all signals blocked, so that it waits in the kernel for the next
    /// program of this process.
    pub fn give_back(&mut self) -> io::Result<()> {
        Ok(self.rows().try_for_each(|row| kill(getpid(), row.signal))?)
    }

    fn rows(&mut self) -> impl Iterator<Item = &'static Row> {
        self.delivery.pending().filter_map(|number| TABLE.iter().find(|row| row.signal as i32 == number))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn each_signal_has_one_row() {
        let signals: HashSet<_> = TABLE.iter().map(|row| row.signal).collect();
        assert_eq!(signals.len(), TABLE.len());
    }

    #[test]
    fn a_caught_signal_arrives_once_with_its_meaning() {
        let mut signals = Signals::install().unwrap();
        raise(Signal::SIGUSR2).unwrap();
        raise(Signal::SIGUSR2).unwrap();
        // Children of other tests may end at the same time.
        let arrived: Vec<_> = signals.arrived().into_iter().filter(|meaning| *meaning != Meaning::Reap).collect();
        assert_eq!(arrived, [Meaning::Ask(Request::Upgrade)]);
        assert!(!signals.arrived().contains(&Meaning::Ask(Request::Upgrade)));
        drop(signals);
        raise(Signal::SIGUSR2).unwrap();
    }
}
