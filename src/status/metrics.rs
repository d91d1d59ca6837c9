//! The document as metrics, in Prometheus' text format and as OpenMetrics 1.0.
//!
//! Dashboards and alerts are built on the names: one that is here stays, with its labels. Base units, `_total` on counters alone,
//! every value of a label from the start (else `increase()` misses the first event), and no label that clients could multiply: no
//! path, no method, no process id.

use std::fmt::{Display, Write};

use super::document::{Document, WorkerFigures, WorkerState};
use super::times::Times;

/// Upper bounds of the buckets that go out, in seconds: those of OpenTelemetry's HTTP histograms, continued at both ends. Each is
/// a bound of the finer classes of [`Times`] too, so that the counts are exact.
pub const BOUNDS_S: [f64; 22] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    25.0, 50.0, 100.0,
];

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// Prometheus' text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// What a scraper with this Accept field understands best: OpenMetrics if it names it without refusing it.
    pub fn accepted(accept: &str) -> Self {
        let named = accept.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let wanted = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            wanted && !parts.any(|part| matches!(part.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        });
        if named { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Value of Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MetricKind {
    Counter,
    Gauge,
    Info,
    Histogram,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// A figure of a worker, taken at a time in seconds since the epoch.
type WorkerFigure = fn(&WorkerFigures, f64) -> Option<f64>;

/// The metrics being written.
struct Exposition {
    format: MetricsFormat,
    out: String,
}

/// Renders all metrics.
pub fn render(document: &Document, format: MetricsFormat) -> String {
    let mut page = Exposition { format, out: String::with_capacity(16 * 1024) };
    server(&mut page, document);
    work(&mut page, document);
    requests(&mut page, document);
    workers(&mut page, document);
    master(&mut page, document);
    if format == MetricsFormat::OpenMetrics {
        page.out.push_str("# EOF\n");
    }
    page.out
}

fn server(page: &mut Exposition, document: &Document) {
    let server = &document.server;
    page.family("tapster_build", MetricKind::Info, "The program and its interpreter.");
    page.sample("tapster_build_info", &[("version", &server.version), ("python", &server.python)], 1);
    page.one("tapster_start_time_seconds", MetricKind::Gauge, "When the server was started, since the epoch.", server.started_s);
    page.one("tapster_generation", MetricKind::Gauge, "Reloads that came to serve, and one.", server.generation);
    page.family("tapster_reloads_total", MetricKind::Counter, "Reloads and upgrades that came to their end.");
    page.sample("tapster_reloads_total", &[("result", "ok")], document.reloads.ok);
    page.sample("tapster_reloads_total", &[("result", "failed")], document.reloads.failed);
    page.family("tapster_workers", MetricKind::Gauge, "Worker processes.");
    for (name, state) in [("booting", WorkerState::Booting), ("ready", WorkerState::Ready), ("draining", WorkerState::Draining)] {
        let count = document.workers.iter().filter(|worker| worker.state == state).count();
        page.sample("tapster_workers", &[("state", name)], count);
    }
    page.one(
        "tapster_workers_wanted",
        MetricKind::Gauge,
        "Worker processes that should be ready.",
        document.capacity.workers_wanted,
    );
    page.family("tapster_worker_exits_total", MetricKind::Counter, "Workers that have ended, by cause.");
    for (cause, count) in &document.worker_exits {
        page.sample("tapster_worker_exits_total", &[("cause", cause.name())], count);
    }
}

fn work(page: &mut Exposition, document: &Document) {
    let (capacity, queue) = (&document.capacity, &document.queue);
    page.family("tapster_threads", MetricKind::Gauge, "Requests that the workers can have in the application at once.");
    let (busy, held) = (capacity.threads_busy.saturating_sub(capacity.threads_held), capacity.threads_held);
    let idle = capacity.threads.saturating_sub(capacity.threads_busy);
    for (state, count) in [("busy", busy), ("idle", idle), ("held", held)] {
        page.sample("tapster_threads", &[("state", state)], count);
    }
    let help = "Time that threads were in the application, calls that run included; its rate over tapster_threads is the load.";
    page.one("tapster_thread_busy_seconds_total", MetricKind::Counter, help, capacity.busy_thread_s);
    let help = "Age of the oldest request in the application, 0 without one.";
    page.one("tapster_oldest_request_seconds", MetricKind::Gauge, help, capacity.oldest_request_s);
    page.one("tapster_requests_waiting", MetricKind::Gauge, "Complete requests that wait for a thread.", queue.waiting);
    page.one("tapster_requests_waited_total", MetricKind::Counter, "Requests that had to wait for a thread.", queue.waited.count);
    page.histogram("tapster_queue_duration_seconds", "Time that requests waited for a thread, of those that did.", &queue.waited);
    page.one("tapster_connections_open", MetricKind::Gauge, "Connections of clients.", document.connections.open);
    let help = "Connections of clients that were accepted.";
    page.one("tapster_connections_accepted_total", MetricKind::Counter, help, document.connections.accepted);
    let help = "Connections of clients whose handshake of TLS has failed.";
    page.one("tapster_tls_handshakes_failed_total", MetricKind::Counter, help, document.connections.failed_handshakes);
    let help = "Connections of clients whose handshake of TLS was done.";
    page.one("tapster_tls_handshakes_total", MetricKind::Counter, help, document.connections.handshakes);
    let help = "Those of tapster_tls_handshakes_total that resumed an earlier session, which costs a fraction of a new one.";
    page.one("tapster_tls_handshakes_resumed_total", MetricKind::Counter, help, document.connections.resumed_handshakes);
    let help = "Connections that one worker gave to another one, which had a free thread.";
    page.one("tapster_connections_lent_total", MetricKind::Counter, help, document.connections.lent);
    let name = "tapster_tls_certificate_expiry_time_seconds";
    page.family(name, MetricKind::Gauge, "When a certificate of the server expires, since the epoch.");
    for (index, certificate) in document.certificates.iter().enumerate() {
        let host = certificate.names.first().map_or("", String::as_str);
        page.sample(name, &[("certificate", &index.to_string()), ("host", host)], certificate.expires_s);
    }
    page.family("tapster_listener_backlog", MetricKind::Gauge, "Connections that wait to be accepted.");
    for listener in &document.listeners {
        if let Some(backlog) = listener.backlog {
            page.sample("tapster_listener_backlog", &[("address", &listener.address)], backlog);
        }
    }
    page.family("tapster_listener_backlog_limit", MetricKind::Gauge, "Connections that may wait to be accepted.");
    for listener in &document.listeners {
        if let Some(limit) = listener.backlog_limit {
            page.sample("tapster_listener_backlog_limit", &[("address", &listener.address)], limit);
        }
    }
}

fn requests(page: &mut Exposition, document: &Document) {
    let requests = &document.requests;
    page.family("tapster_http_requests_total", MetricKind::Counter, "Requests that were answered, by status.");
    for (code, count) in &requests.by_status {
        page.sample("tapster_http_requests_total", &[("code", code)], count);
    }
    page.histogram("tapster_http_request_duration_seconds", "Time of requests in the application.", &requests.duration);
    let help = "Bytes of request bodies.";
    page.one("tapster_http_request_body_bytes_total", MetricKind::Counter, help, requests.bytes_received);
    let help = "Bytes of the bodies of answers.";
    page.one("tapster_http_response_body_bytes_total", MetricKind::Counter, help, requests.bytes_sent);
    page.family("tapster_refused_requests_total", MetricKind::Counter, "Requests that were refused, by reason.");
    for (reason, count) in &document.queue.refused {
        page.sample("tapster_refused_requests_total", &[("reason", reason)], count);
    }
    let help = "Calls that met --timeout: the exception was raised in them, or they were answered 504 without it.";
    page.family("tapster_request_timeouts_total", MetricKind::Counter, help);
    page.sample("tapster_request_timeouts_total", &[("stage", "raised")], requests.timeouts.raised);
    page.sample("tapster_request_timeouts_total", &[("stage", "answered")], requests.timeouts.answered);
    let help = "Exceptions that came out of the application.";
    page.one("tapster_app_exceptions_total", MetricKind::Counter, help, requests.app_exceptions);
}

fn workers(page: &mut Exposition, document: &Document) {
    let each: [(&str, MetricKind, &str, WorkerFigure); 6] = [
        ("tapster_worker_requests_total", MetricKind::Counter, "Requests answered in the slot of a worker.", |worker, _| {
            Some(worker.requests as f64)
        }),
        ("tapster_worker_cpu_seconds_total", MetricKind::Counter, "Processor time of the workers of a slot.", |worker, _| {
            Some(worker.cpu_s)
        }),
        (
            "tapster_worker_cpu_wait_seconds_total",
            MetricKind::Counter,
            "Time that the workers of a slot were ready to run and had no processor.",
            |worker, _| worker.cpu_wait_s,
        ),
        ("tapster_worker_resident_memory_bytes", MetricKind::Gauge, "Resident memory of a worker.", |worker, _| {
            Some(worker.rss_bytes as f64)
        }),
        ("tapster_worker_threads_busy", MetricKind::Gauge, "Requests that a worker has in the application.", |worker, _| {
            Some(worker.threads_busy as f64)
        }),
        ("tapster_worker_start_time_seconds", MetricKind::Gauge, "When a worker was forked, since the epoch.", |worker, now| {
            Some(now - worker.age_s)
        }),
    ];
    for (name, kind, help, figure) in each {
        page.family(name, kind, help);
        for worker in &document.workers {
            if let Some(value) = figure(worker, document.now_s) {
                page.sample(name, &[("worker", &worker.worker.to_string())], value);
            }
        }
    }
}

fn master(page: &mut Exposition, document: &Document) {
    let (server, master) = (&document.server, &document.master);
    page.family("tapster_log_records_total", MetricKind::Counter, "Records of the error log, by severity.");
    for (severity, count) in document.log_records.each() {
        page.sample("tapster_log_records_total", &[("severity", severity)], count);
    }
    let help = "Records of the master's log that were lost because nobody took them.";
    page.one("tapster_log_records_lost_total", MetricKind::Counter, help, master.log_records_lost);
    page.one("process_cpu_seconds_total", MetricKind::Counter, "Processor time of the master.", master.cpu_s);
    page.one("process_resident_memory_bytes", MetricKind::Gauge, "Resident memory of the master.", server.rss_bytes);
    page.one("process_open_fds", MetricKind::Gauge, "Open descriptors of the master.", master.open_fds);
    page.one("process_max_fds", MetricKind::Gauge, "Most descriptors that the master may open.", master.max_fds);
    page.one("process_start_time_seconds", MetricKind::Gauge, "When the master was started, since the epoch.", server.started_s);
}

impl Exposition {
    /// The lines about a metric, before its samples.
    fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        let open = self.format == MetricsFormat::OpenMetrics;
        let word = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Info if open => "info",
            MetricKind::Gauge | MetricKind::Info => "gauge",
            MetricKind::Histogram => "histogram",
        };
        // OpenMetrics names the family, Prometheus the samples.
        let name = match kind {
            MetricKind::Counter if open => name.trim_end_matches("_total").to_owned(),
            MetricKind::Info if !open => format!("{name}_info"),
            MetricKind::Counter | MetricKind::Info | MetricKind::Gauge | MetricKind::Histogram => name.to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {word}\n");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.out.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for character in text.chars() {
                match character {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    character => self.out.push(character),
                }
            }
            self.out.push('"');
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A metric with one sample.
    fn one(&mut self, name: &str, kind: MetricKind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, times: &Times) {
        self.family(name, MetricKind::Histogram, help);
        let bucket = format!("{name}_bucket");
        for bound in BOUNDS_S {
            // With a decimal point always, as OpenMetrics wants it.
            self.sample(&bucket, &[("le", &format!("{bound:?}"))], times.within(bound));
        }
        self.sample(&bucket, &[("le", "+Inf")], times.count);
        self.sample(&format!("{name}_sum"), &[], times.sum_s);
        self.sample(&format!("{name}_count"), &[], times.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ExitCause, ListenerFigures};

    fn document() -> Document {
        let mut document = Document::default();
        document.server.version = "0.1.0".into();
        document.server.python = "Python \"3\"\\\n".into();
        document.requests.duration = Times::new([0.0001, 0.00025, 0.3, 1.0], &[1, 2, 4, 8, 16], 12.5);
        document.requests.by_status.insert("200".into(), 31);
        document.worker_exits = ExitCause::ALL.map(|cause| (cause, 0)).into();
        document.listeners.push(ListenerFigures { address: "127.0.0.1:80".into(), backlog: Some(3), ..Default::default() });
        document.workers.push(WorkerFigures { worker: 2, requests: 7, ..Default::default() });
        document
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let (text, open) = (render(&document(), MetricsFormat::Prometheus), render(&document(), MetricsFormat::OpenMetrics));
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(samples(&text), samples(&open));
        assert!(open.ends_with("\n# EOF\n") && text.ends_with('\n') && !text.contains("# EOF"));
        assert!(open.contains("# TYPE tapster_http_requests counter\ntapster_http_requests_total{code=\"200\"} 31\n"), "{open}");
        assert!(open.contains("# TYPE tapster_build info\n") && text.contains("# TYPE tapster_build_info gauge\n"));
        assert!(text.contains(r#"tapster_build_info{version="0.1.0",python="Python \"3\"\\\n"} 1"#), "{text}");
        assert!(text.contains("tapster_worker_exits_total{cause=\"out_of_memory\"} 0\n"));
        assert!(text.contains("tapster_listener_backlog{address=\"127.0.0.1:80\"} 3\n"));
        assert!(text.contains("tapster_worker_requests_total{worker=\"2\"} 7\n"));
    }

    #[test]
    fn a_histogram_is_cumulative_and_counts_all() {
        let text = render(&document(), MetricsFormat::Prometheus);
        let bucket = |le: &str, count: u64| {
            let line = format!("tapster_http_request_duration_seconds_bucket{{le=\"{le}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        };
        for (le, count) in [("0.0001", 1), ("0.00025", 3), ("0.25", 3), ("0.5", 7), ("1.0", 15), ("100.0", 15), ("+Inf", 31)] {
            bucket(le, count);
        }
        assert!(text.contains("tapster_http_request_duration_seconds_sum 12.5\n"));
        assert!(text.contains("tapster_http_request_duration_seconds_count 31\n"));
    }

    #[test]
    fn a_scraper_gets_what_it_accepts() {
        for (accept, format) in [
            ("", MetricsFormat::Prometheus),
            ("*/*", MetricsFormat::Prometheus),
            ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", MetricsFormat::OpenMetrics),
            ("text/plain, Application/OpenMetrics-Text; q = 0.3", MetricsFormat::OpenMetrics),
            ("application/openmetrics-text;q=0", MetricsFormat::Prometheus),
        ] {
            assert_eq!(MetricsFormat::accepted(accept), format, "{accept}");
        }
    }
}
