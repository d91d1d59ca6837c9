//! What is told to whoever operates a server: one [`Document`] of figures, as JSON, as metrics, as a page, as text for a terminal.
//!
//! Figures in, bytes out. Nothing here knows where the figures come from or how the bytes are sent: the master fills the document
//! (`master::server::figures`) and serves it (`master::status`), and the commands read it back (`operator`).

mod document;
pub mod metrics;
pub mod page;
mod request_line;
pub mod screen;
pub mod statsd;
mod times;

pub use document::{
    Capacity, CertificateFigures, Change, ChangeKind, ConnectionFigures, Document, ExitCause, ExitRecord, ListenerFigures,
    LogRecords, MasterFigures, QueueFigures, Refusals, ReloadCounts, RequestFigures, RunningRequest, SCHEMA, ServerFigures,
    ServerState, TimeoutCounts, WorkerFigures, WorkerState,
};
pub use request_line::{Detail, LineParts};
pub use times::Times;
