//! Connections that the application takes over ([`crate::worker::hijack`]), as the loop sees them.

use super::{EventLoop, ThreadCtx, Token};

impl EventLoop {
    /// Removes a socket from the poll that is offered to the application: the loop leaves it alone until it is back.
    pub(super) fn unwatch(&mut self, token: Token) {
        let connection = &mut self.connections[token.key()];
        if std::mem::take(&mut connection.io.registered) {
            // Fails only for a socket that is not registered.
            let _ = connection.link.stream.unwatch(self.poll.registry());
        }
    }

    /// A request finds no permit: logs when connections that were taken over have them all. Checks only when it is the first to
    /// wait.
    pub(super) fn note_taken(&mut self, ctx: &ThreadCtx) {
        if self.parked.is_empty() {
            self.overload.note_held(ctx.calls_without_deadline(), self.permits, &ctx.log);
        }
    }

    /// Ends a socket that the application has taken over: its other descriptors keep it open, and threads of the application may
    /// still wait for it.
    pub(super) fn take_away(&mut self, token: Token) {
        self.unwatch(token);
        // Fails only when the client is gone, which those threads see as well.
        let _ = self.connections[token.key()].link.stream.shutdown_all();
    }

    /// Ends the sockets that the application has taken over, so that its threads that wait for them come back.
    pub(super) fn end_taken(&self) {
        for (_, connection) in self.connections.iter().filter(|(_, connection)| connection.link.is_hijacked()) {
            // Fails only when the client is gone, which the application sees as well.
            let _ = connection.link.stream.shutdown_all();
        }
    }
}
