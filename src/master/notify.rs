//! What a service manager learns: the messages of sd_notify(3), one datagram each.
//!
//! ```text
//! start    STATUS, then EXTEND_TIMEOUT_USEC now and then while the workers boot, READY=1 with STATUS when all of them are ready
//! serving  WATCHDOG=1 at half the interval asked for, while a worker is ready
//! reload   RELOADING=1 with MONOTONIC_USEC, then READY=1 with STATUS, whether it has failed or not
//! stop     STOPPING=1 with EXTEND_TIMEOUT_USEC and STATUS
//! ```
//!
//! The variables stay in the master's environment, so that a binary that takes its place finds them; workers lose them.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::sys::process::Pid;
use crate::sys::time;

/// Variables that are for the master alone.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Longest wait for a service manager that does not read: a lost message is bad, a master that stands still is worse.
const SEND_WAIT: Duration = Duration::from_secs(1);

const NANOS_PER_MICRO: u64 = 1_000;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// The service manager that listens at NOTIFY_SOCKET; the error says why there is none although the variable is set.
    pub fn from_environment() -> Result<Self, String> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(place) if !place.is_empty() => Self::open(&place).map_err(|error| {
                format!("NOTIFY_SOCKET={}: the service manager cannot be told: {error}", place.to_string_lossy())
            }),
            _ => Ok(Self::nobody()),
        }
    }

    /// There is no service manager.
    pub fn nobody() -> Self {
        Self(None)
    }

    fn open(place: &OsString) -> io::Result<Self> {
        let address = match place.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(place)?,
            _ => return Err(io::Error::other("neither a path nor the name of an abstract socket")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_WAIT))?;
        Ok(Self(Some((socket, address))))
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.0 {
            // A service manager that is gone needs no message.
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }

    /// What the service does, in words; one line.
    pub fn status(&self, text: &str) {
        self.send(&status(text));
    }

    /// The service is ready, or has ended a reload.
    pub fn ready(&self, text: &str) {
        self.send(&format!("READY=1\n{}", status(text)));
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub fn reloading(&self, text: &str) {
        let now = time::monotonic() / NANOS_PER_MICRO;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n{}", status(text)));
    }

    /// The service stops, and may take this long for it.
    pub fn stopping(&self, at_most: Duration, text: &str) {
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n{}", at_most.as_micros(), status(text)));
    }

    /// Another process is the master from now on.
    pub fn main_pid(&self, pid: Pid) {
        self.send(&format!("MAINPID={pid}"));
    }

    /// The start (or stop, or reload) continues and may take so much longer, counted from now.
    pub fn extend(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// The service lives.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }
}

fn status(text: &str) -> String {
    format!("STATUS={}", text.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    #[test]
    fn messages_reach_sockets_with_a_path_and_abstract_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("tapster-test-{}", std::process::id());
        let places = [(path.clone().into_os_string(), SocketAddr::from_pathname(&path).unwrap()), {
            (format!("@{name}").into(), SocketAddr::from_abstract_name(&name).unwrap())
        }];
        for (place, address) in places {
            let reader = UnixDatagram::bind_addr(&address).unwrap();
            let notifier = Notifier::open(&place).unwrap();
            notifier.ready("serving\nwell");
            assert_eq!(received(&reader), "READY=1\nSTATUS=serving well");
            notifier.stopping(Duration::from_secs(2), "x");
            assert_eq!(received(&reader), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\nSTATUS=x");
            notifier.main_pid(Pid::from_raw(7));
            assert_eq!(received(&reader), "MAINPID=7");
            let before = time::monotonic() / NANOS_PER_MICRO;
            notifier.reloading("x");
            let text = received(&reader);
            let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix("\nSTATUS=x"));
            assert!(usec.unwrap_or_else(|| panic!("{text}")).parse::<u64>().unwrap() >= before);
        }
    }

    #[test]
    fn a_service_manager_that_is_gone_is_no_failure() {
        Notifier::open(&"/nonexistent/notify".into()).unwrap().alive();
        Notifier::nobody().alive();
        assert!(Notifier::open(&"vsock:2:1".into()).is_err());
    }
}
