//! What the supervisor takes in and gives out.

use std::time::Duration;

use crate::channel::{BootError, Order, Report};
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

/// The place of a worker, from 0; its replacement gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

/// What an operator asks for, by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Answer everything that was accepted, then leave.
    Stop,
    /// Finish the requests that run, then leave; asked again: leave at once.
    QuickStop,
    /// Load configuration and application anew.
    Reload,
    /// Open the log files anew.
    ReopenLogs,
    /// Start the binary anew.
    Upgrade,
    /// One worker more.
    MoreWorkers,
    /// One worker less.
    FewerWorkers,
    /// Stop the workers, keep the master.
    StopWorkers,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server begins.
    Start,
    /// An operator asks.
    Asked(Request),
    /// The worker in `slot` says something.
    Reported {
        /// Which worker.
        slot: Slot,
        /// What.
        report: Report,
    },
    /// The worker in `slot` has ended and was waited for. Its reports come before.
    Ended {
        /// Which worker.
        slot: Slot,
        /// How.
        exit: Exit,
    },
    /// The fork for `slot` failed.
    ForkFailed {
        /// Which worker.
        slot: Slot,
        /// The system's reason.
        why: String,
    },
    /// A deadline may have passed.
    Tick,
}

/// What the master must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fork a worker for the slot.
    Fork(Slot),
    /// Send an order to the worker.
    Order(Slot, Order),
    /// End the worker with SIGKILL.
    Kill(Slot),
    /// Close the listening sockets: from now on only workers accept, and when the last of them is gone, nobody is let in.
    StopListening,
    /// Tell the operator.
    Tell(Note),
    /// Open the log files anew, for the workers too.
    ReopenLogs,
    /// All workers are ready for the first time: say so to whoever waits for it.
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
        slot: Slot,
        /// Why, with the application's traceback.
        why: BootError,
        /// Whether the server ends for it.
        fatal: bool,
    },
    /// A worker ended that had not been told to leave, or not in order.
    Died {
        /// Which worker.
        slot: Slot,
        /// How.
        exit: Exit,
        /// Whether it had not been ready yet.
        booting: bool,
        /// Whether the server ends for it.
        fatal: bool,
    },
    /// A worker left in order, having said so, without having been asked by the master.
    Left(Slot),
    /// The system refused a process.
    ForkFailed {
        /// For which worker.
        slot: Slot,
        /// The system's reason.
        why: String,
    },
    /// The replacement starts after a pause.
    Pause {
        /// Which worker.
        slot: Slot,
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
    Killing(Slot),
    /// The request is not supported.
    Unsupported(Request),
}
