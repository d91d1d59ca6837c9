//! Accepting from the shared listening sockets.
//!
//! The sockets are in the poll level-triggered and exclusive, so that a connection wakes one worker and not all. The kernel gives
//! wake-ups to the process that registered first; each worker registers again every so many connections, so that the workers
//! change places. A worker accepts nothing that it cannot keep: at the connection limit, and while the process has no descriptor
//! left, the sockets are out of the poll and the other workers serve them. The connection that has shown the shortage has woken
//! nobody else, and is taken with a descriptor that is kept for it ([`spare`]).
//!
//! A worker above its share of the connections ([`crate::worker::accept::share`]) steps aside: it takes one connection at a wake,
//! since only this worker was woken for it, and leaves the poll for a moment, or until it is below its share again. It comes back
//! as the last one. So no connection stays in the queue for which nobody was woken.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::log::error::Log;
use crate::net::listener::Listener;
use crate::net::stream::{PeerAddr, Stream};
use crate::protocol::Protocol;
use crate::sys::epoll;
use crate::sys::fd::{FileId, identity};

use super::descriptors::replaced;
use crate::worker::accept::batch::AcceptBatch;
use crate::worker::accept::share::Share;
use crate::worker::accept::spare::Spare;

pub mod batch;
pub mod share;
pub mod spare;

/// Connections between two changes of place in the kernel's queue of waiting workers.
const ROTATE: usize = 32;

/// How long a worker above its share leaves the sockets to others, in milliseconds. They have been woken; the pause matters only
/// to connections that none of them takes after all.
const ASIDE_MS: u64 = 2;

/// Pause after the process ran out of descriptors, in milliseconds; a closed connection ends it earlier.
const NO_DESCRIPTOR_MS: u64 = 250;

/// Pause after a listening socket was found shut down, in milliseconds: the master mends it in less.
const SHUT_DOWN_MS: u64 = 50;

/// Least time between two log lines about missing descriptors, in milliseconds.
const COMPLAIN_MS: u64 = 10_000;

/// Why the sockets are out of the poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// They are in it.
    Open,
    /// As many connections as allowed.
    Full,
    /// No descriptor, or no socket that listens, until this time in milliseconds.
    Starved(u64),
    /// The others are to take new connections, until this time in milliseconds.
    Aside(u64),
    /// The worker leaves.
    Closed,
}

/// The listening sockets of a worker.
#[derive(Debug)]
pub struct Acceptor {
    listeners: Vec<Listener>,
    state: Pause,
    /// This worker among others that listen; `None`: there is no other.
    share: Option<Share>,
    /// Connections since the last change of place.
    placed: usize,
    /// Whether connections taken now may have waited while nobody took any.
    late: bool,
    batch: AcceptBatch,
    /// Connections of the present wake.
    accepted: usize,
    /// Whether its last try failed.
    last_failed: bool,
    complained: u64,
    spare: Spare,
    /// Which socket each listener was at the beginning.
    known: Vec<FileId>,
    /// Why a listener cannot be used any more.
    failure: Option<io::Error>,
    /// First of the poll tokens, one per listener.
    first_token: usize,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub stream: Stream,
    /// Its peer.
    pub peer: PeerAddr,
    /// Index of its listener.
    pub listener: usize,
    /// The protocol of its requests.
    pub protocol: Protocol,
}

impl Acceptor {
    /// Registers the sockets with tokens from `first_token`.
    pub fn new(listeners: Vec<Listener>, share: Option<Share>, first_token: usize, poll: BorrowedFd<'_>) -> io::Result<Self> {
        let batch = AcceptBatch::default();
        let state = Pause::Full;
        let known = listeners.iter().map(|listener| identity(listener.as_raw_fd())).collect::<io::Result<_>>()?;
        let mut acceptor = Self {
            listeners,
            state,
            share,
            placed: 0,
            late: false,
            batch,
            accepted: 0,
            last_failed: false,
            complained: 0,
            spare: Spare::default(),
            known,
            failure: None,
            first_token,
        };
        acceptor.spare.take();
        acceptor.open(poll)?;
        Ok(acceptor)
    }

    /// The poll tokens of the listeners.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd)
    }

    /// The listener that a poll token names.
    pub fn index(&self, token: usize) -> Option<usize> {
        token.checked_sub(self.first_token).filter(|&index| index < self.listeners.len())
    }

    /// How many connections to take at one wake with `open` connections and a limit of `limit`.
    pub fn batch(&self, open: usize, limit: usize) -> usize {
        self.batch.size().min(limit.saturating_sub(open))
    }

    /// Whether another connection may be taken at the present wake, with `open` connections.
    pub fn may_take(&self, open: usize) -> bool {
        self.accepted == 0 || !self.is_above_share(open)
    }

    /// Takes one connection from a listener; `None` when there is none now.
    pub fn accept(&mut self, index: usize, now: u64, poll: BorrowedFd<'_>, log: &Log) -> Option<Accepted> {
        loop {
            let listener = &self.listeners[index];
            match listener.accept() {
                Ok((stream, peer)) => {
                    self.accepted += 1;
                    return Some(Accepted { stream, peer, listener: index, protocol: listener.protocol() });
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        let place = listener.place().to_string();
                        self.complain(format_args!("cannot accept on {place}: {error}"), now, log);
                        self.close(Pause::Starved(now + NO_DESCRIPTOR_MS), poll);
                        if error.raw_os_error() == Some(libc::EMFILE) && self.spare.spend(now) {
                            continue;
                        }
                        return None;
                    }
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO | libc::ENETDOWN | libc::EHOSTUNREACH) => {}
                    Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL | libc::EOPNOTSUPP) => {
                        self.fail(index, &error, now, poll, log);
                        return None;
                    }
                    _ => {
                        self.last_failed = true;
                        return None;
                    }
                },
            }
        }
    }

    #[cold]
    fn complain(&mut self, what: fmt::Arguments<'_>, now: u64, log: &Log) {
        if now >= self.complained + COMPLAIN_MS || self.complained == 0 {
            self.complained = now;
            log.error(format_args!(
                "{what}; raise the limit of open files (ulimit -n, LimitNOFILE=) or lower --worker-connections"
            ));
        }
    }

    /// Handles a listener that cannot accept. If it is still the socket that it was, somebody has shut it down, which the master
    /// mends; otherwise it is lost to this worker.
    #[cold]
    fn fail(&mut self, index: usize, error: &io::Error, now: u64, poll: BorrowedFd<'_>, log: &Log) {
        let listener = &self.listeners[index];
        if identity(listener.as_raw_fd()).ok() != Some(self.known[index]) {
            self.failure = Some(replaced(&format_args!("cannot accept on {} ({error})", listener.place())));
            return;
        }
        log.debug(format_args!("{} does not listen ({error})", listener.place()));
        self.close(Pause::Starved(now + SHUT_DOWN_MS), poll);
    }

    /// Ends a wake of a listener, when `open` connections are there: changes places with the other workers from time to time, and
    /// leaves the next ones to them when this worker is above its share.
    pub fn woken(&mut self, open: usize, now: u64, poll: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.placed += self.accepted;
        self.batch.note(std::mem::take(&mut self.accepted), std::mem::take(&mut self.last_failed));
        if self.state != Pause::Open {
            return Ok(());
        }
        if self.is_above_share(open) {
            self.close(Pause::Aside(now + ASIDE_MS), poll);
        } else if self.is_shared() && self.placed >= ROTATE {
            self.placed = 0;
            // Nobody waits meanwhile.
            let late = self.late;
            self.close(Pause::Full, poll);
            self.open(poll)?;
            self.late = late;
        }
        Ok(())
    }

    /// Notes whether the poll has reported connections on one of the sockets. Without any the next ones have not waited.
    #[inline]
    pub fn polled(&mut self, has_some: bool) {
        self.late &= has_some || self.state != Pause::Open;
    }

    /// Whether a connection that is taken now may have waited for long, so that its client may have left: the worker has had no
    /// room for it, or no descriptor, or was not running.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// Whether other workers accept from the same sockets.
    pub fn is_shared(&self) -> bool {
        self.share.is_some()
    }

    /// Whether this worker with `open` connections has clearly more than others that accept.
    pub fn is_above_share(&self, open: usize) -> bool {
        self.share.as_ref().is_some_and(|share| share.is_exceeded(open))
    }

    /// Adds the sockets to the poll or removes them, as the number of open connections demands.
    pub fn adjust(&mut self, open: usize, limit: usize, now: u64, poll: BorrowedFd<'_>) -> io::Result<()> {
        match self.state {
            Pause::Open | Pause::Aside(_) if open >= limit => self.close(Pause::Full, poll),
            Pause::Full if open < limit => self.open(poll)?,
            Pause::Starved(until) if now >= until => match self.spare.take() {
                true => self.open(poll)?,
                false => self.enter(Pause::Starved(now + NO_DESCRIPTOR_MS)),
            },
            Pause::Aside(until) if now >= until || !self.is_above_share(open) => self.open(poll)?,
            Pause::Open | Pause::Full | Pause::Starved(_) | Pause::Aside(_) | Pause::Closed => {}
        }
        Ok(())
    }

    /// Notes that a connection was closed: its free descriptor ends a shortage.
    pub fn freed(&mut self) {
        if let Pause::Starved(until) = &mut self.state {
            *until = 0;
        }
    }

    /// Whether there is a descriptor for a connection from elsewhere, be it the spare one.
    pub fn has_descriptor(&mut self, now: u64, poll: BorrowedFd<'_>, log: &Log) -> bool {
        let is_free = || poll.try_clone_to_owned();
        let Err(error) = is_free() else { return true };
        self.complain(format_args!("cannot take a connection of another worker: {error}"), now, log);
        if !matches!(self.state, Pause::Closed) {
            self.close(Pause::Starved(now + NO_DESCRIPTOR_MS), poll);
        }
        self.spare.spend(now) && is_free().is_ok()
    }

    /// Until when no descriptor is expected, in milliseconds of the loop's clock; `None`: there are some.
    pub fn starves_until(&self) -> Option<u64> {
        if let Pause::Starved(until) = self.state { Some(until) } else { None }
    }

    /// Whether a worker with `open` connections has to be replaced, since its application leaves it no descriptor; once.
    pub fn gives_up(&mut self, open: usize, now: u64) -> bool {
        self.spare.gives_up(open, now)
    }

    /// When to check the sockets without a wake, in milliseconds of the loop's clock.
    pub fn wants(&self) -> Option<u64> {
        match self.state {
            Pause::Starved(until) | Pause::Aside(until) => Some(until),
            Pause::Open | Pause::Full | Pause::Closed => None,
        }
    }

    /// Whether the worker takes new connections, so that a connection that waits may have woken it and nobody else.
    pub fn is_open(&self) -> bool {
        matches!(self.state, Pause::Open | Pause::Aside(_))
    }

    /// Takes the sockets out of the poll; they can still be accepted from.
    pub fn pause(&mut self, poll: BorrowedFd<'_>) {
        self.close(Pause::Full, poll);
    }

    /// Whether connections may be on their way to a socket without being in its queue.
    pub fn has_handshakes(&self) -> bool {
        self.listeners.iter().any(Listener::has_handshakes)
    }

    /// Takes the sockets out for good and closes them.
    pub fn leave(&mut self, poll: BorrowedFd<'_>) {
        self.close(Pause::Closed, poll);
        self.listeners.clear();
        self.spare.close();
    }

    /// How many listeners there are.
    pub fn len(&self) -> usize {
        self.listeners.len()
    }

    fn open(&mut self, poll: BorrowedFd<'_>) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            epoll::add_exclusive(poll, listener.as_fd(), (self.first_token + index) as u64)?;
        }
        self.late |= matches!(self.state, Pause::Full | Pause::Starved(_));
        self.enter(Pause::Open);
        Ok(())
    }

    fn close(&mut self, state: Pause, poll: BorrowedFd<'_>) {
        if self.state == Pause::Open {
            for listener in &self.listeners {
                // Fails only when the socket is not registered, as intended.
                let _ = epoll::delete(poll, listener.as_fd());
            }
        }
        self.enter(state);
    }

    fn enter(&mut self, state: Pause) {
        self.state = state;
        if let Some(share) = &self.share {
            share.set_accepts(self.is_open());
        }
    }
}
