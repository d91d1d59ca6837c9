//! A request on its way to the application, and the result, as the connection sees them.

use crate::worker::DRAIN_IDLE_MS;
use crate::worker::app::{Fate, Produced};
use crate::worker::ctx::ThreadCtx;
use crate::worker::job::{Job, QueuedRequest};
use crate::worker::kept::{Kept, Leased, copied};
use crate::worker::send::output::Output;
use crate::worker::work::{Served, Work};

use super::{CloseReason, Connection, Flow, Next, Phase};

impl Connection {
    /// A request is complete and its body in the thread's job: adds all else that its call needs.
    #[inline(always)] // requests without a body come through one caller, and those with one through the others
    pub(super) fn submit(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if ctx.job.framing.upgrade {
            // This is a copy: if the application does not take over, the request is an ordinary one, and these bytes are the next
            // one. Without memory for the copy it is an ordinary one too.
            match copied(ctx.input.rest()) {
                Some(early) => ctx.job.early = early,
                None => ctx.job.framing.upgrade = false,
            }
        }
        let terms = self.wire.terms(Some(ctx.job.view(ctx.input.bytes())), ctx.job.framing.persistent);
        let job = &mut ctx.job;
        job.terms = terms;
        job.is_fresh = true;
        self.io.is_last = !job.framing.persistent;
        job.link = Some(self.link.clone());
        job.queued = match std::mem::take(&mut self.arrival.since) {
            0 => 0,
            since => ctx.clock.ns().saturating_sub(since),
        };
        job.waited = std::mem::take(&mut self.arrival.waited);
        self.send_along(job);
        self.phase = Phase::Serving(terms);
        Err(Next::Work(Work::Call))
    }

    /// Moves the bytes that the socket has not taken to the request, so that `write()` goes after them.
    pub(in crate::worker) fn send_along(&mut self, job: &mut Job) {
        job.output = self.give_output();
        job.behind = self.held;
        if job.behind {
            self.link.precedence.set();
        }
    }

    /// Takes the bytes that the socket has not taken. The call that gets them has something to send.
    pub(super) fn give_output(&mut self) -> Option<Box<Output>> {
        let output = self.output.take();
        if output.is_some() {
            self.link.claim.begin();
        }
        output
    }

    /// Takes the input after the request that it has submitted out of the thread context. `false`: it stays there, because there
    /// is no memory.
    pub fn keep_input(&mut self, ctx: &mut ThreadCtx) -> bool {
        if ctx.input.has_rest() {
            let Some(rest) = Leased::copy(ctx.input.rest(), &ctx.memory) else { return false };
            self.kept = Some(Box::new(Kept::Rest(rest)));
            ctx.input.forget();
        }
        true
    }

    /// Takes the request that it has submitted, whose head is detached, out of the thread context, and its own input too.
    pub fn pack(&mut self, ctx: &mut ThreadCtx) -> Box<QueuedRequest> {
        let mut queued = ctx.pack_job();
        if let Some(output) = self.give_output() {
            queued.output = Some(output);
        }
        self.stow(ctx);
        queued
    }

    /// Takes back the result of the application's side.
    pub fn served(&mut self, served: Served, ctx: &mut ThreadCtx) {
        self.timer.deadline = ctx.clock.ms() + ctx.rules.write_timeout;
        self.desk = None;
        self.arrival.moves = 0;
        match served {
            Served::Whole(output, fate) | Served::Ended(output, fate) => {
                self.link.claim.end();
                self.keep_behind(output);
                self.after_answer(fate, ctx);
            }
            Served::Begun(output, answer) => {
                self.keep_behind(output);
                self.phase = Phase::Streaming(answer);
            }
            Served::Produced(output, answer, step) => {
                self.keep_behind(output);
                self.take_step(answer, step, ctx);
                if step == Produced::Rendered {
                    // It has had its time: its blocks are sent, then others proceed.
                    self.budget = 0;
                }
            }
            Served::Dropped | Served::Handled | Served::Gone | Served::Withdrawn => {}
        }
    }

    /// Its client left before its request was begun: the requests after it are not begun either.
    #[cold]
    pub fn desert(&mut self, ctx: &mut ThreadCtx) -> Next {
        self.phase = Phase::Head;
        self.leave(Next::Close(CloseReason::ClientGone), ctx)
    }

    /// Keeps the bytes that a call has not sent, after those that wait here.
    pub(super) fn keep_behind(&mut self, output: Option<Box<Output>>) {
        match (&mut self.output, output) {
            (Some(first), Some(second)) => first.append(second),
            (first @ None, second) => *first = second,
            (Some(_), None) => {}
        }
    }

    /// The next request begins, or the connection closes.
    pub(super) fn after_answer(&mut self, fate: Fate, ctx: &mut ThreadCtx) {
        match fate {
            Fate::Keep => {
                self.phase = Phase::Head;
                let wait = if ctx.input.has_rest() || self.kept.is_some() || self.link.stream.has_part() {
                    ctx.rules.header_timeout
                } else if ctx.draining {
                    // The answer was rendered before the worker began to leave and promised to stay: a request that is already on
                    // its way must still be answered.
                    DRAIN_IDLE_MS
                } else {
                    ctx.rules.keep_alive
                };
                self.timer.deadline = ctx.clock.ms() + wait;
                self.take_kept(ctx);
            }
            Fate::Close | Fate::CloseWithFin | Fate::Cut | Fate::Reset | Fate::Hijacked { .. } => {
                self.phase = Phase::Closing(fate);
                self.kept = None;
            }
        }
    }
}
