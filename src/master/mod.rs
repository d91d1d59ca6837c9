//! The master: binds, forks workers, watches them, obeys signals. Pure Rust, one thread, no interpreter.
pub mod event;
pub mod supervisor;
