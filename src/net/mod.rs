//! Listening sockets and streams over TCP and unix sockets.

pub mod activation;
pub mod bind;
pub mod datagram;
pub mod listener;
pub mod mend;
mod reason;
pub mod stream;
pub mod text;
mod unix;
