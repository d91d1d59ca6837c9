//! The socket of a client, TCP or unix, which does not block.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::common::client::Address;

/// Longest wait for a byte or for room for one, however busy the machine: a client that waits longer has been forgotten.
const PATIENCE: Duration = Duration::from_secs(30);

/// Receive buffer of a client that stalls, in bytes: little, so that the server feels it.
const SMALL_BUFFER: usize = 128 * 1024;

/// Receive buffer of the same client when it has done with its pauses, in bytes: the kernel sends to a small one five times a
/// second.
const LARGE_BUFFER: usize = 2 * 1024 * 1024;

/// The socket.
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects; `small`: with little room for what comes.
    pub fn connect(address: &Address, small: bool) -> io::Result<Self> {
        match address {
            Address::Tcp(address) | Address::Tls(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                if small {
                    setsockopt(&stream, sockopt::RcvBuf, &SMALL_BUFFER)?;
                }
                stream.set_nonblocking(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Self::Unix(stream))
            }
        }
    }

    /// Makes room for what comes. A unix socket has its bytes in the sender's buffer.
    pub fn widen(&self) -> nix::Result<()> {
        match self {
            Self::Tcp(stream) => setsockopt(stream, sockopt::RcvBuf, &LARGE_BUFFER),
            Self::Unix(_) => Ok(()),
        }
    }

    /// To read and write.
    pub fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    /// Waits until it can be read, or written if that is wanted; returns early when another client has found a fault.
    pub fn wait(&self, write: bool, stop: &AtomicBool) -> Result<(bool, bool), String> {
        let wanted = if write { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let began = Instant::now();
        while began.elapsed() < PATIENCE && !stop.load(Ordering::Relaxed) {
            let mut fds = [PollFd::new(self.as_fd(), wanted)];
            match poll(&mut fds, 1_000_u16) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(format!("cannot wait: {error}")),
            }
            let found = fds[0].revents().unwrap_or(PollFlags::empty());
            return Ok((found.intersects(!PollFlags::POLLOUT), found.contains(PollFlags::POLLOUT) && write));
        }
        Err(format!("nothing came for {PATIENCE:?}"))
    }

    /// Nothing follows.
    pub fn finish_sending(&self) {
        // The server may have closed already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// The close that follows is a reset.
    pub fn reset(&self) {
        if let Self::Tcp(stream) = self {
            // Fails only when the server has ended the connection.
            let _ = setsockopt(stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What both kinds can do.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}
