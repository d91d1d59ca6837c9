//! What a connection keeps of its input between two turns, and takes to the thread context for its turn ([`crate::worker::kept`]).
use crate::worker::ctx::ThreadCtx;
use crate::worker::kept::Kept;

use super::{Connection, Phase};

impl Connection {
    /// Takes to the thread context what may be a request, at the begin of a turn or behind an answer. Without memory it was lost: it is refused.
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
            Some(Kept::Head(..) | Kept::Preface(_)) | None => {}
        }
    }

    /// Keeps what another thread context has had of its input.
    pub fn keep(&mut self, rest: Option<Box<Kept>>) {
        if rest.is_some() {
            debug_assert!(self.kept.is_none(), "input is in one place");
            self.kept = rest;
        }
    }

    /// Keeps what the thread context has left of the input; behind the last answer nothing is.
    #[inline]
    pub(super) fn stow(&mut self, ctx: &mut ThreadCtx) {
        if ctx.input.has_rest() {
            self.keep_rest(ctx);
        }
        ctx.input.take_in(&[]);
    }

    #[inline(never)]
    fn keep_rest(&mut self, ctx: &ThreadCtx) {
        debug_assert!(self.kept.is_none(), "input is in one place");
        self.kept = match self.phase {
            Phase::Preface | Phase::Closing(_) | Phase::Linger(_) => None,
            Phase::Head | Phase::Body(_) | Phase::Waiting(_) | Phase::Serving | Phase::Streaming(_) => {
                Some(Kept::rest(ctx.input.rest(), &ctx.memory))
            }
        };
    }
}
