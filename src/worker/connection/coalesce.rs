//! Sends what is in the block buffer of a stream ([`crate::worker::send::coalesce`]).
use crate::worker::ctx::ThreadCtx;
use crate::worker::link::deliver;

use super::{Connection, Next};

impl Connection {
    pub(in crate::worker) fn send_coalesced(&mut self, bytes: &mut Vec<u8>, ctx: &ThreadCtx) -> Next {
        if bytes.is_empty() {
            ctx.passage.free(&self.link.precedence);
            return Next::Wait;
        }
        self.link.claim.begin();
        let result = deliver(&self.link, &mut self.output, bytes);
        let sent = self.after_send(result, ctx);
        if sent.is_ok() {
            ctx.passage.free(&self.link.precedence);
        }
        sent.err().unwrap_or(Next::Wait)
    }
}
