//! What master and mold say to each other of births (`--preload`). The mold is a process that has loaded the application; it forks
//! the workers.
//!
//! ```text
//! master ── order: a worker's name, and its descriptors ──▶ mold ── fork, fork ──▶ worker, a child of the master
//!    ▲◀── this cannot be: errno ────────────────────────────┘                       │
//!    └◀── I am born ────────────────────────────────────────────────────────────────┘
//! ```
//! One packet each, over a socketpair of its own; whether the application could be loaded, the mold says over a channel as a worker
//! has it ([`crate::channel`]).
//!
//! The mold runs the application's code and may have been broken into, so what comes from there is input like any other. An answer
//! is a few bytes; who has sent it, the kernel says, and the master believes it only of a child of its own that it knows nothing
//! else of. So all that can be had by a lie is that the master watches over, and in the end kills, a process of the workers' user.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::sys::scm::{self, Peeked};
use crate::sys::socket::refuse_descriptors;

/// Longest order in bytes: some numbers, two paths and a title.
const ORDER_MAX: usize = 32 * 1024;

/// Longest answer in bytes: a kind, the number of the order, and an errno.
const ANSWER_MAX: usize = 1 + 8 + 4;

/// A worker that the mold is to fork. Its descriptors come with the packet, in this order: its channel, the file for its stacks, the
/// error log, the access log if there is one, the pipe for its output if that is captured, and what it has to speak TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthOrder {
    /// Number of the order.
    pub number: u64,
    /// The worker's slot.
    pub slot: usize,
    /// Workers in all, for messages.
    pub workers: usize,
    /// How many workers the server has started with it.
    pub age: u64,
    /// The title of its process.
    pub title: String,
    /// Number of the least severity in its error log.
    pub log_level: u8,
    /// Where its error log goes.
    pub error_log: LogPlace,
    /// Where its access log goes; `None`: there is none.
    pub access_log: Option<LogPlace>,
    /// Whether its output is captured.
    pub captured: bool,
    /// Whether TLS is spoken.
    pub encrypts: bool,
}

/// Where a log goes, besides its descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The socket of the system log, if it goes there.
    pub system_log: Option<OsString>,
}

impl BirthOrder {
    /// How many descriptors belong to it.
    pub fn descriptors(&self) -> usize {
        3 + usize::from(self.access_log.is_some()) + usize::from(self.captured) + usize::from(self.encrypts)
    }
}

/// What came of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BirthAnswer {
    /// This process is the worker, as the kernel says.
    Born(Pid),
    /// The mold could not fork, for this errno.
    Failed(i32),
}

/// The master's end.
#[derive(Debug)]
pub struct OrderEnd(OwnedFd);

/// The mold's end.
#[derive(Debug)]
pub struct BirthEnd(OwnedFd);

/// Makes a connected pair, both ends non-blocking and close-on-exec.
pub fn pair() -> io::Result<(OrderEnd, BirthEnd)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (master, mold) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    setsockopt(&master, sockopt::SndBuf, &(2 * ORDER_MAX))?;
    scm::name_senders(&master)?;
    // A kernel that does not know the option has the other defence: descriptors are left where they are.
    let _ = refuse_descriptors(&master);
    Ok((OrderEnd(master), BirthEnd(mold)))
}

impl OrderEnd {
    /// Sends an order; the mold gets duplicates of the descriptors.
    pub fn order(&self, order: &BirthOrder, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = serde_json::to_vec(order)?;
        if packet.len() > ORDER_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the title or a path is too long"));
        }
        scm::send(&self.0, &packet, descriptors)?;
        Ok(())
    }

    /// Waits for the answer to this order, `time` at most.
    ///
    /// # Errors
    /// `TimedOut`; `InvalidData` for what no mold sends; `UnexpectedEof` when it is gone.
    pub fn answer(&self, number: u64, time: Duration) -> io::Result<BirthAnswer> {
        let until = Instant::now() + time;
        let mut packet = [0; ANSWER_MAX];
        loop {
            match scm::peek_sender(&self.0, &mut packet) {
                Ok((Peeked { len: 0, .. }, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((Peeked { len, descriptors }, sender)) => {
                    let answer = packet.get(..len).filter(|_| !descriptors).and_then(|packet| decode(packet, number, sender));
                    let answer = answer.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                    // Nobody else reads here, so it is the same packet.
                    scm::skip(&self.0)?;
                    return Ok(answer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Rounded up, so that no turn is for nothing.
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The descriptor, to be closed elsewhere: packets that were not taken may hold files whose last close lasts.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// Reads an answer to the order of this number.
fn decode(packet: &[u8], number: u64, sender: Option<Pid>) -> Option<BirthAnswer> {
    let (kind, rest) = packet.split_first()?;
    let (_, rest) = rest.split_first_chunk().filter(|(stated, _)| **stated == number.to_le_bytes())?;
    match (kind, rest.len()) {
        (b'b', 0) => sender.map(BirthAnswer::Born),
        (b'f', 4) => Some(BirthAnswer::Failed(i32::from_le_bytes(rest.try_into().ok()?))),
        _ => None,
    }
}

impl BirthEnd {
    /// The end of a mold in the program that it became by exec.
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The next order with its descriptors; `Ok(None)` when there is none yet; `UnexpectedEof` when there will be none.
    pub fn next(&self) -> io::Result<Option<(BirthOrder, Vec<OwnedFd>)>> {
        let mut packet = vec![0; ORDER_MAX];
        match scm::receive(&self.0, &mut packet) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((len, descriptors)) => {
                let order: BirthOrder = serde_json::from_slice(&packet[..len])?;
                if order.descriptors() != descriptors.len() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "an order without its descriptors"));
                }
                Ok(Some((order, descriptors)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Called by a worker that was just forked: this process is the one.
    pub fn born(&self, number: u64) -> io::Result<()> {
        self.send(b'b', number, &[])
    }

    /// Called by the mold: it cannot fork.
    pub fn failed(&self, number: u64, error: &io::Error) -> io::Result<()> {
        self.send(b'f', number, &error.raw_os_error().unwrap_or(0).to_le_bytes())
    }

    fn send(&self, kind: u8, number: u64, rest: &[u8]) -> io::Result<()> {
        scm::send_parts(&self.0, &[&[kind], &number.to_le_bytes(), rest], &[])?;
        Ok(())
    }
}

impl AsFd for BirthEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    fn order() -> BirthOrder {
        BirthOrder {
            number: 7,
            slot: 3,
            workers: 4,
            age: 17,
            title: "tapster: worker 3 [x]".into(),
            log_level: 1,
            error_log: LogPlace { system_log: Some("/dev/log".into()) },
            access_log: Some(LogPlace { system_log: None }),
            captured: false,
            encrypts: true,
        }
    }

    #[test]
    fn an_order_comes_with_its_descriptors_and_the_answer_with_the_sender_that_the_kernel_states() {
        let (master, mold) = pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        assert!(mold.next().unwrap().is_none());
        master.order(&order(), &[null.as_fd(); 5]).unwrap();
        let (received, descriptors) = mold.next().unwrap().unwrap();
        assert_eq!((received, descriptors.len()), (order(), 5));
        mold.born(7).unwrap();
        assert_eq!(master.answer(7, SHORT).unwrap(), BirthAnswer::Born(Pid::this()));
        mold.failed(8, &io::Error::from_raw_os_error(libc::EAGAIN)).unwrap();
        assert_eq!(master.answer(8, SHORT).unwrap(), BirthAnswer::Failed(libc::EAGAIN));
        assert_eq!(master.answer(9, SHORT).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(mold);
        assert_eq!(master.answer(9, SHORT).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_no_mold_sends_is_refused() {
        let null = File::open("/dev/null").unwrap();
        let number = 7_u64.to_le_bytes();
        let packets: [(&[&[u8]], usize); 6] = [
            (&[b"b", &8_u64.to_le_bytes()], 0),
            (&[b"b", &number, b"x"], 0),
            (&[b"x", &number], 0),
            (&[b"b"], 0),
            (&[b"f", &number, &[0; 40]], 0),
            (&[b"b", &number], 1),
        ];
        for (parts, files) in packets {
            let (master, BirthEnd(mold)) = pair().unwrap();
            // A kernel that can refuse descriptors does so here.
            if scm::send_parts(&mold, parts, &vec![null.as_fd(); files]).is_ok() {
                assert_eq!(master.answer(7, SHORT).unwrap_err().kind(), io::ErrorKind::InvalidData, "{parts:?}");
            }
        }
        let (OrderEnd(master), mold) = pair().unwrap();
        scm::send(&master, &serde_json::to_vec(&order()).unwrap(), &[null.as_fd()]).unwrap();
        assert!(mold.next().is_err());
    }
}
