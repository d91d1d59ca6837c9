//! The hand-off: no request waits for a busy worker while another is idle, and a worker that leaves hands its connections over.
//!
//! ```text
//! worker without a free permit ─ complete request ──┐                    ┌──▶ worker with a free permit: serves it, has the
//! worker that retires ────────── idle connection ───┴──▶ shared queue ───┘    connection from then on
//! ```
//! Only a worker with a free permit has the queue in its poll, level-triggered and exclusive, as the listening sockets: the
//! kernel wakes one of those that sleep. A worker that is woken takes a connection before it does anything else, while its permit
//! is still free: a connection left in the queue would wake nobody again. It serves the requests in its own queue first.
//!
//! A request that finds no room in the queue keeps its place here and is offered again a little later. When one waits in the
//! shared queue for longer than `--queue-timeout`, a worker that has handed over connections takes it back and refuses it. As
//! many requests may wait there as in one worker (`--max-queue`).

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use crate::config::Settings;
use crate::handoff::{HandoffKind, Packet, Queue};
use crate::log::count;
use crate::log::error::Log;
use crate::net::listener::Listener;
use crate::protocol::Protocol;
use crate::sys::epoll;
use crate::sys::time::NS_PER_MS;

use super::{EventLoop, HANDOFF, Leaving, ThreadCtx, Token, borrow};
use crate::worker::DRAIN_IDLE_MS;
use crate::worker::descriptors::{is_replaced, replaced};
use crate::worker::tally::{Reminder, Tally};

mod adopt;

/// How long a request that found no room in the queue waits until it is offered again, in milliseconds: a full queue is emptied
/// in less.
const RETRY_MS: u64 = 5;

/// How long all permits of a worker are taken before it hands over at once, in milliseconds; a request that has waited for so
/// long is handed over in any case. A quick call that lost its core to another process has it again after a time slice (about 3
/// ms on Linux); handing over each time would slowly concentrate the connections in the workers that are luckiest.
const PATIENCE_MS: u64 = 5;

/// Requests that stay in this worker's queue, however long they wait, while its calls are slow and no other worker is free: as
/// many threads may be back at about the same time. Through the shared queue each costs system calls, and its permit is unused
/// meanwhile.
const NEXT: usize = 4;

/// Descriptors left to the application, at most half of all: a connection that is taken from the queue without a free one is lost
/// (unix(7)).
const SPARE_DESCRIPTORS: usize = 256;

/// Pause between two lines about connections that were lost, in milliseconds: nonsense that somebody writes to the queue must not
/// fill the log.
const LOST_MS: u64 = 10_000;

/// Pause between two lines about connections that came with other rules for TLS, in milliseconds: after a reload that changes these
/// all of them may come.
const CHANGED_MS: u64 = 10_000;

/// The loop's state of the hand-off.
pub(super) struct Handoff {
    queue: Queue,
    /// Where packets are received, allocated at the start: connections in the queue must not wait for memory.
    packet: Packet,
    /// Whether it gives connections away.
    enabled: bool,
    /// Whether there are other workers as a rule.
    shared: bool,
    /// Requests that may wait in the queue while nobody is free.
    max_queue: u64,
    /// What is spoken on the sockets that the server listens on.
    protocols: Box<[Protocol]>,
    /// Connections that the worker has descriptors for.
    room: usize,
    /// Whether the queue is in the poll.
    listens: bool,
    /// Whether the worker leaves and hands its connections over.
    pub(super) hands_over: bool,
    /// Since when all permits are taken, in milliseconds of the loop's clock; `None`: they were not at the end of an iteration.
    full_since: Option<u64>,
    /// When to offer the requests that were kept for a moment, in milliseconds of the loop's clock; `None`: there are none.
    pub(super) retry: Option<u64>,
    /// When to check the requests that wait for the interpreter, in milliseconds of the loop's clock; `None`: none does.
    pub(super) desks: Option<u64>,
    /// When a request that was handed over has waited too long, in milliseconds of the loop's clock.
    overdue: Option<u64>,
    /// While this worker has more than its share of the connections, or no descriptor: until when it leaves them to others, in
    /// milliseconds of the loop's clock.
    aside: Option<u64>,
    /// Connections that were adopted and not driven yet, in reverse order.
    pub(super) adopted: Vec<Token>,
    /// Connections lost on their way.
    lost: Tally,
    /// Connections that ended here because other rules for TLS hold.
    changed: Tally,
    /// Why the queue cannot be used any more.
    failure: Option<io::Error>,
    /// Whether somebody has shut the queue down.
    ended: bool,
}

/// The result of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    /// It is in the queue.
    HandedOver,
    /// It cannot go.
    Kept,
    /// There is no room now.
    NoRoom,
}

/// Connections for which a process with so many descriptors has room.
pub(super) fn room(limit: usize) -> usize {
    limit.saturating_sub(SPARE_DESCRIPTORS).max(limit / 2)
}

impl Handoff {
    /// Nothing is handed over; `listeners`: the sockets that the server listens on; `room`: that of [`room`].
    pub(super) fn new(
        queue: Queue,
        settings: &Settings,
        shared: bool,
        (listeners, room): (&[Listener], usize),
        reminder: &Reminder,
    ) -> Self {
        Self {
            queue,
            packet: Packet::new(),
            enabled: !settings.no_lending,
            shared,
            max_queue: settings.max_queue as u64,
            protocols: listeners.iter().map(Listener::protocol).collect(),
            room: room.min(settings.worker_connections),
            listens: false,
            hands_over: false,
            full_since: None,
            retry: None,
            desks: None,
            overdue: None,
            aside: None,
            adopted: Vec::new(),
            lost: Tally::new(LOST_MS, reminder),
            changed: Tally::new(CHANGED_MS, reminder),
            failure: None,
            ended: false,
        }
    }

    /// Logs that a connection is lost on its way; `why`.
    fn lose(&mut self, why: &dyn fmt::Display, ctx: &ThreadCtx) {
        match self.lost.count(ctx.clock.ms()) {
            None => {}
            Some(1) => ctx.log.error(format_args!("a connection that was handed over is lost: {why}")),
            Some(count) => {
                ctx.log.error(format_args!("{count} connections that were handed over are lost, the last one because {why}"))
            }
        }
    }

    /// Logs the connections that no line has, if one is due.
    #[cold]
    pub(super) fn tell_rest(&self, now: u64, log: &Log) {
        if let Some(lost) = self.lost.rest(now) {
            log.error(format_args!("{} more that were handed over are lost since the last record", count(lost, "connection")));
        }
        if let Some(changed) = self.changed.rest(now) {
            tell_changed(changed, log);
        }
    }

    /// Notes a connection that ends here because its client was let in by rules for TLS that do not hold any more.
    #[cold]
    fn note_changed(&self, ctx: &ThreadCtx) {
        if let Some(changed) = self.changed.count(ctx.clock.ms()) {
            tell_changed(changed, &ctx.log);
        }
    }

    /// The poll's settings of the queue.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        self.queue.ends()
    }

    /// When there is something to do without an event, in milliseconds of the loop's clock.
    pub(super) fn wants(&self) -> Option<u64> {
        self.retry.into_iter().chain(self.desks).chain(self.overdue).chain(self.aside).min()
    }

    /// Whether there may be another worker for requests at desks.
    pub(super) fn has_others(&self) -> bool {
        self.enabled && (self.shared || self.hands_over)
    }

    /// Begins to leave: the worker hands its connections over if somebody is there to take them.
    pub(super) fn leave(&mut self, to_others: bool) {
        self.enabled &= to_others;
        self.hands_over = self.enabled;
        if self.enabled {
            // Notes that somebody is there now, also for requests that had nobody else so far.
            (self.retry, self.desks) = (Some(0), Some(0));
        } else {
            (self.retry, self.desks, self.overdue) = (None, None, None);
        }
    }
}

fn tell_changed(changed: u64, log: &Log) {
    log.info(format_args!(
        "closed {} from before the rules for TLS have changed (--cert-reqs, --ca-certs, --tls-min); a request that was complete got \
         503",
        count(changed, "connection")
    ));
}

impl EventLoop {
    /// Whether no permit is free for a new request.
    pub(super) fn is_full(&self) -> bool {
        self.outside.len() >= self.permits
    }

    /// Whether the worker leaves and keeps no connection after its answer.
    pub(super) fn is_draining(&self) -> bool {
        self.leaving != Leaving::No && !self.handoff.hands_over
    }

    /// Gives a request that was just parked to another worker; returns whether it has. One that can wait in this worker
    /// (`patient`) may stay for a moment.
    pub(super) fn hand_over(&mut self, token: Token, patient: bool, ctx: &mut ThreadCtx) -> bool {
        if !self.handoff.enabled || !self.is_full() {
            return false;
        }
        let stay = self.stay(ctx);
        let now = ctx.clock.ms();
        // Others that are kept for a moment are before it; those that stay are kept for good.
        if self.handoff.retry.is_some() && self.parked.len() > stay {
            if patient {
                return false;
            }
            // Their places are needed.
            self.handoff.retry = None;
            self.offer_parked(now, ctx);
            if self.handoff.retry.is_some() && self.parked.len() > stay {
                return false;
            }
        }
        let soon = *self.handoff.full_since.get_or_insert(now) + PATIENCE_MS;
        if patient && now < soon {
            self.handoff.retry = Some(soon);
            return false;
        }
        let offer = if self.parked.len() < stay { Offered::NoRoom } else { self.offer(token, ctx) };
        if offer == Offered::NoRoom {
            self.handoff.retry = Some(ctx.clock.ms() + RETRY_MS);
        }
        offer == Offered::HandedOver
    }

    /// Offers a connection; returns whether it is gone.
    pub(super) fn offers(&mut self, token: Token, ctx: &mut ThreadCtx) -> bool {
        self.offer(token, ctx) == Offered::HandedOver
    }

    fn offer(&mut self, token: Token, ctx: &mut ThreadCtx) -> Offered {
        let Some(connection) = self.find(token) else { return Offered::Kept };
        if connection.is_waiting() {
            // A free worker may take it at once, however few may wait.
            let board = &ctx.scoreboard;
            let handoff = &self.handoff;
            // The count may be wrong after workers have died; it certainly is if the queue is empty.
            let few = || board.in_transit() < handoff.max_queue || handoff.queue.is_empty();
            let room = board.others_adopt(ctx.slot) || (handoff.shared && few());
            if !room {
                return Offered::NoRoom;
            }
        }
        let connection = &self.connections[token.key()];
        // Its keys change their place when it is packed, and the place is a poorer one for a connection that stays.
        if connection.link.stream.is_encrypted() && !self.handoff.queue.has_room() {
            return Offered::NoRoom;
        }
        let Some(mut message) = connection.handoff() else { return Offered::Kept };
        let (kind, time) = (message.kind, message.time);
        let sent = self.handoff.queue.send(&message, connection.link.stream.descriptor());
        message.session.wipe();
        match sent {
            Ok(true) => {}
            Ok(false) => return Offered::NoRoom,
            Err(error) if is_replaced(&error) => {
                self.handoff.failure = Some(error);
                return Offered::Kept;
            }
            Err(error) => {
                ctx.log.error(format_args!("cannot hand a connection over to other workers: {error}; this worker keeps its own"));
                self.handoff.leave(false);
                return Offered::Kept;
            }
        }
        ctx.slot().count_handed_over();
        if kind == HandoffKind::Request {
            let until = (time / NS_PER_MS).saturating_add(ctx.rules.queue_timeout);
            self.handoff.overdue = Some(self.handoff.overdue.map_or(until, |other| other.min(until)));
            ctx.log.debug(format_args!("handed a request of {} over to other workers", connection.link.peer));
        }
        self.part(token);
        Offered::HandedOver
    }

    /// Removes a connection that is in the queue.
    fn part(&mut self, token: Token) {
        // This has to be explicit: the socket lives on in the queue, and its registration with the poll would too.
        self.unwatch(token);
        self.connections.remove(token.key());
        self.acceptor.freed();
    }

    /// At the end of an iteration: offers the requests that are left, and adds the queue to the poll or removes it.
    pub(super) fn hand_on(&mut self, ctx: &mut ThreadCtx) -> io::Result<()> {
        let now = ctx.clock.ms();
        if let Some(error) = self.handoff.failure.take() {
            return Err(replaced(&format_args!("the hand-off queue cannot be used ({error})")));
        }
        if self.handoff.retry.is_some_and(|at| at <= now) {
            self.handoff.retry = None;
            self.offer_parked(now, ctx);
        }
        self.hand_over_desks(now, ctx);
        if self.handoff.hands_over && self.handoff.retry.is_none() {
            self.hand_over_all(now, ctx);
        }
        // Looks again after the sockets have.
        let starves = self.acceptor.starves_until().map(|until| until.max(now) + 1);
        self.handoff.aside = self.handoff.aside.max(starves).filter(|&until| until > now);
        if !self.is_full() {
            self.handoff.full_since = None;
        }
        let able = !self.is_full() && !self.handoff.ended && self.connections.len() < self.handoff.room;
        let adopts = able && !self.handoff.hands_over && !self.leaving.is_now() && self.handoff.aside.is_none();
        if adopts != self.handoff.listens {
            let [_, receiver] = self.handoff.queue.ends();
            if adopts {
                epoll::add_exclusive(borrow(&self.poll), receiver, HANDOFF as u64)?;
            } else {
                epoll::delete(borrow(&self.poll), receiver)?;
            }
            self.handoff.listens = adopts;
            ctx.slot().set_adopts(adopts);
        }
        Ok(())
    }

    /// How many of the first requests that wait are not offered.
    fn stay(&self, ctx: &ThreadCtx) -> usize {
        let is_near = self.wants_help() && !self.handoff.hands_over && !ctx.scoreboard.others_adopt(ctx.slot);
        if is_near { NEXT.min(self.permits).min(self.max_queue) } else { 0 }
    }

    /// Offers the requests that wait, in order.
    fn offer_parked(&mut self, now: u64, ctx: &mut ThreadCtx) {
        let stay = self.stay(ctx);
        if stay > 0 && !self.parked.is_empty() {
            self.handoff.retry = Some(now + RETRY_MS);
        }
        let mut index = stay;
        while self.handoff.enabled && self.is_full() && index < self.parked.len() {
            match self.offer(self.parked[index], ctx) {
                Offered::HandedOver => drop(self.parked.remove(index)),
                Offered::Kept => {
                    let token = self.parked[index];
                    if self.handoff.hands_over && self.is_blocked(now) {
                        // No other worker can have it, and no thread here will run it.
                        self.refuse_soon(token, now);
                    }
                    index += 1;
                }
                Offered::NoRoom => {
                    self.handoff.retry = Some(now + RETRY_MS);
                    return;
                }
            }
        }
    }

    /// Hands over the connections that wait for a request.
    #[cold]
    fn hand_over_all(&mut self, now: u64, ctx: &mut ThreadCtx) {
        let idle: Vec<Token> = self.connections.iter().filter(|(_, c)| c.is_between_requests()).map(|(_, c)| c.token).collect();
        for token in idle {
            match self.offer(token, ctx) {
                Offered::HandedOver => {}
                Offered::Kept => {
                    let connection = &mut self.connections[token.key()];
                    // When its handshake is over it can go, with all the time of a request.
                    if connection.is_idle() && !connection.shakes_hands() {
                        connection.hurry(now + DRAIN_IDLE_MS);
                        self.arm(token.key());
                    }
                }
                Offered::NoRoom => {
                    self.handoff.retry = Some(now + RETRY_MS);
                    return;
                }
            }
        }
    }
}
