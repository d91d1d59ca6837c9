//! What one thread has done: counters that only it writes, with plain stores in its own cache lines.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::memory::shared_struct;

use super::classes::{CLASSES, Histogram, class_of};
use super::statuses::{STATUSES, index_of};

shared_struct! {
    /// The counters of one thread, since the start of the server.
    #[derive(Debug)]
    #[repr(C)]
    pub struct Counters {
        /// Nanoseconds in the application.
        busy: AtomicU64,
        /// Bytes of the bodies of requests that have reached the application.
        received: AtomicU64,
        /// Bytes of the bodies of answers.
        sent: AtomicU64,
        /// Answers by their status; also requests that got none (499).
        statuses: [AtomicU64; STATUSES],
        /// Times from the call of the application to the end of its answer: their sum, and their classes.
        duration_sum: AtomicU64,
        durations: [AtomicU64; CLASSES],
        /// Waits for a thread, of those requests that had to wait.
        wait_sum: AtomicU64,
        waits: [AtomicU64; CLASSES],
    }
}

/// Adds to a counter of the calling thread.
#[inline]
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

impl Counters {
    /// Counts time in the application, in nanoseconds.
    #[inline]
    pub(super) fn add_busy(&self, ns: u64) {
        add(&self.busy, ns);
    }

    /// Counts an answer with this status and a body of so many bytes.
    #[inline]
    pub fn count_answer(&self, status: u16, sent: u64) {
        add(&self.statuses[index_of(status)], 1);
        add(&self.sent, sent);
    }

    /// Counts the time of a request, in nanoseconds from the call of the application to the end of its answer.
    #[inline]
    pub fn count_duration(&self, ns: u64) {
        add(&self.durations[class_of(ns)], 1);
        add(&self.duration_sum, ns);
    }

    /// Counts a request that has waited for a thread for so many nanoseconds.
    pub fn count_wait(&self, ns: u64) {
        add(&self.waits[class_of(ns)], 1);
        add(&self.wait_sum, ns);
    }

    /// Counts the bytes of a request's body.
    pub fn count_received(&self, bytes: u64) {
        add(&self.received, bytes);
    }

    /// Nanoseconds in the application, without the call that runs.
    pub(super) fn busy(&self) -> u64 {
        self.busy.load(Relaxed)
    }

    /// Adds all of it to sums.
    pub(super) fn add_to(&self, sums: &mut CounterSums) {
        let plus = |sum: &mut u64, counter: &AtomicU64| *sum = sum.wrapping_add(counter.load(Relaxed));
        plus(&mut sums.received, &self.received);
        plus(&mut sums.sent, &self.sent);
        sums.statuses.iter_mut().zip(&self.statuses).for_each(|(sum, counter)| plus(sum, counter));
        plus(&mut sums.durations.sum_ns, &self.duration_sum);
        sums.durations.buckets.iter_mut().zip(&self.durations).for_each(|(sum, counter)| plus(sum, counter));
        plus(&mut sums.waits.sum_ns, &self.wait_sum);
        sums.waits.buckets.iter_mut().zip(&self.waits).for_each(|(sum, counter)| plus(sum, counter));
    }
}

/// Counters of several threads together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterSums {
    /// Bytes of the bodies of requests that have reached the application.
    pub received: u64,
    /// Bytes of the bodies of answers.
    pub sent: u64,
    /// Answers by status, in the order of [`super::StatusKey::of`].
    pub statuses: [u64; STATUSES],
    /// Times from the call of the application to the end of the answer.
    pub durations: Histogram,
    /// Waits for a thread, of those requests that had to wait.
    pub waits: Histogram,
}

impl Default for CounterSums {
    fn default() -> Self {
        Self { received: 0, sent: 0, statuses: [0; STATUSES], durations: Histogram::default(), waits: Histogram::default() }
    }
}
