//! Servers with a door for operators.

use super::client::Address;
use super::server::{Running, Server};

/// A server for this source, with a public door at a unix socket.
pub fn server(source: &str) -> Server {
    let server = Server::source(source);
    let door = server.temp().join(DOOR);
    server.options(["--status-bind", &format!("unix:{}", door.display())])
}

/// The door of [`server`].
pub fn door(server: &Running) -> Address {
    Address::Unix(server.temp().join(DOOR))
}

const DOOR: &str = "status";
