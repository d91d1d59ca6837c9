//! The pipe that brings the signals of the table into the master's loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::config::signals::OperatorRequest;
pub use crate::config::signals::{SignalMeaning, SignalRow, TABLE};
use crate::sys::signals::{named, take_sent_winch, watch_winch};

/// The signal of a row.
fn number(name: &str) -> Signal {
    named(name).expect("the names of the table are those of signals, as its test shows")
}

/// Signals whose handlers stay in a forked worker, where they do nothing: a terminal and many operators send them to the whole
/// process group, but they are meant for the master. Handlers, unlike ignored signals, are not inherited by the programs that the
/// application starts. (And signal-hook believes that its handlers stay for ever: a worker could not install another.)
pub fn kept_in_workers() -> Vec<Signal> {
    TABLE.iter().filter(|row| row.meaning != SignalMeaning::Reap).map(|row| number(row.name)).collect()
}

/// The signals of the table.
pub fn all() -> Vec<Signal> {
    TABLE.iter().map(|row| number(row.name)).collect()
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
        watch_winch()?;
        let numbers = TABLE.map(|row| number(row.name) as i32);
        Ok(Self { delivery: SignalDelivery::with_pipe(read, write, SignalOnly, numbers)? })
    }

    /// What has arrived since the last call, each signal once.
    pub fn arrived(&mut self) -> Vec<SignalMeaning> {
        self.rows().map(|row| row.meaning).collect()
    }

    /// Sends what has arrived to this process again. Called with all signals blocked, so that it waits in the kernel for the next
    /// program of this process.
    pub fn give_back(&mut self) -> io::Result<()> {
        Ok(self.rows().try_for_each(|row| kill(getpid(), number(row.name)))?)
    }

    /// Of SIGWINCH only what a process has sent: to a server in the foreground of a terminal its window sends that too.
    fn rows(&mut self) -> impl Iterator<Item = &'static SignalRow> {
        let rows = self.delivery.pending().filter_map(|arrived| TABLE.iter().find(|row| number(row.name) as i32 == arrived));
        rows.filter(|row| row.meaning != SignalMeaning::Ask(OperatorRequest::StopWorkers) || take_sent_winch())
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
    fn every_name_is_that_of_a_signal() {
        let signals: HashSet<_> = TABLE.iter().map(|row| number(row.name)).collect();
        assert_eq!(signals.len(), TABLE.len());
        assert!(kept_in_workers().contains(&Signal::SIGWINCH) && !kept_in_workers().contains(&Signal::SIGCHLD));
    }

    #[test]
    fn a_caught_signal_arrives_once_with_its_meaning() {
        let mut signals = Signals::install().unwrap();
        raise(Signal::SIGUSR2).unwrap();
        raise(Signal::SIGUSR2).unwrap();
        // Children of other tests may end at the same time.
        let arrived: Vec<_> = signals.arrived().into_iter().filter(|meaning| *meaning != SignalMeaning::Reap).collect();
        assert_eq!(arrived, [SignalMeaning::Ask(OperatorRequest::Upgrade)]);
        assert!(!signals.arrived().contains(&SignalMeaning::Ask(OperatorRequest::Upgrade)));
        raise(Signal::SIGWINCH).unwrap();
        assert!(signals.arrived().contains(&SignalMeaning::Ask(OperatorRequest::StopWorkers)), "a process has sent it");
        drop(signals);
        raise(Signal::SIGUSR2).unwrap();
    }
}
