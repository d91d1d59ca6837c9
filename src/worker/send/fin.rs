//! The last answer of a connection: it leaves together with the connection's end.
//!
//! TCP holds back bytes that are sent with MSG_MORE (send(2)) and do not fill a segment. The shutdown that follows in the same
//! step sends them with the FIN, even if others have the socket. That saves a segment, its acknowledgement and a wake-up of the
//! client. It is done only where nothing can come between the two calls, or be lost by them:
//!
//! - no call still has the connection;
//! - a close that finds unread bytes resets the connection (RFC 2525 section 2.17) and throws away the bytes that were held back.
//!   So the client must have said that nothing follows its request (RFC 9112 section 9.6), nothing may have followed, and the
//!   answer must have been so quick that hardly anything can have come meanwhile. Something may still come, as the empty line of
//!   an old client; therefore the shutdown goes before the close. A gateway says by its protocol where its request ends; so it is
//!   done behind a body too.
//!
//! Everything else is sent first and closed then.
//!
//! The descriptors of such connections are closed together at the end of the iteration. Those that were accepted in the same
//! iteration follow each other as a rule, and one system call closes them.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::sys::fd::close_all;

/// Descriptors that wait at most: more than are accepted at a wake.
const ENDED_MAX: usize = 32;

/// Sockets of clients that have their last answer and the end.
#[derive(Debug)]
pub struct Ended {
    fds: Vec<OwnedFd>,
    /// The first number that does not wait. The kernel gives the lowest one that is free, so a higher one means that few are
    /// left.
    bound: usize,
}

impl Ended {
    /// None yet; descriptors from number `bound` on must stay free for the application.
    pub fn new(bound: usize) -> Self {
        Self { fds: Vec::new(), bound }
    }

    /// Adds one; returns whether all must be closed now.
    pub fn add(&mut self, fd: OwnedFd) -> bool {
        let is_high = fd.as_raw_fd() as usize >= self.bound;
        self.fds.push(fd);
        is_high || self.fds.len() >= ENDED_MAX
    }

    /// Closes them; returns whether there were any.
    #[inline]
    pub fn close(&mut self) -> bool {
        let any = !self.fds.is_empty();
        if any {
            close_all(&mut self.fds);
        }
        any
    }
}
