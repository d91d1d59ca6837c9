//! The published state of one worker.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::sys::memory::shared_struct;
use crate::sys::time::NS_PER_MS;

/// Upper bounds of the classes by which waits for a permit are counted, in milliseconds; longer ones have a class of their own.
/// From an iteration of the loop to half a minute, each class four times as long as the one before.
pub const WAIT_BOUNDS_MS: [u64; 8] = [2, 8, 32, 128, 512, 2_048, 8_192, 32_768];

shared_struct! {
    /// The published state of one worker.
    #[derive(Debug)]
    // Two lines of 64 bytes: processors fetch lines in pairs, and workers must not wait for each other's stores.
    #[repr(C, align(128))]
    pub struct Slot {
        /// When the worker's loop last began an iteration, in nanoseconds of the monotonic clock.
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
        /// Requests that have waited for a permit, by how long.
        waits: [AtomicU64; WAIT_BOUNDS_MS.len() + 1],
    }
}

impl Slot {
    /// Open connections of the worker.
    pub fn set_connections(&self, count: u32) {
        self.connections.store(count, Relaxed);
    }

    /// Open connections of the worker, as it last noted.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Counts one more connection that was given away.
    pub fn count_handed_over(&self) {
        self.handed_over.store(self.handed_over().wrapping_add(1), Relaxed);
    }

    /// Counts one more connection that was taken over.
    pub fn count_adopted(&self) {
        self.adopted.store(self.adopted().wrapping_add(1), Relaxed);
    }

    /// Counts so many more connections as taken over; the count may wrap.
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

    /// Counts a request that has waited for a permit for so many nanoseconds. Any thread of the worker may call it.
    pub fn count_wait(&self, ns: u64) {
        let class = WAIT_BOUNDS_MS.iter().position(|&bound| ns < bound * NS_PER_MS).unwrap_or(WAIT_BOUNDS_MS.len());
        self.waits[class].fetch_add(1, Relaxed);
    }

    /// Requests of this slot since the start of the server that had to wait for a permit: one count for each of
    /// [`WAIT_BOUNDS_MS`], and one for longer waits.
    pub fn waits(&self) -> [u64; WAIT_BOUNDS_MS.len() + 1] {
        self.waits.each_ref().map(|count| count.load(Relaxed))
    }

    /// Counts so many more bytes in temporary files. Any thread of the worker may call it.
    pub fn add_spooled(&self, bytes: u64) {
        self.spooled.fetch_add(bytes, Relaxed);
    }

    /// Subtracts the bytes of files that are gone, which were added before.
    pub fn remove_spooled(&self, bytes: u64) {
        self.spooled.fetch_sub(bytes, Relaxed);
    }

    /// Forgets the files: the worker is dead, and they ended with it.
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

    /// Notes that the worker's loop begins an iteration.
    pub fn beat(&self, now: u64) {
        self.beat.store(now, Relaxed);
    }

    /// When the worker's loop last began an iteration, nanoseconds of the monotonic clock; 0 before the first one.
    pub fn last_beat(&self) -> u64 {
        self.beat.load(Relaxed)
    }

    /// The worker that has, or had, the slot; 0 before the first.
    pub fn pid(&self) -> u32 {
        self.pid.load(Relaxed)
    }

    /// Gives the slot to a new worker; the counters are kept.
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
