//! The document: every figure of a running server, as `/status.json` has it.
//!
//! Fields may be added within a version of [`SCHEMA`]; none is removed, and none changes its kind. Times are seconds, sizes are
//! bytes. Sums are of all workers since the start of the server, and never go back, whatever becomes of the workers. Figures of one
//! document may be some microseconds apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::times::Times;

/// Version of the document.
pub const SCHEMA: u32 = 1;

/// A running server in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When the figures were taken, seconds since the epoch.
    pub now_s: f64,
    /// The server as a whole.
    pub server: ServerFigures,
    /// What it could do at once, and what it does.
    pub capacity: Capacity,
    /// Requests that wait for a thread.
    pub queue: QueueFigures,
    /// Connections of clients.
    pub connections: ConnectionFigures,
    /// The listening sockets.
    pub listeners: Vec<ListenerFigures>,
    /// The certificates of the server, in the order of `--certfile`; none without TLS.
    pub certificates: Vec<CertificateFigures>,
    /// Requests that were answered.
    pub requests: RequestFigures,
    /// The workers that live, by their slot.
    pub workers: Vec<WorkerFigures>,
    /// Requests in the application, the oldest first, at most as many as the server lists.
    pub in_flight: Vec<RunningRequest>,
    /// The last workers that ended, the latest first.
    pub exits: Vec<ExitRecord>,
    /// Workers that have ended, by cause; every cause is there from the start.
    pub worker_exits: BTreeMap<ExitCause, u64>,
    /// Reloads that were done or have failed.
    pub reloads: ReloadCounts,
    /// The last reload or upgrade that came to its end.
    pub last_change: Option<Change>,
    /// Records of the error log.
    pub log_records: LogRecords,
    /// The master's own process.
    pub master: MasterFigures,
}

/// The server as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerFigures {
    /// `--name`, else the application.
    pub name: String,
    /// Version of Tapster.
    pub version: String,
    /// The interpreter as the workers describe it (`Python 3.11.7`); empty until one is ready.
    pub python: String,
    /// Process id of the master.
    pub pid: u32,
    /// What it does.
    pub state: ServerState,
    /// The generation that serves; the first is 1.
    pub generation: u64,
    /// When the server was started, seconds since the epoch; an upgrade is no start.
    pub started_s: f64,
    /// How long ago that was.
    pub uptime_s: f64,
    /// Resident memory of the master.
    pub rss_bytes: u64,
}

/// What the server does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// Not every worker was ready yet.
    #[default]
    Starting,
    /// All is well.
    Serving,
    /// Fewer workers serve than wanted, because new ones fail.
    Degraded,
    /// A new generation takes over.
    Reloading,
    /// A new program takes over.
    Upgrading,
    /// No worker is ready: an operator has stopped them, or the last ones fail.
    Paused,
    /// It ends.
    Stopping,
}

/// What can be done at once, and what is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// Workers wanted.
    pub workers_wanted: u64,
    /// Workers that serve.
    pub workers_ready: u64,
    /// Requests that the living workers can have in the application at once.
    pub threads: u64,
    /// Those that they have.
    pub threads_busy: u64,
    /// Of these, the ones whose application has taken over the connection (WebSocket) and keeps it.
    pub threads_held: u64,
    /// Time that threads were in the application, calls that run included.
    pub busy_thread_s: f64,
    /// Age of the oldest request in the application; 0 without one.
    pub oldest_request_s: f64,
}

/// Requests that wait for a thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueFigures {
    /// Complete requests that wait now.
    pub waiting: u64,
    /// Connections that were given away by one worker and not taken over by another yet.
    pub lent: u64,
    /// `--max-queue`: most that may wait in one worker.
    pub limit: u64,
    /// Those that had to wait, by how long.
    pub waited: Times,
    /// Requests that were refused, by reason; every reason is there from the start.
    pub refused: Refusals,
}

/// Requests refused, by reason.
pub type Refusals = BTreeMap<String, u64>;

/// Connections of clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionFigures {
    /// Open now.
    pub open: u64,
    /// Accepted.
    pub accepted: u64,
    /// Of those, closed because their handshake of TLS had failed.
    pub failed_handshakes: u64,
    /// Those whose handshake of TLS was done.
    pub handshakes: u64,
    /// Of these, those that resumed an earlier session.
    pub resumed_handshakes: u64,
    /// Given away by one worker to another one.
    pub lent: u64,
}

/// A listening socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerFigures {
    /// Where it is bound: `127.0.0.1:8000`, `unix:/run/x.sock`.
    pub address: String,
    /// What is spoken there: `http`, `https`, or the protocol of a gateway.
    pub protocol: String,
    /// Connections that wait to be accepted; `None` where the system does not say.
    pub backlog: Option<u64>,
    /// How many may wait; `None` where the system does not say.
    pub backlog_limit: Option<u64>,
}

/// Requests that were answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestFigures {
    /// All of them.
    pub total: u64,
    /// By exact status (`200`), or by class (`2xx`) for the rare rest.
    pub by_status: BTreeMap<String, u64>,
    /// Bytes of request bodies.
    pub bytes_received: u64,
    /// Bytes of the bodies of answers.
    pub bytes_sent: u64,
    /// Time in the application.
    pub duration: Times,
    /// Exceptions that came out of the application.
    pub app_exceptions: u64,
    /// `--timeout`.
    pub timeouts: TimeoutCounts,
}

/// Calls that met `--timeout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeoutCounts {
    /// The exception was raised in them.
    pub raised: u64,
    /// Their clients were answered without them.
    pub answered: u64,
}

/// A worker that lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerFigures {
    /// Its slot.
    pub worker: u64,
    /// Process id.
    pub pid: u32,
    /// Which generation it belongs to.
    pub generation: u64,
    /// How far it is.
    pub state: WorkerState,
    /// Since its fork.
    pub age_s: f64,
    /// Requests that it can have in the application at once.
    pub threads: u64,
    /// Those that it has.
    pub threads_busy: u64,
    /// Requests answered in its slot since the start of the server: its successor goes on counting.
    pub requests: u64,
    /// Its open connections.
    pub connections: u64,
    /// Its resident memory.
    pub rss_bytes: u64,
    /// Processor time of the workers of its slot since the start of the server.
    pub cpu_s: f64,
    /// Time that it was ready to run and no processor was free, counted as `cpu_s`; `None` where the system does not say.
    pub cpu_wait_s: Option<f64>,
    /// How long ago its loop last began an iteration; `None` before the first one. A worker without work sleeps.
    pub beat_age_s: Option<f64>,
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It loads.
    #[default]
    Booting,
    /// It serves.
    Ready,
    /// It leaves.
    Draining,
}

/// A request in the application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunningRequest {
    /// The slot of its worker.
    pub worker: u64,
    /// The thread's number in it.
    pub thread: u64,
    /// Method.
    pub method: String,
    /// Path, cut where the flight recorder cuts the request line.
    pub path: String,
    /// How long it is there.
    pub age_s: f64,
    /// Whether its application has taken over the connection and keeps it.
    pub held: bool,
    /// Query; only where details are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Address of the client; only where details are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Its X-Request-ID; only where details are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A worker that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitRecord {
    /// When, seconds since the epoch.
    pub at_s: f64,
    /// Its slot.
    pub worker: u64,
    /// Its process id.
    pub pid: u32,
    /// Why.
    pub cause: ExitCause,
    /// The same in words, if there is more to say.
    pub detail: Option<String>,
    /// What it had in the application: `GET /report for 31.2 s`, with query, client and id where details are shown.
    pub requests: Vec<String>,
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// It could not boot.
    BootFailed,
    /// A signal that a fault of the program makes ended it (SIGSEGV, SIGABRT, ...).
    Crashed,
    /// Somebody sent SIGTERM to it.
    Dismissed,
    /// It ended by itself.
    #[default]
    Exited,
    /// Somebody sent SIGKILL to it.
    Killed,
    /// `--max-worker-age`.
    MaxAge,
    /// `--max-requests`.
    MaxRequests,
    /// `--max-worker-rss`.
    MaxRss,
    /// The kernel killed it because memory ran out.
    OutOfMemory,
    /// A new generation took its place.
    Reload,
    /// Fewer workers were wanted.
    Scale,
    /// The server stopped.
    Stop,
    /// It made no progress.
    Timeout,
    /// A new program took its place.
    Upgrade,
}

impl ExitCause {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 14] = [
        Self::BootFailed,
        Self::Crashed,
        Self::Dismissed,
        Self::Exited,
        Self::Killed,
        Self::MaxAge,
        Self::MaxRequests,
        Self::MaxRss,
        Self::OutOfMemory,
        Self::Reload,
        Self::Scale,
        Self::Stop,
        Self::Timeout,
        Self::Upgrade,
    ];

    /// Its name in documents and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::BootFailed => "boot_failed",
            Self::Crashed => "crashed",
            Self::Dismissed => "dismissed",
            Self::Exited => "exited",
            Self::Killed => "killed",
            Self::MaxAge => "max_age",
            Self::MaxRequests => "max_requests",
            Self::MaxRss => "max_rss",
            Self::OutOfMemory => "out_of_memory",
            Self::Reload => "reload",
            Self::Scale => "scale",
            Self::Stop => "stop",
            Self::Timeout => "timeout",
            Self::Upgrade => "upgrade",
        }
    }
}

/// A certificate of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateFigures {
    /// The hosts that it is for.
    pub names: Vec<String>,
    /// When it expires, seconds since the epoch.
    pub expires_s: u64,
    /// Its file; only where details are shown.
    pub file: Option<String>,
}

/// Reloads, upgrades included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReloadCounts {
    /// Done.
    pub ok: u64,
    /// Failed: the generation before serves on.
    pub failed: u64,
}

/// A reload or an upgrade that came to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which of the two.
    pub kind: ChangeKind,
    /// The generation that was to serve; 0 where a new program was refused before it began one.
    pub generation: u64,
    /// When it ended, seconds since the epoch.
    pub at_s: f64,
    /// Whether it was done.
    pub ok: bool,
    /// Why not. The end of a traceback may follow on more lines; only where details are shown.
    pub error: Option<String>,
}

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Configuration and application.
    Reload,
    /// The program.
    Upgrade,
}

/// Records of the error log, of master and workers, by their severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogRecords {
    /// What an operator should look at.
    pub warning: u64,
    /// What failed.
    pub error: u64,
    /// What stops the service.
    pub critical: u64,
}

impl LogRecords {
    /// Each severity with its name.
    pub fn each(&self) -> [(&'static str, u64); 3] {
        [("warning", self.warning), ("error", self.error), ("critical", self.critical)]
    }
}

/// The master's own process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MasterFigures {
    /// Processor time.
    pub cpu_s: f64,
    /// Open descriptors.
    pub open_fds: u64,
    /// Most that it may open.
    pub max_fds: u64,
    /// Lines of the logs, those of the workers too, that were lost because nobody took them.
    pub log_records_lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_name_once_and_in_order() {
        for cause in ExitCause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
        }
        assert!(ExitCause::ALL.windows(2).all(|two| two[0] < two[1] && two[0].name() < two[1].name()));
    }

    #[test]
    fn a_document_of_another_release_is_read_as_far_as_it_is_known() {
        let text = r#"{"schema":1,"server":{"name":"x","later":1},"later":[]}"#;
        let document: Document = serde_json::from_str(text).unwrap();
        assert_eq!((document.server.name.as_str(), document.workers.len()), ("x", 0));
    }
}
