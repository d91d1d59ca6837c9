//! Records for the system log: RFC 5424 headers, and the datagram socket that takes them (/dev/log).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::sys::time;

use super::stamp;
use crate::config::Level;

/// Facility "daemon" (RFC 5424 section 6.2.1).
const FACILITY: u8 = 3;

/// APP-NAME of every record.
const APP_NAME: &str = "tapster";

/// Longest HOSTNAME (RFC 5424 section 6).
const HOST_MAX: usize = 255;

/// What a record is, its MSGID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A line of the access log.
    Access,
    /// A record of the error log.
    Error,
}

/// The system log that listens at a socket. The descriptor itself is the sink's, which writes one datagram for each record.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    /// HOSTNAME, `-` when this machine has no name that the format allows.
    host: String,
}

impl Syslog {
    /// Connects a non-blocking socket: a system log that does not read must not stop the server.
    pub fn connect(path: &Path) -> io::Result<(Self, OwnedFd)> {
        let socket = unconnected()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok((Self { path: path.to_owned(), host: host() }, socket))
    }

    /// The system log at this path, for a socket that another program has connected.
    pub fn at(path: PathBuf) -> Self {
        Self { path, host: host() }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same system log through a socket of its own; one that is gone just now is connected to when it is back.
    pub fn again(&self) -> io::Result<(Self, OwnedFd)> {
        let socket = unconnected()?;
        // A write that fails tries again.
        let _ = UnixAddr::new(&self.path).and_then(|address| connect(socket.as_raw_fd(), &address));
        Ok((Self { path: self.path.clone(), host: self.host.clone() }, socket))
    }

    /// Connects the sink's socket again: a system log that was started again has another socket under the same name.
    pub fn reconnect(&self, socket: &File) -> io::Result<()> {
        Ok(connect(socket.as_raw_fd(), &UnixAddr::new(&self.path)?)?)
    }

    /// Appends the header of a record and the blank after it; the message follows. (MSG is not marked as UTF-8 by a byte order
    /// mark, which readers of the log would have to look at.)
    pub fn header(&self, out: &mut Vec<u8>, level: Level, kind: RecordKind, pid: u32) {
        out.extend_from_slice(format!("<{}>1 ", FACILITY * 8 + severity(level)).as_bytes());
        stamp::precise(out, time::wall());
        let id = match kind {
            RecordKind::Access => "access",
            RecordKind::Error => "error",
        };
        out.extend_from_slice(format!(" {} {APP_NAME} {pid} {id} - ", self.host).as_bytes());
    }
}

fn unconnected() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::Datagram, flags, None)?)
}

/// RFC 5424 section 6.2.1.
fn severity(level: Level) -> u8 {
    match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warning => 4,
        Level::Error => 3,
        Level::Critical => 2,
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let valid = !name.is_empty() && name.len() <= HOST_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    if valid { name.to_owned() } else { "-".to_owned() }
}

/// Whether the error of a write says that the socket's other end is gone, so that a new connection may help.
pub fn is_gone(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ECONNREFUSED | Errno::ENOTCONN | Errno::ECONNRESET | Errno::EDESTADDRREQ | Errno::EPIPE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn the_header_has_every_field_of_the_standard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _reader = UnixDatagram::bind(&path).unwrap();
        let (mut syslog, _socket) = Syslog::connect(&path).unwrap();
        syslog.host = "host".into();
        let mut record = Vec::new();
        syslog.header(&mut record, Level::Error, RecordKind::Error, 77);
        let text = String::from_utf8(record).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        assert_eq!(words[0], "<27>1", "{text}");
        assert_eq!(words[1].len(), "2026-11-21T10:00:00.123+00:00".len(), "{text}");
        assert_eq!(words[2..], ["host", "tapster", "77", "error", "-", ""], "{text}");
    }

    #[test]
    fn a_missing_socket_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Syslog::connect(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
