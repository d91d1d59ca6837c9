//! The input that a connection keeps while it is not driven, and takes to the thread context when it is
//! ([`crate::worker::kept`]).
use crate::worker::ctx::ThreadCtx;
use crate::worker::kept::Kept;

use super::{Connection, Phase};

impl Connection {
    /// Takes bytes that may be a request to the thread context, when the drive begins or after an answer. If they were lost for
    /// lack of memory, the request is refused.
    #[inline]
    pub(super) fn take_kept(&mut self, ctx: &mut ThreadCtx) {
        // Most connections keep nothing.
        if self.kept.is_some() {
            self.use_kept(ctx);
        }
    }

    #[inline(never)]
    fn use_kept(&mut self, ctx: &mut ThreadCtx) {
        match self.kept.take_if(|kept| !kept.is_partial()).map(|kept| *kept) {
            Some(Kept::Rest(bytes)) => ctx.input.take_in(&bytes),
            Some(Kept::Refused) => self.refuse_kept(None, ctx),
            Some(Kept::Partial(_) | Kept::Handshake(_)) | None => {}
        }
    }

    /// Keeps the input that another thread context has had.
    pub fn keep(&mut self, rest: Option<Box<Kept>>) {
        if rest.is_some() {
            debug_assert!(self.kept.is_none(), "input is in one place");
            self.kept = rest;
        }
    }

    /// Keeps the rest of the input in the thread context; after the last answer nothing is kept.
    #[inline]
    pub(super) fn stow(&mut self, ctx: &mut ThreadCtx) {
        if ctx.input.has_rest() {
            self.keep_rest(ctx);
        }
        ctx.input.forget();
    }

    #[inline(never)]
    fn keep_rest(&mut self, ctx: &ThreadCtx) {
        debug_assert!(self.kept.is_none(), "input is in one place");
        self.kept = match self.phase {
            Phase::Preface | Phase::Handshake | Phase::Closing(_) | Phase::Linger(_) => None,
            Phase::Head | Phase::Body(_) | Phase::Waiting(_) | Phase::Serving(_) | Phase::Streaming(_) | Phase::File(_) => {
                Some(Kept::rest(ctx.input.rest(), &ctx.memory))
            }
        };
    }
}
