//! A request of FastCGI that is not wanted any more while a stream gives its answer (FastCGI specification, section 5.4): the answer
//! ends, and the connection goes on.

use crate::http::records::{RequestEnd, put_end};
use crate::protocol::fastcgi;
use crate::worker::app::Fate;
use crate::worker::ctx::ThreadCtx;
use crate::worker::kept::Kept;
use crate::worker::read_buffer::READ_SIZE;
use crate::worker::streaming::Streaming;
use crate::worker::wire::Wire;

use super::{CloseReason, Connection, Next};

impl Connection {
    /// Whether the front has aborted the request whose stream is to be asked for more. What it sends meanwhile is read for that, as
    /// far as it is kept.
    #[inline]
    pub(super) fn is_aborted(&mut self, ctx: &mut ThreadCtx) -> Result<bool, CloseReason> {
        match &self.wire {
            Wire::Http(_) | Wire::Pairs(_) | Wire::Packets(_) => Ok(false),
            Wire::Records(wire) => {
                let id = wire.id();
                self.has_abort(id, ctx)
            }
        }
    }

    #[cold]
    fn has_abort(&mut self, id: u16, ctx: &mut ThreadCtx) -> Result<bool, CloseReason> {
        self.stow(ctx);
        // Of a connection that the poll does not know, no edge tells.
        while (self.io.readable || !self.io.registered) && self.kept_len() < READ_SIZE {
            match self.read(ctx.input.space()) {
                Ok(0) => break,
                Ok(count) => {
                    ctx.input.filled(count);
                    let is_kept = match self.kept.as_deref_mut() {
                        Some(Kept::Rest(bytes)) => bytes.push(ctx.input.rest(), &ctx.memory),
                        Some(Kept::Partial(_) | Kept::Handshake(_) | Kept::Refused) => false,
                        None => {
                            self.kept = Some(Kept::rest(ctx.input.rest(), &ctx.memory));
                            true
                        }
                    };
                    if !is_kept {
                        // The next request is refused: a part of it would be another one.
                        self.kept = Some(Box::new(Kept::Refused));
                    }
                    ctx.input.forget();
                }
                // A front that has closed its side of sending still reads.
                Err(CloseReason::ClientClosed) => break,
                Err(reason) => return Err(reason),
            }
        }
        Ok(matches!(self.kept.as_deref(), Some(Kept::Rest(bytes)) if fastcgi::has_abort(bytes, id)))
    }

    fn kept_len(&self) -> usize {
        match self.kept.as_deref() {
            None => 0,
            Some(Kept::Rest(bytes)) => bytes.len(),
            Some(Kept::Partial(_) | Kept::Handshake(_) | Kept::Refused) => usize::MAX,
        }
    }

    /// Ends the request of this stream, which is to be dropped.
    #[cold]
    pub(super) fn abort(&mut self, answer: Box<Streaming>, ctx: &mut ThreadCtx) -> Next {
        if let Wire::Records(wire) = &self.wire {
            put_end(&mut ctx.out, wire.id(), RequestEnd::Complete);
        }
        if let Err(next) = self.send_replies(ctx) {
            self.phase = super::Phase::Streaming(answer);
            return next;
        }
        self.link.claim.end();
        self.after_answer(if answer.terms.persistent { Fate::Keep } else { Fate::Close }, ctx);
        Next::Abandon(answer)
    }
}
