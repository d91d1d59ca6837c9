//! nginx and haproxy in front of a server under test, by configurations that the test makes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::client::{Address, Client};
use super::{SOON, place, tools, wait_for};

/// Arguments that keep nginx in the foreground, before the file of its configuration. That has to say `daemon off`.
pub const NGINX: [&str; 5] = ["-p", "/", "-e", "/dev/null", "-c"];

/// The same for haproxy.
pub const HAPROXY: [&str; 2] = ["-db", "-f"];

/// Times of haproxy that no test reaches.
pub const TIMES: &str = "timeout connect 10s\n timeout client 60s\n timeout server 60s";

/// A program in front of a server, killed at the end.
pub struct Relay {
    child: Child,
    address: Address,
    _dir: TempDir,
}

impl Relay {
    /// Starts a program with the configuration that is made for its address and its directory; `None` after saying that it is missing.
    pub fn start(program: &str, arguments: &[&str], config: impl Fn(SocketAddr, &str) -> String) -> Option<Self> {
        let program = tools::tool(program)?;
        let dir = place::fresh("relay-");
        let file = dir.path().join("conf");
        // Nobody else takes a port of an address of its own.
        let own = Ipv4Addr::new(127, 5, (std::process::id() >> 8) as u8, (std::process::id() as u8).max(1));
        let address = TcpListener::bind((own, 0)).and_then(|free| free.local_addr()).expect("loopback is there");
        fs::write(&file, config(address, &dir.path().display().to_string())).expect("the temp directory is writable");
        let mut command = Command::new(program);
        command.args(arguments).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("it can be started");
        let relay = Self { child, address: Address::Tcp(address), _dir: dir };
        wait_for("the program in front to listen", SOON, || Client::try_connect(&relay.address).is_ok().then_some(()));
        Some(relay)
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
