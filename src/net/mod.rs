//! Listening sockets and streams over TCP and unix sockets.

pub mod activation;
pub mod bind;
pub mod datagram;
pub mod encrypted;
pub mod listener;
pub mod mend;
pub mod peer;
mod reason;
pub mod socket;
pub mod stream;
pub mod text;
mod unix;
