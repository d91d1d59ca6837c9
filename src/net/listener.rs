//! Binding the addresses of the settings, and accepting.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use crate::config::Settings;

use super::stream::{PeerAddr, Stream};

/// A listening socket, non-blocking, close-on-exec. Made by the master, inherited by the workers.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: Address,
}

/// Where a listener is bound, as bound (port 0 resolved).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(std::net::SocketAddr),
    /// A unix socket's path.
    Unix(std::path::PathBuf),
}

impl fmt::Display for Address {
    /// `http://127.0.0.1:8000`, `http://[::1]:8000`, `unix:/run/x.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f;
        todo!()
    }
}

/// A bind that failed. `Display`: `cannot listen on 127.0.0.1:80: permission denied; ...what to do`.
#[derive(Debug)]
pub struct BindError(pub String);

/// Binds every address of the settings, or none. Stale unix sockets are replaced only when nobody listens on them.
pub fn bind_all(settings: &Settings) -> Result<Vec<Listener>, BindError> {
    let _ = settings;
    todo!()
}

impl Listener {
    /// Where it is bound.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts one connection (accept4 with SOCK_NONBLOCK and SOCK_CLOEXEC).
    pub fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        let _ = &self.fd;
        todo!()
    }
}
