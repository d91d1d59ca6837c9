//! Logs requests that never reach the application.

use std::sync::Arc;

use crate::http::framing::{self, Length};
use crate::http::head::{Head, HeadView, Parsed};
use crate::http::terms::Dialect;
use crate::log::access::Record;
use crate::worker::app::Peer;
use crate::worker::connection::CLIENT_CLOSED_REQUEST;
use crate::worker::link::Link;

use super::ThreadCtx;

impl ThreadCtx {
    /// Logs a request that never reaches the application, with its head, or where that could not be read with its name; `sent` are
    /// the bytes of the body of its answer.
    pub(in crate::worker) fn record_refusal(
        &mut self,
        peer: &Peer,
        status: u16,
        (head, id): (Option<HeadView<'_>>, &[u8]),
        queued: u64,
        sent: u64,
    ) {
        if queued > 0 {
            self.flight().counters().count_wait(queued);
        }
        let record = Record {
            peer: peer.addr.as_bytes(),
            socket: peer.socket(),
            head,
            id,
            status,
            sent,
            response_head: &[],
            timing: self.clock.timing(None, queued),
            environ: &[],
        };
        self.record(record, None);
    }

    /// Logs the requests of HTTP that came whole and were not served; after one whose body is not complete the rest cannot be divided.
    pub(in crate::worker) fn forget_pipelined(&mut self, peer: &Peer, mut input: &[u8]) {
        let mut head = Head::default();
        while matches!(head.parse(input, &self.rules.head), Ok(Parsed::Complete)) {
            self.record_refusal(peer, CLIENT_CLOSED_REQUEST, (Some(HeadView { head: &head, bytes: input }), &[]), 0, 0);
            let body = match framing::of(&head, input).map(|framing| framing.length) {
                Ok(Length::None) => 0,
                Ok(Length::Known(length)) => usize::try_from(length).unwrap_or(usize::MAX),
                Ok(Length::Chunked) | Err(_) => return,
            };
            let Some(rest) = input.get(head.len.saturating_add(body)..) else { return };
            input = rest;
        }
    }

    /// Logs the request in hand: its client is gone before the call.
    pub(in crate::worker) fn forget_job(&mut self) {
        if let Some(link) = self.give_up_job() {
            let queued = self.job.queued;
            self.with_head(|ctx, head| ctx.record_refusal(&link.peer, CLIENT_CLOSED_REQUEST, (Some(head), &[]), queued, 0));
        }
    }

    /// Drops all that the request in hand has beside its head: it does not run.
    pub(in crate::worker) fn give_up_job(&mut self) -> Option<Arc<Link>> {
        let job = &mut self.job;
        (job.body, job.lease, job.early, job.output) = Default::default();
        job.link.take()
    }

    /// As [`Self::forget_job`], when its connection is gone too: the other input is still here.
    pub(in crate::worker) fn forget_input(&mut self) {
        if let Some(link) = self.job.link.clone() {
            self.forget_job();
            self.forget_rest(&link.peer);
        }
    }

    /// The connection of the request in hand is gone: the other input is here, and is not served.
    pub(in crate::worker) fn forget_followers(&mut self) {
        if let Some(link) = self.job.link.clone() {
            self.forget_rest(&link.peer);
        }
    }

    fn forget_rest(&mut self, peer: &Peer) {
        if self.job.terms.dialect == Dialect::Http {
            self.with_rest(|ctx, rest| ctx.forget_pipelined(peer, rest));
        }
        self.input.forget();
    }
}
