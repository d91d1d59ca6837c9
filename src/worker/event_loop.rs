//! The event loop of a worker. Each turn has one fixed order:
//!
//! 1. the nearest deadline is the poll's timeout (none while a connection waits for its turn),
//! 2. poll, without holding back the application's threads,
//! 3. the clock, once,
//! 4. orders of the master and signals,
//! 5. listening sockets,
//! 6. sockets of connections,
//! 7. connections that gave up their turn for others,
//! 8. deadlines,
//! 9. the access log.
//!
//! Sockets are registered once, edge-triggered, for reading and writing, and only when they have blocked: a short request on a
//! new connection is read, answered and closed without the poll ever knowing of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::{Events, Interest, Poll};
use slab::Slab;

use crate::channel::{Order, Report};
use crate::config::{Settings, Trusted};
use crate::net::listener::Listener;
use crate::net::stream::{PeerAddr, Stream};

use super::accept::Acceptor;
use super::app::Peer;
use super::connection::{CloseReason, Connection, Next, Token};
use super::control::Control;
use super::seat::Seat;
use super::timers::Wheel;
use super::trust;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// Poll token of the channel and the signal pipes; connections count from 0 and never get there.
const CONTROL: usize = usize::MAX;

/// Poll token of the first listener; one per listener from here up.
const LISTENERS: usize = usize::MAX - 0xffff;

/// How the worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// It does not.
    No,
    /// When every connection has ended.
    Drained,
    /// Now.
    Now,
}

/// Everything that the loop owns and could hand to another thread: no Python, no scratch buffers.
pub struct EventLoop {
    poll: Poll,
    acceptor: Acceptor,
    control: Control,
    connections: Slab<Connection>,
    generation: u32,
    /// Connections that go on without an event.
    runnable: VecDeque<Token>,
    timers: Wheel,
    leaving: Leaving,
    limit: usize,
    trusted: Trusted,
}

impl EventLoop {
    /// A loop over these listeners.
    pub fn new(listeners: Vec<Listener>, control: Control, settings: &Settings, shared: bool, now: u64) -> io::Result<Self> {
        let poll = Poll::new()?;
        control.register(poll.registry(), mio::Token(CONTROL))?;
        let acceptor = Acceptor::new(listeners, shared, LISTENERS, borrow(&poll))?;
        Ok(Self {
            poll,
            acceptor,
            control,
            connections: Slab::new(),
            generation: 0,
            runnable: VecDeque::new(),
            timers: Wheel::new(now),
            leaving: Leaving::No,
            limit: settings.worker_connections,
            trusted: settings.forwarded_allow_ips.clone(),
        })
    }

    /// Tells the master that the worker serves; `description` names the interpreter.
    pub fn ready(&self, description: String) -> io::Result<()> {
        self.control.report(&Report::Ready(description))
    }

    /// Serves until the worker is told to leave and has nothing left to do.
    pub fn run(&mut self, seat: &mut Seat) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut accepting = Vec::new();
        let mut due = Vec::new();
        loop {
            self.wait(&mut events, seat)?;
            seat.clock.turn();
            accepting.clear();
            let mut ordered = false;
            for event in &events {
                match event.token().0 {
                    CONTROL => ordered = true,
                    token if let Some(index) = self.acceptor.index(token) => accepting.push(index),
                    _ => {}
                }
            }
            if ordered {
                self.obey(seat)?;
            }
            if self.leaving == Leaving::No {
                for &index in &accepting {
                    self.accept(index, seat)?;
                }
            }
            for event in &events {
                let token = event.token();
                if token.0 < LISTENERS {
                    self.socket_ready(token.into(), event.is_readable() || event.is_read_closed() || event.is_error(), seat);
                }
            }
            for _ in 0..self.runnable.len() {
                if let Some(token) = self.runnable.pop_front() {
                    self.drive(token, seat);
                }
            }
            self.timers.fire(seat.clock.ms(), &mut due);
            for token in due.drain(..) {
                self.expire(token, seat);
            }
            seat.slot().set_connections(self.connections.len() as u32);
            seat.rest();
            match self.leaving {
                Leaving::No => {
                    let (open, now) = (self.connections.len(), seat.clock.ms());
                    self.acceptor.adjust(open, self.limit, now, borrow(&self.poll))?;
                }
                Leaving::Drained if self.connections.is_empty() => return Ok(()),
                Leaving::Drained => {}
                Leaving::Now => return Ok(()),
            }
        }
    }

    /// Polls until something happens or the nearest deadline.
    fn wait(&mut self, events: &mut Events, seat: &mut Seat) -> io::Result<()> {
        let now = seat.clock.ms();
        let timeout = if self.runnable.is_empty() {
            let timer = self.timers.next(now);
            let acceptor = self.acceptor.wants().map(|at| at.saturating_sub(now));
            timer.into_iter().chain(acceptor).min().map(Duration::from_millis)
        } else {
            Some(Duration::ZERO)
        };
        let poll = &mut self.poll;
        let mut result = Ok(());
        match timeout {
            Some(Duration::ZERO) => result = poll.poll(events, timeout),
            Some(_) | None => seat.app.idle(&mut || result = poll.poll(events, timeout)),
        }
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// Follows the master and the signals.
    fn obey(&mut self, seat: &mut Seat) -> io::Result<()> {
        match self.control.orders() {
            Some(Order::Drain) if self.leaving == Leaving::No => self.drain(seat),
            Some(Order::Quit) => {
                self.leaving = Leaving::Now;
                Ok(())
            }
            Some(Order::Drain) | None => Ok(()),
        }
    }

    /// Begins to leave: takes what already waits to be accepted, keeps no connection behind its answer.
    fn drain(&mut self, seat: &mut Seat) -> io::Result<()> {
        self.leaving = Leaving::Drained;
        seat.draining = true;
        self.acceptor.leave(borrow(&self.poll));
        for index in 0..self.acceptor.len() {
            while self.connections.len() < self.limit {
                let now = seat.clock.ms();
                let Some((stream, peer)) = self.acceptor.accept(index, now, borrow(&self.poll), &seat.log) else { break };
                self.open(stream, peer, index, seat);
            }
        }
        self.acceptor.drop_listeners();
        let deadline = seat.clock.ms() + super::DRAIN_IDLE_MS;
        let idle: Vec<usize> = self.connections.iter().filter(|(_, c)| c.is_idle()).map(|(key, _)| key).collect();
        for key in idle {
            self.connections[key].hurry(deadline);
            self.arm(key);
        }
        // The master may be gone, or busy with a second signal; it learns of the drain from the worker's end too.
        let _ = self.control.report(&Report::Draining);
        Ok(())
    }

    /// Accepts a batch from one listener.
    fn accept(&mut self, index: usize, seat: &mut Seat) -> io::Result<()> {
        for _ in 0..self.acceptor.batch(self.connections.len(), self.limit) {
            let now = seat.clock.ms();
            let Some((stream, peer)) = self.acceptor.accept(index, now, borrow(&self.poll), &seat.log) else { break };
            self.open(stream, peer, index, seat);
        }
        self.acceptor.woken(borrow(&self.poll))
    }

    /// A new connection: read at once, for its request is usually there already.
    fn open(&mut self, stream: Stream, peer: PeerAddr, listener: usize, seat: &mut Seat) {
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let deadline = seat.clock.ms() + seat.rules.header_timeout;
        let peer = self.peer(peer);
        let entry = self.connections.vacant_entry();
        let token = Token::new(entry.key() as u32, self.generation);
        entry.insert(Connection::new(token, stream, peer, listener, deadline));
        self.drive(token, seat);
    }

    fn peer(&self, peer: PeerAddr) -> Peer {
        let (addr, port) = peer.text();
        Peer { addr, port, trusted: peer.ip().is_none_or(|ip| trust::is_trusted(&self.trusted, ip)) }
    }

    /// An edge on a connection's socket.
    fn socket_ready(&mut self, token: Token, readable: bool, seat: &mut Seat) {
        if let Some(connection) = self.find(token) {
            connection.ready(readable);
            self.drive(token, seat);
        }
    }

    /// The connection of a token, unless it is gone.
    fn find(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections.get_mut(token.key()).filter(|connection| connection.token == token)
    }

    fn drive(&mut self, token: Token, seat: &mut Seat) {
        if let Some(connection) = self.find(token) {
            let next = connection.drive(seat);
            self.follow(token, next, seat);
        }
    }

    /// A timer entry has fired; it may be older than the connection's deadline, or than the connection.
    fn expire(&mut self, token: Token, seat: &mut Seat) {
        let now = seat.clock.ms();
        let Some(connection) = self.find(token) else { return };
        if connection.armed > now {
            // A second entry, armed earlier for a later time; the live one is still in the wheel.
            return;
        }
        connection.armed = u64::MAX;
        if connection.deadline() > now {
            self.arm(token.key());
            return;
        }
        let next = connection.expire(seat);
        self.follow(token, next, seat);
    }

    /// Does what a step of a connection asked for.
    fn follow(&mut self, token: Token, next: Next, seat: &mut Seat) {
        let key = token.key();
        match next {
            Next::Wait => {
                let connection = &mut self.connections[key];
                if !connection.registered {
                    connection.registered = true;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = self.poll.registry().register(connection.stream(), token.into(), interest) {
                        seat.log.error(format_args!("cannot watch a connection: {error}"));
                        self.close(key, CloseReason::Cut, seat);
                        return;
                    }
                }
                self.arm(key);
            }
            Next::Yield => self.runnable.push_back(token),
            Next::Close(reason) => self.close(key, reason, seat),
        }
    }

    /// Makes sure that a timer entry fires not later than the connection's deadline needs it.
    fn arm(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        if connection.deadline() < connection.armed {
            connection.armed = self.timers.arm(connection.token, connection.deadline());
        }
    }

    fn close(&mut self, key: usize, reason: CloseReason, seat: &mut Seat) {
        let mut connection = self.connections.remove(key);
        connection.abandon(reason, seat);
        self.acceptor.freed();
    }
}

/// Keeps generations out of the range of the listeners' tokens.
const GENERATION_MASK: u32 = 0x7fff_ffff;

/// The poll's descriptor, for what mio does not offer.
fn borrow(poll: &Poll) -> BorrowedFd<'_> {
    poll.registry().as_fd()
}
