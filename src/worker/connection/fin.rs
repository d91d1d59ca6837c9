//! The last answer, sent with the end of the connection ([`crate::worker::send::fin`]).

use crate::worker::ctx::ThreadCtx;
use crate::worker::send::output::{deliver_by, send_last};
use std::sync::Arc;

use super::{CloseReason, Connection, Flow, Next};

impl Connection {
    /// Sends the last answer to leave with the end of the connection, if that follows now.
    #[inline(always)] // the last answer of each connection comes through the one caller
    pub(in crate::worker) fn flush_last(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if !self.has_read_all() || ctx.input.has_rest() || Arc::strong_count(&self.link) > 1 {
            return Ok(());
        }
        let result = deliver_by(&self.link.disk, &mut self.output, &mut ctx.out, |bytes| send_last(&self.link.stream, bytes));
        self.after_send(result, ctx)?;
        // A failure means that the client is gone, and the close handles that.
        if self.link.stream.shutdown_write().is_ok() { Err(Next::Close(CloseReason::Ended)) } else { Ok(()) }
    }
}
