//! The desks of the threads ([`crate::worker::threads::desk`]) as the loop uses them: it puts requests there, and takes back
//! those that wait for the interpreter for too long.

use crate::worker::connection::Token;
use crate::worker::ctx::ThreadCtx;
use crate::worker::job::QueuedRequest;
use crate::worker::threads::desk::OnDesk;
use crate::worker::threads::thread_id::ThreadId;

use super::EventLoop;

/// How long a request waits for the interpreter before another worker may have it, in milliseconds: threads of Python release it
/// that often (`sys.getswitchinterval`).
const PATIENCE_MS: u64 = 5;

/// Pause between two checks of the requests that wait, in milliseconds.
const AGAIN_MS: u64 = 5;

impl EventLoop {
    /// Puts the request that this connection has submitted at the desk of another thread, which is about to get its mail.
    pub fn hand_out(&mut self, thread: ThreadId, token: Token, ctx: &mut ThreadCtx) {
        self.send_held(ctx);
        let mut queued = self.pack(token, ctx);
        queued.leave_thread();
        self.lay_on_desk(thread, token, queued, ctx);
        self.outside.insert(thread);
        self.calls.add(thread, token, ctx.clock.ms(), true);
        self.look_at_desks(ctx.clock.ms());
        if let Some(connection) = self.find(token) {
            let key = connection.token.key();
            self.arm(key);
        }
    }

    /// The same for the owner of the loop itself, which is about to call without having the interpreter. Its answers may be in
    /// the outbox, and its cache knows the block of the request.
    pub fn keep_back(&mut self, token: Token, ctx: &mut ThreadCtx) {
        let queued = self.pack(token, ctx);
        self.lay_on_desk(ctx.thread, token, queued, ctx);
    }

    fn lay_on_desk(&mut self, thread: ThreadId, token: Token, mut queued: Box<QueuedRequest>, ctx: &ThreadCtx) {
        queued.given = ctx.clock.ns();
        if let Some(connection) = self.find(token) {
            connection.lie_on_desk(thread, &queued, ctx);
        }
        self.desks.put(thread, token, queued);
    }

    /// Plans a check: a thread of this worker may wait for the interpreter from now on.
    pub(super) fn look_at_desks(&mut self, now: u64) {
        if self.handoff.has_others() {
            self.handoff.desks.get_or_insert(now + PATIENCE_MS);
        }
    }

    /// Gives requests that wait for the interpreter to workers that are free, when it is time to look at them.
    #[inline]
    pub(super) fn hand_over_desks(&mut self, now: u64, ctx: &mut ThreadCtx) {
        if self.handoff.desks.is_some_and(|at| at <= now) {
            self.take_from_desks(now, ctx);
        }
    }

    #[cold]
    fn take_from_desks(&mut self, now: u64, ctx: &mut ThreadCtx) {
        for (thread, token) in self.calls.on_desks(now.saturating_sub(PATIENCE_MS)) {
            let is_wanted = self.handoff.has_others() && ctx.scoreboard.others_adopt(ctx.slot);
            // The thread will find out itself that a connection is gone.
            let connection = self.connections.get(token.key()).filter(|connection| connection.token == token);
            let may = |queued: &QueuedRequest| is_wanted && connection.is_some_and(|connection| connection.may_hand_over(queued));
            match self.desks.take_back(thread, token, may) {
                OnDesk::Begun => self.calls.begun(thread, token),
                OnDesk::Back(queued) => self.hand_over_from_desk((thread, token), queued, ctx),
                // As for one that waits for a permit.
                OnDesk::Waits if is_wanted && self.handoff.hands_over && self.is_blocked(now) => self.refuse_soon(token, now),
                OnDesk::Waits => {}
            }
        }
        self.handoff.desks = (self.handoff.has_others() && self.calls.has_desks()).then_some(now + AGAIN_MS);
    }

    /// Notes which requests have left their desks.
    pub(super) fn note_begun(&mut self, now: u64) {
        for (thread, token) in self.calls.on_desks(now) {
            if matches!(self.desks.take_back(thread, token, |_| false), OnDesk::Begun) {
                self.calls.begun(thread, token);
            }
        }
    }

    fn hand_over_from_desk(&mut self, (thread, token): (ThreadId, Token), queued: Box<QueuedRequest>, ctx: &mut ThreadCtx) {
        self.calls.took_back(thread, token);
        let Some(connection) = self.find(token) else { return };
        connection.leave_desk(queued, ctx);
        if !self.offers(token, ctx) {
            // The queue has no room for it at present: it waits for a permit here.
            self.connections[token.key()].queued = true;
            self.parked.push_front(token);
            self.arm(token.key());
        }
    }

    /// Takes back the request of this connection, which has waited for too long, unless its thread has begun it.
    pub(super) fn clear_desk(&mut self, thread: ThreadId, token: Token, ctx: &ThreadCtx) {
        let OnDesk::Back(queued) = self.desks.take_back(thread, token, |_| true) else { return };
        self.calls.took_back(thread, token);
        if let Some(connection) = self.find(token) {
            connection.leave_desk(queued, ctx);
        }
    }
}
