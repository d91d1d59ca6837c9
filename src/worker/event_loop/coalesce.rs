//! The stream that is asked while the loop is on the table ([`crate::worker::send::coalesce`]).

use crate::worker::connection::Token;
use crate::worker::ctx::ThreadCtx;
use crate::worker::send::coalesce::BlockBuffer;
use crate::worker::threads::sync::Arc;
use crate::worker::work::Work;

use super::EventLoop;

/// The stream that is asked while the loop is on the table.
#[derive(Debug, Default)]
pub struct Pulled(Option<(Token, Arc<BlockBuffer>)>);

impl Pulled {
    /// Prepares for this work, for which the loop will be put on the table.
    pub fn begin(&mut self, token: Token, work: &Work) {
        self.0 = match work {
            Work::Advance(answer) => {
                answer.block_buffer.open();
                Some((token, answer.block_buffer.clone()))
            }
            Work::Call | Work::Desk | Work::Drop(_) | Work::Signals => None,
        };
    }

    /// Ends that: the loop is back.
    pub fn end(&mut self) {
        self.0 = None;
    }
}

impl EventLoop {
    /// After the loop was taken while a stream was asked for its next block: sends the blocks that the stream has given.
    pub(in crate::worker) fn send_coalesced(&mut self, ctx: &mut ThreadCtx) {
        let Some((token, block_buffer)) = self.pulled.0.take() else { return };
        let Some(connection) = self.find(token) else { return };
        // This comes before the block buffer is emptied: later bytes of `write()` must not overtake its contents.
        connection.link.precedence.set();
        let mut bytes = block_buffer.take();
        let next = connection.send_coalesced(&mut bytes, ctx);
        let work = self.follow(token, next, ctx);
        debug_assert!(work.is_none(), "its stream is with the application");
    }
}
