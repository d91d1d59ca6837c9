//! Tapster: a prefork WSGI server for Linux.
//!
//! The binary is a thin wrapper around [`run`]. The module map, the life of a request and of a signal are in
//! ARCHITECTURE.md; `tests/architecture.rs` enforces who may import whom.

pub mod birth;
pub mod certificates;
pub mod cgi;
pub mod channel;
pub mod cli;
pub mod config;
pub mod files;
mod gunicorn_file;
pub mod handoff;
pub mod hooks;
pub mod http;
mod launch;
pub mod log;
pub mod master;
pub mod mold;
pub mod net;
pub mod operator;
pub mod protocol;
pub mod scoreboard;
pub mod status;
pub mod sys;
pub mod tls;
mod watch;
pub mod worker;
#[cfg(feature = "python")]
pub mod wsgi;

pub use launch::{CallError, GuestTask, ServerCall, run, run_as_guest, run_bare, run_worker, serve};
pub use sys::process::follow_parent;
