//! A connection whose request, or whose stream, waits for a permit.

use crate::sys::time::NS_PER_MS;
use crate::worker::ctx::ThreadCtx;
use crate::worker::job::QueuedRequest;
use crate::worker::overload::Refusal;
use crate::worker::threads::thread_id::ThreadId;
use crate::worker::work::Work;

use super::{Connection, Next, Phase};

impl Connection {
    /// Parks the work that the connection asked for until a permit is free.
    pub fn park(&mut self, work: Work, ctx: &mut ThreadCtx) {
        match work {
            Work::Call => {
                let queued = self.pack(ctx);
                self.queue(queued, ctx);
            }
            Work::Advance(answer) | Work::Drop(answer) => {
                self.phase = Phase::Streaming(answer);
                self.timer.deadline = u64::MAX;
            }
            // No connection asks for it.
            Work::Signals | Work::Desk => {}
        }
    }

    fn queue(&mut self, mut queued: Box<QueuedRequest>, ctx: &ThreadCtx) {
        // The output is sent while the request waits.
        self.keep_behind(queued.output.take());
        self.link.claim.end();
        queued.leave_thread();
        queued.since = ctx.clock.ns();
        self.timer.deadline = time_of(queued.since, &queued, ctx);
        self.phase = Phase::Waiting(queued);
    }

    /// Its request is given to this thread, which may have to wait for the interpreter: at most as long as for a permit.
    pub fn lie_on_desk(&mut self, thread: ThreadId, queued: &QueuedRequest, ctx: &ThreadCtx) {
        self.desk = Some(thread);
        self.timer.deadline = time_of(queued.given, queued, ctx);
    }

    /// Its request comes back from a desk: it waits for a permit now.
    pub fn leave_desk(&mut self, mut queued: Box<QueuedRequest>, ctx: &ThreadCtx) {
        self.desk = None;
        queued.leave_desk(ctx.clock.ns());
        self.queue(queued, ctx);
    }

    /// Answers 503: its request was parked and may not wait.
    pub fn turn_away(&mut self, refusal: Refusal, ctx: &mut ThreadCtx) -> Next {
        if let Phase::Waiting(queued) = std::mem::replace(&mut self.phase, Phase::Head) {
            self.refuse_overload(refusal, &queued, ctx);
        }
        self.kept = None;
        self.begin_turn(ctx)
    }

    /// Whether its complete request waits for a permit.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_))
    }

    /// Whether it waits for a permit, for its request or its stream.
    pub fn is_parked(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_) | Phase::Streaming(_))
    }

    /// The thread that must do what the connection waits for, if only one can.
    pub fn waits_for(&self) -> Option<ThreadId> {
        match &self.phase {
            Phase::Streaming(answer) => Some(answer.thread()),
            Phase::Preface
            | Phase::Handshake
            | Phase::Head
            | Phase::Body(_)
            | Phase::Waiting(_)
            | Phase::Serving(_)
            | Phase::File(_)
            | Phase::Closing(_)
            | Phase::Linger(_) => None,
        }
    }

    /// A permit is free: asks again for the work that was parked.
    pub fn unpark(&mut self, ctx: &mut ThreadCtx) -> Next {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Waiting(mut queued) => {
                self.phase = Phase::Serving(queued.terms);
                self.renew_turn(ctx);
                queued.output = self.give_output();
                queued.stop_waiting(ctx.clock.ns());
                ctx.job.unpack(queued);
                Next::Work(Work::Call)
            }
            phase => {
                self.phase = phase;
                self.begin_turn(ctx)
            }
        }
    }
}

/// When a request that waits since `since` is refused, in milliseconds of the loop's clock. Rounded up: not before its time.
fn time_of(since: u64, queued: &QueuedRequest, ctx: &ThreadCtx) -> u64 {
    since.saturating_sub(queued.queued).div_ceil(NS_PER_MS).saturating_add(ctx.rules.queue_timeout)
}
