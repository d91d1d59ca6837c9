//! The figures for statsd: what has come since the last time, under gunicorn's names, as datagrams.
//!
//! gunicorn sends three datagrams for each request. Here a class of times is one line with the share that statsd calls its sample
//! rate (`:4.2|ms|@0.01` stands for 100 requests of 4.2 ms), so dashboards stay as they are.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::document::{Document, ExitCause, LogRecords};

/// Most bytes of a datagram, which a frame of Ethernet takes whole: statsd's own advice for networks within a site.
const DATAGRAM_MAX: usize = 1432;

/// Sums that were sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SentSums {
    requests: u64,
    statuses: BTreeMap<String, u64>,
    exceptions: u64,
    #[serde(default)]
    records: LogRecords,
    exits: BTreeMap<ExitCause, u64>,
    times: Vec<u64>,
}

impl SentSums {
    /// Those of these figures.
    pub fn of(document: &Document) -> Self {
        Self {
            requests: document.requests.total,
            statuses: document.requests.by_status.clone(),
            exceptions: document.requests.app_exceptions,
            records: document.log_records,
            exits: document.worker_exits.clone(),
            times: document.requests.duration.buckets.clone(),
        }
    }
}

/// What lines are called, and which there are.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    /// In front of each name.
    pub prefix: &'a str,
    /// Tags of DogStatsD; may be empty.
    pub tags: &'a str,
    /// Whether the backlog is one of them.
    pub backlog: bool,
}

/// The datagrams that say what has come since `before`, each of whole lines.
pub fn datagrams(document: &Document, before: &SentSums, naming: Naming<'_>) -> Vec<String> {
    let mut datagrams: Vec<String> = Vec::new();
    let mut put = |name: &str, value: &str| {
        let mut line = format!("{}{name}:{value}", naming.prefix);
        if !naming.tags.is_empty() {
            line += "|#";
            line += naming.tags;
        }
        match datagrams.last_mut() {
            Some(last) if last.len() + 1 + line.len() <= DATAGRAM_MAX => {
                last.push('\n');
                last.push_str(&line);
            }
            _ => datagrams.push(line),
        }
    };
    let count = |put: &mut dyn FnMut(&str, &str), name: &str, now: u64, then: u64| {
        if let Some(more @ 1..) = now.checked_sub(then) {
            put(name, &format!("{more}|c"));
        }
    };
    let requests = &document.requests;
    count(&mut put, "gunicorn.requests", requests.total, before.requests);
    for (status, now) in &requests.by_status {
        count(&mut put, &format!("gunicorn.request.status.{status}"), *now, before.statuses.get(status).copied().unwrap_or(0));
    }
    count(&mut put, "gunicorn.log.exception", requests.app_exceptions, before.exceptions);
    for ((severity, now), (_, then)) in document.log_records.each().into_iter().zip(before.records.each()) {
        count(&mut put, &format!("gunicorn.log.{severity}"), now, then);
    }
    for (cause, now) in &document.worker_exits {
        let then = before.exits.get(cause).copied().unwrap_or(0);
        count(&mut put, &format!("tapster.worker.exits.{}", cause.name()), *now, then);
    }
    let gauges = [
        ("gunicorn.workers", document.capacity.workers_ready),
        ("tapster.threads.busy", document.capacity.threads_busy),
        ("tapster.requests.waiting", document.queue.waiting),
    ];
    for (name, value) in gauges {
        put(name, &format!("{value}|g"));
    }
    if naming.backlog {
        let backlog: u64 = document.listeners.iter().filter_map(|listener| listener.backlog).sum();
        put("gunicorn.backlog", &format!("{backlog}|h"));
    }
    let mut low = 0.0;
    for (index, (bound, now)) in requests.duration.bounds_s.iter().zip(&requests.duration.buckets).enumerate() {
        // The middle of the class; of the last one, which is open, its beginning.
        let middle = bound.map_or(low, |bound| (low + bound) / 2.0) * 1e3;
        low = bound.unwrap_or(low);
        match now.checked_sub(before.times.get(index).copied().unwrap_or(0)) {
            None | Some(0) => {}
            Some(more) => {
                let mut value = format!("{middle:.3}|ms");
                if more > 1 {
                    let _ = write!(value, "|@{:.12}", 1.0 / more as f64);
                }
                put("gunicorn.request.duration", &value);
            }
        }
    }
    datagrams
}

#[cfg(test)]
mod tests {
    use super::super::{RequestFigures, Times};
    use super::*;

    fn figures(total: u64, buckets: &[u64]) -> Document {
        let by_status = BTreeMap::from([("200".to_owned(), total), ("5xx".to_owned(), 1)]);
        let duration = Times::new([0.001, 0.003], buckets, 0.0);
        Document {
            requests: RequestFigures { total, by_status, duration, ..Default::default() },
            worker_exits: BTreeMap::from([(ExitCause::Crashed, 2)]),
            log_records: LogRecords { warning: 0, error: total, critical: 1 },
            ..Default::default()
        }
    }

    #[test]
    fn only_what_has_come_is_counted_and_gauges_are_always_there() {
        let naming = Naming { prefix: "shop.", tags: "env:live", backlog: true };
        let first = datagrams(&figures(4, &[1, 3, 0]), &SentSums::default(), naming);
        let expected = "shop.gunicorn.requests:4|c|#env:live\n\
                        shop.gunicorn.request.status.200:4|c|#env:live\n\
                        shop.gunicorn.request.status.5xx:1|c|#env:live\n\
                        shop.gunicorn.log.error:4|c|#env:live\n\
                        shop.gunicorn.log.critical:1|c|#env:live\n\
                        shop.tapster.worker.exits.crashed:2|c|#env:live\n\
                        shop.gunicorn.workers:0|g|#env:live\n\
                        shop.tapster.threads.busy:0|g|#env:live\n\
                        shop.tapster.requests.waiting:0|g|#env:live\n\
                        shop.gunicorn.backlog:0|h|#env:live\n\
                        shop.gunicorn.request.duration:0.500|ms|#env:live\n\
                        shop.gunicorn.request.duration:2.000|ms|@0.333333333333|#env:live";
        assert_eq!(first, [expected]);
        let naming = Naming { prefix: "", tags: "", backlog: false };
        let later = datagrams(&figures(5, &[1, 3, 1]), &SentSums::of(&figures(4, &[1, 3, 0])), naming);
        let expected = "gunicorn.requests:1|c\ngunicorn.request.status.200:1|c\ngunicorn.log.error:1|c\ngunicorn.workers:0|g\ntapster.threads.busy:0|g\n\
                        tapster.requests.waiting:0|g\ngunicorn.request.duration:3.000|ms";
        assert_eq!(later, [expected]);
    }

    #[test]
    fn each_datagram_is_small_and_has_whole_lines() {
        let bounds: Vec<f64> = (1..200).map(f64::from).collect();
        let mut document = figures(1000, &[]);
        document.requests.duration = Times::new(bounds, &[5; 200], 0.0);
        let naming = Naming { prefix: "shop.", tags: "a:b", backlog: false };
        let sent = datagrams(&document, &SentSums::default(), naming);
        assert!(sent.len() > 5 && sent.iter().all(|datagram| datagram.len() <= DATAGRAM_MAX));
        let lines: Vec<&str> = sent.iter().flat_map(|datagram| datagram.lines()).collect();
        assert!(lines.iter().all(|line| line.starts_with("shop.") && line.ends_with("|#a:b")));
        assert_eq!(lines.iter().filter(|line| line.contains("duration")).count(), 200);
    }
}
