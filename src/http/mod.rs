//! HTTP/1.1 and HTTP/1.0 without I/O (RFC 9110, RFC 9112): bytes in, facts out; facts in, bytes out.
//!
//! Nothing here reads a socket, a clock or the configuration; limits and dates are arguments. A caller parses a [`head::Head`],
//! gets its consequences from [`framing::of`], feeds the body through a [`body::Decoder`], and renders the answer with a
//! [`response::Encoder`].

pub mod body;
pub mod bytes;
pub mod chunked;
#[cfg(test)]
mod cuts;
pub mod date;
pub mod error;
pub mod forwarded;
pub mod framing;
pub mod hash;
pub mod head;
pub mod header_cache;
pub mod loose;
pub mod once;
pub mod packets;
pub mod page;
pub mod places;
mod progress;
pub mod records;
pub mod request_id;
pub mod response;
pub mod target;
pub mod terms;
