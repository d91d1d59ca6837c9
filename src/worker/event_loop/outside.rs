//! Threads that are in the application without the loop: how they get there, and the completions that they come back with.

use crate::sys::time::{NS_PER_MS, monotonic};
use crate::worker::connection::Token;
use crate::worker::job::{Completion, Work};
use crate::worker::threads::thread_id::ThreadId;

use super::{EventLoop, ThreadCtx};

impl EventLoop {
    /// The loop was taken from its owner, who is in the application.
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

    /// Another thread is about to work in the application for this connection.
    pub fn send_out(&mut self, thread: ThreadId, token: Token, ctx: &ThreadCtx) {
        self.outside.insert(thread);
        self.calls.add(thread, token, ctx.clock.ms(), false);
    }

    /// Reads what a thread without the loop has done.
    pub(super) fn open_letter(&mut self, completion: Completion, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        match completion.next {
            Some(token) => self.taken_from_tray(token),
            None => self.outside.remove(completion.from),
        }
        self.calls.remove(completion.from, completion.token);
        if let Some(next) = completion.next {
            self.calls.add(completion.from, next, ctx.clock.ms(), true);
            self.look_at_desks(ctx.clock.ms());
            if let Some(connection) = self.find(next) {
                connection.desk = Some(completion.from);
            }
        }
        self.pace.note(completion.slow);
        if let Some(connection) = self.find(completion.token) {
            // What came with the request has waited for it.
            connection.waited = true;
            connection.keep(completion.rest);
        }
        self.renew_turn(completion.token, &completion.served, ctx);
        ctx.take_output(completion.out);
        self.go_on(completion.token, completion.served, ctx)
    }
}
