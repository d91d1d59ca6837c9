//! The messages between the master and a worker: one SOCK_SEQPACKET socketpair per worker, one message a packet.
//!
//! A packet is a kind byte followed by the payload. Workers answer nothing; a closed channel means that the other side is gone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt};

use crate::sys::scm;

/// From a worker to the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The application is loaded and the loop runs; the text describes the interpreter (`Python 3.11.7`).
    Ready(String),
    /// The worker cannot boot.
    BootFailed(BootError),
    /// The worker has stopped accepting and finishes what it has.
    Draining,
    /// The worker has served as many requests as it may and goes on until it is told to leave.
    Worn,
    /// Somebody sent SIGTERM to the worker, which goes on until it is told to leave.
    Dismissed,
    /// A request does not end within its time; its client was answered without it. The worker goes on until it is told to leave.
    Stuck,
    /// The worker has nothing left but such requests, for which it cannot leave: it is to be ended.
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
    /// Leave to others, who listen on the same sockets: stop accepting, answer what was accepted, hand the connections over, leave.
    Retire,
    /// As [`Order::Retire`], but nobody is there to take connections over.
    Vacate,
    /// The service ends: accept what still waits, answer it, leave.
    Drain,
    /// Quick: finish the request that runs, leave.
    Quit,
}

/// Version of the packets. It changes when one is added or gets another meaning: after an upgrade workers of one program talk to a
/// master of the other.
pub const PROTOCOL: u32 = 2;

/// Which log a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogName {
    /// The error log.
    Error,
    /// The access log.
    Access,
}

/// What the master sends to a worker.
#[derive(Debug)]
pub enum Message {
    /// Something to do.
    Order(Order),
    /// Logs that were opened anew, to be written from now on.
    Logs(Vec<(LogName, OwnedFd)>),
}

/// Longest packet to a worker in bytes: a kind and a letter for each log.
const MESSAGE_MAX: usize = 4;

/// Largest packet in bytes: a traceback of a few hundred frames.
const PACKET_MAX: usize = 64 * 1024;

/// Room for the packets that a worker sends in its life, so that it never has to wait for the master. (The kernel doubles it for its
/// own needs, and cuts it to net.core.wmem_max.)
const SEND_BUFFER: usize = 2 * PACKET_MAX;

/// Stands for what was cut out of a text.
const CUT: &str = "\n... (cut)\n";

/// The master's end of a worker's socketpair, non-blocking.
#[derive(Debug)]
pub struct MasterEnd(OwnedFd);

/// The worker's end of its socketpair, non-blocking.
#[derive(Debug)]
pub struct WorkerEnd(OwnedFd);

/// Makes a connected pair, both ends non-blocking and close-on-exec.
pub fn pair() -> io::Result<(MasterEnd, WorkerEnd)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (master, worker) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    setsockopt(&worker, sockopt::SndBuf, &SEND_BUFFER)?;
    Ok((MasterEnd(master), WorkerEnd(worker)))
}

impl WorkerEnd {
    /// Sends a report; a text that does not fit into a packet is cut in its middle.
    pub fn send(&self, report: &Report) -> io::Result<()> {
        send_packet(&self.0, &report.encode())
    }

    /// The next message; `Ok(None)` when there is none yet; `UnexpectedEof` when the master is gone.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        let mut packet = [0; MESSAGE_MAX];
        match end_of(scm::receive(&self.0, &mut packet).map(|(len, files)| (&packet[..len], files)), |(packet, _)| {
            packet.is_empty()
        })? {
            Some((packet, files)) => Message::decode(packet, files).map(Some),
            None => Ok(None),
        }
    }
}

impl AsFd for WorkerEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl MasterEnd {
    /// The master's end of a channel made by the program that this process was before exec.
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends an order.
    pub fn send(&self, order: Order) -> io::Result<()> {
        send_packet(&self.0, &[order.kind()])
    }

    /// Passes logs that were opened anew.
    pub fn send_logs(&self, logs: &[(LogName, BorrowedFd<'_>)]) -> io::Result<()> {
        let packet: Vec<u8> = std::iter::once(b'l').chain(logs.iter().map(|(name, _)| name.letter())).collect();
        let files: Vec<BorrowedFd<'_>> = logs.iter().map(|(_, file)| *file).collect();
        scm::send(&self.0, &packet, &files)?;
        Ok(())
    }

    /// The next report; `Ok(None)` when there is none yet; `UnexpectedEof` when the worker is gone.
    pub fn receive(&self) -> io::Result<Option<Report>> {
        let mut packet = vec![0; PACKET_MAX];
        receive_packet(&self.0, &mut packet)?.map(Report::decode).transpose()
    }
}

impl AsFd for MasterEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Report {
    fn encode(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Ready(text) => (b'R', text.as_str()),
            Self::BootFailed(BootError { app: true, text }) => (b'A', text.as_str()),
            Self::BootFailed(BootError { app: false, text }) => (b'F', text.as_str()),
            Self::Draining => (b'D', ""),
            Self::Worn => (b'W', ""),
            Self::Dismissed => (b'T', ""),
            Self::Stuck => (b'S', ""),
            Self::Stranded => (b'X', ""),
        };
        let mut packet = vec![kind];
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

    fn decode(packet: &[u8]) -> io::Result<Self> {
        let (kind, text) = packet.split_first().ok_or_else(|| unknown(packet))?;
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'R' => Ok(Self::Ready(text)),
            b'A' => Ok(Self::BootFailed(BootError { app: true, text })),
            b'F' => Ok(Self::BootFailed(BootError { app: false, text })),
            b'D' if text.is_empty() => Ok(Self::Draining),
            b'W' if text.is_empty() => Ok(Self::Worn),
            b'T' if text.is_empty() => Ok(Self::Dismissed),
            b'S' if text.is_empty() => Ok(Self::Stuck),
            b'X' if text.is_empty() => Ok(Self::Stranded),
            _ => Err(unknown(packet)),
        }
    }
}

impl Message {
    fn decode(packet: &[u8], files: Vec<OwnedFd>) -> io::Result<Self> {
        match packet.split_first() {
            Some((b'l', letters)) if letters.len() == files.len() => {
                let name = |letter: &u8| LogName::of(*letter).ok_or_else(|| unknown(packet));
                Ok(Self::Logs(
                    letters.iter().map(name).zip(files).map(|(name, file)| Ok((name?, file))).collect::<io::Result<_>>()?,
                ))
            }
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

fn send_packet(fd: &OwnedFd, packet: &[u8]) -> io::Result<()> {
    // A packet is taken whole or not at all; MSG_NOSIGNAL: a vanished reader is an error, whatever SIGPIPE is set to.
    send(fd.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

fn receive_packet<'a>(fd: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    let len = end_of(recv(fd.as_raw_fd(), buffer, MsgFlags::empty()).map_err(io::Error::from), |len| *len == 0)?;
    Ok(len.map(|len| &buffer[..len]))
}

/// Tells apart what a receive found: a packet, none yet (`None`), nobody (`UnexpectedEof`).
fn end_of<T>(received: io::Result<T>, is_empty: impl Fn(&T) -> bool) -> io::Result<Option<T>> {
    match received {
        Ok(packet) if is_empty(&packet) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(packet) => Ok(Some(packet)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // The other side closed with messages unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_order_and_one_at_a_time() {
        let (master, worker) = pair().unwrap();
        let reports = [
            Report::Ready("Python 3.11.7".into()),
            Report::BootFailed(BootError { app: true, text: "no module\n  named x".into() }),
            Report::BootFailed(BootError { app: false, text: String::new() }),
            Report::Draining,
            Report::Worn,
            Report::Dismissed,
            Report::Stuck,
            Report::Stranded,
        ];
        for report in &reports {
            worker.send(report).unwrap();
        }
        for report in reports {
            assert_eq!(master.receive().unwrap(), Some(report));
        }
        assert_eq!(master.receive().unwrap(), None);

        let orders = [Order::Ping, Order::Retire, Order::Vacate, Order::Drain, Order::Quit];
        for order in orders {
            master.send(order).unwrap();
        }
        for order in orders {
            assert!(matches!(worker.receive().unwrap(), Some(Message::Order(found)) if found == order));
        }
        assert!(worker.receive().unwrap().is_none());
    }

    #[test]
    fn logs_arrive_by_their_names() {
        use std::io::{Read, Write};
        let (master, worker) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        master.send_logs(&[(LogName::Access, writer.as_fd()), (LogName::Error, null.as_fd())]).unwrap();
        drop(writer);
        let Some(Message::Logs(mut logs)) = worker.receive().unwrap() else { panic!("no logs") };
        assert_eq!(logs.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [LogName::Access, LogName::Error]);
        std::fs::File::from(logs.remove(0).1).write_all(b"line").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "line");
    }

    #[test]
    fn a_closed_side_is_seen_after_its_last_message() {
        let (master, worker) = pair().unwrap();
        worker.send(&Report::Draining).unwrap();
        drop(worker);
        assert_eq!(master.receive().unwrap(), Some(Report::Draining));
        assert_eq!(master.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(master.send(Order::Quit).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_worker_that_left_orders_unread_is_gone_all_the_same() {
        let (master, worker) = pair().unwrap();
        master.send(Order::Drain).unwrap();
        drop(worker);
        assert_eq!(master.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (master, worker) = pair().unwrap();
        drop(master);
        assert_eq!(worker.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_long_traceback_keeps_its_start_and_its_end() {
        let (master, worker) = pair().unwrap();
        let text = format!("cannot load x{}NameError: y", "é".repeat(PACKET_MAX));
        worker.send(&Report::BootFailed(BootError { app: true, text })).unwrap();
        let Some(Report::BootFailed(BootError { app: true, text })) = master.receive().unwrap() else { panic!("wrong report") };
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
            let Report::Ready(back) = Report::decode(&Report::Ready(text.clone()).encode()).unwrap() else {
                panic!("wrong report")
            };
            assert_eq!(back == text, extra == 0);
        }
    }

    #[test]
    fn unknown_packets_are_errors() {
        for packet in [&b""[..], b"x", b"Dx"] {
            assert!(Report::decode(packet).is_err());
        }
        for packet in [&b""[..], b"x", b"dd"] {
            assert!(Order::decode(packet).is_err());
        }
    }
}
