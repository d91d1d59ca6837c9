//! The messages between the master and a worker: one SOCK_SEQPACKET socketpair per worker, one message a packet.
//!
//! A packet is a kind byte followed by the payload. Workers do not answer orders; a closed channel means that the other side is
//! gone.
//!
//! A worker may have been broken into, so its packets are input like any other: each is checked alone when it is decoded, and
//! [`Conduct`] checks it against the earlier ones.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;

mod breakage;
mod conduct;
mod ends;

pub use breakage::Breakage;
pub use conduct::{Breach, Conduct, DISMISSALS_MAX, REPORTS_MAX, SOURCES_MAX};
pub use ends::{Heard, MasterEnd, WorkerEnd, pair};

/// The signal that a worker gets from the kernel when the master dies, besides the end of its channel. It takes it for an order to
/// leave.
pub const MASTER_DIED: Signal = Signal::SIGTERM;

/// The same for a mold, which has nothing to finish.
pub const MASTER_OF_MOLD_DIED: Signal = Signal::SIGKILL;

/// From a worker to the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The application is loaded and the loop runs; the text describes the interpreter (`Python 3.11.7`).
    Ready(String),
    /// The worker cannot boot.
    BootFailed(BootError),
    /// The worker has stopped accepting and finishes what it has.
    Draining,
    /// The worker has served as many requests as it may, and serves on until it gets the order to leave.
    Worn,
    /// The application leaves the worker no descriptor for connections. It serves on until it gets the order to leave.
    Starved,
    /// Somebody sent SIGTERM to the worker, which serves on until it gets the order to leave.
    Dismissed,
    /// A request does not end within its time; its client was answered without it. The worker serves on until it gets the order
    /// to leave.
    Stuck,
    /// The worker cannot continue, and ends; the text says why. Nothing follows.
    Failed(String),
    /// Directories that the application was loaded from, for `--reload`: `c` (of modules) or `t` (of templates) and an absolute path
    /// each, separated by NUL; `f` alone says that it could not be loaded. It may come several times, with more each time.
    Sources(String),
    /// The worker has only such requests left and cannot leave because of them: the master must end it.
    Stranded,
}

/// Why a worker cannot boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootError {
    /// Whether the application could not be loaded (exit code 4) or the worker itself failed (exit code 3).
    pub app: bool,
    /// What, where, why, with the application's traceback; many lines.
    pub text: String,
}

/// From the master to a worker, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Look at the clock: shows that the loop runs.
    Ping,
    /// Leave; others listen on the same sockets: stop accepting, answer what was accepted, hand the connections over, leave.
    Retire,
    /// As [`Order::Retire`], but nobody is there to take connections over.
    Vacate,
    /// The service ends: accept what still waits, answer it, leave.
    Drain,
    /// Quick: finish the request that runs, leave.
    Quit,
}

/// Version of the packets. It changes when one is added or gets another meaning: after an upgrade workers of one program exchange
/// packets with a master of the other.
pub const PROTOCOL: u32 = 6;

/// Which log a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogName {
    /// The error log.
    Error,
    /// The access log.
    Access,
}

/// A message of the master to a worker.
#[derive(Debug)]
pub enum Message {
    /// Something to do.
    Order(Order),
    /// Logs that were reopened, to be written from now on.
    Logs(Vec<(LogName, OwnedFd)>),
    /// The code that was saved last cannot be loaded ([`Breakage::read`]).
    Breakage(OwnedFd),
    /// The number of the least severity that the error log records from now on.
    LogLevel(u8),
    /// A file for the stacks of all threads ([`STACKS_READY`]).
    Stacks(OwnedFd),
    /// Certificates, keys and secrets of TLS, to be used from now on ([`crate::certificates::unseal`]).
    Tls(OwnedFd),
}

/// Where the text of [`Message::Stacks`] begins in its file. Before it is its length in bytes, little-endian, written last: while
/// it is zero, the text is to come.
pub const STACKS_READY: u64 = size_of::<u64>() as u64;

/// Longest packet to a worker in bytes: a kind and a letter for each log.
const MESSAGE_MAX: usize = 4;

/// Largest packet in bytes: a traceback of a few hundred frames.
const PACKET_MAX: usize = 64 * 1024;

/// Longest description of an interpreter in bytes; CPython's has some twenty.
const DESCRIPTION_MAX: usize = 256;

/// Replaces the part that was cut out of a text.
const CUT: &str = "\n... (cut)\n";

impl Report {
    /// Its packet; a text that does not fit is cut in its middle.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Ready(text) => (b'R', text.as_str()),
            Self::BootFailed(BootError { app: true, text }) => (b'A', text.as_str()),
            Self::BootFailed(BootError { app: false, text }) => (b'F', text.as_str()),
            Self::Failed(text) => (b'E', text.as_str()),
            Self::Draining => (b'D', ""),
            Self::Worn => (b'W', ""),
            Self::Starved => (b'N', ""),
            Self::Dismissed => (b'T', ""),
            Self::Stuck => (b'S', ""),
            Self::Stranded => (b'X', ""),
            Self::Sources(list) => (b'P', whole_entries(list)),
        };
        let mut packet = vec![kind];
        if let Self::Ready(text) = self {
            let text: String = text.chars().filter(|character| !character.is_control()).collect();
            let end = (0..=text.len().min(DESCRIPTION_MAX)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            packet.extend_from_slice(&text.as_bytes()[..end]);
            return packet;
        }
        let room = PACKET_MAX - packet.len();
        if text.len() <= room {
            packet.extend_from_slice(text.as_bytes());
        } else {
            // The first lines say what failed, the last ones why.
            let half = (room - CUT.len()) / 2;
            let start = (0..=half).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let end = (text.len() - half..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
            packet.extend_from_slice(&text.as_bytes()[..start]);
            packet.extend_from_slice(CUT.as_bytes());
            packet.extend_from_slice(&text.as_bytes()[end..]);
        }
        packet
    }

    /// Reads a packet of a worker; `InvalidData` for anything else.
    pub fn decode(packet: &[u8]) -> io::Result<Self> {
        let (kind, text) = packet.split_first().filter(|_| packet.len() <= PACKET_MAX).ok_or_else(|| unknown(packet))?;
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            // The text becomes part of a line of the log.
            b'R' if text.len() <= DESCRIPTION_MAX && !text.contains(char::is_control) => Ok(Self::Ready(text)),
            b'A' => Ok(Self::BootFailed(BootError { app: true, text })),
            b'F' => Ok(Self::BootFailed(BootError { app: false, text })),
            b'E' => Ok(Self::Failed(text)),
            b'D' if text.is_empty() => Ok(Self::Draining),
            b'W' if text.is_empty() => Ok(Self::Worn),
            b'N' if text.is_empty() => Ok(Self::Starved),
            b'T' if text.is_empty() => Ok(Self::Dismissed),
            b'S' if text.is_empty() => Ok(Self::Stuck),
            b'X' if text.is_empty() => Ok(Self::Stranded),
            b'P' => Ok(Self::Sources(text)),
            _ => Err(unknown(packet)),
        }
    }
}

/// As many entries of a list as fit into a packet.
fn whole_entries(list: &str) -> &str {
    let most = PACKET_MAX - 1;
    if list.len() <= most {
        return list;
    }
    let end = list.as_bytes()[..most].iter().rposition(|byte| *byte == 0).unwrap_or(0);
    &list[..end]
}

impl Message {
    fn decode(packet: &[u8], mut files: Vec<OwnedFd>) -> io::Result<Self> {
        match packet.split_first() {
            Some((b'b', [])) if files.len() == 1 => Ok(Self::Breakage(files.remove(0))),
            Some((b'l', letters)) if letters.len() == files.len() => {
                let name = |letter: &u8| LogName::of(*letter).ok_or_else(|| unknown(packet));
                Ok(Self::Logs(
                    letters.iter().map(name).zip(files).map(|(name, file)| Ok((name?, file))).collect::<io::Result<_>>()?,
                ))
            }
            Some((b's', [])) if files.len() == 1 => Ok(Self::Stacks(files.remove(0))),
            Some((b't', [])) if files.len() == 1 => Ok(Self::Tls(files.remove(0))),
            Some((b'n', [level])) if files.is_empty() => Ok(Self::LogLevel(*level)),
            _ if files.is_empty() => Order::decode(packet).map(Self::Order),
            _ => Err(unknown(packet)),
        }
    }
}

impl LogName {
    fn letter(self) -> u8 {
        match self {
            Self::Error => b'e',
            Self::Access => b'a',
        }
    }

    fn of(letter: u8) -> Option<Self> {
        [Self::Error, Self::Access].into_iter().find(|name| name.letter() == letter)
    }
}

impl Order {
    fn kind(self) -> u8 {
        match self {
            Self::Ping => b'p',
            Self::Retire => b'r',
            Self::Vacate => b'v',
            Self::Drain => b'd',
            Self::Quit => b'q',
        }
    }

    fn decode(packet: &[u8]) -> io::Result<Self> {
        match packet {
            b"p" => Ok(Self::Ping),
            b"r" => Ok(Self::Retire),
            b"v" => Ok(Self::Vacate),
            b"d" => Ok(Self::Drain),
            b"q" => Ok(Self::Quit),
            _ => Err(unknown(packet)),
        }
    }
}

fn unknown(packet: &[u8]) -> io::Error {
    let start = packet[..packet.len().min(16)].escape_ascii();
    io::Error::new(io::ErrorKind::InvalidData, format!("unknown message between master and worker: {start}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_traceback_keeps_its_start_and_its_end() {
        let text = format!("cannot load x{}NameError: y", "é".repeat(PACKET_MAX));
        let packet = Report::BootFailed(BootError { app: true, text }).encode();
        let Ok(Report::BootFailed(BootError { app: true, text })) = Report::decode(&packet) else { panic!("wrong report") };
        assert!(text.len() < PACKET_MAX && text.len() > PACKET_MAX - 64);
        assert!(text.starts_with("cannot load xé"));
        assert!(text.contains("é\n... (cut)\né"));
        assert!(text.ends_with("éNameError: y"));
        assert!(!text.contains('\u{fffd}'));
    }

    #[test]
    fn a_text_that_just_fits_is_not_cut() {
        for extra in [0, 1] {
            let text = "x".repeat(PACKET_MAX - 1 + extra);
            let report = Report::BootFailed(BootError { app: false, text });
            assert_eq!(Report::decode(&report.encode()).unwrap() == report, extra == 0);
        }
    }

    #[test]
    fn a_list_that_is_too_long_ends_with_a_whole_entry() {
        let entry = format!("c/{}", "ä".repeat(1_000));
        let list = vec![entry.clone(); 40].join("\0");
        let Ok(Report::Sources(sent)) = Report::decode(&Report::Sources(list).encode()) else { panic!("wrong report") };
        assert!(sent.split('\0').all(|part| part == entry) && sent.len() > PACKET_MAX - 3_000);
    }

    #[test]
    fn unknown_packets_are_errors() {
        let long = vec![b'A'; PACKET_MAX + 1];
        for packet in [&b""[..], b"x", b"Dx", b"RPython\n[master] ERROR forged", &[b'R'; DESCRIPTION_MAX + 2], &long] {
            assert!(Report::decode(packet).is_err());
        }
        for packet in [&b""[..], b"x", b"dd"] {
            assert!(Order::decode(packet).is_err());
        }
    }
}
