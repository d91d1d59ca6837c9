//! What the loop does with the tray ([`crate::worker::threads::tray`]): fills it, and takes back what nobody came for.

use crate::worker::connection::Token;
use crate::worker::ctx::ThreadCtx;
use crate::worker::threads::tray::TRAY;

use super::EventLoop;

impl EventLoop {
    /// Lays out the requests that come next, while every slot is taken and calls are slow. It stops at a stream, which waits for
    /// one thread: that must not find other work for ever.
    pub(super) fn fill_tray(&mut self) {
        if self.parked.is_empty() || self.outside.len() < self.permits || !self.wants_help() || !self.errands.is_empty() {
            return;
        }
        while self.laid < TRAY.min(self.permits)
            && let Some(&token) = self.parked.front()
        {
            let Some(connection) = self.find(token) else {
                self.parked.pop_front();
                continue;
            };
            let Some(queued) = connection.lay() else { return };
            self.parked.pop_front();
            self.laid += 1;
            self.tray.lay(token, queued);
        }
    }

    /// Another worker has a thread for what lies there: puts it back in front of the queue.
    pub(super) fn recall_tray(&mut self) {
        while let Some((token, queued)) = self.tray.take_last() {
            self.laid -= 1;
            if let Some(connection) = self.find(token) {
                connection.wait_again(queued);
                connection.queued = true;
                self.parked.push_front(token);
            }
        }
    }

    /// A thread has taken this connection's request from the tray.
    pub(super) fn taken_from_tray(&mut self, token: Token) {
        self.laid -= 1;
        if let Some(connection) = self.find(token) {
            connection.laid = false;
        }
    }

    /// A slot is free: the first request of the tray waits for it, as those do that were never laid out.
    pub(super) fn clear_tray(&mut self) -> Option<Token> {
        if self.laid == 0 {
            return None;
        }
        // Without one threads have taken all that lay there, and their completions are on the way.
        let (token, queued) = self.tray.take()?;
        self.laid -= 1;
        let Some(connection) = self.find(token) else { return self.clear_tray() };
        connection.wait_again(queued);
        Some(token)
    }

    /// The request of this connection has waited for too long: it is the connection's again, unless a thread has it.
    pub(super) fn withdraw(&mut self, token: Token) {
        let Some(queued) = self.tray.withdraw(token) else { return };
        self.laid -= 1;
        if let Some(connection) = self.find(token) {
            connection.wait_again(queued);
        }
    }

    /// The worker leaves at once: nobody shall begin anything more.
    pub(super) fn empty_tray(&mut self, ctx: &ThreadCtx) {
        while let Some(token) = self.clear_tray() {
            ctx.log.debug(format_args!("connection {} is not served any more", token.key()));
        }
    }
}
