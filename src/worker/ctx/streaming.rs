//! Asks streams for their blocks, and drops those whose clients are gone.

use crate::worker::app::{Blocks, Produced};
use crate::worker::connection::CLIENT_CLOSED_REQUEST;
use crate::worker::ctx::journal::copy_of_head;
use crate::worker::streaming::Streaming;
use crate::worker::work::Served;

use super::ThreadCtx;
use super::serve::facts;

impl ThreadCtx {
    /// A copy of the head of an answer for the log, if that wants it and the stream has just rendered it.
    pub(in crate::worker) fn copy_response_head(&self, stream: &dyn Blocks) -> Vec<u8> {
        match &self.journal {
            Some(journal) if journal.format.wants_response_head() => {
                copy_of_head(journal.response_head(&self.out, stream.summary().head))
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Enters the application again for this answer. The clock of a thread that waited for the work is old.
    fn go_on(&mut self, answer: &Streaming) {
        self.clock.tick();
        let facts = facts(answer.view(), &answer.link.peer);
        self.flight().resume(&facts, answer.began, self.clock.ns());
        if self.journal.is_some() {
            self.alarms[self.thread.index()].note_request(answer.view(), answer.began, answer.queued);
        }
    }

    /// Asks a stream for its next blocks; the last step closes it.
    pub(in crate::worker) fn advance(&mut self, mut answer: Box<Streaming>) -> Served {
        self.go_on(&answer);
        let mut output = None;
        let step = self.coalesce(&mut answer, &mut output);
        let late = match step {
            Produced::End(_) => !answer.link.claim.complete(),
            Produced::Rendered | Produced::LargeBlock | Produced::File { .. } => answer.link.claim.is_late(),
        };
        let served = match step {
            Produced::Rendered | Produced::LargeBlock | Produced::File { .. } => {
                if !self.out.is_empty() || output.is_some() || step != Produced::Rendered {
                    answer.link.claim.begin();
                }
                Served::Produced(output, answer, step)
            }
            Produced::End(summary) => {
                if !late {
                    answer.record(summary, self);
                }
                drop(answer);
                Served::Ended(output, summary.fate)
            }
        };
        self.flight().pause(self.clock.ns());
        self.after_call(late);
        served
    }

    /// Drops a stream whose client is gone.
    pub(in crate::worker) fn abandon(&mut self, answer: Box<Streaming>) -> Served {
        self.go_on(&answer);
        let mut summary = answer.stream.summary();
        summary.sent = summary.sent.saturating_sub(answer.unsent());
        if summary.status == 0 {
            // The application has not set a status yet.
            summary.status = CLIENT_CLOSED_REQUEST;
        }
        // A late one was recorded when its client was answered.
        if !answer.link.claim.is_late() {
            answer.record(summary, self);
        }
        drop(answer);
        self.clock.tick();
        self.flight().pause(self.clock.ns());
        self.after_call(false);
        Served::Dropped
    }
}
