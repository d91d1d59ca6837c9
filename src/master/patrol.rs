//! The master's rounds: looks at the workers that serve, as often as a deadline may have passed, and at their memory now and
//! then.

use std::time::Duration;

use crate::channel::Order;
use crate::scoreboard::{Call, Scoreboard};

use super::event::{Event, SlotIndex, Wear};
use super::health::{HealthWatch, Sample, Verdict};
use super::memory::{self, Kills};
use super::supervisor::Supervisor;
use super::table::{Child, Table};

/// Time between two looks at the memory of the workers, in nanoseconds. It grows over minutes, and each look costs a read of
/// /proc.
const MEMORY_EVERY: u64 = 2_000_000_000;

/// What the master remembers between two rounds.
#[derive(Debug)]
pub struct Patrol {
    watch: HealthWatch,
    /// When the next round is due, nanoseconds of the monotonic clock.
    due: u64,
    /// When memory is looked at again.
    memory_due: u64,
    /// Kills because memory ran out.
    pub kills: Kills,
}

impl Patrol {
    /// Before the first worker.
    pub fn new() -> Self {
        Self { watch: HealthWatch::default(), due: u64::MAX, memory_due: 0, kills: Kills::new() }
    }

    /// A worker is ready.
    pub fn begin(&mut self, slot: SlotIndex, now: u64) {
        self.watch.begin(slot, now);
        self.due = now;
    }

    /// A worker has ended.
    pub fn end(&mut self, slot: SlotIndex) {
        self.watch.end(slot);
    }

    /// The master has stood still.
    pub fn overslept(&mut self, now: u64) {
        self.watch.overslept(now);
        self.due = now;
    }

    /// How long until the next round; `None` when nobody is watched.
    pub fn wait(&self, now: u64) -> Option<Duration> {
        (self.due != u64::MAX).then(|| Duration::from_nanos(self.due.saturating_sub(now)))
    }

    /// One round, if it is due: wakes quiet workers; returns what was found.
    pub fn round(&mut self, table: &Table, scoreboard: &Scoreboard, supervisor: &Supervisor, now: u64) -> Vec<Event> {
        if now < self.due {
            return Vec::new();
        }
        let weigh = now >= self.memory_due;
        if weigh {
            self.memory_due = now + MEMORY_EVERY;
        }
        self.due = u64::MAX;
        let mut found = Vec::new();
        for (slot, child) in table.serving() {
            if !child.timeout.is_zero() {
                found.extend(self.judge(slot, child, scoreboard, supervisor, now));
            }
            if child.max_memory > 0 {
                self.due = self.due.min(self.memory_due);
                let size = weigh.then(|| weight(child)).flatten().filter(|size| *size > child.max_memory);
                found.extend(size.map(|size| Event::Worn { slot, wear: Wear::Memory(size) }));
            }
        }
        found
    }

    fn judge(
        &mut self,
        slot: SlotIndex,
        child: &Child,
        scoreboard: &Scoreboard,
        supervisor: &Supervisor,
        now: u64,
    ) -> Option<Event> {
        let row = scoreboard.slot(slot.0);
        let look = Sample {
            calls: scoreboard.calls(slot.0).filter_map(Call::entered).collect(),
            beat: row.last_beat(),
            served: scoreboard.requests(slot.0),
            loops: !supervisor.is_leaving(slot),
        };
        match self.watch.judge(slot, child.timeout, &look, now)? {
            Verdict::Later(at) => self.due = self.due.min(at),
            Verdict::Ping(at) => {
                self.due = self.due.min(at);
                if let Some(channel) = &child.channel {
                    // A full channel is that of a worker that does not read; its deadline decides.
                    let _ = channel.send(Order::Ping);
                }
            }
            Verdict::Stuck(hang) => {
                self.watch.end(slot);
                return Some(Event::Stuck { slot, hang });
            }
        }
        None
    }
}

/// What counts of the memory of a worker.
fn weight(child: &Child) -> Option<u64> {
    match child.mold {
        Some(mold) => memory::own(child.pid, mold),
        None => memory::resident(child.pid),
    }
}
