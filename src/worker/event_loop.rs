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
//! The loop never calls the application. When a connection needs it, [`EventLoop::next`] returns the [`Work`] to the thread that runs
//! the loop and keeps its place; the thread does the work and hands back what came of it.
//!
//! Sockets are registered once, edge-triggered, for reading and writing, and only when they have blocked: a short request on a
//! new connection is read, answered and closed without the poll ever knowing of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
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
use super::job::{Done, Link, Work};
use super::seat::Seat;
use super::timers::Wheel;
use super::trust;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// Poll token of the channel and the signal pipes; connections count from 0 and never get there.
const CONTROL: usize = usize::MAX;

/// Poll token of the first listener; one per listener from here up.
const LISTENERS: usize = usize::MAX - 0xffff;

/// How long a listener that nobody shares any more is served on at the end, in milliseconds: time for the handshakes that were under
/// way, and for the first bytes of connections that the kernel holds back for them (TCP_DEFER_ACCEPT). New ones are held off by then.
const LAST_CALL_MS: u64 = 200;

/// Connections taken at once from each listener that is left to others. More can only wait when more keep coming, and those wake the
/// others.
const RETIRE_TAKE: usize = 64;

/// How the worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// It does not.
    No,
    /// It will, and takes until then (milliseconds of the loop's clock) what still comes to the listeners.
    LastCall(u64),
    /// When every connection has ended.
    Drained,
    /// Now.
    Now,
}

/// Where the turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Poll,
    Accept,
    Sockets,
    Yielded,
    Deadlines,
    End,
}

/// One turn of the loop, kept between two pieces of work.
#[derive(Debug)]
struct Turn {
    stage: Stage,
    /// Listeners that were ready, each with the connections that may still be taken from it.
    accepting: Vec<(usize, usize)>,
    /// Sockets that were ready, in reverse order; whether they may be read.
    sockets: Vec<(Token, bool)>,
    /// Connections of the last turn that still have theirs.
    yielded: usize,
    /// Connections whose timer entry has fired.
    due: Vec<Token>,
}

/// What the thread does next.
#[derive(Debug)]
pub enum Step {
    /// Work in the application for this connection, then [`EventLoop::resume`].
    Work(Token, Work),
    /// The worker is done.
    Leave,
}

/// Everything that the loop owns and could hand to another thread: no Python, no scratch buffers.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    turn: Turn,
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
        let turn = Turn { stage: Stage::Poll, accepting: Vec::new(), sockets: Vec::new(), yielded: 0, due: Vec::new() };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            turn,
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

    /// Goes on with the turn until the application is needed or the worker is done.
    pub fn next(&mut self, seat: &mut Seat) -> io::Result<Step> {
        loop {
            let work = match self.turn.stage {
                Stage::Poll => {
                    self.wait(seat)?;
                    seat.clock.turn();
                    self.sort_events(seat);
                    self.turn.stage = Stage::Accept;
                    None
                }
                Stage::Accept => self.accept_next(seat)?,
                Stage::Sockets => match self.turn.sockets.pop() {
                    Some((token, readable)) => {
                        if let Some(connection) = self.find(token) {
                            connection.ready(readable);
                        }
                        self.begin_turn(token, seat)
                    }
                    None => {
                        self.turn.yielded = self.runnable.len();
                        self.turn.stage = Stage::Yielded;
                        None
                    }
                },
                Stage::Yielded if self.turn.yielded > 0 => {
                    self.turn.yielded -= 1;
                    self.runnable.pop_front().and_then(|token| self.begin_turn(token, seat))
                }
                Stage::Yielded => {
                    self.timers.fire(seat.clock.ms(), &mut self.turn.due);
                    self.turn.stage = Stage::Deadlines;
                    None
                }
                Stage::Deadlines => match self.turn.due.pop() {
                    Some(token) => self.expire(token, seat),
                    None => {
                        self.turn.stage = Stage::End;
                        None
                    }
                },
                Stage::End => {
                    seat.slot().set_connections(self.connections.len() as u32);
                    seat.slot().beat(seat.clock.ns());
                    seat.end_turn();
                    self.turn.stage = Stage::Poll;
                    let (open, now) = (self.connections.len(), seat.clock.ms());
                    if let Leaving::LastCall(until) = self.leaving
                        && until <= now
                    {
                        self.close_listeners(usize::MAX, seat);
                    }
                    match self.leaving {
                        Leaving::No => {
                            if seat.has_served_enough() {
                                // Fails only when the master is gone, which the channel tells at the next turn.
                                let _ = self.control.report(&Report::Worn);
                            }
                            self.acceptor.adjust(open, self.limit, now, borrow(&self.poll))?;
                        }
                        Leaving::LastCall(_) => self.acceptor.adjust(open, self.limit, now, borrow(&self.poll))?,
                        Leaving::Drained if self.connections.is_empty() => return Ok(Step::Leave),
                        Leaving::Drained => {}
                        Leaving::Now => return Ok(Step::Leave),
                    }
                    None
                }
            };
            if let Some((token, work)) = work {
                return Ok(Step::Work(token, work));
            }
        }
    }

    /// The call for this connection has returned; its rendered answer is in the seat. Returns more work of the same connection.
    pub fn resume(&mut self, token: Token, done: Done, seat: &mut Seat) -> Option<(Token, Work)> {
        let connection = self.find(token)?;
        match done {
            Done::Called(reply) => connection.called(reply, seat),
            Done::Advanced(answer, step) => connection.advanced(answer, step, seat),
        }
        let next = connection.drive(seat);
        self.follow(token, next, seat)
    }

    /// Polls until something happens or the nearest deadline.
    fn wait(&mut self, seat: &mut Seat) -> io::Result<()> {
        let now = seat.clock.ms();
        let timeout = if self.runnable.is_empty() {
            let timer = self.timers.next(now);
            let acceptor = self.acceptor.wants().map(|at| at.saturating_sub(now));
            let last_call = match self.leaving {
                Leaving::LastCall(until) => Some(until.saturating_sub(now)),
                Leaving::No | Leaving::Drained | Leaving::Now => None,
            };
            timer.into_iter().chain(acceptor).chain(last_call).min().map(Duration::from_millis)
        } else {
            Some(Duration::ZERO)
        };
        let (poll, events) = (&mut self.poll, &mut self.events);
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

    /// Sorts what the poll brought, and follows orders at once.
    fn sort_events(&mut self, seat: &mut Seat) {
        let mut ordered = false;
        for event in &self.events {
            match event.token().0 {
                CONTROL => ordered = true,
                token if token >= LISTENERS => {
                    if let Some(index) = self.acceptor.index(token) {
                        self.turn.accepting.push((index, self.acceptor.batch(self.connections.len(), self.limit)));
                    }
                }
                _ => {
                    let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                    self.turn.sockets.push((event.token().into(), readable));
                }
            }
        }
        self.turn.sockets.reverse();
        if ordered {
            self.obey(seat);
        }
    }

    /// Takes the next connection of this turn.
    fn accept_next(&mut self, seat: &mut Seat) -> io::Result<Option<(Token, Work)>> {
        let Some((index, left)) = self.turn.accepting.last_mut() else {
            self.turn.stage = Stage::Sockets;
            return Ok(None);
        };
        let index = *index;
        let accepted = if *left > 0 && self.connections.len() < self.limit {
            *left -= 1;
            self.acceptor.accept(index, seat.clock.ms(), borrow(&self.poll), &seat.log)
        } else {
            None
        };
        match accepted {
            Some((stream, peer)) => Ok(self.open(stream, peer, index, seat)),
            None => {
                self.turn.accepting.pop();
                self.acceptor.woken(borrow(&self.poll))?;
                Ok(None)
            }
        }
    }

    /// Follows the master and the signals.
    fn obey(&mut self, seat: &mut Seat) {
        match self.control.orders() {
            Some(Order::Retire) if self.leaving == Leaving::No => self.begin_to_leave(Leaving::Drained, seat),
            Some(Order::Drain) if self.leaving == Leaving::No => {
                let wait = if self.acceptor.has_handshakes() { LAST_CALL_MS } else { 0 };
                self.begin_to_leave(Leaving::LastCall(seat.clock.ms() + wait), seat);
            }
            Some(Order::Quit) => self.leaving = Leaving::Now,
            Some(Order::Ping | Order::Retire | Order::Drain) | None => {}
        }
    }

    /// Begins to leave: keeps no connection behind its answer.
    fn begin_to_leave(&mut self, leaving: Leaving, seat: &mut Seat) {
        self.leaving = leaving;
        seat.draining = true;
        match leaving {
            // Others accept on, but the kernel has woken this worker, and nobody else, for some that wait now.
            Leaving::Drained => self.close_listeners(RETIRE_TAKE, seat),
            Leaving::LastCall(_) | Leaving::No | Leaving::Now => self.hurry_idle(seat),
        }
    }

    /// Takes up to so many connections that wait to be accepted, then accepts no more.
    fn close_listeners(&mut self, most: usize, seat: &mut Seat) {
        self.turn.accepting.clear();
        self.acceptor.pause(borrow(&self.poll));
        for index in 0..self.acceptor.len() {
            for _ in 0..most {
                if self.connections.len() >= self.limit {
                    break;
                }
                let now = seat.clock.ms();
                let Some((stream, peer)) = self.acceptor.accept(index, now, borrow(&self.poll), &seat.log) else { break };
                let token = self.insert(stream, peer, index, seat);
                self.runnable.push_back(token);
            }
        }
        if most == usize::MAX && self.connections.len() >= self.limit {
            // Some may still wait; there will be room for them.
            self.leaving = Leaving::LastCall(seat.clock.ms() + LAST_CALL_MS);
            return;
        }
        self.leaving = Leaving::Drained;
        self.acceptor.leave(borrow(&self.poll));
        self.hurry_idle(seat);
        // Fails only when the master is gone, which the channel tells at the next turn.
        let _ = self.control.report(&Report::Draining);
    }

    /// Leaves idle connections the time of a request that is already on its way.
    fn hurry_idle(&mut self, seat: &Seat) {
        let deadline = seat.clock.ms() + super::DRAIN_IDLE_MS;
        let idle: Vec<usize> = self.connections.iter().filter(|(_, c)| c.is_idle()).map(|(key, _)| key).collect();
        for key in idle {
            self.connections[key].hurry(deadline);
            self.arm(key);
        }
    }

    /// A new connection: read at once, for its request is usually there already.
    fn open(&mut self, stream: Stream, peer: PeerAddr, listener: usize, seat: &mut Seat) -> Option<(Token, Work)> {
        let token = self.insert(stream, peer, listener, seat);
        self.begin_turn(token, seat)
    }

    fn begin_turn(&mut self, token: Token, seat: &mut Seat) -> Option<(Token, Work)> {
        let next = self.find(token)?.begin_turn(seat);
        self.follow(token, next, seat)
    }

    fn insert(&mut self, stream: Stream, peer: PeerAddr, listener: usize, seat: &Seat) -> Token {
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let link = Link { stream, peer: self.peer(peer), listener };
        let entry = self.connections.vacant_entry();
        let token = Token::new(entry.key() as u32, self.generation);
        entry.insert(Connection::new(token, link, seat.clock.ms() + seat.rules.header_timeout));
        token
    }

    fn peer(&self, peer: PeerAddr) -> Peer {
        let (addr, port) = peer.text();
        Peer { addr, port, trusted: peer.ip().is_none_or(|ip| trust::is_trusted(&self.trusted, ip)) }
    }

    /// The connection of a token, unless it is gone.
    fn find(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections.get_mut(token.key()).filter(|connection| connection.token == token)
    }

    /// A timer entry has fired; it may be older than the connection's deadline, or than the connection.
    fn expire(&mut self, token: Token, seat: &mut Seat) -> Option<(Token, Work)> {
        let now = seat.clock.ms();
        let connection = self.find(token)?;
        if connection.armed > now {
            // An entry for a later time was there already when this one was armed; the live one is still in the wheel.
            return None;
        }
        connection.armed = u64::MAX;
        let next = if connection.deadline() > now { Next::Wait } else { connection.expire(seat) };
        self.follow(token, next, seat)
    }

    /// Does what a step of a connection asked for; passes on what only the application can do.
    fn follow(&mut self, token: Token, next: Next, seat: &mut Seat) -> Option<(Token, Work)> {
        match next {
            Next::Wait => {
                let connection = &mut self.connections[token.key()];
                if !connection.registered {
                    connection.registered = true;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let fd = connection.link.stream.as_raw_fd();
                    if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token.into(), interest) {
                        seat.log.error(format_args!("cannot watch a connection: {error}; it is closed"));
                        self.close(token, CloseReason::Cut, seat);
                        return None;
                    }
                }
                self.arm(token.key());
                None
            }
            Next::Yield => {
                self.runnable.push_back(token);
                None
            }
            Next::Work(work) => Some((token, work)),
            Next::Close(reason) => {
                self.close(token, reason, seat);
                None
            }
        }
    }

    /// Makes sure that a timer entry fires not later than the connection's deadline needs it.
    fn arm(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        if connection.deadline() < connection.armed {
            connection.armed = self.timers.arm(connection.token, connection.deadline());
        }
    }

    fn close(&mut self, token: Token, reason: CloseReason, seat: &mut Seat) {
        let mut connection = self.connections.remove(token.key());
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
