//! The event loop of a worker: what it owns, and how a thread comes to it, leaves it and comes back. A turn of it is in [`turn`].
//!
//! The loop never calls the application. When a connection needs it, [`EventLoop::next`] returns the [`Work`] to the thread that owns
//! the loop and keeps its place in the turn; the thread does the work and hands back what came of it, or another thread goes on
//! with the turn where it was left ([`super::executor`]).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, unbounded};
use mio::{Events, Poll, Waker};
use slab::Slab;

use crate::channel::Report;
use crate::config::{Settings, Trusted};
use crate::lending::Queue;
use crate::log::error::Log;
use crate::net::listener::Listener;
use crate::sys::process::descriptor_limit;

use super::accept::Acceptor;
use super::calls::Calls;
use super::connection::{Connection, Token};
use super::control::Control;
use super::descriptors::{Descriptors, Purpose, taken};
use super::desk::Desks;
use super::gather::Asked;
use super::job::{Letter, Parcel, Served, Work};
use super::last::Ended;
use super::letter_box::LetterBox;
use super::member::{MAIN, Member, Members};
use super::outbox::Outbox;
use super::overload::Overload;
use super::pace::Pace;
use super::seat::Seat;
use super::share::Share;
use super::timers::Wheel;
use super::tray::Tray;

mod ahead;
mod connections;
mod deadlines;
mod desks;
mod leave;
mod lend;
mod outside;
mod signals;
mod slots;
mod taken;
mod turn;
mod wait;

use leave::Leaving;
use lend::Lending;
use turn::Turn;

pub use turn::Step;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// Connections that have their places from the start: as many as `--worker-connections` are by default.
const CONNECTIONS: usize = 16_384;

/// Poll token of the channel and the signal pipes; connections count from 0 and never get there.
const CONTROL: usize = usize::MAX;

/// Poll token of the waker: a thread without the loop has left a letter.
const LETTERS: usize = usize::MAX - 1;

/// Poll token of the queue of lent connections.
const LENDING: usize = usize::MAX - 2;

/// Poll token of the first listener; one per listener from here up.
const LISTENERS: usize = usize::MAX - 0xffff;

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
    /// Connections whose work waits for an application slot, in order.
    parked: VecDeque<Token>,
    /// Where requests lie that come next, and how many the loop has not heard of again.
    tray: Tray,
    laid: usize,
    /// Where requests lie until their threads have the interpreter.
    desks: Desks,
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
    /// Access-log lines of the turn, while the loop lies on the table.
    pub(super) lines: Vec<u8>,
    ended: Ended,
    /// The stream that its owner asks.
    pub(super) asked: Asked,
    /// Threads that are in the application without owning the loop.
    pub outside: Members,
    /// Their calls.
    calls: Calls,
    /// The connection for which the owner calls the application, and whether its request lies on the owner's desk.
    pub(super) calling: Token,
    pub(super) kept_back: bool,
    /// Whether the master knows that a call was given up, and that the worker cannot leave for such calls.
    reported: (bool, bool),
    /// Its own descriptors and those of its parts, and the second of the wall clock in which they were looked at.
    descriptors: Descriptors,
    looked: u64,
    /// Requests that may be in the application at once.
    slots: usize,
    pace: Pace,
    letters: Receiver<Letter>,
    letter_box: LetterBox,
}

impl EventLoop {
    /// A loop over these listeners, with the time in milliseconds and the worker's log; `share`: among other workers that accept from
    /// them.
    pub fn new(
        listeners: Vec<Listener>,
        control: Control,
        queue: Queue,
        settings: &Settings,
        share: Option<Share>,
        (now, log): (u64, &Log),
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        control.register(poll.registry(), mio::Token(CONTROL))?;
        let room = lend::room(descriptor_limit());
        let lending = Lending::new(queue, settings, share.is_some(), listeners.len(), room);
        let acceptor = Acceptor::new(listeners, share, LISTENERS, borrow(&poll))?;
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(LETTERS))?);
        let (sender, letters) = unbounded();
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            turn: Turn::new(),
            acceptor,
            control,
            // Memory that nobody has touched costs nothing; when it is used up, connections must not have to move.
            connections: Slab::with_capacity(settings.worker_connections.min(CONNECTIONS)),
            generation: 0,
            runnable: VecDeque::new(),
            parked: VecDeque::new(),
            tray: Tray::default(),
            laid: 0,
            desks: Desks::new(settings.members()),
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
            lines: Vec::new(),
            ended: Ended::new(room),
            asked: Asked::default(),
            outside: Members::none(settings.members()),
            calls: Calls::new(settings.timeout, settings.timeout_grace),
            calling: Token::NONE,
            kept_back: false,
            reported: (false, false),
            descriptors: Descriptors::default(),
            looked: 0,
            slots: settings.threads,
            pace: Pace::default(),
            letters,
            letter_box: LetterBox { letters: sender, waker, log: log.clone() },
        })
    }

    /// Where threads without the loop leave their letters, and where they find their next request and the one that is theirs.
    pub fn ends(&self) -> (LetterBox, Tray, Desks) {
        (self.letter_box.clone(), self.tray.clone(), self.desks.clone())
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

    /// Makes the request that this connection has submitted, and what came with it, independent of the seat's buffer. `false`: there is
    /// no memory for that, and it can only be called where it is.
    pub fn detach(&mut self, token: Token, seat: &mut Seat) -> bool {
        seat.job.detach(&seat.input) && self.find(token).is_none_or(|connection| connection.keep_input(seat))
    }

    /// The request that this connection has submitted, detached. Its client may have left just now, as it may in the call.
    fn pack(&mut self, token: Token, seat: &mut Seat) -> Box<Parcel> {
        match self.find(token) {
            Some(connection) => connection.pack(seat),
            None => {
                seat.forget_followers();
                // Its thread sees it.
                seat.job.waited = true;
                Box::new(seat.job.pack(seat.draining))
            }
        }
    }

    /// Tells the master that the worker serves; `description` names the interpreter. The count of the slot's requests at which the
    /// worker asks to be replaced is `quota`; `None`: never.
    pub fn ready(&mut self, description: String, quota: Option<u64>) -> io::Result<()> {
        self.quota = quota;
        self.know_descriptors().map_err(|error| taken(&format_args!("a descriptor is not there ({error})")))?;
        self.control.report(&Report::Ready(description))
    }

    /// Remembers which files are behind the descriptors that live as long as the worker.
    fn know_descriptors(&mut self) -> io::Result<()> {
        let mut known = Descriptors::default();
        known.add(borrow(&self.poll), Purpose::Poll)?;
        self.acceptor.descriptors().try_for_each(|fd| known.add(fd, Purpose::Listener))?;
        self.control.descriptors().into_iter().try_for_each(|(fd, purpose)| known.add(fd, purpose))?;
        self.lending.descriptors().into_iter().try_for_each(|fd| known.add(fd, Purpose::Queue))?;
        self.descriptors = known;
        Ok(())
    }

    /// The owner is back from its work for this connection; what it rendered is in its seat. Returns more work, if there is a slot
    /// for it. `rest`: whether the seat has the connection's input.
    pub fn resume(&mut self, token: Token, served: Served, rest: bool, seat: &mut Seat) -> Option<(Token, Work)> {
        if !rest {
            self.renew_turn(token, &served, seat);
        }
        self.take_outbox(seat);
        self.pace.note(false);
        self.asked.end();
        let (token, work) = self.go_on(token, served, seat)?;
        self.admit(token, work, seat).map(|work| (token, work))
    }

    /// A connection that has kept its input goes on behind this. One whose request was taken back has had its turns without it.
    fn renew_turn(&mut self, token: Token, served: &Served, seat: &mut Seat) {
        if !matches!(served, Served::TakenBack)
            && let Some(connection) = self.find(token)
        {
            connection.renew_turn(seat);
        }
    }

    fn go_on(&mut self, token: Token, served: Served, seat: &mut Seat) -> Option<(Token, Work)> {
        if matches!(served, Served::TakenBack) {
            // Its connection has gone on without this thread.
            seat.take_in(&[]);
            seat.out.clear();
            return None;
        }
        let crowded = self.is_crowded();
        let Some(connection) = self.find(token).filter(|connection| !connection.link.claim.is_late()) else {
            // The client left meanwhile, or was answered without it, or this was the drop of its stream.
            self.errands.extend(served.into_answer().map(Work::Drop));
            seat.take_in(&[]);
            seat.out.clear();
            return None;
        };
        let next = if matches!(served, Served::Gone) {
            connection.desert(seat)
        } else {
            connection.served(served, seat);
            seat.set_crowded(crowded);
            connection.drive(seat)
        };
        self.follow(token, next, seat)
    }
}

impl AsFd for EventLoop {
    /// Its poll.
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.poll)
    }
}

/// The poll's descriptor, for what mio does not offer.
fn borrow(poll: &Poll) -> BorrowedFd<'_> {
    poll.registry().as_fd()
}
