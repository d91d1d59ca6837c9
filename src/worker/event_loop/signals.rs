//! Signals that the application handles. Its handlers are work for the main thread like any other: while they run or wait for the
//! interpreter, the loop is on the table or another thread has it.

use super::{EventLoop, ThreadCtx, Work};
use crate::worker::threads::thread_id::MAIN;

impl EventLoop {
    /// After a signal: its handler runs as soon as the main thread is free.
    #[cold]
    pub(super) fn note_signals(&mut self) {
        if !self.errands.iter().any(|work| matches!(work, Work::Signals)) {
            self.errands.push_front(Work::Signals);
        }
    }

    /// Whether this errand can be done now. Handlers wait for no permit: a main thread that is not in the application has nothing
    /// else to do, or has the loop while all others are there. Then the loop is on the table until the first of them, or the
    /// handlers, are back. In the application the interpreter runs them itself.
    pub(super) fn is_ready(&self, work: &Work, ctx: &ThreadCtx) -> bool {
        match work {
            Work::Signals => !self.outside.contains(MAIN),
            Work::Call | Work::Desk | Work::Advance(_) | Work::Drop(_) => self.has_permit(work.thread(), ctx),
        }
    }
}
