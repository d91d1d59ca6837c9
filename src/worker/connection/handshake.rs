//! The start of a connection on an encrypted listener: the handshake of TLS, or words of a client that takes it for a plain one.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::net::stream::{Got, Stream};
use crate::worker::ctx::ThreadCtx;
use crate::worker::kept::Kept;

use super::{CloseReason, Connection, Flow, Next, Phase};

/// The type of a record of the handshake, which is the first byte (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

impl Connection {
    /// The first bytes are to be a handshake, if the listener is an encrypted one.
    pub fn await_handshake(&mut self, ctx: &ThreadCtx) {
        self.phase = self.first_phase(ctx);
    }

    /// The phase in which the client's first bytes are read.
    pub(super) fn first_phase(&self, ctx: &ThreadCtx) -> Phase {
        let is_encrypted = ctx.tls.as_ref().is_some_and(|tls| tls.covers(self.link.listener()));
        if is_encrypted { Phase::Handshake } else { Phase::Head }
    }

    /// Whether its handshake is still to begin: nothing of it is in this process only.
    pub(super) fn is_untouched(&self) -> bool {
        matches!(self.phase, Phase::Handshake) && !self.link.stream.is_encrypted()
    }

    /// Goes on with the handshake.
    pub(super) fn go_on_with_handshake(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if !self.link.stream.is_encrypted() {
            if !ctx.input.has_rest() && !self.read_more(ctx)? {
                return Ok(());
            }
            match ctx.input.rest() {
                [HANDSHAKE, ..] => self.begin_handshake(ctx)?,
                [b'A'..=b'Z' | b'a'..=b'z', ..] => {
                    self.refuse_plain(ctx);
                    return Ok(());
                }
                _ => return self.fail_handshake(&"its first byte is neither TLS nor HTTP", ctx),
            }
        }
        let may_read = self.io.readable;
        let shaken = self.stream_alone(|stream| stream.shake_hands(may_read));
        match shaken {
            Ok(Got { more, .. }) => {
                self.kept = None;
                self.io.readable = self.io.ended || more;
                self.phase = Phase::Head;
                ctx.slot().count_handshake(self.link.stream.is_resumed());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // One that waits to be sent has not read.
                self.io.readable &= self.link.stream.has_unsent();
                self.pay_for_handshake(ctx)?;
                Err(Next::Wait)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.fail_handshake(&"the client has left", ctx),
            Err(error) => self.fail_handshake(&error, ctx),
        }
    }

    /// TLS begins with the bytes that are in the thread context.
    fn begin_handshake(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let Some(tls) = &ctx.tls else { unreachable!("there is no such phase without it") };
        let (server, begun) = (tls.server(), ctx.input.rest());
        let encrypted = self.stream_alone(|stream| stream.encrypt(server, begun));
        ctx.input.forget();
        encrypted.or_else(|error| self.fail_handshake(&error, ctx))
    }

    /// Leases memory for what has come of the handshake. Most come whole, or in parts so small that they cost nothing.
    fn pay_for_handshake(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let bytes = self.link.stream.kept();
        if matches!(self.kept.as_deref(), Some(Kept::Handshake(lease)) if lease.covers_handshake(bytes)) {
            return Ok(());
        }
        self.kept = None;
        let Some(lease) = ctx.memory.lease_handshake(bytes) else {
            ctx.memory.note_refused(ctx.clock.ms(), &ctx.log);
            return self.fail_handshake(&"there is no room in the memory for unfinished requests", ctx);
        };
        self.kept = lease.map(|lease| Box::new(Kept::Handshake(lease)));
        Ok(())
    }

    fn stream_alone<T>(&mut self, act: impl FnOnce(&mut Stream) -> T) -> T {
        let link = Arc::get_mut(&mut self.link).expect("nothing else has its ends before its first request");
        act(&mut link.stream)
    }

    /// Closes a connection whose handshake has failed. Anybody can make as many of them as they like, so the log has them for
    /// those who look.
    #[cold]
    fn fail_handshake(&mut self, why: &dyn fmt::Display, ctx: &mut ThreadCtx) -> Flow {
        ctx.input.forget();
        self.note_handshake(why, ctx);
        Err(Next::Close(CloseReason::Handshake))
    }

    /// Notes that a connection ends before its handshake is over, if that has begun.
    #[cold]
    pub(super) fn miss_handshake(&self, why: &str, ctx: &ThreadCtx) {
        if self.link.stream.is_encrypted() {
            self.note_handshake(&why, ctx);
        }
    }

    fn note_handshake(&self, why: &dyn fmt::Display, ctx: &ThreadCtx) {
        ctx.slot().count_failed_handshake();
        ctx.log.debug(format_args!("the TLS handshake of {} has failed: {why}", self.link.peer));
    }
}
