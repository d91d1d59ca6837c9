//! Sending on a connection's socket: what the thread context has rendered, behind what the socket has not taken before.

use crate::worker::app::Gone;
use crate::worker::ctx::ThreadCtx;
use crate::worker::link::deliver;
use crate::worker::send::output::Sent;

use super::{CloseReason, Connection, Flow, Next, Phase};

impl Connection {
    /// Whether what follows is sent, or read to the end, without the outbox.
    pub(super) fn sends_now(&self) -> bool {
        let apart = match self.phase {
            Phase::Preface | Phase::Head | Phase::Waiting(_) | Phase::Serving => false,
            Phase::Body(_) | Phase::Streaming(_) | Phase::Closing(_) | Phase::Linger(_) => true,
        };
        apart || self.output.is_some()
    }

    /// Sends all there is, in order. What waits may never have been tried ([`crate::worker::job::SocketOutlet`]): no edge would ask
    /// for it.
    pub(super) fn send_all(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if self.held {
            self.recall(ctx)?;
        }
        self.send_waiting(ctx)?;
        self.flush(ctx)
    }

    /// Sends what waits from earlier; stops when the socket is full.
    #[inline]
    pub(super) fn send_waiting(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if self.output.is_some() { self.send_output(ctx) } else { Ok(()) }
    }

    #[inline(never)]
    fn send_output(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let Some(output) = &mut self.output else { return Ok(()) };
        match output.send(&self.link.stream) {
            Ok(Sent::All) => {
                self.output = None;
                ctx.passage.free(&self.link.precedence);
                Ok(())
            }
            Ok(Sent::Blocked { progress }) => {
                if progress {
                    self.await_reader(ctx);
                }
                // What the thread context has rendered for this connection must not meet the next one there.
                self.flush(ctx)?;
                Err(Next::Wait)
            }
            Err(_) => Err(Next::Close(CloseReason::ClientGone)),
        }
    }

    /// Sends what the thread context has rendered for this connection; what the socket does not take is kept here.
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

    /// From now on the client has the write timeout to read on. A request of it that waits for a slot keeps its own time: it is
    /// refused in time whatever becomes of the answers before it.
    fn await_reader(&mut self, ctx: &ThreadCtx) {
        if !self.is_waiting() {
            self.deadline = ctx.clock.ms() + ctx.rules.write_timeout;
        }
    }

    /// What follows an attempt to send.
    pub(in crate::worker) fn after_send(&mut self, result: Result<(), Gone>, ctx: &ThreadCtx) -> Flow {
        match result {
            Ok(()) if self.output.is_none() => Ok(()),
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
