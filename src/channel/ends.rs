//! Both ends of a channel.
//!
//! Each end is an open file of its own, non-blocking, so neither side can make the other wait: an order to a worker that does not
//! read fails when the kernel's queue is full, and a worker sends no more than that while the master is busy.
//!
//! The master takes no descriptor from a worker, and does not even close one: the last close of a file may take as long as its
//! maker likes (a socket that lingers, socket(7); a file of a file system in user space). Kernels from 6.16 on refuse the sending
//! (SO_PASSRIGHTS). On older ones the master peeks at a packet before it takes it from the queue, and leaves it there when it has
//! descriptors; [`MasterEnd::close`] has such a queue closed by a process of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, send, setsockopt, shutdown, socketpair, sockopt};

use super::conduct::Breach;
use super::{LogName, MESSAGE_MAX, Message, Order, PACKET_MAX, Report};
use crate::sys::scm::{self, Peeked};
use crate::sys::socket::refuse_descriptors;
use crate::sys::{fd, process};

/// Room for the packets that a worker sends in its life, so that it never has to wait for the master. (The kernel doubles it for
/// its own needs, and cuts it to net.core.wmem_max.)
const SEND_BUFFER: usize = 2 * PACKET_MAX;

/// Most packets read from the queue of a channel that is closed. The kernel has room for fewer (net.unix.max_dgram_qlen is 10 as
/// a rule), and the queue takes no more by then.
const LEFT_MAX: usize = 1024;

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
    Ok((MasterEnd::adopt(master), WorkerEnd(worker)))
}

impl WorkerEnd {
    /// The end of a worker in the program that it became by exec.
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The same end once more, for another thread.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends a report; a text that does not fit into a packet is cut in its middle.
    pub fn send(&self, report: &Report) -> io::Result<()> {
        send_packet(&self.0, &report.encode())
    }

    /// The next message; `Ok(None)` when there is none yet; `UnexpectedEof` when the master is gone.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        let mut packet = [0; MESSAGE_MAX];
        let received = scm::receive(&self.0, &mut packet).map(|(len, files)| (&packet[..len], files));
        match end_of(received, |(packet, _)| packet.is_empty())? {
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

/// The contents of a channel, as the master finds them.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A report.
    Report(Report),
    /// Nothing yet.
    Nothing,
    /// The worker is gone, or has closed its end.
    End,
    /// A packet that no worker sends.
    Breach(Breach),
}

impl MasterEnd {
    /// The master's end of a channel, made here or by the program that this process was before exec.
    pub fn adopt(fd: OwnedFd) -> Self {
        // A kernel that does not know the option has the other defence.
        let _ = refuse_descriptors(&fd);
        Self(fd)
    }

    /// Sends an order.
    pub fn send(&self, order: Order) -> io::Result<()> {
        send_packet(&self.0, &[order.kind()])
    }

    /// Passes logs that were reopened.
    pub fn send_logs(&self, logs: &[(LogName, BorrowedFd<'_>)]) -> io::Result<()> {
        let packet: Vec<u8> = std::iter::once(b'l').chain(logs.iter().map(|(name, _)| name.letter())).collect();
        let files: Vec<BorrowedFd<'_>> = logs.iter().map(|(_, file)| *file).collect();
        scm::send(&self.0, &packet, &files)?;
        Ok(())
    }

    /// Tells the worker why the code that was saved last is not served.
    pub fn send_breakage(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        scm::send(&self.0, b"b", &[file])?;
        Ok(())
    }

    /// Tells the number of the least severity that the error log records from now on.
    pub fn send_log_level(&self, level: u8) -> io::Result<()> {
        send_packet(&self.0, &[b'n', level])
    }

    /// Asks for the stacks of all threads, in this file.
    pub fn ask_stacks(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        scm::send(&self.0, b"s", &[file])?;
        Ok(())
    }

    /// Passes certificates, keys and secrets of TLS ([`Message::Tls`]).
    pub fn send_credentials(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        scm::send(&self.0, b"t", &[file])?;
        Ok(())
    }

    /// Takes the next packet; one that came with descriptors stays where it is.
    pub fn receive(&self) -> Heard {
        let mut packet = vec![0; PACKET_MAX];
        let len = match end_of(scm::peek(&self.0, &mut packet), |_| false) {
            Ok(Some(Peeked { descriptors: true, .. })) => return Heard::Breach(Breach::Descriptors),
            Ok(Some(Peeked { len: 0, .. })) if self.hung_up() => return Heard::End,
            Ok(Some(Peeked { len, .. })) => len,
            Ok(None) => return Heard::Nothing,
            // After any error nothing more can come.
            Err(_) => return Heard::End,
        };
        // Nobody else reads here, so it is the same packet.
        if let Err(error) = scm::skip(&self.0) {
            return Heard::Breach(Breach::Unknown(error.to_string()));
        }
        match packet.get(..len).map(Report::decode) {
            Some(Ok(report)) => Heard::Report(report),
            Some(Err(error)) => Heard::Breach(Breach::Unknown(error.to_string())),
            None => Heard::Breach(Breach::TooLong),
        }
    }

    /// Whether the other end is closed or will send no more; otherwise what looks like the end is an empty packet.
    fn hung_up(&self) -> bool {
        // nix does not know the flag, so it returns no events when the flag is set.
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::from_bits_retain(libc::POLLRDHUP))];
        poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].any() != Some(false)
    }

    /// Closes it, whatever the worker has left in it. Only the master may, not a worker that has a copy: this ends the channel
    /// for all.
    pub fn close(self) {
        // From now on nothing more gets in. It fails for a channel whose worker is gone, which has the same effect.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Read);
        // Now the end looks like an empty packet, which others may follow.
        for _ in 0..LEFT_MAX {
            match scm::peek(&self.0, &mut []) {
                Ok(Peeked { descriptors: true, .. }) => return self.close_elsewhere(),
                Ok(Peeked { .. }) if scm::skip(&self.0).is_ok() => {}
                Ok(Peeked { .. }) | Err(_) => return,
            }
        }
    }

    fn close_elsewhere(self) {
        if let Err((fd, _)) = process::close_elsewhere(self.0) {
            // No process could be made: losing one descriptor is better than waiting.
            fd::forget(fd);
        }
    }
}

impl AsFd for MasterEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn send_packet(fd: &OwnedFd, packet: &[u8]) -> io::Result<()> {
    // A packet is taken whole or not at all; MSG_NOSIGNAL: a vanished reader is an error, whatever SIGPIPE is set to.
    send(fd.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Sorts the result of a receive: a packet, none yet (`None`), nobody (`UnexpectedEof`).
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
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use nix::sys::socket::recv;

    use super::*;
    use crate::channel::BootError;
    use crate::sys::process::FORKS;

    #[test]
    fn messages_arrive_in_order_and_one_at_a_time() {
        let (master, worker) = pair().unwrap();
        let reports = [
            Report::Ready("Python 3.11.7".into()),
            Report::BootFailed(BootError { app: true, text: "no module\n  named x".into() }),
            Report::BootFailed(BootError { app: false, text: String::new() }),
            Report::Draining,
            Report::Worn,
            Report::Starved,
            Report::Dismissed,
            Report::Stuck,
            Report::Stranded,
        ];
        for report in &reports {
            worker.send(report).unwrap();
        }
        for report in reports {
            assert_eq!(master.receive(), Heard::Report(report));
        }
        assert_eq!(master.receive(), Heard::Nothing);

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
    fn a_breakage_arrives_as_a_file() {
        let (master, worker) = pair().unwrap();
        let breakage = super::super::Breakage { saved: 1, text: "a\n".repeat(50_000) };
        master.send_breakage(breakage.to_file().unwrap().as_fd()).unwrap();
        let Some(Message::Breakage(file)) = worker.receive().unwrap() else { panic!("no breakage") };
        assert_eq!(super::super::Breakage::read(&file.into()).unwrap(), breakage);
    }

    #[test]
    fn a_level_and_a_file_for_stacks_arrive() {
        let (master, worker) = pair().unwrap();
        master.send_log_level(3).unwrap();
        assert!(matches!(worker.receive().unwrap(), Some(Message::LogLevel(3))));
        let null = std::fs::File::open("/dev/null").unwrap();
        master.ask_stacks(null.as_fd()).unwrap();
        assert!(matches!(worker.receive().unwrap(), Some(Message::Stacks(_))));
    }

    #[test]
    fn a_closed_side_is_seen_after_its_last_message() {
        let _undisturbed = FORKS.read();
        let (master, worker) = pair().unwrap();
        worker.send(&Report::Draining).unwrap();
        drop(worker);
        assert_eq!(master.receive(), Heard::Report(Report::Draining));
        assert_eq!(master.receive(), Heard::End);
        assert_eq!(master.send(Order::Quit).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_worker_that_left_orders_unread_is_gone_all_the_same() {
        let _undisturbed = FORKS.read();
        let (master, worker) = pair().unwrap();
        master.send(Order::Drain).unwrap();
        drop(worker);
        assert_eq!(master.receive(), Heard::End);
        let (master, worker) = pair().unwrap();
        drop(master);
        assert_eq!(worker.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// A channel as a kernel without SO_PASSRIGHTS has it.
    fn old_pair() -> (MasterEnd, WorkerEnd) {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (master, worker) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        (MasterEnd(master), WorkerEnd(worker))
    }

    #[test]
    fn what_is_no_report_is_a_breach_and_what_follows_is_heard() {
        let (master, worker) = pair().unwrap();
        let raw = |packet: &[u8]| send_packet(&worker.0, packet).unwrap();
        raw(b"nonsense");
        raw(b"");
        raw(&vec![b'A'; PACKET_MAX + 1]);
        raw(b"D");
        assert!(matches!(master.receive(), Heard::Breach(Breach::Unknown(why)) if why.contains("nonsense")));
        assert!(matches!(master.receive(), Heard::Breach(Breach::Unknown(_))), "an empty packet is not the end");
        assert_eq!(master.receive(), Heard::Breach(Breach::TooLong));
        assert_eq!(master.receive(), Heard::Report(Report::Draining));
        assert_eq!(master.receive(), Heard::Nothing);
    }

    #[test]
    fn descriptors_never_reach_the_master() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let (master, worker) = pair().unwrap();
        match scm::send(&worker.0, b"D", &[null.as_fd()]) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
            Ok(_) => assert_eq!(master.receive(), Heard::Breach(Breach::Descriptors)),
        }
        for packet in [&b"D"[..], b"\0"] {
            let (master, worker) = old_pair();
            scm::send(&worker.0, packet, &[null.as_fd()]).unwrap();
            assert_eq!(master.receive(), Heard::Breach(Breach::Descriptors));
            assert_eq!(master.receive(), Heard::Breach(Breach::Descriptors), "it stays in the queue");
        }
    }

    #[test]
    fn an_order_to_a_worker_that_does_not_read_neither_waits_nor_piles_up() {
        let (master, worker) = pair().unwrap();
        let began = Instant::now();
        let sent = (0..100_000).filter(|_| master.send(Order::Ping).is_ok()).count();
        assert!((1..5_000).contains(&sent), "{sent}");
        assert!(began.elapsed() < Duration::from_secs(60));
        drop(worker);
    }

    #[test]
    fn a_channel_that_is_closed_takes_nothing_more_and_keeps_nobody() {
        let _undisturbed = FORKS.read();
        let (master, worker) = pair().unwrap();
        for packet in [&b"D"[..], b"", b"R"] {
            send_packet(&worker.0, packet).unwrap();
        }
        master.close();
        assert_eq!(send_packet(&worker.0, b"D").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(recv(worker.0.as_raw_fd(), &mut [0; 8], MsgFlags::empty()), Ok(0));
    }

    /// A connection whose last close takes a minute, and the side that does not read it.
    fn lingering() -> (TcpStream, TcpStream) {
        use std::io::Write;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        stream.set_nonblocking(false).unwrap();
        let linger = libc::linger { l_onoff: 1, l_linger: 60 };
        setsockopt(&stream, sockopt::Linger, &linger).unwrap();
        (stream, reader)
    }

    #[test]
    fn a_socket_that_lingers_in_a_channel_is_closed_by_another_process() {
        use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};
        let alone = alone_in_test();
        let (master, worker) = old_pair();
        let (stream, _reader) = lingering();
        scm::send(&worker.0, b"D", &[stream.as_fd()]).unwrap();
        // The test has threads, which a process that forks must not have.
        let child = fork_in_test(&alone, |_| {
            drop((worker, stream));
            let began = Instant::now();
            master.close();
            i32::from(began.elapsed() > Duration::from_secs(30))
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
    }
}
