//! The figures of this server: what the master knows, what the workers publish, and what the system says, as one document.

use std::time::Duration;

use crate::master::event::{Life, SlotIndex};
use crate::master::memory;
use crate::master::table::Child;
use crate::net::listener::Listener;
use crate::scoreboard::{Call, InFlight, WAIT_BOUNDS_MS};
use crate::status::metrics::BOUNDS_S;
use crate::status::{
    Capacity, Change, ConnectionFigures, Detail, Document, LineParts, ListenerFigures, QueueFigures, RequestFigures,
    RunningRequest, SCHEMA, ServerFigures, Times, WorkerFigures, WorkerState,
};
use crate::sys::process;
use crate::sys::time::{self, Wall};

use super::Server;

/// Requests that a document lists at most, the oldest: what more run is in the counts.
const LISTED_MAX: usize = 256;

/// Milliseconds in a second.
const MS_PER_S: f64 = 1000.0;

impl Server {
    /// All figures, with as much of the requests as may be shown. It takes some microseconds for each worker.
    pub(super) fn document(&self, detail: Detail) -> Document {
        let (wall, now) = (time::wall(), time::monotonic());
        let running = self.running(now);
        let workers: Vec<WorkerFigures> =
            self.table.living_ones().filter_map(|(slot, child)| self.worker(slot, child, now)).collect();
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
                busy_thread_s: 0.0,
                oldest_request_s: from_ns(oldest),
            },
            queue: self.queue_figures(),
            connections: ConnectionFigures {
                open: workers.iter().map(|worker| worker.connections).sum(),
                accepted: 0,
                lent: self.sum(|slot| self.scoreboard.slot(slot).handed_over()),
            },
            listeners: self.listeners.iter().map(listener).collect(),
            requests: RequestFigures {
                total: self.sum(|slot| self.scoreboard.requests(slot)),
                duration: Times::new(BOUNDS_S, &[], 0.0),
                ..RequestFigures::default()
            },
            in_flight: running
                .iter()
                .take(LISTED_MAX)
                .map(|(slot, thread, call)| shown(*slot, *thread, call, now, detail))
                .collect(),
            workers,
            reloads: self.changes.counts(),
            last_change: self.changes.last().map(|change| self.change_shown(change, detail)),
            ..Document::default()
        }
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
            rss_bytes: memory::resident(process::Pid::this()).unwrap_or(0),
        }
    }

    /// Workers wanted, none while an operator has stopped them.
    fn wanted_now(&self) -> usize {
        let (wanted, stopped) = self.supervisor.wanted();
        if stopped { 0 } else { wanted }
    }

    fn queue_figures(&self) -> QueueFigures {
        let mut counts = [0; WAIT_BOUNDS_MS.len() + 1];
        for slot in self.used_slots() {
            for (count, more) in counts.iter_mut().zip(self.scoreboard.slot(slot).waits()) {
                *count += more;
            }
        }
        QueueFigures {
            lent: self.scoreboard.in_transit(),
            limit: self.generations.current().settings.max_queue as u64,
            waited: Times::new(WAIT_BOUNDS_MS.iter().map(|ms| *ms as f64 / MS_PER_S), &counts, 0.0),
            ..QueueFigures::default()
        }
    }

    fn worker(&self, slot: SlotIndex, child: &Child, now: u64) -> Option<WorkerFigures> {
        let life = self.supervisor.life(slot, self.pace.now())?;
        let state = match life.life {
            Life::Booting { .. } => WorkerState::Booting,
            Life::Ready { .. } => WorkerState::Ready,
            Life::Leaving { .. } | Life::Ending { .. } => WorkerState::Draining,
        };
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
            rss_bytes: memory::resident(child.pid).unwrap_or(0),
            cpu_s: 0.0,
            cpu_wait_s: None,
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

    /// Slots that ever had a worker. The calls of others are not touched: a look at them would be memory for them.
    fn used_slots(&self) -> impl Iterator<Item = usize> {
        (0..self.scoreboard.slots()).filter(|slot| self.scoreboard.slot(*slot).pid() != 0)
    }

    fn sum(&self, figure: impl Fn(usize) -> u64) -> u64 {
        self.used_slots().map(figure).fold(0, u64::wrapping_add)
    }
}

fn listener(listener: &Listener) -> ListenerFigures {
    let (address, protocol) = (listener.address().to_string(), listener.protocol().name().to_owned());
    ListenerFigures { address, protocol, backlog: None, backlog_limit: None }
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
