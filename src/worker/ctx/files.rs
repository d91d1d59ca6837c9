//! Counts and logs answers with static files: no call of the application, and no time of one.

use crate::http::head::{HeadView, Span};
use crate::log::access::Record;
use crate::worker::app::Peer;
use crate::worker::ctx::journal::copy_of_head;

use super::ThreadCtx;

/// The facts about an answer with a static file.
#[derive(Clone, Copy, Debug)]
pub struct SentFile {
    /// Status code.
    pub status: u16,
    /// Bytes of its body.
    pub sent: u64,
    /// When the request came to its turn, in nanoseconds of the loop's clock.
    pub began: u64,
}

impl ThreadCtx {
    /// Counts and logs an answer whose head was copied.
    pub(in crate::worker) fn record_file(
        &mut self,
        peer: &Peer,
        head: Option<HeadView<'_>>,
        response_head: &[u8],
        SentFile { status, sent, began }: SentFile,
    ) {
        let timing = self.clock.timing(Some(began), 0);
        let record = Record {
            peer: peer.addr.as_bytes(),
            socket: peer.socket(),
            head,
            id: &[],
            status,
            sent,
            response_head,
            timing,
            environ: &[],
        };
        self.record(record, None);
    }

    /// The same for one that is in the output.
    pub(in crate::worker) fn record_rendered_file(&mut self, peer: &Peer, head: HeadView<'_>, span: Span, facts: SentFile) {
        let SentFile { status, sent, began } = facts;
        self.flight().counters().count_answer(status, sent);
        if let Some(journal) = &mut self.journal {
            let timing = self.clock.timing(Some(began), 0);
            let response_head = journal.response_head(&self.out, span);
            let (socket, peer) = (peer.socket(), peer.addr.as_bytes());
            journal.record(Record { peer, socket, head: Some(head), id: &[], status, sent, response_head, timing, environ: &[] });
        }
    }

    /// A copy of the head that was rendered there, if the log wants it.
    pub(in crate::worker) fn copy_rendered_head(&self, span: Span) -> Vec<u8> {
        match &self.journal {
            Some(journal) if journal.format.wants_response_head() => copy_of_head(journal.response_head(&self.out, span)),
            Some(_) | None => Vec::new(),
        }
    }
}
