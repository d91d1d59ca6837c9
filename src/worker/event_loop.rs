//! The event loop of a worker. Each turn has one fixed order:
//!
//! 1. the nearest deadline is the poll's timeout (none while a connection waits for its turn),
//! 2. poll, without holding back the application's threads,
//! 3. the clock, once,
//! 4. orders of the master and signals,
//! 5. connections that other workers lend,
//! 6. letters of threads that were in the application,
//! 7. work that waited for a free application slot,
//! 8. listening sockets,
//! 9. sockets of connections,
//! 10. connections that gave up their turn for others,
//! 11. deadlines,
//! 12. the access log.
//!
//! The loop never calls the application. When a connection needs it, [`EventLoop::next`] returns the [`Work`] to the thread that owns
//! the loop and keeps its place in the turn; the thread does the work and hands back what came of it, or another thread goes on
//! with the turn where it was left ([`super::executor`]).
//!
//! Sockets are registered once, edge-triggered, for reading and writing, and only when they have blocked: a short request on a
//! new connection is read, answered and closed without the poll ever knowing of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, unbounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use slab::Slab;

use crate::channel::Report;
use crate::config::{Settings, Trusted};
use crate::lending::Queue;
use crate::net::listener::Listener;
use crate::net::stream::{PeerAddr, Stream};

use super::accept::Acceptor;
use super::app::Peer;
use super::calls::Calls;
use super::connection::{CloseReason, Connection, Edge, Next, Token};
use super::control::Control;
use super::gather::Asked;
use super::job::{Letter, Link, Parcel, Served, Work};
use super::letter_box::LetterBox;
use super::member::{MAIN, Member, Members};
use super::outbox::Outbox;
use super::overload::{Overload, Refusal};
use super::pace::Pace;
use super::seat::Seat;
use super::share::Share;
use super::timers::Wheel;
use super::tray::Tray;
use super::trust;

mod ahead;
mod deadlines;
mod leave;
mod lend;
mod outside;
mod signals;
mod slots;
mod taken;
mod wait;

use leave::Leaving;
use lend::Lending;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// Poll token of the channel and the signal pipes; connections count from 0 and never get there.
const CONTROL: usize = usize::MAX;

/// Poll token of the waker: a thread without the loop has left a letter.
const LETTERS: usize = usize::MAX - 1;

/// Poll token of the queue of lent connections.
const LENDING: usize = usize::MAX - 2;

/// Poll token of the first listener; one per listener from here up.
const LISTENERS: usize = usize::MAX - 0xffff;

/// Where the turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Poll,
    Adopted,
    Letters,
    Parked,
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
    /// Parked work that was not looked at in this turn.
    parked: usize,
    /// Listeners that were ready, each with the connections that may still be taken from it.
    accepting: Vec<(usize, usize)>,
    /// Sockets that were ready, in reverse order.
    sockets: Vec<(Token, Edge)>,
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
    /// Give the loop to this thread.
    HandOver(Member),
    /// The worker is done.
    Leave,
}

/// Everything that the loop owns and could hand to another thread: no Python, no scratch buffers.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    turn: Turn,
    pub(super) acceptor: Acceptor,
    control: Control,
    connections: Slab<Connection>,
    generation: u32,
    /// Connections that go on without an event.
    runnable: VecDeque<Token>,
    /// Connections whose work waits for an application slot, in order.
    parked: VecDeque<Token>,
    /// Where requests lie that come next, and how many the loop has not heard of again.
    tray: Tray,
    laid: usize,
    /// Work for no connection that waits for an application slot: drops of streams whose clients are gone, and handlers of signals.
    errands: VecDeque<Work>,
    /// Requests that may wait for one.
    max_queue: usize,
    overload: Overload,
    lending: Lending,
    timers: Wheel,
    leaving: Leaving,
    /// Count of the slot's requests at which the worker asks to be replaced; `None`: never, or it has asked.
    quota: Option<u64>,
    limit: usize,
    /// Whether the last poll was short: see [`wait`].
    brisk: bool,
    trusted: Trusted,
    /// The thread that owns the loop.
    owner: Member,
    /// Whole answers that wait for others, while the loop lies on the table.
    pub(super) outbox: Outbox,
    /// Sockets of clients that have their last answer and the end.
    pub(super) ended: Vec<OwnedFd>,
    /// The stream that its owner asks.
    pub(super) asked: Asked,
    /// Threads that are in the application without owning the loop.
    pub outside: Members,
    /// Their calls.
    calls: Calls,
    /// The connection for which the owner calls the application.
    pub(super) calling: Token,
    /// Whether the master knows that a call was given up, and that the worker cannot leave for such calls.
    reported: (bool, bool),
    /// Requests that may be in the application at once.
    slots: usize,
    pace: Pace,
    letters: Receiver<Letter>,
    letter_box: LetterBox,
}

impl EventLoop {
    /// A loop over these listeners; `share`: among other workers that accept from them.
    pub fn new(
        listeners: Vec<Listener>,
        control: Control,
        queue: Queue,
        settings: &Settings,
        share: Option<Share>,
        now: u64,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        control.register(poll.registry(), mio::Token(CONTROL))?;
        let lending = Lending::new(queue, settings, share.is_some(), listeners.len());
        let acceptor = Acceptor::new(listeners, share, LISTENERS, borrow(&poll))?;
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(LETTERS))?);
        let (sender, letters) = unbounded();
        let turn = Turn { stage: Stage::End, parked: 0, accepting: Vec::new(), sockets: Vec::new(), yielded: 0, due: Vec::new() };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            turn,
            acceptor,
            control,
            connections: Slab::new(),
            generation: 0,
            runnable: VecDeque::new(),
            parked: VecDeque::new(),
            tray: Tray::default(),
            laid: 0,
            errands: VecDeque::new(),
            max_queue: settings.max_queue,
            overload: Overload::default(),
            lending,
            timers: Wheel::new(now),
            leaving: Leaving::No,
            quota: None,
            limit: settings.worker_connections,
            brisk: false,
            trusted: settings.forwarded_allow_ips.clone(),
            owner: MAIN,
            outbox: Outbox::default(),
            ended: Vec::new(),
            asked: Asked::default(),
            outside: Members::none(settings.members()),
            calls: Calls::new(settings.timeout, settings.timeout_grace),
            calling: Token::NONE,
            reported: (false, false),
            slots: settings.threads,
            pace: Pace::default(),
            letters,
            letter_box: LetterBox { letters: sender, waker },
        })
    }

    /// Where threads without the loop leave their letters, and where they find their next request.
    pub fn ends(&self) -> (LetterBox, Tray) {
        (self.letter_box.clone(), self.tray.clone())
    }

    /// A thread begins to own the loop.
    pub fn own(&mut self, seat: &mut Seat) {
        self.owner = seat.member;
        seat.draining = self.is_draining();
        seat.clock.tick();
        self.take_outbox(seat);
        self.send_held(seat);
        self.send_gathered(seat);
    }

    /// Whether the next call is better done by another thread: the last ones have mostly cost the loop.
    pub fn wants_help(&self) -> bool {
        self.slots > 1 && self.pace.is_slow()
    }

    /// Whether other threads than the main one may call.
    pub fn has_helpers(&self) -> bool {
        self.slots > 1
    }

    /// The request that this connection has submitted, for another thread. Its client may have left just now, as it may in the call.
    pub fn pack(&mut self, token: Token, seat: &mut Seat) -> Box<Parcel> {
        self.send_held(seat);
        match self.find(token) {
            Some(connection) => connection.pack(seat),
            None => Box::new(seat.job.pack(&seat.input, seat.draining)),
        }
    }

    /// Tells the master that the worker serves; `description` names the interpreter. The count of the slot's requests at which the
    /// worker asks to be replaced is `quota`; `None`: never.
    pub fn ready(&mut self, description: String, quota: Option<u64>) -> io::Result<()> {
        self.quota = quota;
        self.control.report(&Report::Ready(description))
    }

    /// Goes on with the turn until the application is needed or the worker is done.
    pub fn next(&mut self, seat: &mut Seat) -> io::Result<Step> {
        loop {
            let work = match self.turn.stage {
                Stage::Poll => {
                    self.wait(seat)?;
                    self.sort_events(seat);
                    self.reclaim(seat);
                    self.turn.stage = if self.lending.adopted.is_empty() { self.first_stage(seat) } else { Stage::Adopted };
                    None
                }
                Stage::Adopted => match self.lending.adopted.pop() {
                    Some(token) => self.take_up(token, seat),
                    None => {
                        self.turn.stage = self.first_stage(seat);
                        None
                    }
                },
                Stage::Letters => match self.letters.try_recv() {
                    Ok(letter) => self.open_letter(letter, seat),
                    Err(_) => {
                        self.turn.parked = self.parked.len();
                        self.turn.stage = Stage::Parked;
                        if !seat.may_call && self.outside.is_empty() {
                            self.send_held(seat);
                            return Ok(Step::HandOver(MAIN));
                        }
                        None
                    }
                },
                Stage::Parked => self.unpark(seat),
                Stage::Accept => self.accept_next(seat)?,
                Stage::Sockets => match self.turn.sockets.pop() {
                    Some((token, edge)) => {
                        if let Some(connection) = self.find(token) {
                            connection.ready(edge);
                        }
                        self.begin_turn(token, seat)
                    }
                    None => {
                        self.send_held(seat);
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
                    self.meet_deadlines(seat);
                    self.turn.stage = if self.turn.due.is_empty() { Stage::End } else { Stage::Deadlines };
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
                    self.send_held(seat);
                    self.close_ended();
                    self.fill_tray();
                    let slot = seat.slot();
                    slot.set_connections(self.connections.len() as u32);
                    slot.beat(seat.clock.ns());
                    self.overload.tell(seat.clock.ms(), &seat.log);
                    seat.end_turn();
                    self.turn.stage = Stage::Poll;
                    if self.is_done(seat)? {
                        return Ok(Step::Leave);
                    }
                    None
                }
            };
            if let Some((token, work)) = work
                && let Some(work) = self.admit(token, work, seat)
            {
                return Ok(Step::Work(token, work));
            }
        }
    }

    /// The owner is back from its work for this connection; what it rendered is in its seat. Returns more work, if there is a slot
    /// for it.
    pub fn resume(&mut self, token: Token, served: Served, seat: &mut Seat) -> Option<(Token, Work)> {
        self.take_outbox(seat);
        self.pace.note(false);
        self.asked.end();
        let (token, work) = self.go_on(token, served, seat)?;
        self.admit(token, work, seat).map(|work| (token, work))
    }

    fn go_on(&mut self, token: Token, served: Served, seat: &mut Seat) -> Option<(Token, Work)> {
        let crowded = self.is_crowded();
        let Some(connection) = self.find(token).filter(|connection| !connection.link.claim.is_late()) else {
            // The client left meanwhile, or was answered without it, or this was the drop of its stream.
            self.errands.extend(served.into_answer().map(Work::Drop));
            seat.take_in(&[], false);
            seat.out.clear();
            return None;
        };
        connection.served(served, seat);
        seat.set_crowded(crowded);
        let next = connection.drive(seat);
        self.follow(token, next, seat)
    }

    /// Whether sockets that are ready wait for the thread.
    fn is_crowded(&self) -> bool {
        self.turn.stage == Stage::Sockets && !self.turn.sockets.is_empty()
    }

    /// Where a turn begins.
    fn first_stage(&self, seat: &Seat) -> Stage {
        // Who owes no letter has sent none, and work is parked only while slots are taken.
        let calm = seat.may_call && self.is_quiet() && self.parked.is_empty();
        if calm { Stage::Accept } else { Stage::Letters }
    }

    /// Sorts what the poll brought, and follows orders at once.
    fn sort_events(&mut self, seat: &mut Seat) {
        let (mut ordered, mut lent) = (false, false);
        for event in &self.events {
            match event.token().0 {
                CONTROL => ordered = true,
                LETTERS => {}
                LENDING => lent = true,
                token if token >= LISTENERS => {
                    if let Some(index) = self.acceptor.index(token) {
                        self.turn.accepting.push((index, self.acceptor.batch(self.connections.len(), self.limit)));
                    }
                }
                _ => {
                    let edge = match (event.is_read_closed() || event.is_error(), event.is_readable()) {
                        (true, _) => Edge::Ended,
                        (false, true) => Edge::Readable,
                        (false, false) => Edge::Writable,
                    };
                    self.turn.sockets.push((event.token().into(), edge));
                }
            }
        }
        self.turn.sockets.reverse();
        if ordered {
            self.obey(seat);
        }
        if lent {
            self.adopt(seat);
        }
    }

    /// Takes the next connection of this turn.
    fn accept_next(&mut self, seat: &mut Seat) -> io::Result<Option<(Token, Work)>> {
        let Some((index, left)) = self.turn.accepting.last_mut() else {
            self.turn.stage = Stage::Sockets;
            return Ok(None);
        };
        let index = *index;
        let open = self.connections.len();
        let accepted = if *left > 0 && open < self.limit && self.acceptor.may_take(open) {
            *left -= 1;
            self.acceptor.accept(index, seat.clock.ms(), borrow(&self.poll), &seat.log)
        } else {
            None
        };
        match accepted {
            Some((stream, peer)) => Ok(self.open(stream, peer, index, seat)),
            None => {
                self.turn.accepting.pop();
                self.acceptor.woken(open, seat.clock.ms(), borrow(&self.poll))?;
                Ok(None)
            }
        }
    }

    /// A new connection: read at once, for its request is usually there already.
    fn open(&mut self, stream: Stream, peer: PeerAddr, listener: usize, seat: &mut Seat) -> Option<(Token, Work)> {
        let token = self.insert(stream, peer, listener, seat);
        self.begin_turn(token, seat)
    }

    fn begin_turn(&mut self, token: Token, seat: &mut Seat) -> Option<(Token, Work)> {
        seat.set_crowded(self.is_crowded());
        let next = self.find(token)?.begin_turn(seat);
        self.follow(token, next, seat)
    }

    fn insert(&mut self, stream: Stream, peer: PeerAddr, listener: usize, seat: &Seat) -> Token {
        self.generation = self.generation % GENERATION_MAX + 1;
        let link = Link::new(stream, self.peer(peer), listener);
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
    pub(super) fn find(&mut self, token: Token) -> Option<&mut Connection> {
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
        let due = connection.deadline() <= now;
        if due && connection.laid {
            self.withdraw(token);
        }
        let connection = self.find(token)?;
        let waited = due && connection.is_waiting();
        let next = if due { connection.expire(seat) } else { Next::Wait };
        if waited {
            self.overload.count(Refusal::Waited);
        }
        self.follow(token, next, seat)
    }

    /// Does what a step of a connection asked for; passes on what only the application can do.
    pub(super) fn follow(&mut self, token: Token, next: Next, seat: &mut Seat) -> Option<(Token, Work)> {
        match next {
            Next::Wait => {
                let connection = &mut self.connections[token.key()];
                if !connection.registered && (!connection.is_serving() || connection.output.is_some()) {
                    connection.registered = true;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let fd = connection.link.stream.as_raw_fd();
                    if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token.into(), interest) {
                        seat.log.error(format_args!("cannot watch a connection: {error}; it is closed"));
                        return self.close(token, CloseReason::Cut, seat);
                    }
                }
                self.arm(token.key());
                None
            }
            Next::Yield => {
                self.runnable.push_back(token);
                None
            }
            Next::Work(work) => {
                if matches!(work, Work::Call) {
                    if seat.job.behind && (seat.job.framing.upgrade || seat.writes) {
                        self.clear_way(token, seat)?;
                    }
                    if seat.job.framing.upgrade {
                        self.unwatch(token);
                    }
                }
                Some((token, work))
            }
            Next::Close(reason) => self.close(token, reason, seat),
        }
    }

    /// Makes sure that a timer entry fires not later than the connection's deadline needs it.
    fn arm(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        if connection.deadline() < connection.armed {
            connection.armed = self.timers.arm(connection.token, connection.deadline());
        }
    }

    /// Ends a connection; a stream that it still had is dropped by the application's side.
    fn close(&mut self, token: Token, reason: CloseReason, seat: &mut Seat) -> Option<(Token, Work)> {
        if self.connections[token.key()].held {
            // What the client has asked for before it closed its end.
            self.send_held(seat);
            self.find(token)?;
        }
        if self.connections[token.key()].link.is_taken() {
            self.take_away(token);
        }
        let mut connection = self.connections.remove(token.key());
        connection.sever();
        if reason == CloseReason::Ended {
            self.close_later(connection.link);
            return None;
        }
        self.acceptor.freed();
        let answer = connection.take_answer()?;
        seat.log.debug(format_args!("the answer to {} is not complete: {reason}", answer.line()));
        Some((Token::NONE, Work::Drop(answer)))
    }
}

impl AsFd for EventLoop {
    /// Its poll.
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.poll)
    }
}

/// Keeps tokens of connections out of the range of the others.
const GENERATION_MAX: u32 = 0x7fff_ffff;

/// The poll's descriptor, for what mio does not offer.
fn borrow(poll: &Poll) -> BorrowedFd<'_> {
    poll.registry().as_fd()
}
