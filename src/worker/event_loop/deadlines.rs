//! How the owner of the loop treats calls that last longer than `--timeout`: first an exception in the call, then an answer
//! without it. It needs no lock of the interpreter for either.

use crate::channel::Report;

use super::{EventLoop, ThreadCtx, Token};
use crate::worker::app::Occasion;
use crate::worker::deadline::alarm::{self, InterruptTarget};
use crate::worker::deadline::calls::{Overdue, OverdueAction};
use crate::worker::deadline::late::LateAnswer;

impl EventLoop {
    /// Handles calls that last too long.
    #[inline]
    pub(super) fn meet_deadlines(&mut self, ctx: &mut ThreadCtx) {
        // Without a call outside of the loop not even the time is read.
        if self.calls.next().is_some_and(|next| next <= ctx.clock.ms()) {
            self.look_after_calls(ctx);
        }
    }

    #[cold]
    fn look_after_calls(&mut self, ctx: &mut ThreadCtx) {
        let now = ctx.clock.ms();
        let (board, slot) = (ctx.scoreboard.clone(), ctx.slot);
        for overdue in self.calls.overdue(now, |thread| board.call(slot, thread.index()).entered()) {
            match overdue.action {
                OverdueAction::Interrupt => interrupt(&overdue, ctx),
                OverdueAction::GiveUp => self.give_up(&overdue, ctx),
            }
        }
    }

    /// Answers a client without the call that it waits for; the worker has to be replaced.
    fn give_up(&mut self, overdue: &Overdue, ctx: &mut ThreadCtx) {
        let call = ctx.scoreboard.call(ctx.slot, overdue.thread.index()).in_flight();
        // It has just ended otherwise; its completion is on its way.
        let Some(call) = call.filter(|call| call.entered == overdue.entered) else { return };
        let request = ctx.alarms[overdue.thread.index()].request(call.since);
        let outcome = match self.find(overdue.token) {
            Some(connection) => match connection.give_up(&call, request.as_ref(), ctx) {
                Some((next, outcome)) => {
                    let more = self.follow(overdue.token, next, ctx);
                    debug_assert!(more.is_none(), "an answer of our own needs no application");
                    outcome
                }
                None => return,
            },
            None => LateAnswer::NoClient,
        };
        self.calls.gave_up(overdue.thread, overdue.token);
        if self.handoff.hands_over {
            // Requests that cannot be handed over may have no thread now.
            self.handoff.retry.get_or_insert(ctx.clock.ms());
        }
        let request = ctx.describe(&call);
        let stacks = ctx.alarms[overdue.thread.index()].stacks();
        let stacks = if stacks.is_empty() { stacks } else { format!("\nwhen it was interrupted:\n{stacks}") };
        ctx.log.error(format_args!("a request does not end within --timeout; {outcome}: {request}{stacks}"));
        if !std::mem::replace(&mut self.reported.0, true) {
            // Fails only when the master is gone, which the channel shows in the next iteration.
            let _ = self.control.report(&Report::Stuck);
            self.hooks.begin(Occasion::GivenUp, &ctx.log);
        }
    }

    /// Whether every permit is taken by a call that was given up, or one of those keeps the interpreter from the others: no
    /// waiting request can be served here.
    #[inline]
    pub(super) fn is_blocked(&mut self, now: u64) -> bool {
        let late = self.calls.late();
        late > 0 && (late >= self.permits || self.is_locked(now))
    }

    /// Whether no call will continue, neither one in the application nor one whose thread waits for the interpreter.
    #[cold]
    fn is_locked(&mut self, now: u64) -> bool {
        if self.calls.late() == 0 {
            return false;
        }
        self.note_begun(now);
        self.calls.is_locked(now)
    }

    /// Whether there are no connections but those whose call was given up: they have their answers, and at most linger.
    pub(super) fn only_late_ones(&self) -> bool {
        self.connections.is_empty() || (self.calls.late() > 0 && self.connections.iter().all(|(_, c)| c.link.claim.is_late()))
    }

    /// When the application has only calls that were given up, the worker cannot leave by itself: reports that once to the
    /// master, which ends it.
    pub(super) fn tell_if_stranded(&mut self, now: u64) {
        let waits = self.errands.iter().any(|work| work.thread().is_some_and(|thread| !self.calls.is_late(thread)));
        let stranded = self.is_locked(now) && !waits;
        if stranded && !std::mem::replace(&mut self.reported.1, true) {
            // As above.
            let _ = self.control.report(&Report::Stranded);
        }
    }

    /// Answers complete requests with 503 at once when no permit will be free any more, so that the worker can leave.
    pub(super) fn turn_waiting_away(&mut self, ctx: &ThreadCtx) {
        let now = ctx.clock.ms();
        let waiting: Vec<Token> =
            self.connections.iter().filter(|(_, c)| c.is_waiting() || c.desk.is_some()).map(|(_, c)| c.token).collect();
        waiting.into_iter().for_each(|token| self.refuse_soon(token, now));
    }

    /// Ends the wait of this connection's request.
    pub(super) fn refuse_soon(&mut self, token: Token, now: u64) {
        if let Some(connection) = self.find(token) {
            connection.hurry(now);
            self.arm(token.key());
        }
    }
}

fn interrupt(overdue: &Overdue, ctx: &ThreadCtx) {
    let Some(call) = ctx.scoreboard.call(ctx.slot, overdue.thread.index()).in_flight() else { return };
    let target = InterruptTarget {
        thread: overdue.thread,
        entered: overdue.entered,
        board: (ctx.scoreboard.clone(), ctx.slot),
        request: ctx.describe(&call),
    };
    match alarm::ring(&ctx.alarms, target) {
        Ok(()) => ctx.slot().count_interrupted(),
        // The call is still given up after the grace.
        Err(error) => ctx.log.warning(format_args!("cannot start the thread that interrupts a request: {error}")),
    }
}
