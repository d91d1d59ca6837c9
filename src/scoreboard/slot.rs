//! What one worker tells of itself.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::sys::memory::shared_struct;
use crate::sys::time::NS_PER_MS;

/// Upper bounds of the classes by which waits for a free slot are counted, in milliseconds; longer ones have a class of their own.
/// From a turn of the loop to half a minute, each class four times as long as the one before.
pub const WAIT_BOUNDS_MS: [u64; 8] = [2, 8, 32, 128, 512, 2_048, 8_192, 32_768];

shared_struct! {
    /// What one worker tells of itself.
    #[derive(Debug)]
    // Two lines of 64 bytes: processors fetch lines in pairs, and workers must not wait for each other's stores.
    #[repr(C, align(128))]
    pub struct Slot {
        /// When the worker's loop last went round, in nanoseconds of the monotonic clock.
        beat: AtomicU64,
        pid: AtomicU32,
        connections: AtomicU32,
        /// Connections that the workers of this slot have given away, and those that they have taken over.
        handed_over: AtomicU64,
        adopted: AtomicU64,
        /// 1 while the worker takes over connections.
        adopts: AtomicU32,
        /// 1 while the worker takes new connections, else 0.
        accepts: AtomicU32,
        /// Bytes that the worker has in temporary files.
        spooled: AtomicU64,
        /// Requests that have waited for a free slot, by how long.
        waits: [AtomicU64; WAIT_BOUNDS_MS.len() + 1],
    }
}

impl Slot {
    /// Open connections of the worker.
    pub fn set_connections(&self, count: u32) {
        self.connections.store(count, Relaxed);
    }

    /// Open connections of the worker, as it last said.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// One more connection was given away.
    pub fn count_handed_over(&self) {
        self.handed_over.store(self.handed_over().wrapping_add(1), Relaxed);
    }

    /// One more connection was taken over.
    pub fn count_adopted(&self) {
        self.adopted.store(self.adopted().wrapping_add(1), Relaxed);
    }

    /// So many more connections count as taken over; it may go round.
    pub(super) fn count_adopted_by(&self, count: u64) {
        self.adopted.store(self.adopted().wrapping_add(count), Relaxed);
    }

    /// Connections that were given away in this slot since the start of the server.
    pub fn handed_over(&self) -> u64 {
        self.handed_over.load(Relaxed)
    }

    /// Connections that were taken over in this slot since the start of the server.
    pub fn adopted(&self) -> u64 {
        self.adopted.load(Relaxed)
    }

    /// A request that has waited for a free slot for so many nanoseconds goes to the application. Any thread of the worker may say it.
    pub fn count_wait(&self, ns: u64) {
        let class = WAIT_BOUNDS_MS.iter().position(|&bound| ns < bound * NS_PER_MS).unwrap_or(WAIT_BOUNDS_MS.len());
        self.waits[class].fetch_add(1, Relaxed);
    }

    /// Requests of this slot since the start of the server that had to wait for a free slot: one count for each of
    /// [`WAIT_BOUNDS_MS`], and one for longer waits.
    pub fn waits(&self) -> [u64; WAIT_BOUNDS_MS.len() + 1] {
        self.waits.each_ref().map(|count| count.load(Relaxed))
    }

    /// The worker has written so many bytes more to temporary files. Any thread of the worker may say it.
    pub fn add_spooled(&self, bytes: u64) {
        self.spooled.fetch_add(bytes, Relaxed);
    }

    /// Files with so many bytes, which were added before, are gone.
    pub fn remove_spooled(&self, bytes: u64) {
        self.spooled.fetch_sub(bytes, Relaxed);
    }

    /// The worker is dead, and its files with it.
    pub fn forget_spooled(&self) {
        self.spooled.store(0, Relaxed);
    }

    /// Bytes that the worker has in temporary files.
    pub fn spooled(&self) -> u64 {
        self.spooled.load(Relaxed)
    }

    /// Whether the worker takes over connections from now on.
    pub fn set_adopts(&self, adopts: bool) {
        self.adopts.store(adopts.into(), Relaxed);
    }

    /// Whether the worker takes over connections.
    pub fn adopts(&self) -> bool {
        self.adopts.load(Relaxed) != 0
    }

    /// Whether the worker takes new connections from now on; also set by the master, when the worker is dead.
    pub fn set_accepts(&self, accepts: bool) {
        self.accepts.store(accepts.into(), Relaxed);
    }

    /// Whether the worker takes new connections.
    pub fn accepts(&self) -> bool {
        self.accepts.load(Relaxed) != 0
    }

    /// The worker's loop has gone round.
    pub fn beat(&self, now: u64) {
        self.beat.store(now, Relaxed);
    }

    /// When the worker's loop last went round, nanoseconds of the monotonic clock; 0 before the first time.
    pub fn last_beat(&self) -> u64 {
        self.beat.load(Relaxed)
    }

    /// The worker that has, or had, the slot; 0 before the first.
    pub fn pid(&self) -> u32 {
        self.pid.load(Relaxed)
    }

    /// A new worker has the slot; the counters are kept.
    pub(super) fn reset(&self, pid: u32) {
        self.beat.store(0, Relaxed);
        self.connections.store(0, Relaxed);
        self.adopts.store(0, Relaxed);
        self.accepts.store(0, Relaxed);
        self.spooled.store(0, Relaxed);
        self.pid.store(pid, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Scoreboard;

    #[test]
    fn a_wait_is_counted_in_the_class_of_its_length() {
        let board = Scoreboard::new(1, 1).unwrap();
        let slot = board.slot(0);
        for ms in [0, 1, 2, 7, 8, 32_767, 32_768, 3_600_000] {
            slot.count_wait(ms * NS_PER_MS);
        }
        board.reset(0, 5);
        assert_eq!(slot.waits(), [2, 2, 1, 0, 0, 0, 0, 1, 2], "the counts outlive the worker");
    }
}
