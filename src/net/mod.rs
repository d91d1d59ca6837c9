//! Listening sockets and streams over TCP and unix sockets.

pub mod listener;
pub mod stream;
