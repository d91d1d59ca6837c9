//! How a body comes: read straight to its final place, once the read buffer is used up.

use crate::worker::ctx::ThreadCtx;

use super::{Connection, Flow, Next, Phase};

impl Connection {
    /// Reads more of a body straight to its final place; `None` when it must go through the thread's buffer.
    pub(in crate::worker) fn receive_body(&mut self, ctx: &mut ThreadCtx) -> Option<Flow> {
        let Phase::Body(upload) = &mut self.phase else { return None };
        let left = upload.left()?;
        let Phase::Body(mut upload) = std::mem::replace(&mut self.phase, Phase::Head) else { return None };
        let result = self.read_with(|stream| upload.receive(stream, left));
        let count = *result.as_ref().unwrap_or(&0);
        if count as u64 == left {
            return Some(self.take_body(upload, ctx));
        }
        self.phase = Phase::Body(upload);
        Some(match result {
            Ok(0) => Err(Next::Wait),
            Ok(_) => {
                self.timer.deadline = ctx.clock.ms() + ctx.rules.body_timeout;
                Ok(())
            }
            Err(reason) => Err(Next::Close(self.lost(reason, ctx))),
        })
    }
}
