//! What the system says of the processes and sockets of the server, for those who ask for figures: looked at when somebody asks,
//! and at processes once a second at most, however often that is.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::net::listener::{Address, Listener};
use crate::status::MasterFigures;
use crate::sys::listen_queue::{self, ListenQueue, UnixQueues};
use crate::sys::process::{self, Pid};

use super::usage::Usage;

/// How long a look at the processes counts.
const EVERY: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Debug, Default)]
pub struct Looks {
    last: Option<Instant>,
    processes: HashMap<Pid, Usage>,
    master: MasterFigures,
    /// Where the kernel is asked about unix sockets, once somebody wants to know.
    unix: Option<UnixQueues>,
}

impl Looks {
    /// Looks at these processes, and at the master itself, if the last look does not count any more.
    pub fn refresh(&mut self, processes: impl Iterator<Item = Pid>, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            return;
        }
        self.last = Some(now);
        self.processes = processes.filter_map(|pid| Some((pid, Usage::of(pid)?))).collect();
        if let Some(usage) = Usage::of(Pid::this()) {
            self.processes.insert(Pid::this(), usage);
            self.master.cpu_s = Duration::from_nanos(usage.cpu_ns).as_secs_f64();
        }
        self.master.open_fds = fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1)) as u64;
        self.master.max_fds = process::descriptor_limit() as u64;
    }

    /// What a process uses; `None`: it was not there at the last look.
    pub fn usage(&self, pid: Pid) -> Option<Usage> {
        self.processes.get(&pid).copied()
    }

    /// The master's own process.
    pub fn master(&self) -> &MasterFigures {
        &self.master
    }

    /// The connections that wait to be accepted; `None` where the system does not say.
    pub fn queue(&mut self, listener: &Listener) -> Option<ListenQueue> {
        match listener.address() {
            Address::Tcp(_) => listen_queue::of_tcp(listener).ok(),
            Address::Unix(_) => {
                if self.unix.is_none() {
                    self.unix = UnixQueues::open().ok();
                }
                self.unix.as_ref()?.of(listener).ok()
            }
        }
    }
}
