//! What the master counts and remembers of its workers for those who look at the server: their ends, and what the workers of each
//! slot have used. It crosses an upgrade in the state, so that no sum goes back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::StatsdTarget;
use crate::log::error::COUNTED_LEVELS;
use crate::scoreboard::InFlight;
use crate::status::ExitCause;
use crate::status::statsd::SentSums;

use super::event::SlotIndex;

/// Ends of workers that are remembered.
pub const EXITS_MAX: usize = 100;

/// Requests of one of them that are remembered: as many threads as anybody looks at.
const REQUESTS_MAX: usize = 16;

/// The end of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerExit {
    /// When, in seconds since the epoch.
    pub at_s: f64,
    /// Its slot.
    pub slot: usize,
    /// Its process id.
    pub pid: i32,
    /// Its generation.
    pub generation: u64,
    /// Why.
    pub cause: ExitCause,
    /// More about that, one clause.
    pub detail: Option<String>,
    /// How long it has lived, in milliseconds.
    pub lived_ms: u64,
    /// What it was serving, the oldest first.
    pub requests: Vec<CutRequest>,
}

/// A request that was in the application when its worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutRequest {
    /// Request line, with its query.
    pub line: String,
    /// Address of the client; empty for a unix socket.
    pub client: String,
    /// Its request id; empty when it has none.
    pub id: String,
    /// How long it was there, in milliseconds.
    pub millis: u64,
}

impl CutRequest {
    /// The request of a call that had run for so long.
    pub fn of(call: &InFlight, time: Duration) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { line: call.line(), client: text(&call.client), id: text(&call.id), millis: millis(time) }
    }
}

/// What the workers of a slot have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotUsage {
    /// Processor time of those that have ended, in nanoseconds.
    cpu_ended: u64,
    /// The same of the wait for a processor.
    wait_ended: u64,
    /// The highest of the one that lives, as seen.
    cpu_seen: u64,
    wait_seen: u64,
    /// The highest time in the application that was seen.
    busy_seen: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Ends of workers, in the order of [`ExitCause::ALL`].
    pub exits: [u64; ExitCause::ALL.len()],
    /// The last of them, the oldest first.
    pub last_exits: VecDeque<WorkerExit>,
    /// Lines that error logs before the present one have lost.
    pub lost_before: u64,
    /// Records of the error log that the programs before this one have written as the master, by their severity.
    pub records_before: [u64; COUNTED_LEVELS],
    /// What statsd was told; `None`: nothing yet.
    pub sent: Option<SentSums>,
    /// The host that was told, with its address, so that an upgrade need not wait for a name server.
    pub looked_up: Option<(StatsdTarget, SocketAddr)>,
    slots: Vec<SlotUsage>,
}

impl Ledger {
    /// A worker has ended, having used so much processor time.
    pub fn ended(&mut self, mut exit: WorkerExit, cpu: Duration) {
        exit.requests.truncate(REQUESTS_MAX);
        let usage = self.slot_mut(SlotIndex(exit.slot));
        // What was seen of it is a part of what the kernel says at its end, but for rounding.
        usage.cpu_ended += nanos(cpu).max(usage.cpu_seen);
        usage.wait_ended += usage.wait_seen;
        (usage.cpu_seen, usage.wait_seen) = (0, 0);
        self.exits[exit.cause as usize] += 1;
        if self.last_exits.len() >= EXITS_MAX {
            self.last_exits.pop_front();
        }
        self.last_exits.push_back(exit);
    }

    /// What the next program begins with, when the error logs have lost so many lines and had so many records so far.
    pub fn for_next(&self, lost: u64, records: [u64; COUNTED_LEVELS]) -> Self {
        Self { lost_before: lost, records_before: records, ..self.clone() }
    }

    /// Processor time of all workers of a slot, and their wait for a processor, in nanoseconds, when the one that lives has used
    /// so much (`None`: none lives, or nobody has looked).
    pub fn usage(&mut self, slot: SlotIndex, living: Option<(u64, u64)>) -> (u64, u64) {
        let usage = self.slot_mut(slot);
        if let Some((cpu, wait)) = living {
            // A thread that has ended takes its wait with it.
            usage.cpu_seen = usage.cpu_seen.max(cpu);
            usage.wait_seen = usage.wait_seen.max(wait);
        }
        (usage.cpu_ended + usage.cpu_seen, usage.wait_ended + usage.wait_seen)
    }

    /// The thread-time in the application of all workers of a slot, in nanoseconds, when the scoreboard shows `busy`: the highest
    /// that was ever shown.
    pub fn busy(&mut self, slot: SlotIndex, busy: u64) -> u64 {
        let usage = self.slot_mut(slot);
        usage.busy_seen = usage.busy_seen.max(busy);
        usage.busy_seen
    }

    fn slot_mut(&mut self, slot: SlotIndex) -> &mut SlotUsage {
        if slot.0 >= self.slots.len() {
            self.slots.resize(slot.0 + 1, SlotUsage::default());
        }
        &mut self.slots[slot.0]
    }
}

/// A duration in milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(slot: usize, cause: ExitCause) -> WorkerExit {
        let request = CutRequest { line: "GET / HTTP/1.1".into(), client: String::new(), id: String::new(), millis: 5 };
        let requests = vec![request; REQUESTS_MAX + 3];
        WorkerExit { at_s: 7.0, slot, pid: 9, generation: 2, cause, detail: None, lived_ms: 4, requests }
    }

    #[test]
    fn the_last_ends_are_kept_and_all_are_counted() {
        let mut ledger = Ledger::default();
        for index in 0..EXITS_MAX + 20 {
            ledger.ended(exit(index, ExitCause::Crashed), Duration::ZERO);
        }
        ledger.ended(exit(0, ExitCause::Reload), Duration::ZERO);
        let of = |cause| ledger.exits[cause as usize];
        assert_eq!((of(ExitCause::Crashed), of(ExitCause::Reload)), (EXITS_MAX as u64 + 20, 1));
        assert_eq!((ledger.last_exits.len(), ledger.last_exits[0].slot), (EXITS_MAX, 21));
        assert_eq!(ledger.last_exits[0].requests.len(), REQUESTS_MAX);
    }

    #[test]
    fn what_a_slot_has_used_never_goes_back() {
        let mut ledger = Ledger::default();
        let slot = SlotIndex(3);
        assert_eq!(ledger.usage(slot, Some((50, 9))), (50, 9));
        assert_eq!(ledger.usage(slot, Some((70, 4))), (70, 9), "a thread has ended");
        ledger.ended(exit(3, ExitCause::Killed), Duration::from_nanos(60));
        assert_eq!(ledger.usage(slot, None), (70, 9));
        assert_eq!(ledger.usage(slot, Some((5, 1))), (75, 10));
        assert_eq!((ledger.busy(slot, 8), ledger.busy(slot, 7), ledger.busy(slot, 9)), (8, 8, 9));
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger, "it crosses an upgrade");
        assert_eq!(serde_json::from_str::<Ledger>("{}").unwrap(), Ledger::default(), "of a program that knows none");
    }
}
