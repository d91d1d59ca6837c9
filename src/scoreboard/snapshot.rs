//! All figures of the workers at one moment: sums since the start of the server, and what each worker does.
//!
//! A slot keeps its counters when another worker takes it, so the sums over all slots that ever had a worker never go back,
//! whatever becomes of the workers. Each counter is one word and is read whole. Two of them may be read a moment apart, so
//! whatever is a sum of others (the number of requests, that of times) is not counted but added up here.

use super::Scoreboard;
use super::call::Activity;
use super::counters::CounterSums;
use super::refusals::{REASONS, RefusalReason};
use super::slot::SEVERITIES;

/// Figures of a server's workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What all workers have done since the start of the server.
    pub sums: CounterSums,
    /// Requests that the server has refused, in the order of [`RefusalReason::ALL`].
    pub refused: [u64; REASONS],
    /// Exceptions that came out of the application.
    pub exceptions: u64,
    /// Calls in which the exception of `--timeout` was to be raised.
    pub interrupted: u64,
    /// Calls whose clients were answered without them, or cut.
    pub given_up: u64,
    /// Lines that the logs of the workers have lost.
    pub lost_lines: u64,
    /// Records of the error log that the workers have written, by their severity.
    pub records: [u64; SEVERITIES],
    /// Connections that were accepted.
    pub accepted: u64,
    /// Handshakes of TLS that have failed.
    pub failed_handshakes: u64,
    /// Handshakes of TLS that were done.
    pub handshakes: u64,
    /// Those of them that have resumed a session.
    pub resumed_handshakes: u64,
    /// Connections that were handed over to other workers.
    pub handed_over: u64,
    /// Connections that are on their way to another worker.
    pub in_transit: u64,
    /// Each slot that ever had a worker.
    pub workers: Vec<SlotFigures>,
}

/// Figures of one slot and its worker, which may be dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotFigures {
    /// Number of the slot.
    pub slot: usize,
    /// The worker's process id, as it has noted.
    pub pid: u32,
    /// Calls of the application that have returned, in this slot since the start of the server.
    pub requests: u64,
    /// Thread-time in the application in nanoseconds, in this slot since the start of the server, running calls included. When a
    /// call ends while it is read it may be wrong by that call: keep the highest.
    pub busy_ns: u64,
    /// Threads in the application.
    pub busy: usize,
    /// Threads whose calls have taken their connections over (WebSockets); not in `busy`.
    pub held: usize,
    /// Open connections.
    pub connections: u32,
    /// Requests that wait for a thread.
    pub waiting: u32,
    /// Bytes in temporary files.
    pub spooled: u64,
    /// When its loop last went round, nanoseconds of the monotonic clock; 0: never.
    pub beat: u64,
    /// When the oldest request in the application began, nanoseconds of the monotonic clock.
    pub oldest: Option<u64>,
}

impl Snapshot {
    /// Requests that were answered, refused, or lost their client.
    pub fn requests(&self) -> u64 {
        self.sums.statuses.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count))
    }

    /// Requests refused for this reason.
    pub fn refused_for(&self, reason: RefusalReason) -> u64 {
        self.refused[reason as usize]
    }
}

impl Scoreboard {
    /// All figures at `now`, in nanoseconds of the monotonic clock. Slots that never had a worker are not looked at: reading
    /// memory that nobody has written takes some.
    pub fn snapshot(&self, now: u64) -> Snapshot {
        let mut all = Snapshot { in_transit: self.in_transit(), ..Snapshot::default() };
        for index in 0..self.slots() {
            let slot = self.slot(index);
            if slot.pid() == 0 {
                continue;
            }
            let mut worker = SlotFigures {
                slot: index,
                pid: slot.pid(),
                requests: self.requests(index),
                connections: slot.connections(),
                waiting: slot.waiting(),
                spooled: slot.spooled(),
                beat: slot.last_beat().min(now),
                ..SlotFigures::default()
            };
            for call in self.calls(index) {
                call.counters().add_to(&mut all.sums);
                let (busy, activity) = call.busy(now);
                worker.busy_ns = worker.busy_ns.wrapping_add(busy);
                let since = match activity {
                    Activity::Idle => continue,
                    Activity::Busy { since } => {
                        worker.busy += 1;
                        since
                    }
                    Activity::Held { since } => {
                        worker.held += 1;
                        since
                    }
                };
                worker.oldest = Some(worker.oldest.map_or(since, |other| other.min(since)).min(now));
            }
            slot.add_refused(&mut all.refused);
            slot.add_records(&mut all.records);
            for (sum, count) in [
                (&mut all.exceptions, slot.exceptions()),
                (&mut all.interrupted, slot.interrupted()),
                (&mut all.given_up, slot.given_up()),
                (&mut all.lost_lines, slot.lost_lines()),
                (&mut all.accepted, slot.accepted()),
                (&mut all.failed_handshakes, slot.failed_handshakes()),
                (&mut all.handshakes, slot.handshakes()),
                (&mut all.resumed_handshakes, slot.resumed_handshakes()),
                (&mut all.handed_over, slot.handed_over()),
            ] {
                *sum = sum.wrapping_add(count);
            }
            all.workers.push(worker);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RequestFacts, StatusKey};
    use super::*;

    #[test]
    fn sums_outlive_the_workers_and_a_running_call_is_busy() {
        let board = Scoreboard::new(3, 2).unwrap();
        let facts = RequestFacts { line: b"GET / HTTP/1.1", ..RequestFacts::default() };
        for pid in [5, 6] {
            board.reset(1, pid);
            let call = board.call(1, 0);
            call.begin(&facts, 1_000);
            call.end(26_000);
            call.counters().count_answer(404, 7);
            call.counters().count_duration(25_000);
            call.counters().count_wait(2_000_000);
            call.counters().count_received(3);
            board.slot(1).count_refusal(RefusalReason::QueueFull);
            board.slot(1).count_exception();
            board.slot(1).count_accepted();
            board.slot(1).count_record(1);
        }
        board.call(1, 1).begin(&facts, 40_000);
        board.call(1, 1).lift_deadline();
        board.call(1, 0).begin(&facts, 50_000);
        let seen = board.snapshot(60_000);
        assert_eq!((seen.requests(), seen.sums.sent, seen.sums.received), (2, 14, 6));
        assert_eq!((seen.sums.durations.count(), seen.sums.durations.sum_ns, seen.sums.waits.count()), (2, 50_000, 2));
        let statuses: Vec<_> =
            seen.sums.statuses.iter().enumerate().filter(|(_, n)| **n > 0).map(|(i, n)| (StatusKey::of(i), *n)).collect();
        assert_eq!(statuses, [(StatusKey::Exact(404), 2)]);
        assert_eq!((seen.refused_for(RefusalReason::QueueFull), seen.exceptions, seen.accepted), (2, 2, 2));
        assert_eq!(seen.records, [0, 2, 0]);
        let [worker] = &seen.workers[..] else { panic!("slots without a worker: {seen:?}") };
        assert_eq!((worker.slot, worker.pid, worker.busy, worker.held, worker.requests), (1, 6, 1, 1, 2));
        assert_eq!((worker.busy_ns, worker.oldest), (50_000 + 20_000 + 10_000, Some(40_000)));
        board.end_calls(1, 70_000);
        let dead = board.snapshot(90_000);
        let [worker] = &dead.workers[..] else { panic!() };
        assert_eq!((worker.busy_ns, worker.busy, worker.held, worker.oldest), (50_000 + 30_000 + 20_000, 0, 0, None));
    }
}
