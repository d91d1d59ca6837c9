//! What a service manager learns: the messages of sd_notify(3), one datagram each.
//!
//! ```text
//! start    STATUS, then EXTEND_TIMEOUT_USEC now and then while the workers boot, READY=1 with STATUS when all of them are ready
//! serving  WATCHDOG=1 at half the interval asked for, while a worker is ready
//! reload   RELOADING=1 with MONOTONIC_USEC, then READY=1 with STATUS, whether it has failed or not
//! stop     STOPPING=1 with EXTEND_TIMEOUT_USEC and STATUS
//! ```
//!
//! No message waits for the service manager: those that it has no room for are sent when it has read.
//!
//! The variables stay in the master's environment, so that a binary that takes its place finds them; workers lose them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::sys::process::Pid;
use crate::sys::time;

/// Variables that are for the master alone.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Most messages that wait for a service manager that does not read. The oldest ones give way: what is true now matters.
const WAITING_MAX: usize = 32;

const NANOS_PER_MICRO: u64 = 1_000;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Notifier(Option<ServiceManager>);

#[derive(Debug)]
struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Messages that it has no room for, in order.
    waiting: RefCell<VecDeque<String>>,
}

impl ServiceManager {
    /// Sends what waits, as far as there is room.
    fn send(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(message) = waiting.front() {
            let send = || self.socket.send(message.as_bytes());
            // The first time, and when it has been started again, the socket is not connected. (It is for poll(2), which cannot
            // tell otherwise whether there is room.)
            let sent = send().or_else(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Err(error),
                _ => self.socket.connect_addr(&self.address).and_then(|()| send()),
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) => drop(waiting.pop_front()),
                // A service manager that is gone needs no message.
                Err(_) => waiting.clear(),
            }
        }
    }
}

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
        socket.set_nonblocking(true)?;
        Ok(Self(Some(ServiceManager { socket, address, waiting: RefCell::default() })))
    }

    fn send(&self, message: &str) {
        let Some(manager) = &self.0 else { return };
        let mut waiting = manager.waiting.borrow_mut();
        // A sign of life that waits already says no more when it is said twice.
        waiting.retain(|earlier| earlier != message);
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(message.to_owned());
        drop(waiting);
        manager.send();
    }

    /// Sends the messages that wait, as far as there is room.
    pub fn catch_up(&self) {
        if let Some(manager) = &self.0 {
            manager.send();
        }
    }

    /// What can be written when there is room for messages that wait; `None`: none waits.
    pub fn waiting(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().filter(|manager| !manager.waiting.borrow().is_empty()).map(|manager| manager.socket.as_fd())
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
    fn a_service_manager_that_does_not_read_is_not_waited_for_and_gets_all_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let reader = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::open(&path.into_os_string()).unwrap();
        let mut sent = 0;
        while notifier.waiting().is_none() {
            notifier.status(&sent.to_string());
            sent += 1;
            assert!(sent < 100_000, "its queue has an end");
        }
        notifier.alive();
        notifier.alive();
        notifier.ready("serving");
        for number in 0..sent {
            assert_eq!(received(&reader), format!("STATUS={number}"));
            notifier.catch_up();
        }
        assert_eq!((received(&reader), received(&reader)), ("WATCHDOG=1".into(), "READY=1\nSTATUS=serving".into()));
        assert!(notifier.waiting().is_none());
        sent = 0;
        while notifier.waiting().is_none() || sent < 10_000 {
            notifier.status(&sent.to_string());
            sent += 1;
        }
        assert!(notifier.0.as_ref().unwrap().waiting.borrow().len() <= WAITING_MAX);
    }

    #[test]
    fn a_service_manager_that_is_gone_is_no_failure() {
        Notifier::open(&"/nonexistent/notify".into()).unwrap().alive();
        Notifier::nobody().alive();
        assert!(Notifier::open(&"vsock:2:1".into()).is_err());
    }
}
