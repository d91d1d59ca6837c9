//! The protocols of front servers besides HTTP, without I/O: bytes in, facts out.

pub mod proxy;
