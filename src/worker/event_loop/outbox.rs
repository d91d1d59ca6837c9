//! The outbox ([`crate::worker::send::outbox`]) as the loop sees it: with the loop on the table during a call, sent when it is
//! due.

use crate::worker::connection::Token;
use crate::worker::ctx::ThreadCtx;
use crate::worker::work::Work;

use super::EventLoop;

impl EventLoop {
    /// Prepares the outbox for this work, for which the loop will be put on the table.
    #[inline]
    pub fn prepare_publish(&mut self, token: Token, work: &Work, ctx: &mut ThreadCtx) {
        if !ctx.send.outbox.is_empty() {
            // While handlers of signals run, nobody may be there to take the loop.
            if matches!(work, Work::Signals) || ctx.send.is_due(ctx.clock.ns()) {
                self.send_held(ctx);
            }
            std::mem::swap(&mut self.outbox, &mut ctx.send.outbox);
        }
        // A thread that takes the loop writes them: the call may last, or never end.
        ctx.give_lines(&mut self.lines);
        self.calling = token;
        self.kept_back = matches!(work, Work::Desk);
        self.pulled.begin(token, work);
    }

    /// The loop is this thread's again: takes back the answers and lines that were on the table with it.
    #[inline]
    pub(in crate::worker) fn take_outbox(&mut self, ctx: &mut ThreadCtx) {
        if !self.outbox.is_empty() {
            std::mem::swap(&mut self.outbox, &mut ctx.send.outbox);
        }
        if !self.lines.is_empty() {
            ctx.take_lines(&mut self.lines);
        }
    }

    /// Sends the answers in the outbox before a call that wants to send by itself; bytes that the socket does not take go along
    /// with the request. `None`: its client is gone.
    pub(in crate::worker) fn clear_way(&mut self, token: Token, ctx: &mut ThreadCtx) -> Option<()> {
        self.send_held(ctx);
        let Some(connection) = self.find(token) else {
            ctx.forget_input();
            return None;
        };
        connection.send_along(&mut ctx.job);
        Some(())
    }

    /// Sends the answers in the outbox.
    #[inline]
    pub(in crate::worker) fn send_held(&mut self, ctx: &mut ThreadCtx) {
        if !ctx.send.outbox.is_empty() {
            self.send_parts(ctx);
        }
    }

    #[inline(never)]
    fn send_parts(&mut self, ctx: &mut ThreadCtx) {
        let mut outbox = std::mem::take(&mut ctx.send.outbox);
        outbox.drain(|token, part| {
            let Some(next) = self.find(token).and_then(|connection| connection.send_part(part, ctx)) else { return };
            let work = self.follow(token, next, ctx);
            debug_assert!(work.is_none(), "it has no stream");
        });
        ctx.send.outbox = outbox;
    }
}
