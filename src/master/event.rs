//! What the supervisor takes in and gives out.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::channel::{BootError, Breach, Order, Report};
pub use crate::config::signals::OperatorRequest;
use crate::status::ExitCause;
pub use crate::sys::process::Exit;

/// The server's exit codes.
pub mod code {
    /// Stopped as asked.
    pub const OK: i32 = 0;
    /// Failed for another reason than those below.
    pub const FAILED: i32 = 1;
    /// Wrong usage or configuration.
    pub const USAGE: i32 = 2;
    /// A worker could not boot.
    pub const BOOT: i32 = 3;
    /// The application could not be loaded.
    pub const APP: i32 = 4;
}

/// The place of a worker, from 0. The replacement of one that has died gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotIndex(pub usize);

/// Configuration and application as they were at one load; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.0)
    }
}

/// The part of a generation's settings that the supervisor works by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Workers, at least one.
    pub workers: usize,
    /// Time for a drain.
    pub graceful_timeout: Duration,
    /// Time for a boot; `None`: no limit.
    pub boot_timeout: Option<Duration>,
    /// Workers beyond the wanted number while a new generation takes over, at least one.
    pub surge: usize,
    /// Longest life of a worker; `None`: no limit.
    pub max_age: Option<Duration>,
}

/// Why a worker is ended that does not leave by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// The application has run for longer than this.
    Call(Duration),
    /// Its loop has given no sign for this long, outside of the application.
    Silent(Duration),
    /// It was not ready after this time.
    Boot(Duration),
    /// It has left but for requests that do not end.
    Stranded,
}

/// Why a worker that serves well is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wear {
    /// It has served as many requests as it may.
    Requests,
    /// Its application leaves it no descriptor for connections.
    Descriptors,
    /// Somebody sent it SIGTERM.
    Dismissed,
    /// A request of it does not end.
    Stuck,
    /// It takes this much memory in bytes.
    Memory(u64),
    /// It has lived for this long.
    Age(Duration),
    /// Its channel to the master is closed.
    Cut,
    /// It listens on a socket in whose place there is another.
    Socket,
}

impl From<Wear> for ExitCause {
    fn from(wear: Wear) -> Self {
        match wear {
            Wear::Requests => Self::MaxRequests,
            Wear::Dismissed => Self::Dismissed,
            Wear::Stuck => Self::Timeout,
            Wear::Memory(_) => Self::MaxRss,
            Wear::Age(_) => Self::MaxAge,
            Wear::Cut | Wear::Descriptors => Self::Crashed,
            // The sockets are new, as after a reload.
            Wear::Socket => Self::Reload,
        }
    }
}

/// Why a reload failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadFailure {
    /// The configuration cannot be used.
    Configuration(String),
    /// The first worker of the new generation could not boot, as reported before.
    Worker,
    /// All places are taken.
    NoPlace,
}

/// Why an upgrade failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpgradeFailure {
    /// The new program is not fit, or cannot be executed.
    Program(String),
    /// The master is the new program, but workers of this generation are not to be had.
    Load(Generation, ReloadFailure),
}

/// What the supervisor knows of a worker, for the next program of the master. Times are relative: it has another clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLife {
    /// Its place.
    pub slot: SlotIndex,
    /// Which generation it belongs to.
    pub generation: Generation,
    /// How far it is.
    pub life: Life,
    /// Whether its end is made good.
    pub owed: bool,
    /// Whether it is to give way to a new one of the same generation.
    pub worn: bool,
    /// Why it leaves, or is to. A program that does not know it leaves none.
    #[serde(default)]
    pub why: Option<ExitCause>,
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It loads, and is given this time.
    Booting {
        /// `None`: no limit.
        left: Option<Duration>,
    },
    /// It serves.
    Ready {
        /// Since when.
        ago: Duration,
    },
    /// It has the order to leave, or does so by itself.
    Leaving {
        /// Its time; `None`: no limit.
        left: Option<Duration>,
        /// Whether it finishes only what runs.
        hurried: bool,
    },
    /// It is about to end, and is killed after this time.
    Ending {
        /// Its time.
        left: Duration,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server begins.
    Start,
    /// An operator asks.
    Asked(OperatorRequest),
    /// The worker in `slot` says something.
    Reported {
        /// Which worker.
        slot: SlotIndex,
        /// What.
        report: Report,
    },
    /// The worker in `slot` has ended and was waited for. Its reports come before.
    Ended {
        /// Which worker.
        slot: SlotIndex,
        /// How.
        exit: Exit,
        /// Whether a client had reached it: it had served a request, or had a connection or a request when it ended.
        reached: bool,
    },
    /// The fork for `slot` failed.
    ForkFailed {
        /// Which worker.
        slot: SlotIndex,
        /// The system's reason.
        why: String,
    },
    /// The program that the master is to become was tried, or could not be executed; the error says what, where and why.
    Tried(Result<(), String>),
    /// The configuration was read for the generation that [`Action::Read`] named.
    Read(Result<Policy, String>),
    /// The worker in `slot` makes no progress.
    Stuck {
        /// Which worker.
        slot: SlotIndex,
        /// How that shows.
        hang: Hang,
    },
    /// The worker in `slot` says what no worker of this server says.
    Broken {
        /// Which worker.
        slot: SlotIndex,
        /// What.
        breach: Breach,
    },
    /// The worker in `slot` takes too much.
    Worn {
        /// Which worker.
        slot: SlotIndex,
        /// Of what.
        wear: Wear,
    },
    /// The worker's end of its channel is closed.
    Cut(SlotIndex),
    /// A listening socket was made again; the workers do not have the new one.
    NewSocket,
    /// A listening socket is lost, and cannot be made again.
    Deaf,
    /// An operator wants so many workers, at least one.
    Scale(usize),
    /// Sources of the application have changed, and are to be loaded (`--reload`).
    SourcesChanged,
    /// A deadline may have passed.
    Tick,
}

/// What the master must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fork a worker of this generation for the slot.
    Fork(SlotIndex, Generation),
    /// Read the configuration for this generation; [`Event::Read`] follows.
    Read(Generation),
    /// End the reading; nothing follows.
    EndReading,
    /// This generation serves from now on: no worker of an earlier one is forked any more.
    Adopt(Generation),
    /// This generation failed: no worker of it is forked any more.
    Discard(Generation),
    /// End the worker with SIGABRT, so that its interpreter writes where it is.
    Abort(SlotIndex),
    /// Send an order to the worker.
    Order(SlotIndex, Order),
    /// End the worker with SIGKILL.
    Kill(SlotIndex),
    /// Close the listening sockets: from now on only workers accept, and when the last of them is gone, nobody is let in.
    StopListening,
    /// Inform the operator.
    Tell(Note),
    /// Try the program that the master is to become; [`Event::Tried`] follows.
    TryUpgrade,
    /// End the trial; nothing follows.
    EndTrial,
    /// Become the new program; if that fails, [`Event::Tried`] follows.
    Upgrade,
    /// Open the log files again, for the workers too.
    ReopenLogs,
    /// All workers are ready for the first time: say so to those that wait for it.
    NotifyReady,
    /// The server ends with this code; no worker is left.
    Exit(i32),
}

/// Something that the error log gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A worker could not boot.
    BootFailed {
        /// Which worker.
        slot: SlotIndex,
        /// Why, with the application's traceback.
        why: BootError,
        /// Whether the server ends for it.
        fatal: bool,
    },
    /// A worker ended without an order to leave, or not in order.
    Died {
        /// Which worker.
        slot: SlotIndex,
        /// How.
        exit: Exit,
        /// Whether it had not been ready yet.
        booting: bool,
        /// Whether the server ends for it.
        fatal: bool,
    },
    /// A worker cannot continue, and ends.
    Failed {
        /// Which worker.
        slot: SlotIndex,
        /// Why, in its words.
        why: String,
    },
    /// A worker left in order, having said so, without having been asked by the master.
    Left(SlotIndex),
    /// A worker that made no progress has ended.
    Hung {
        /// Which worker.
        slot: SlotIndex,
        /// Why it was ended.
        hang: Hang,
        /// How it ended.
        exit: Exit,
        /// Whether the server ends for it.
        fatal: bool,
    },
    /// The system refused a process.
    ForkFailed {
        /// For which worker.
        slot: SlotIndex,
        /// The system's reason.
        why: String,
    },
    /// The replacement starts after a pause.
    Pause {
        /// Which worker.
        slot: SlotIndex,
        /// How long.
        wait: Duration,
    },
    /// The server stops, in this way.
    Stopping(Order),
    /// A stop was asked for again, which changes nothing.
    AlreadyStopping,
    /// The time for the drain is over.
    DrainTimeout(Duration),
    /// The worker is ended by SIGKILL.
    Killing(SlotIndex),
    /// The worker has not ended although it was killed.
    Lost(SlotIndex),
    /// The worker is ended by SIGKILL, because it does not keep to the rules of its channel.
    Broken {
        /// Which worker.
        slot: SlotIndex,
        /// How that shows.
        breach: Breach,
        /// Whether the server ends for it.
        fatal: bool,
    },
    /// The upgrade is carried out later.
    UpgradeQueued,
    /// The upgrade failed.
    UpgradeFailed {
        /// Why.
        why: UpgradeFailure,
        /// The generation that continues to serve.
        serves: Generation,
    },
    /// A reload begins.
    Reloading(Generation),
    /// A reload is carried out later.
    ReloadQueued,
    /// The reload failed.
    ReloadFailed {
        /// What was to be loaded.
        failed: Generation,
        /// Why it is not.
        why: ReloadFailure,
        /// The generation that continues to serve.
        serves: Generation,
    },
    /// The first worker of the new generation is ready; the others follow.
    Adopted(Generation),
    /// All workers are of the new generation.
    Reloaded(Generation),
    /// A worker is about to be replaced.
    Recycling {
        /// Which worker.
        slot: SlotIndex,
        /// Why.
        wear: Wear,
    },
    /// So many workers are wanted from now on.
    Workers(usize),
    /// No more workers than these are possible.
    WorkersLimit(usize),
    /// The workers stop, the master stays.
    WorkersStopping,
    /// Nothing to do: the workers are stopped.
    WorkersStopped,
    /// Fewer workers serve than wanted, because new ones fail.
    Degraded {
        /// How many serve.
        ready: usize,
        /// How many are wanted.
        wanted: usize,
    },
    /// As many workers serve as wanted.
    Recovered(usize),
}
