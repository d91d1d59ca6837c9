//! Static files without I/O: which file a request means, which of its forms, which part of it, and the head of the answer.
//!
//! ```text
//! path ──▶ paths ──▶ (the worker opens the file and its compressed forms) ──▶ coding ──▶ conditions, range ──▶ head
//! ```
//! Nothing here opens a file or asks a clock: names, sizes and times are arguments. `worker::files` has the system calls.

pub mod cache;
pub mod coding;
pub mod conditions;
pub mod head;
pub mod media;
pub mod paths;
pub mod range;
pub mod validator;
