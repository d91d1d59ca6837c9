//! The figures of this server: what the master knows, what the workers publish, and what the system says, as one document.

use std::time::{Duration, Instant};

use crate::certificates::CertificateFacts;
use crate::log::error::COUNTED_LEVELS;
use crate::master::event::{Life, SlotIndex};
use crate::master::ledger::{CutRequest, WorkerExit};
use crate::master::table::Child;
use crate::net::listener::Listener;
use crate::scoreboard::{BOUNDS_NS, Call, Histogram, InFlight, RefusalReason, Snapshot, StatusKey};
use crate::status::{
    Capacity, CertificateFigures, Change, ConnectionFigures, Detail, Document, ExitCause, ExitRecord, LineParts, ListenerFigures,
    LogRecords, MasterFigures, QueueFigures, RequestFigures, RunningRequest, SCHEMA, ServerFigures, TimeoutCounts, Times,
    WorkerFigures, WorkerState,
};
use crate::sys::listen_queue::ListenQueue;
use crate::sys::process::Pid;
use crate::sys::time::{self, Wall};

use super::Server;

/// Requests that a document lists at most, the oldest: what more run is in the counts.
const LISTED_MAX: usize = 256;

impl Server {
    /// All figures, with as much of the requests as may be shown. It takes some microseconds for each worker.
    pub(super) fn document(&mut self, detail: Detail) -> Document {
        let (wall, now) = (time::wall(), time::monotonic());
        self.looks.refresh(self.table.living_ones().map(|(_, child)| child.pid), Instant::now());
        let board = self.scoreboard.snapshot(now);
        let busy = board.workers.iter().map(|worker| self.ledger.busy(SlotIndex(worker.slot), worker.busy_ns)).sum();
        let running = self.running(now);
        let living: Vec<SlotIndex> = self.table.living_ones().map(|(slot, _)| slot).collect();
        let workers: Vec<WorkerFigures> = living.into_iter().filter_map(|slot| self.worker(slot, now)).collect();
        let threads = workers.iter().map(|worker| worker.threads).sum();
        let oldest = running.first().map_or(0, |(_, _, call)| now.saturating_sub(call.since));
        Document {
            schema: SCHEMA,
            now_s: wall.as_secs_f64(),
            server: self.server_figures(wall),
            capacity: Capacity {
                workers_wanted: self.wanted_now() as u64,
                workers_ready: self.supervisor.ready_workers() as u64,
                threads,
                threads_busy: running.len() as u64,
                threads_held: running.iter().filter(|(.., call)| call.is_held()).count() as u64,
                busy_thread_s: from_ns(busy),
                oldest_request_s: from_ns(oldest),
            },
            queue: QueueFigures {
                waiting: board.workers.iter().map(|worker| u64::from(worker.waiting)).sum(),
                lent: board.in_transit,
                limit: self.generations.current().settings.max_queue as u64,
                waited: times(&board.sums.waits),
                refused: RefusalReason::ALL.map(|reason| (reason.name().to_owned(), board.refused_for(reason))).into(),
            },
            connections: ConnectionFigures {
                open: workers.iter().map(|worker| worker.connections).sum(),
                accepted: board.accepted,
                failed_handshakes: board.failed_handshakes,
                handshakes: board.handshakes,
                resumed_handshakes: board.resumed_handshakes,
                lent: board.handed_over,
            },
            listeners: self.listeners.iter().map(|socket| listener(socket, self.looks.queue(socket))).collect(),
            certificates: self.certificates_shown(detail),
            requests: requests(&board),
            in_flight: running
                .iter()
                .take(LISTED_MAX)
                .map(|(slot, thread, call)| shown(*slot, *thread, call, now, detail))
                .collect(),
            workers,
            exits: self.ledger.last_exits.iter().rev().map(|exit| exit_shown(exit, detail)).collect(),
            worker_exits: ExitCause::ALL.into_iter().zip(self.ledger.exits).collect(),
            reloads: self.changes.counts(),
            last_change: self.changes.last().map(|change| self.change_shown(change, detail)),
            log_records: self.records(&board),
            master: MasterFigures { log_records_lost: self.lost_records() + board.lost_lines, ..self.looks.master().clone() },
        }
    }

    fn certificates_shown(&self, detail: Detail) -> Vec<CertificateFigures> {
        let served = self.generations.current().credentials.as_ref();
        let facts = served.into_iter().flat_map(|credentials| &credentials.certificates.facts);
        let shown = |facts: &CertificateFacts| CertificateFigures {
            names: facts.names.clone(),
            expires_s: facts.valid.1,
            file: (detail == Detail::Full).then(|| facts.file.clone()),
        };
        facts.map(shown).collect()
    }

    /// Lines that the master's error logs have lost.
    pub(super) fn lost_records(&self) -> u64 {
        self.ledger.lost_before + self.generations.current().logs.own().lost_ever()
    }

    /// Records of the master's error log by their severity.
    pub(super) fn own_records(&self) -> [u64; COUNTED_LEVELS] {
        let (before, now) = (self.ledger.records_before, self.generations.current().records.get());
        std::array::from_fn(|severity| before[severity] + now[severity])
    }

    /// The same with those of the workers.
    fn records(&self, board: &Snapshot) -> LogRecords {
        let own = self.own_records();
        let [warning, error, critical] = std::array::from_fn(|severity| own[severity].wrapping_add(board.records[severity]));
        LogRecords { warning, error, critical }
    }

    /// A reason may be a traceback, with values of the application.
    fn change_shown(&self, change: &Change, detail: Detail) -> Change {
        let error = change.error.clone().filter(|_| detail == Detail::Full);
        Change { error, ..change.clone() }
    }

    fn server_figures(&self, wall: Wall) -> ServerFigures {
        ServerFigures {
            name: self.service.site().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            python: self.python.clone(),
            pid: std::process::id(),
            state: self.supervisor.state(),
            generation: self.supervisor.generations().0.0,
            started_s: self.started.as_secs_f64(),
            uptime_s: (wall.as_secs_f64() - self.started.as_secs_f64()).max(0.0),
            rss_bytes: self.looks.usage(Pid::this()).map_or(0, |usage| usage.resident),
        }
    }

    /// Workers wanted, none while an operator has stopped them.
    fn wanted_now(&self) -> usize {
        let (wanted, stopped) = self.supervisor.wanted();
        if stopped { 0 } else { wanted }
    }

    fn worker(&mut self, slot: SlotIndex, now: u64) -> Option<WorkerFigures> {
        let life = self.supervisor.life(slot, self.pace.now())?;
        let child: &Child = self.table.child(slot)?;
        let state = match life.life {
            Life::Booting { .. } => WorkerState::Booting,
            Life::Ready { .. } => WorkerState::Ready,
            Life::Leaving { .. } | Life::Ending { .. } => WorkerState::Draining,
        };
        let usage = self.looks.usage(child.pid);
        let (cpu, wait) = self.ledger.usage(slot, usage.map(|usage| (usage.cpu_ns, usage.wait_ns)));
        let row = self.scoreboard.slot(slot.0);
        let settings = &self.generations.kit(life.generation).settings;
        let age = self.pace.now().saturating_duration_since(child.born);
        let beat = Some(row.last_beat()).filter(|beat| *beat > 0);
        Some(WorkerFigures {
            worker: slot.0 as u64,
            pid: child.pid.as_raw().unsigned_abs(),
            generation: life.generation.0,
            state,
            age_s: age.as_secs_f64(),
            threads: settings.threads as u64,
            threads_busy: self.scoreboard.calls(slot.0).filter(|call| call.is_running()).count() as u64,
            requests: self.scoreboard.requests(slot.0),
            connections: row.connections().into(),
            rss_bytes: usage.map_or(0, |usage| usage.resident),
            cpu_s: from_ns(cpu),
            cpu_wait_s: Some(from_ns(wait)),
            beat_age_s: beat.map(|beat| from_ns(now.saturating_sub(beat))),
        })
    }

    /// The requests in the application: slot, thread, call; the oldest first.
    fn running(&self, now: u64) -> Vec<(usize, usize, InFlight)> {
        let mut running = Vec::new();
        for (slot, _) in self.table.living_ones() {
            let calls = self.scoreboard.calls(slot.0).map(Call::in_flight).enumerate();
            running.extend(calls.filter_map(|(thread, call)| Some((slot.0, thread, call?))));
        }
        // Who has broken into a worker may write any time.
        running.sort_by_key(|(_, _, call)| call.since.min(now));
        running
    }
}

/// What the workers have answered.
fn requests(board: &Snapshot) -> RequestFigures {
    let statuses = board.sums.statuses.iter().enumerate().filter(|(_, count)| **count > 0);
    RequestFigures {
        total: board.requests(),
        by_status: statuses.map(|(index, count)| (StatusKey::of(index).to_string(), *count)).collect(),
        bytes_received: board.sums.received,
        bytes_sent: board.sums.sent,
        duration: times(&board.sums.durations),
        app_exceptions: board.exceptions,
        timeouts: TimeoutCounts { raised: board.interrupted, answered: board.given_up },
    }
}

fn times(histogram: &Histogram) -> Times {
    Times::new(BOUNDS_NS.map(from_ns), &histogram.buckets, from_ns(histogram.sum_ns))
}

fn exit_shown(exit: &WorkerExit, detail: Detail) -> ExitRecord {
    ExitRecord {
        at_s: exit.at_s,
        worker: exit.slot as u64,
        pid: exit.pid.unsigned_abs(),
        cause: exit.cause,
        detail: exit.detail.clone(),
        requests: exit.requests.iter().map(|request| cut_request(request, detail)).collect(),
    }
}

/// A request in words: `GET /report for 31.2 s`.
fn cut_request(request: &CutRequest, detail: Detail) -> String {
    let time = Duration::from_millis(request.millis).as_secs_f64();
    let mut text = format!("{} for {time:.1} s", LineParts::of(&request.line).describe(detail));
    for (what, value) in [("from", &request.client), ("request id", &request.id)] {
        if detail == Detail::Full && !value.is_empty() {
            text += &format!(", {what} {value}");
        }
    }
    text
}

fn listener(listener: &Listener, queue: Option<ListenQueue>) -> ListenerFigures {
    let protocol = if listener.is_encrypted() { "https" } else { listener.protocol().name() };
    let (address, protocol) = (listener.address().to_string(), protocol.to_owned());
    ListenerFigures {
        address,
        protocol,
        backlog: queue.map(|queue| queue.waiting.into()),
        backlog_limit: queue.map(|queue| queue.limit.into()),
    }
}

fn shown(slot: usize, thread: usize, call: &InFlight, now: u64, detail: Detail) -> RunningRequest {
    let parts = LineParts::of(&call.line());
    let full = |text: String| (detail == Detail::Full && !text.is_empty()).then_some(text);
    RunningRequest {
        worker: slot as u64,
        thread: thread as u64,
        method: parts.method,
        path: parts.path,
        age_s: from_ns(now.saturating_sub(call.since)),
        held: call.is_held(),
        query: parts.query.and_then(full),
        client: full(call.client()),
        request_id: full(call.id()),
    }
}

fn from_ns(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times with a long tail, in seconds: those of a service with this median.
    fn tail(median: f64, count: usize) -> Vec<f64> {
        let rank = |index: usize| (index as f64 + 0.5) / count as f64;
        (0..count).map(|index| median * (rank(index) / (1.0 - rank(index))).powf(0.7)).collect()
    }

    #[test]
    fn quantiles_are_right_within_two_per_cent() {
        let board = crate::scoreboard::Scoreboard::new(1, 1).unwrap();
        board.reset(0, 1);
        for median in [0.0003, 0.004, 0.07, 1.3] {
            let before = times(&board.snapshot(0).sums.durations);
            let all = tail(median, 20_000);
            for time in &all {
                board.call(0, 0).counters().count_duration((time * 1e9) as u64);
            }
            let seen = times(&board.snapshot(0).sums.durations).since(&before).unwrap();
            for share in [0.1, 0.5, 0.9, 0.99] {
                let (right, found) = (all[(share * all.len() as f64) as usize], seen.quantile(share).unwrap());
                assert!((found / right - 1.0).abs() < 0.02, "{share} of {median}: {found}, and it is {right}");
            }
        }
    }

    #[test]
    fn the_bounds_that_go_out_are_bounds_of_the_classes() {
        let bounds: Vec<f64> = BOUNDS_NS.map(from_ns).to_vec();
        for bound in crate::status::metrics::BOUNDS_S {
            assert!(bounds.iter().any(|known| (known - bound).abs() < 1e-12), "{bound}");
        }
    }
}
