//! Threads that are in the application without the loop: how they get there, and the completions that they report.

use crate::sys::time::{NS_PER_MS, monotonic};
use crate::worker::connection::Token;
use crate::worker::threads::thread_id::ThreadId;
use crate::worker::work::{Completion, Served, Work};

use super::{EventLoop, ThreadCtx};

impl EventLoop {
    /// Notes that the loop was taken from its owner, which is in the application.
    pub fn lost_loop(&mut self) {
        let now = monotonic() / NS_PER_MS;
        self.outside.insert(self.owner);
        self.calls.add(self.owner, self.calling, now, self.kept_back);
        if self.kept_back
            && let Some(connection) = self.find(self.calling)
        {
            let key = connection.token.key();
            self.arm(key);
            self.look_at_desks(now);
        }
        self.pace.note(true);
    }

    /// Notes that another thread is about to work in the application for this connection.
    pub fn send_out(&mut self, thread: ThreadId, token: Token, ctx: &ThreadCtx) {
        self.outside.insert(thread);
        self.calls.add(thread, token, ctx.clock.ms(), false);
    }

    /// Reads the completion of a thread without the loop. An answer waits while calls are slow and other requests can have the
    /// permit: the thread begins the next call sooner by the time of a send.
    #[inline(never)]
    pub(super) fn open_completion(&mut self, mut completion: Completion, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        self.outside.remove(completion.from);
        self.calls.remove(completion.from, completion.token);
        self.pace.note(completion.slow);
        if ctx.job.spare.is_none() {
            ctx.job.spare = completion.spare.take();
        }
        // Its thread has nothing to do. Streams that are bound to it continue first.
        if self.wants_help() && !self.parked.is_empty() && matches!(completion.served, Served::Whole(..)) {
            self.iteration.opened.push_back(completion);
            return None;
        }
        self.follow_completion(completion, ctx)
    }

    /// Drives the connection of a completion.
    #[inline(never)]
    pub(super) fn follow_completion(&mut self, completion: Completion, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        if let Some(connection) = self.find(completion.token) {
            // Its other input has waited for the answer.
            connection.arrival.waited = true;
            connection.keep(completion.rest);
        }
        self.renew_turn(completion.token, &completion.served, ctx);
        ctx.take_output(completion.out);
        self.go_on(completion.token, completion.served, ctx)
    }
}
