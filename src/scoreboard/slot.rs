//! The published state of one worker.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::sys::memory::shared_struct;

use super::refusals::{REASONS, RefusalReason};

/// Severities of the records that are counted.
pub const SEVERITIES: usize = 3;

shared_struct! {
    /// The published state of one worker.
    #[derive(Debug)]
    // Lines of 64 bytes in pairs: processors fetch lines in pairs, and workers must not wait for each other's stores.
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
        /// Connections that were accepted.
        accepted: AtomicU64,
        /// Requests that wait for a permit.
        waiting: AtomicU32,
        /// Exceptions that came out of the application.
        exceptions: AtomicU64,
        /// Calls that were to be interrupted at their deadline, and those that were given up.
        interrupted: AtomicU64,
        given_up: AtomicU64,
        /// Lines that the logs of the workers have lost.
        lost_lines: AtomicU64,
        /// Requests that the server has answered itself, by the reason.
        refused: [AtomicU64; REASONS],
        /// Records of the error log by their severity. At the end, where there was room: a program that does not count them leaves 0.
        records: [AtomicU64; SEVERITIES],
        /// Handshakes of TLS that have failed; likewise.
        failed_handshakes: AtomicU64,
        /// Handshakes of TLS that were done, and those of them that resumed a session; likewise.
        handshakes: AtomicU64,
        resumed_handshakes: AtomicU64,
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

    /// Counts a connection that was accepted. Only the thread that has the loop calls it.
    #[inline]
    pub fn count_accepted(&self) {
        self.accepted.store(self.accepted().wrapping_add(1), Relaxed);
    }

    /// Connections that were accepted in this slot since the start of the server.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Requests that wait for a permit now.
    #[inline]
    pub fn set_waiting(&self, count: u32) {
        self.waiting.store(count, Relaxed);
    }

    /// Requests that wait for a permit, as the worker last noted.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Counts lines that a log has lost. Only the thread that has the loop calls it.
    #[cold]
    pub fn count_lost_lines(&self, lines: u64) {
        self.lost_lines.store(self.lost_lines().wrapping_add(lines), Relaxed);
    }

    /// Lines that the logs of the workers of this slot have lost since the start of the server.
    pub fn lost_lines(&self) -> u64 {
        self.lost_lines.load(Relaxed)
    }

    /// Counts a request that the server answers itself. Any thread of the worker may call it, as all of these.
    pub fn count_refusal(&self, reason: RefusalReason) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    /// Adds the requests of this slot that the server has answered itself, by the reason.
    pub(super) fn add_refused(&self, sums: &mut [u64; REASONS]) {
        sums.iter_mut().zip(&self.refused).for_each(|(sum, count)| *sum = sum.wrapping_add(count.load(Relaxed)));
    }

    /// Counts a record of the error log. Any thread of the worker may call it.
    #[cold]
    pub fn count_record(&self, severity: usize) {
        self.records[severity].fetch_add(1, Relaxed);
    }

    /// Adds the records of the error log that workers of this slot have written, by their severity.
    pub(super) fn add_records(&self, sums: &mut [u64; SEVERITIES]) {
        sums.iter_mut().zip(&self.records).for_each(|(sum, count)| *sum = sum.wrapping_add(count.load(Relaxed)));
    }

    /// Counts a handshake of TLS that has failed. Only the thread that has the loop calls it.
    #[cold]
    pub fn count_failed_handshake(&self) {
        self.failed_handshakes.store(self.failed_handshakes().wrapping_add(1), Relaxed);
    }

    /// Handshakes of TLS that have failed in this slot since the start of the server.
    pub fn failed_handshakes(&self) -> u64 {
        self.failed_handshakes.load(Relaxed)
    }

    /// Counts a handshake of TLS that is done. Only the thread that has the loop calls it.
    pub fn count_handshake(&self, is_resumed: bool) {
        self.handshakes.store(self.handshakes().wrapping_add(1), Relaxed);
        self.resumed_handshakes.store(self.resumed_handshakes().wrapping_add(u64::from(is_resumed)), Relaxed);
    }

    /// Handshakes of TLS that were done in this slot since the start of the server.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Relaxed)
    }

    /// Those of them that have resumed a session.
    pub fn resumed_handshakes(&self) -> u64 {
        self.resumed_handshakes.load(Relaxed)
    }

    /// Counts an exception that came out of the application.
    #[cold]
    pub fn count_exception(&self) {
        self.exceptions.fetch_add(1, Relaxed);
    }

    /// Exceptions that came out of the application in this slot since the start of the server.
    pub fn exceptions(&self) -> u64 {
        self.exceptions.load(Relaxed)
    }

    /// Counts a call in which the exception of the deadline is to be raised.
    pub fn count_interrupted(&self) {
        self.interrupted.fetch_add(1, Relaxed);
    }

    /// Calls in which the exception of the deadline was to be raised.
    pub fn interrupted(&self) -> u64 {
        self.interrupted.load(Relaxed)
    }

    /// Counts a call whose client was answered without it.
    pub fn count_given_up(&self) {
        self.given_up.fetch_add(1, Relaxed);
    }

    /// Calls whose clients were answered without them.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
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

    /// Forgets what the worker had that is dead: the counters are kept.
    pub(super) fn forget_present(&self) {
        self.connections.store(0, Relaxed);
        self.waiting.store(0, Relaxed);
        self.adopts.store(0, Relaxed);
        self.accepts.store(0, Relaxed);
        self.spooled.store(0, Relaxed);
    }

    /// Gives the slot to a new worker; the counters are kept.
    pub(super) fn reset(&self, pid: u32) {
        self.beat.store(0, Relaxed);
        self.forget_present();
        self.pid.store(pid, Relaxed);
    }
}
