//! How a worker leaves at once (`Quit`): what runs is finished, nothing else is begun, and what has come is answered 503.
//!
//! A request runs from the call to the last byte of its answer. Answers have a bounded time for that, which ends before the
//! master's own: the streams that are left then are dropped, so that their `close()` runs, and the worker leaves by itself.

use crate::worker::app::Occasion;
use crate::worker::connection::CloseReason;
use crate::worker::ctx::ThreadCtx;
use crate::worker::overload::Refusal;
use crate::worker::work::Work;

use super::{EventLoop, Leaving, Token, borrow};

/// Time for answers that have begun, in milliseconds from the order: a second less than the master gives the worker (`QUIT_GRACE`
/// of its supervisor).
const FINISH_MS: u64 = 4_000;

/// The same for a worker that has been leaving and has used up the time for that: half of what the master gives it then
/// (`QUIT_GRACE_AFTER_DRAIN`).
const FINISH_DRAINED_MS: u64 = 500;

impl EventLoop {
    /// Begins to leave at once.
    #[cold]
    pub(super) fn quit(&mut self, ctx: &mut ThreadCtx) {
        // Otherwise another worker takes what is in the queue.
        let is_common = self.control.quits_with_all() && !self.handoff.hands_over;
        let until = match self.leaving {
            Leaving::No => ctx.clock.ms() + FINISH_MS,
            Leaving::LastCall(_) | Leaving::Drained => ctx.clock.ms() + FINISH_DRAINED_MS,
            Leaving::Now { until, .. } => until,
        };
        self.leaving = Leaving::Now { until, is_common };
        self.hooks.begin(Occasion::Interrupted, &ctx.log);
        self.handoff.leave(false);
        (ctx.draining, ctx.leaving) = (true, true);
        self.iteration.accepting.clear();
        self.acceptor.leave(borrow(&self.poll));
        self.end_taken();
        self.refuse_all(ctx);
    }

    /// Answers 503 to everything that has come and is not in the application.
    fn refuse_all(&mut self, ctx: &mut ThreadCtx) {
        let tokens: Vec<Token> = self.connections.iter().map(|(_, connection)| connection.token).collect();
        for token in tokens {
            if let Some(thread) = self.find(token).and_then(|connection| connection.desk) {
                self.clear_desk(thread, token, ctx);
            }
            let Some(next) = self.find(token).and_then(|connection| connection.refuse_unserved(ctx)) else { continue };
            self.overload.count(Refusal::Stopping);
            let more = self.follow(token, next, ctx);
            debug_assert!(more.is_none(), "a refusal needs no application");
        }
    }

    /// The work that a worker which leaves at once begins: it calls no more, and asks no stream for a block after its time.
    #[cold]
    pub(super) fn admit_last(&mut self, token: Token, work: Work, ctx: &mut ThreadCtx) -> Option<Work> {
        match work {
            Work::Call => {
                self.refuse(token, Refusal::Stopping, ctx);
                None
            }
            Work::Advance(_) if matches!(self.leaving, Leaving::Now { until, .. } if until <= ctx.clock.ms()) => {
                self.find(token)?.park(work, ctx);
                self.cut(token, ctx);
                None
            }
            Work::Desk | Work::Advance(_) | Work::Drop(_) | Work::Signals => Some(work),
        }
    }

    /// Ends a connection in the middle of its answer.
    fn cut(&mut self, token: Token, ctx: &mut ThreadCtx) {
        if let Some((_, work)) = self.close(token, CloseReason::Cut, ctx) {
            self.errands.push_back(work);
            // The next iteration begins it. Fails only when the poll is gone, which ends the worker.
            let _ = self.completions.waker.wake();
        }
    }

    /// Whether a worker that leaves at once has nothing left to do.
    pub(super) fn has_quit(&mut self, until: u64, is_common: bool, ctx: &mut ThreadCtx) -> bool {
        let now = ctx.clock.ms();
        let answering = |event_loop: &Self| -> Vec<Token> {
            event_loop.connections.iter().filter(|(_, c)| c.is_answering()).map(|(_, c)| c.token).collect()
        };
        if until <= now {
            answering(self).into_iter().for_each(|token| self.cut(token, ctx));
        }
        if !self.has_left(now) || !self.runnable.is_empty() || !answering(self).is_empty() {
            return false;
        }
        if is_common && !self.is_queue_empty(ctx) {
            return false;
        }
        // What has come since.
        self.refuse_all(ctx);
        self.connections.iter().for_each(|(_, connection)| connection.say_end(CloseReason::Idle));
        true
    }
}
