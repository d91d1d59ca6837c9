//! Runs the application's handlers of signals.

use crate::scoreboard::RequestFacts;
use crate::worker::work::Served;

use super::ThreadCtx;

/// The name of a handler in the log when it does not end in time: the flight recorder's line.
const LINE: &[u8] = b"(signal handlers of the application)";

impl ThreadCtx {
    /// Runs the handlers, with the deadline of a call.
    #[cold]
    pub(in crate::worker) fn handle_signals(&mut self) -> Served {
        // A thread that was idle has an old clock.
        self.clock.tick();
        self.job.began = self.clock.ns();
        let facts = RequestFacts { line: LINE, client: b"", id: b"" };
        self.flight().resume(&facts, self.job.began, self.job.began);
        self.app.signalled();
        self.clock.tick();
        self.flight().pause(self.clock.ns());
        self.after_call(false);
        Served::Handled
    }
}
