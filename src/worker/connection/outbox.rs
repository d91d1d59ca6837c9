//! The answers of a connection in the outbox ([`crate::worker::send::outbox`]): puts them there, sends them, takes them back.

use crate::worker::app::Gone;
use crate::worker::ctx::ThreadCtx;
use crate::worker::send::output;

use super::{CloseReason, Connection, Flow, Next, Phase};

impl Connection {
    /// Sends the bytes that the thread context has rendered for this connection, or puts them into the outbox: in the head phase
    /// they are a whole answer.
    #[inline]
    pub(in crate::worker) fn pass_on(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let held = !ctx.out.is_empty()
            && matches!(self.phase, Phase::Head)
            && ctx.send.may_hold(self.held, ctx.input.has_rest(), ctx.out.len());
        if held && ctx.send.outbox.has_place(self.token, self.held) {
            let now = ctx.clock.ns();
            if ctx.send.outbox.put(self.token, &mut ctx.out, now) {
                self.held = true;
                return Ok(());
            }
        }
        if ctx.out.is_empty() { Ok(()) } else { self.flush(ctx) }
    }

    /// Sends its bytes from the outbox; `None`: all of them are sent.
    pub(in crate::worker) fn send_part(&mut self, part: &[u8], ctx: &ThreadCtx) -> Option<Next> {
        self.held = false;
        let Ok(sent) = output::send(&self.link.stream, part) else { return Some(Next::Close(CloseReason::ClientGone)) };
        let kept = if sent == part.len() {
            ctx.passage.free(&self.link.precedence);
            if !self.link.stream.has_unsent() {
                return None;
            }
            Ok(())
        } else {
            self.keep_waiting(&part[sent..])
        };
        Some(self.after_send(kept, ctx).err().unwrap_or(Next::Wait))
    }

    /// Takes back its bytes from the outbox: other bytes are to be sent, which must go after them.
    pub(in crate::worker) fn recall(&mut self, ctx: &mut ThreadCtx) -> Flow {
        self.held = false;
        let bytes = ctx.send.outbox.disown(self.token);
        let disk = &self.link.disk;
        let kept = match &mut self.output {
            Some(output) => output.put_first(bytes, disk).map_err(Gone::Storage),
            None if ctx.out.try_reserve(bytes.len()).is_ok() => {
                ctx.out.splice(..0, bytes.iter().copied());
                Ok(())
            }
            None => match output::send(&self.link.stream, bytes) {
                Ok(sent) if sent == bytes.len() => Ok(()),
                Ok(sent) => self.output.get_or_insert_default().push(&bytes[sent..], disk).map_err(Gone::Storage),
                Err(_) => Err(Gone::Client),
            },
        };
        if kept.is_err() { self.after_send(kept, ctx) } else { Ok(()) }
    }
}
