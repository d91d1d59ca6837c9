//! The hand-off queue: one SOCK_SEQPACKET socketpair for all workers of a server, of every generation. A packet is a connection:
//! its descriptor (SCM_RIGHTS) and a [`HandoffMessage`] with its state.
//!
//! The master has both ends open as long as the server lives, so the packets in the queue outlive the worker that has put them
//! there. The kernel gives each packet to exactly one receiver. The queue is bounded by the buffer of the sending end.

mod message;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socketpair, sockopt};
use zeroize::Zeroize as _;

use crate::sys::{scm, socket};

pub use message::{HandoffKind, HandoffMessage, INPUT_MAX, SESSION_MAX, SessionBytes, VERSION};
use message::{MESSAGE_MAX, Unknown};

/// Room for packets on their way in bytes: some hundred idle connections, or a few with a large request. (The kernel doubles it
/// for its own needs, and cuts it to net.core.wmem_max.)
const SEND_BUFFER: usize = 208 * 1024;

/// Both ends of the queue, non-blocking.
#[derive(Debug)]
pub struct Queue {
    sender: OwnedFd,
    receiver: OwnedFd,
}

/// Room for one packet, to be used for many.
#[derive(Default)]
pub struct Packet(Vec<u8>);

impl Packet {
    /// Room for any packet.
    pub fn new() -> Self {
        // One byte more shows a packet that is too long.
        Self(vec![0; MESSAGE_MAX + 1])
    }

    /// Wipes the keys of connections that were in it.
    pub fn wipe(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl Queue {
    /// An empty queue, close-on-exec.
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (sender, receiver) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&sender, sockopt::SndBuf, &SEND_BUFFER)?;
        Ok(Self { sender, receiver })
    }

    /// The queue of the program that this process ran before exec, by its [`Self::ends`].
    pub fn adopt([sender, receiver]: [OwnedFd; 2]) -> Self {
        Self { sender, receiver }
    }

    /// The sending and the receiving end.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.sender.as_fd(), self.receiver.as_fd()]
    }

    /// Whether somebody has shut it down (shutdown(2)), for all who have it.
    pub fn is_shut_down(&self) -> bool {
        let hang_up = PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut fds = self.ends().map(|end| PollFd::new(end, hang_up));
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        let mut fds = [PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    /// Whether a packet would find room now, whoever else sends: the kernel takes a packet of any length as long as those that are there
    /// do not fill the buffer (socket(7), SO_SNDBUF).
    pub fn has_room(&self) -> bool {
        let size = getsockopt(&self.sender, sockopt::SndBuf);
        size.is_ok_and(|size| socket::unsent(&self.sender).is_ok_and(|used| used < size))
    }

    /// Puts a connection into the queue; the caller closes its own descriptor then. `false`: there is no room for it now, or
    /// never will be.
    pub fn send(&self, message: &HandoffMessage, connection: BorrowedFd<'_>) -> io::Result<bool> {
        let parts: [&[u8]; 3] = [&message.header(), &message.session.0, &message.input];
        let error = match scm::send_parts(&self.sender, &parts, &[connection]) {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        match error.raw_os_error() {
            // Too many descriptors of this user are in flight: as many as a process may have open (unix(7)).
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::ETOOMANYREFS | libc::EMSGSIZE) => Ok(false),
            _ => Err(error),
        }
    }

    /// Takes a connection out of the queue; `None` when there is none. An error concerns one packet, whose connection is closed;
    /// `UnexpectedEof`: somebody has shut the queue down.
    pub fn receive<'a>(&self, packet: &'a mut Packet) -> io::Result<Option<(HandoffMessage<'a>, OwnedFd)>> {
        let (len, mut descriptors) = match scm::receive(&self.receiver, &mut packet.0) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        // An empty packet of an intruder in a worker looks like the end.
        if len == 0 && descriptors.is_empty() && self.is_shut_down() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let message = HandoffMessage::decode(&packet.0[..len]).map_err(|Unknown(why)| invalid(why.to_owned()))?;
        match (descriptors.pop(), descriptors.is_empty()) {
            (Some(connection), true) => Ok(Some((message, connection))),
            (None, _) => Err(invalid("its descriptor is missing; raise the limit of open files (ulimit -n)".to_owned())),
            (Some(_), false) => Err(invalid("it has more than one descriptor".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{Shutdown, shutdown};

    use super::*;

    fn message(time: u64, input: &[u8]) -> HandoffMessage<'_> {
        HandoffMessage {
            kind: HandoffKind::Idle,
            moves: 0,
            listener: 0,
            peer: None,
            client: None,
            time,
            session: SessionBytes::default(),
            input: input.into(),
        }
    }

    #[test]
    fn a_connection_arrives_with_its_message_and_outlives_its_sender() {
        let queue = Queue::new().unwrap();
        let (mut client, server) = UnixStream::pair().unwrap();
        assert!(queue.send(&message(1, b"GET"), server.as_fd()).unwrap());
        drop(server);
        client.write_all(b" /").unwrap();
        let mut packet = Packet::new();
        let (found, connection) = queue.receive(&mut packet).unwrap().unwrap();
        assert_eq!(found, message(1, b"GET"));
        let mut two = [0; 2];
        UnixStream::from(connection).read_exact(&mut two).unwrap();
        assert_eq!(&two, b" /");
        assert!(queue.receive(&mut packet).unwrap().is_none());
        assert_eq!(client.read(&mut two).unwrap(), 0, "nobody else has it");
    }

    #[test]
    fn a_full_queue_takes_no_more_and_keeps_the_order() {
        let queue = Queue::new().unwrap();
        let (_client, server) = UnixStream::pair().unwrap();
        let puts = |time: &u64| {
            let has_room = queue.has_room();
            assert_eq!(queue.send(&message(*time, b""), server.as_fd()).unwrap(), has_room, "packet {time}");
            has_room
        };
        let sent = (0..100_000).take_while(puts).count() as u64;
        assert!((64..10_000).contains(&sent), "{sent}");
        let mut packet = Packet::new();
        for time in 0..sent {
            assert_eq!(queue.receive(&mut packet).unwrap().unwrap().0.time, time);
        }
        assert!(queue.receive(&mut packet).unwrap().is_none());
        assert!(queue.send(&message(0, &[b'x'; INPUT_MAX]), server.as_fd()).unwrap(), "the largest has room");
    }

    #[test]
    fn an_empty_packet_is_not_the_end() {
        let queue = Queue::new().unwrap();
        assert!(queue.is_empty());
        scm::send(&queue.sender, b"", &[]).unwrap();
        assert!(!queue.is_empty());
        let mut packet = Packet::new();
        assert_eq!(queue.receive(&mut packet).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(queue.receive(&mut packet).unwrap().is_none() && queue.is_empty());
        shutdown(queue.sender.as_raw_fd(), Shutdown::Both).unwrap();
        assert!(queue.is_shut_down());
        assert_eq!(queue.receive(&mut packet).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_an_error_and_its_connection_is_closed() {
        let queue = Queue::new().unwrap();
        let (mut client, server) = UnixStream::pair().unwrap();
        scm::send(&queue.sender, b"\x07of another program", &[server.as_fd()]).unwrap();
        scm::send(&queue.sender, &message(1, b"").header(), &[]).unwrap();
        drop(server);
        let mut packet = Packet::new();
        assert!(queue.receive(&mut packet).unwrap_err().to_string().contains("version"));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert!(queue.receive(&mut packet).unwrap_err().to_string().contains("descriptor is missing"));
        assert!(queue.receive(&mut packet).unwrap().is_none());
    }
}
