//! How a worker leaves.
//!
//! ```text
//! No ──Retire, Vacate─────────────────────────▶ Drained ──no connection is left──▶ gone
//!  │                                            ▲
//!  ├──Drain──▶ LastCall ──its time is over──────┘        (any) ──Quit──▶ Now ──no call runs──▶ gone
//! ```
//! At a retirement others still accept from the same sockets; at a drain nobody does, so this worker takes the connections that
//! still come. A worker that retires hands its connections over between two requests ([`super::handoff`]). Without anybody to
//! take them (`Drain`, `Vacate`, `--no-lending`) no answer keeps its connection open from the first moment, and idle connections
//! have the time of a request that is already on its way. [`super::quick`] has what a worker that leaves now still does.

use std::io;

use crate::channel::{Order, Report};
use crate::log::count;

use super::{EventLoop, ThreadCtx, borrow, replaced};
use crate::sys::process::exit_now;
use crate::worker::deadline::stacks;
use crate::worker::descriptors::is_replaced;
use crate::worker::{DRAIN_IDLE_MS, EXIT_FAILED};

/// How long a worker still accepts from a listener that it does not share any more, in milliseconds: time for the handshakes that
/// were under way, and for the first bytes of connections that the kernel holds back until those come (TCP_DEFER_ACCEPT). New
/// ones cannot begin by then.
const LAST_CALL_MS: u64 = 200;

/// Connections taken at once from each listener that is left to others. More can wait only when new ones keep coming, and those
/// wake the others.
const RETIRE_TAKE: usize = 64;

/// How the worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It does not leave.
    No,
    /// It will leave, and accepts from the listeners until then (milliseconds of the loop's clock).
    LastCall(u64),
    /// It leaves when every connection has ended.
    Drained,
    /// It leaves when what runs has ended.
    Now {
        /// Until when answers that have begun may be sent, in milliseconds of the loop's clock.
        until: u64,
        /// Whether all other workers leave as well.
        is_common: bool,
    },
}

impl Leaving {
    /// When to act without an event, in milliseconds of the loop's clock, of which it is `now`.
    pub(super) fn wants(self, now: u64) -> Option<u64> {
        match self {
            Self::LastCall(until) => Some(until),
            // Later it waits for calls.
            Self::Now { until, .. } => Some(until).filter(|&until| until > now),
            Self::No | Self::Drained => None,
        }
    }

    /// Whether it leaves now.
    #[inline]
    pub(super) fn is_now(self) -> bool {
        matches!(self, Self::Now { .. })
    }
}

impl EventLoop {
    /// Ends the worker after the loop has failed: finished answers go to their clients, as far as the sockets take them, and to
    /// the log; the master gets the reason. Nothing is dropped: the descriptors that would be closed may name other files by
    /// then.
    #[cold]
    pub fn close_up(&mut self, why: &io::Error, ctx: &mut ThreadCtx) {
        while let Ok(completion) = self.completed.try_recv() {
            // Its next work has no client any more, and a stream belongs to another thread.
            std::mem::forget(self.open_completion(completion, ctx));
        }
        while let Some(completion) = self.iteration.opened.pop_front() {
            std::mem::forget(self.follow_completion(completion, ctx));
        }
        self.finish(ctx);
        // The last three mean that a descriptor is not in the poll, or cannot be (epoll_ctl(2)).
        let is_replaced = is_replaced(why) || matches!(why.raw_os_error(), Some(libc::EPERM | libc::ENOENT | libc::EEXIST));
        let why = if is_replaced {
            replaced(&format_args!("the event loop cannot go on ({why})")).to_string()
        } else {
            why.to_string()
        };
        if self.control.report(&Report::Failed(why.clone())).is_err() {
            ctx.log.critical(format_args!("worker failed: {why}"));
        }
        exit_now(EXIT_FAILED);
    }

    /// Ends what the logs have to say of a worker that leaves.
    pub(super) fn finish(&mut self, ctx: &mut ThreadCtx) {
        self.send_held(ctx);
        self.overload.tell_last(&ctx.log);
        self.tell_rest(u64::MAX, ctx);
        ctx.end_iteration();
    }

    /// Logs the events that no line has, of which one is due.
    #[cold]
    pub(super) fn tell_rest(&self, now: u64, ctx: &ThreadCtx) {
        if let Some(gate) = &ctx.gate {
            gate.tell_rest(now, &ctx.log);
        }
        ctx.gateways.tell_rest(now, &ctx.log);
        ctx.memory.tell_rest(now, &ctx.log);
        if let Some(files) = &ctx.files {
            files.tell_rest(now, &ctx.log);
        }
        ctx.bodies.disk.tell_rest(now, &ctx.log);
        if let Some(unwatched) = self.unwatched.rest(now) {
            ctx.log.error(format_args!(
                "cannot watch {} more, which are closed, since the last record",
                count(unwatched, "connection")
            ));
        }
        self.handoff.tell_rest(now, &ctx.log);
        ctx.catch_up_logs();
    }

    /// Checks whether the worker's descriptors are still its own. A worker that leaves has closed some.
    #[cold]
    fn look_at_descriptors(&mut self) -> io::Result<()> {
        if self.control.has_new_logs() {
            self.descriptors.renew_logs();
        }
        if self.leaving == Leaving::No { self.descriptors.look() } else { Ok(()) }
    }

    /// At the end of an iteration: updates the listeners; returns whether the worker has nothing left to do.
    pub(super) fn is_done(&mut self, ctx: &mut ThreadCtx) -> io::Result<bool> {
        let now = ctx.clock.ms();
        if self.looked != ctx.clock.wall() {
            self.looked = ctx.clock.wall();
            self.look_at_descriptors()?;
        }
        if let Leaving::LastCall(until) = self.leaving
            && until <= now
        {
            self.close_listeners(usize::MAX, ctx);
        }
        self.hand_on(ctx)?;
        if self.leaving != Leaving::No {
            return self.has_ended(now, ctx);
        }
        if self.quota.is_some_and(|quota| ctx.requests() >= quota) {
            self.quota = None;
            // Fails only when the master is gone, which the channel shows in the next iteration.
            let _ = self.control.report(&Report::Worn);
        }
        self.adjust_listeners(ctx, now)?;
        if self.acceptor.gives_up(self.connections.len(), now) {
            let _ = self.control.report(&Report::Starved);
        }
        Ok(false)
    }

    /// Whether a worker that leaves has nothing left to do.
    #[cold]
    fn has_ended(&mut self, now: u64, ctx: &mut ThreadCtx) -> io::Result<bool> {
        match self.leaving {
            Leaving::No | Leaving::LastCall(_) => self.adjust_listeners(ctx, now).map(|()| false),
            Leaving::Drained => {
                if self.is_blocked(now) && !self.handoff.hands_over {
                    self.turn_waiting_away(ctx);
                }
                let is_done =
                    self.only_late_ones() && self.has_left(now) && self.connections.is_empty() && self.is_queue_empty(ctx);
                debug_assert!(!is_done || ctx.memory.is_whole(), "without a connection nothing is kept");
                Ok(is_done)
            }
            Leaving::Now { until, is_common } => Ok(self.has_quit(until, is_common, ctx)),
        }
    }

    /// Whether no call of the worker is in the application; reports to the master when only calls that never end are.
    pub(super) fn has_left(&mut self, now: u64) -> bool {
        if !self.is_quiet() {
            self.tell_if_stranded(now);
            return false;
        }
        true
    }

    /// While all its permits are taken, other workers are the better place for new connections, unless those may be for static
    /// files, which need no permit: then a request for the application is handed over.
    fn adjust_listeners(&mut self, ctx: &ThreadCtx, now: u64) -> io::Result<()> {
        let full = (self.acceptor.is_shared() && self.is_full() && ctx.files.is_none()) || self.is_blocked(now);
        let limit = if full { 0 } else { self.limit };
        self.acceptor.adjust(self.connections.len(), limit, now, borrow(&self.poll))
    }

    /// Follows orders of the master and signals.
    #[cold]
    pub(super) fn obey(&mut self, ctx: &mut ThreadCtx) {
        if self.control.has_signals() {
            self.note_signals();
        }
        let order = self.control.orders();
        if let Some(level) = self.control.take_log_level() {
            ctx.log.set_level(level);
        }
        if let (Some(material), Some(tls)) = (self.control.take_tls(), &ctx.tls)
            && let Err(error) = tls.renew(&material)
        {
            ctx.log.error(format_args!("certificates that have come cannot be used, those from before stay: {error}"));
        }
        if let Some(file) = self.control.take_stacks()
            && let Err(error) = stacks::tell(&ctx.alarms, (ctx.scoreboard.clone(), ctx.slot), file)
        {
            ctx.log.warning(format_args!("no thread can be made for the stacks that an operator asks for: {error}"));
        }
        if let Some(error) = self.control.take_failure() {
            let why = replaced(&format_args!("the channel to the master cannot be read ({error})"));
            ctx.log.error(format_args!("{why}; the worker leaves"));
        }
        match order {
            Some(order @ (Order::Retire | Order::Vacate)) if self.leaving == Leaving::No => {
                self.handoff.leave(order == Order::Retire);
                self.begin_to_leave(Leaving::Drained, ctx);
            }
            Some(Order::Vacate | Order::Drain) if self.handoff.hands_over => {
                // The workers that took connections over leave too.
                self.handoff.leave(false);
                ctx.draining = true;
                self.hurry_idle(ctx);
            }
            Some(Order::Drain) if self.leaving == Leaving::No => {
                self.handoff.leave(false);
                let wait = if self.acceptor.has_handshakes() { LAST_CALL_MS } else { 0 };
                self.begin_to_leave(Leaving::LastCall(ctx.clock.ms() + wait), ctx);
            }
            Some(Order::Quit) => self.quit(ctx),
            Some(Order::Ping | Order::Retire | Order::Vacate | Order::Drain) | None => {}
        }
    }

    /// Begins to leave.
    fn begin_to_leave(&mut self, leaving: Leaving, ctx: &mut ThreadCtx) {
        self.leaving = leaving;
        (ctx.draining, ctx.leaving) = (self.is_draining(), true);
        match leaving {
            // Others still accept, but the kernel has woken only this worker for some that wait now. A worker whose permits are
            // taken has left the listeners, and would take connections that it cannot serve.
            Leaving::Drained => {
                let wakes = self.acceptor.is_open() && !self.is_blocked(ctx.clock.ms());
                self.close_listeners(if wakes { RETIRE_TAKE } else { 0 }, ctx);
            }
            Leaving::LastCall(_) | Leaving::No | Leaving::Now { .. } => self.hurry_idle(ctx),
        }
    }

    /// Takes up to so many connections that wait to be accepted, then accepts no more.
    #[cold]
    fn close_listeners(&mut self, most: usize, ctx: &mut ThreadCtx) {
        self.iteration.accepting.clear();
        self.acceptor.pause(borrow(&self.poll));
        for index in 0..self.acceptor.len() {
            for _ in 0..most {
                if self.connections.len() >= self.limit {
                    break;
                }
                let now = ctx.clock.ms();
                let Some(accepted) = self.acceptor.accept(index, now, borrow(&self.poll), &ctx.log) else { break };
                let token = self.welcome(accepted, ctx);
                self.runnable.extend(token);
            }
        }
        if most == usize::MAX && self.connections.len() >= self.limit {
            // Some may still wait; there will be room for them.
            self.leaving = Leaving::LastCall(ctx.clock.ms() + LAST_CALL_MS);
            return;
        }
        self.leaving = Leaving::Drained;
        self.acceptor.leave(borrow(&self.poll));
        self.hurry_idle(ctx);
        // Fails only when the master is gone, which the channel shows in the next iteration.
        let _ = self.control.report(&Report::Draining);
    }

    /// Leaves idle connections the time of a request that is already on its way, unless they are handed over.
    fn hurry_idle(&mut self, ctx: &ThreadCtx) {
        if self.handoff.hands_over {
            return;
        }
        let deadline = ctx.clock.ms() + DRAIN_IDLE_MS;
        let idle: Vec<usize> = self.connections.iter().filter(|(_, c)| c.is_idle()).map(|(key, _)| key).collect();
        for key in idle {
            self.connections[key].hurry(deadline);
            self.arm(key);
        }
    }
}
