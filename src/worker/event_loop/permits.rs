//! Permits: whether one is free, and the queue of connections that wait for one.

use super::iteration::Stage;
use super::{Connection, EventLoop, ThreadCtx, ThreadId, Token, Work};
use crate::worker::overload::Refusal;

impl EventLoop {
    /// Whether the work can be done now; parks it otherwise.
    pub(super) fn admit(&mut self, token: Token, work: Work, ctx: &mut ThreadCtx) -> Option<Work> {
        let work = if self.leaving.is_now() { self.admit_last(token, work, ctx)? } else { work };
        if self.is_ready(&work, ctx) {
            return Some(work);
        }
        self.send_held(ctx);
        self.note_taken(ctx);
        match work {
            Work::Drop(_) | Work::Signals => self.errands.push_back(work),
            Work::Call | Work::Desk | Work::Advance(_) => {
                let too_many = matches!(work, Work::Call) && self.queue_is_full();
                let Some(connection) = self.find(token) else {
                    // Sending the bytes that waited has just shown that its client is gone.
                    ctx.forget_input();
                    return None;
                };
                if matches!(work, Work::Call) && !ctx.job.detach(ctx.input.bytes()) {
                    self.refuse_job(token, ctx);
                    return None;
                }
                connection.park(work, ctx);
                if self.hand_over(token, !too_many, ctx) {
                    return None;
                }
                if too_many && self.queue_is_full() {
                    self.turn_away(token, Refusal::QueueFull, ctx);
                    return None;
                }
                let connection = self.find(token)?;
                // An edge on the socket of a parked stream asks for its work again; one place in the queue is enough.
                if !std::mem::replace(&mut connection.queued, true) {
                    self.parked.push_back(token);
                }
                self.arm(token.key());
            }
        }
        None
    }

    /// Answers 503 to the request that this connection has submitted.
    pub(super) fn refuse(&mut self, token: Token, refusal: Refusal, ctx: &mut ThreadCtx) {
        self.send_held(ctx);
        let Some(connection) = self.find(token) else {
            ctx.forget_input();
            return;
        };
        if ctx.job.detach(ctx.input.bytes()) {
            connection.park(Work::Call, ctx);
            self.turn_away(token, refusal, ctx);
        } else {
            self.refuse_job(token, ctx);
        }
    }

    /// Answers 503 to a request that was parked.
    fn turn_away(&mut self, token: Token, refusal: Refusal, ctx: &mut ThreadCtx) {
        let Some(connection) = self.find(token) else { return };
        let next = connection.turn_away(refusal, ctx);
        self.overload.count(refusal);
        let more = self.follow(token, next, ctx);
        debug_assert!(more.is_none(), "a refusal needs no application");
    }

    /// Answers 503 to a request for which there is no memory to wait.
    fn refuse_job(&mut self, token: Token, ctx: &mut ThreadCtx) {
        ctx.memory.starve();
        let Some(connection) = self.find(token) else { return };
        let next = connection.refuse_job(ctx);
        let more = self.follow(token, next, ctx);
        debug_assert!(more.is_none(), "a refusal needs no application");
    }

    /// Whether as many requests wait for a permit as may.
    fn queue_is_full(&self) -> bool {
        // Streams wait in the same queue and do not count.
        let waits = |token: &&Token| self.connections.get(token.key()).is_some_and(Connection::is_waiting);
        self.parked.len() >= self.max_queue && self.parked.iter().filter(waits).count() >= self.max_queue
    }

    /// Whether a permit is free for work of this member (`None`: of the owner).
    pub(super) fn has_permit(&self, thread: Option<ThreadId>, ctx: &ThreadCtx) -> bool {
        let able = match thread {
            Some(thread) if thread != ctx.thread => !self.outside.contains(thread),
            Some(_) | None => ctx.may_call,
        };
        able && self.outside.len() < self.permits
    }

    /// Begins the next piece of work that waits for a permit; tries each once in an iteration.
    #[inline(never)]
    pub(super) fn unpark(&mut self, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        let ready = self.errands.iter().position(|work| self.is_ready(work, ctx));
        if let Some(work) = ready.and_then(|index| self.errands.remove(index)) {
            return Some((Token::NONE, work));
        }
        while self.iteration.parked > 0 {
            self.iteration.parked -= 1;
            let token = self.parked.pop_front()?;
            let Some(connection) = self.find(token) else { continue };
            let (is_parked, thread) = (connection.is_parked(), connection.waits_for());
            if is_parked && !self.has_permit(thread, ctx) {
                self.parked.push_back(token);
                continue;
            }
            let connection = self.find(token)?;
            connection.queued = false;
            if is_parked {
                let next = connection.unpark(ctx);
                return self.follow(token, next, ctx);
            }
        }
        self.iteration.stage = Stage::Answers;
        None
    }

    /// Whether nothing is left to do in the application.
    pub(super) fn is_quiet(&self) -> bool {
        self.outside.is_empty() && self.errands.is_empty()
    }
}
