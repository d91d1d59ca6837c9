//! Sending on a connection's socket: first the bytes that it has not taken before, then those that the thread context has
//! rendered.

use crate::worker::app::Gone;
use crate::worker::ctx::ThreadCtx;
use crate::worker::link::deliver;
use crate::worker::send::output::{Sent, flush};

use super::{CloseReason, Connection, Flow, Next, Phase};

impl Connection {
    /// Whether bytes wait that the socket has not taken. Those in the outbox have not been offered to it.
    #[inline]
    pub(in crate::worker) fn has_unsent(&self) -> bool {
        self.link.has_unsent(&self.output)
    }

    /// Whether the next bytes are sent, or the connection is read to its end, without the outbox.
    pub(super) fn sends_now(&self) -> bool {
        let apart = match self.phase {
            Phase::Preface | Phase::Handshake | Phase::Head | Phase::Waiting(_) | Phase::Serving(_) => false,
            Phase::Body(_) | Phase::Streaming(_) | Phase::File(_) | Phase::Closing(_) | Phase::Linger(_) => true,
        };
        apart || self.has_unsent()
    }

    /// Sends all there is, in order. Bytes that wait may never have been tried ([`crate::worker::send::outlet::SocketOutlet`]):
    /// no edge would come for them.
    pub(super) fn send_all(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if self.held {
            self.recall(ctx)?;
        }
        self.send_waiting(ctx)?;
        self.flush(ctx)
    }

    /// Sends the bytes that wait; stops when the socket is full.
    #[inline]
    pub(super) fn send_waiting(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if self.has_unsent() { self.send_output(ctx) } else { Ok(()) }
    }

    #[inline(never)]
    fn send_output(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let result = match &mut self.output {
            Some(output) => output.send(&self.link.stream),
            None => flush(&self.link.stream, false),
        };
        match result {
            Ok(Sent::All) => {
                self.output = None;
                ctx.passage.free(&self.link.precedence);
                Ok(())
            }
            Ok(Sent::Blocked { progress }) => {
                if progress {
                    self.await_reader(ctx);
                }
                // Bytes that the thread context has rendered for this connection must not stay there for the next one.
                self.flush(ctx)?;
                Err(Next::Wait)
            }
            Err(_) => Err(Next::Close(CloseReason::ClientGone)),
        }
    }

    /// Sends the bytes that the thread context has rendered for this connection; keeps those that the socket does not take.
    pub(in crate::worker) fn flush(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if self.held {
            self.recall(ctx)?;
        }
        if ctx.out.is_empty() {
            return Ok(());
        }
        let result = deliver(&self.link, &mut self.output, &mut ctx.out);
        self.after_send(result, ctx)
    }

    /// Keeps bytes that the socket did not take.
    pub(in crate::worker) fn keep_waiting(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.output.get_or_insert_default().push(bytes, &self.link.disk).map_err(Gone::Storage)
    }

    /// Gives the client the write timeout to continue reading. A request of it that waits for a permit keeps its own deadline: it
    /// is refused in time, whether the answers before it are read or not.
    fn await_reader(&mut self, ctx: &ThreadCtx) {
        if !self.is_waiting() {
            self.timer.deadline = ctx.clock.ms() + ctx.rules.write_timeout;
        }
    }

    /// The step after an attempt to send.
    pub(in crate::worker) fn after_send(&mut self, result: Result<(), Gone>, ctx: &ThreadCtx) -> Flow {
        match result {
            Ok(()) if !self.has_unsent() => Ok(()),
            Ok(()) => {
                self.await_reader(ctx);
                Err(Next::Wait)
            }
            Err(Gone::Client) => Err(Next::Close(CloseReason::ClientGone)),
            Err(Gone::Storage(error)) => {
                ctx.log.error(format_args!("cannot keep the output that {} has not read: {error}", self.link.peer));
                Err(Next::Close(CloseReason::Cut))
            }
        }
    }
}
