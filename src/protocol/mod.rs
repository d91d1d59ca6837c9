//! What front servers speak besides HTTP, without I/O: bytes in, facts out.

pub mod proxy;
