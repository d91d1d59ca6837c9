//! The event loop of a worker: its state, and how a thread takes it, puts it down for a call and takes it back. Its iterations
//! are in [`iteration`].
//!
//! The loop never calls the application. When a connection needs it, [`EventLoop::next`] returns the [`Work`] to the thread that
//! owns the loop and keeps its place in the iteration. The thread does the work and returns the result, or another thread
//! continues the iteration at that place ([`crate::worker::threads::executor`]).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, unbounded};
use mio::{Events, Poll, Waker};
use slab::Slab;

use crate::channel::Report;
use crate::config::{Settings, Trusted};
use crate::handoff::Queue;
use crate::log::error::Log;
use crate::net::listener::Listener;
use crate::sys::process::descriptor_limit;

use super::accept::Acceptor;
use super::connection::{Connection, Token};
use super::control::Control;
use super::ctx::ThreadCtx;
use super::descriptors::{Descriptors, Purpose, replaced};
use super::job::QueuedRequest;
use super::life::HookThreads;
use super::overload::Overload;
use super::timers::Wheel;
use crate::worker::accept::share::Share;
use crate::worker::deadline::calls::Calls;
use crate::worker::send::fin::Ended;
use crate::worker::send::outbox::Outbox;
use crate::worker::tally::{Reminder, Tally};
use crate::worker::threads::completions::Completions;
use crate::worker::threads::desk::Desks;
use crate::worker::threads::pace::Pace;
use crate::worker::threads::thread_id::{MAIN, ThreadId, ThreadSet};
use crate::worker::work::{Completion, Served, Work};
use coalesce::Pulled;

mod coalesce;
mod connections;
mod deadlines;
mod desks;
mod handoff;
mod hijacked;
mod iteration;
mod leave;
mod outbox;
mod outside;
mod permits;
mod quick;
mod signals;
mod wait;

use handoff::Handoff;
use iteration::Iteration;
use leave::Leaving;

pub use iteration::Step;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// Pause between two lines about connections that the poll did not take, in milliseconds: a worker that was broken into can
/// hand others any number of them.
const UNWATCHED_MS: u64 = 10_000;

/// Connections that have their places from the start: as many as `--worker-connections` are by default.
const CONNECTIONS: usize = 16_384;

/// Poll token of the channel and the signal pipes; tokens of connections count from 0 and never reach it.
const CONTROL: usize = usize::MAX;

/// Poll token of the waker: a thread without the loop has left a completion.
const COMPLETIONS: usize = usize::MAX - 1;

/// Poll token of the hand-off queue.
const HANDOFF: usize = usize::MAX - 2;

/// Poll token of the first listener; one per listener from here up.
const LISTENERS: usize = usize::MAX - 0xffff;

/// All that the loop owns and that can move to another thread: no Python, no scratch buffers.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    iteration: Iteration,
    acceptor: Acceptor,
    control: Control,
    connections: Slab<Connection>,
    generation: u32,
    /// Connections that continue without an event.
    runnable: VecDeque<Token>,
    /// Connections whose work waits for a permit, in order.
    parked: VecDeque<Token>,
    /// Where requests wait until their threads have the interpreter.
    desks: Desks,
    /// Work for no connection that waits for a permit: drops of streams whose clients are gone, and handlers of signals.
    errands: VecDeque<Work>,
    /// Requests that may wait for a permit.
    max_queue: usize,
    overload: Overload,
    reminder: Reminder,
    /// Connections that the poll did not take.
    unwatched: Tally,
    handoff: Handoff,
    timers: Wheel,
    leaving: Leaving,
    /// Count of the slot's requests at which the worker asks to be replaced; `None`: never, or it has asked.
    quota: Option<u64>,
    limit: usize,
    /// Lines of the logs that are lost and counted.
    lost_lines: u64,
    /// Whether the last poll was short: see [`wait`].
    brisk: bool,
    trusted: Trusted,
    /// The thread that owns the loop.
    owner: ThreadId,
    /// Whole answers that wait for others, while the loop is on the table.
    pub(super) outbox: Outbox,
    /// Access-log lines of the iteration, while the loop is on the table.
    pub(super) lines: Vec<u8>,
    ended: Ended,
    /// The stream that its owner asks.
    pub(super) pulled: Pulled,
    /// Threads that are in the application without owning the loop.
    pub outside: ThreadSet,
    /// Their calls.
    calls: Calls,
    /// The connection for which the owner calls the application, and whether its request is at the owner's desk.
    pub(super) calling: Token,
    pub(super) kept_back: bool,
    /// Whether the master knows that a call was given up, and that the worker cannot leave because of such calls.
    reported: (bool, bool),
    /// Its own descriptors and those of its parts, and the second of the wall clock in which they were checked.
    descriptors: Descriptors,
    looked: u64,
    /// The operator's functions for this worker.
    pub hooks: Arc<HookThreads>,
    /// Requests that may be in the application at once.
    permits: usize,
    pace: Pace,
    completed: Receiver<Completion>,
    completions: Completions,
}

impl EventLoop {
    /// A loop over these listeners, with the time in milliseconds, the worker's log and its reminder; `share`: among other workers
    /// that accept from them.
    pub fn new(
        listeners: Vec<Listener>,
        control: Control,
        queue: Queue,
        settings: &Settings,
        share: Option<Share>,
        (now, log, reminder): (u64, &Log, &Reminder),
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        control.register(poll.registry(), mio::Token(CONTROL))?;
        let room = handoff::room(descriptor_limit());
        let handoff = Handoff::new(queue, settings, share.is_some(), (&listeners, room), reminder);
        let acceptor = Acceptor::new(listeners, share, LISTENERS, borrow(&poll))?;
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(COMPLETIONS))?);
        let (sender, completed) = unbounded();
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            iteration: Iteration::new(),
            acceptor,
            control,
            // Memory that nobody has touched costs nothing; with less of it connections would be moved when there are more.
            connections: Slab::with_capacity(settings.worker_connections.min(CONNECTIONS)),
            generation: 0,
            runnable: VecDeque::new(),
            parked: VecDeque::new(),
            desks: Desks::new(settings.all_threads()),
            errands: VecDeque::new(),
            max_queue: settings.max_queue,
            overload: Overload::default(),
            reminder: reminder.clone(),
            unwatched: Tally::new(UNWATCHED_MS, reminder),
            handoff,
            timers: Wheel::new(now),
            leaving: Leaving::No,
            quota: None,
            limit: settings.worker_connections,
            lost_lines: 0,
            brisk: false,
            trusted: settings.forwarded_allow_ips.clone(),
            owner: MAIN,
            outbox: Outbox::default(),
            lines: Vec::new(),
            ended: Ended::new(room),
            pulled: Pulled::default(),
            outside: ThreadSet::none(settings.all_threads()),
            calls: Calls::new(settings.timeout, settings.timeout_grace),
            calling: Token::NONE,
            kept_back: false,
            reported: (false, false),
            descriptors: Descriptors::default(),
            looked: 0,
            hooks: Arc::default(),
            permits: settings.threads,
            pace: Pace::default(),
            completed,
            completions: Completions { completed: sender, waker, log: log.clone() },
        })
    }

    /// Where threads without the loop leave their completions, and where they find their requests.
    pub fn ends(&self) -> (Completions, Desks) {
        (self.completions.clone(), self.desks.clone())
    }

    /// Makes a thread the owner of the loop.
    pub fn own(&mut self, ctx: &mut ThreadCtx) {
        self.owner = ctx.thread;
        (ctx.draining, ctx.leaving) = (self.is_draining(), self.leaving != Leaving::No);
        ctx.clock.tick();
        self.take_outbox(ctx);
        self.send_held(ctx);
        self.send_coalesced(ctx);
    }

    /// Whether another thread should make the next call: the last ones have mostly cost the loop.
    pub fn wants_help(&self) -> bool {
        self.permits > 1 && self.pace.is_slow()
    }

    /// Whether other threads than the main one may call.
    pub fn has_helpers(&self) -> bool {
        self.permits > 1
    }

    /// Makes the request that this connection has submitted, and the input after it, independent of the thread's buffer. `false`:
    /// there is no memory for that, and it can only be called where it is.
    pub fn detach(&mut self, token: Token, ctx: &mut ThreadCtx) -> bool {
        ctx.job.detach(ctx.input.bytes()) && self.find(token).is_none_or(|connection| connection.keep_input(ctx))
    }

    /// The request that this connection has submitted, detached. Its client may have left just now, as it may in the call.
    fn pack(&mut self, token: Token, ctx: &mut ThreadCtx) -> Box<QueuedRequest> {
        match self.find(token) {
            Some(connection) => connection.pack(ctx),
            None => {
                ctx.forget_followers();
                // Its thread notices it.
                ctx.job.waited = true;
                ctx.pack_job()
            }
        }
    }

    /// Reports to the master that the worker serves; `description` names the interpreter. The count of the slot's requests at
    /// which the worker asks to be replaced is `quota`; `None`: never.
    pub fn ready(&mut self, description: String, quota: Option<u64>) -> io::Result<()> {
        self.quota = quota;
        self.know_descriptors().map_err(|error| replaced(&format_args!("a descriptor is not there ({error})")))?;
        self.control.report(&Report::Ready(description))
    }

    /// Remembers the files of the descriptors that live as long as the worker.
    fn know_descriptors(&mut self) -> io::Result<()> {
        let mut known = Descriptors::default();
        known.add(borrow(&self.poll), Purpose::Poll)?;
        self.acceptor.descriptors().try_for_each(|fd| known.add(fd, Purpose::Listener))?;
        self.control.descriptors().into_iter().try_for_each(|(fd, purpose)| known.add(fd, purpose))?;
        self.handoff.descriptors().into_iter().try_for_each(|fd| known.add(fd, Purpose::Queue))?;
        self.descriptors = known;
        Ok(())
    }

    /// The owner is back from its work for this connection; the rendered bytes are in its thread context. Returns more work, if
    /// there is a permit for it. `rest`: whether the thread context has the connection's input.
    pub fn resume(&mut self, token: Token, served: Served, rest: bool, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        if !rest {
            self.renew_turn(token, &served, ctx);
        }
        self.take_outbox(ctx);
        self.pace.note(false);
        self.pulled.end();
        let (token, work) = self.go_on(token, served, ctx)?;
        self.admit(token, work, ctx).map(|work| (token, work))
    }

    /// A connection that has kept its input continues after this. One whose request was taken back has been driven without it.
    fn renew_turn(&mut self, token: Token, served: &Served, ctx: &mut ThreadCtx) {
        if !matches!(served, Served::Withdrawn)
            && let Some(connection) = self.find(token)
        {
            connection.renew_turn(ctx);
        }
    }

    fn go_on(&mut self, token: Token, served: Served, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        if matches!(served, Served::Withdrawn) {
            // Its connection has continued without this thread.
            ctx.input.forget();
            ctx.out.clear();
            return None;
        }
        let crowded = self.is_crowded();
        let Some(connection) = self.find(token).filter(|connection| !connection.link.claim.is_late()) else {
            // The client left meanwhile, or was answered without it, or this was the drop of its stream.
            self.errands.extend(served.into_answer().map(Work::Drop));
            ctx.input.forget();
            ctx.out.clear();
            return None;
        };
        let next = if matches!(served, Served::Gone) {
            connection.desert(ctx)
        } else {
            connection.served(served, ctx);
            ctx.send.set_crowded(crowded);
            connection.drive(ctx)
        };
        self.follow(token, next, ctx)
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
