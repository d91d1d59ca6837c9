//! The life of a worker: boot (interpreter, application), say ready, serve, drain, leave.

pub mod app;
