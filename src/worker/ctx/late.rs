//! The end of a call whose deadline has passed, as its thread sees it.

use std::time::Duration;

use crate::scoreboard::InFlight;
use crate::sys::process::exit_now;
use crate::worker::EXIT_FAILED;

use super::ThreadCtx;

impl ThreadCtx {
    /// A call in words, as of now.
    pub(in crate::worker) fn describe(&self, call: &InFlight) -> String {
        call.describe(Duration::from_nanos(self.clock.ns().saturating_sub(call.since)))
    }

    /// Checks, after a call has ended, whether its deadline had passed. `late`: its client was answered without it.
    #[inline]
    pub(in crate::worker) fn after_call(&mut self, late: bool) {
        if late || self.alarms[self.thread.index()].is_raised() {
            self.settle(late);
        }
    }

    #[cold]
    fn settle(&mut self, late: bool) {
        let alarm = &self.alarms[self.thread.index()];
        if alarm.is_stray() {
            let call = self.flight().last();
            self.log.critical(format_args!(
                "a child that the application has forked returned from its call and is ended; let it end by os._exit(): {}",
                self.describe(&call)
            ));
            exit_now(EXIT_FAILED);
        }
        let told = alarm.is_raised() && self.app.settle();
        let stack = alarm.own_stack();
        alarm.clear();
        let call = self.flight().last();
        let request = self.describe(&call);
        if late {
            self.log.warning(format_args!("a request that was answered without the application has ended: {request}"));
        } else if !told {
            self.log.warning(format_args!(
                "a request was interrupted at --timeout, and the application went on to answer: {request}\n\
                 where it was interrupted:\n{stack}"
            ));
        }
    }
}
