//! Logs requests that the application never has.

use std::sync::Arc;

use crate::http::framing::{self, Length};
use crate::http::head::{Head, Parsed};
use crate::worker::app::Peer;
use crate::worker::connection::CLIENT_CLOSED_REQUEST;
use crate::worker::link::Link;

use super::ThreadCtx;
use crate::worker::ctx::journal::LogEntry;

impl ThreadCtx {
    /// Logs a request that the application never has; `sent` are the bytes of the body of its answer.
    pub(in crate::worker) fn record_refusal(
        &mut self,
        peer: &Peer,
        status: u16,
        head: Option<(&Head, &[u8])>,
        queued: u64,
        sent: u64,
    ) {
        self.record(&LogEntry { peer, head, status, sent, response_head: &[], began: None, queued, environ: &[] });
    }

    /// Logs the requests that came whole and had no turn; behind one whose body did not the rest cannot be told apart.
    pub(in crate::worker) fn forget_pipelined(&mut self, peer: &Peer, mut input: &[u8]) {
        let mut head = Head::default();
        while matches!(head.parse(input, &self.rules.head), Ok(Parsed::Complete)) {
            self.record_refusal(peer, CLIENT_CLOSED_REQUEST, Some((&head, input)), 0, 0);
            let body = match framing::of(&head, input).map(|framing| framing.length) {
                Ok(Length::None) => 0,
                Ok(Length::Known(length)) => usize::try_from(length).unwrap_or(usize::MAX),
                Ok(Length::Chunked) | Err(_) => return,
            };
            let Some(rest) = input.get(head.len.saturating_add(body)..) else { return };
            input = rest;
        }
    }

    /// The client of the request in hand is gone before its call.
    pub(in crate::worker) fn forget_job(&mut self) {
        if let Some(link) = self.give_up_job() {
            let queued = self.job.queued;
            self.with_head(|ctx, head| ctx.record_refusal(&link.peer, CLIENT_CLOSED_REQUEST, Some(head), queued, 0));
        }
    }

    /// The request in hand is not run: lets go of what it has beside its head.
    pub(in crate::worker) fn give_up_job(&mut self) -> Option<Arc<Link>> {
        let job = &mut self.job;
        (job.body, job.lease, job.early, job.output) = Default::default();
        job.link.take()
    }

    /// As [`Self::forget_job`], when its connection is gone too: what came with the request is still here.
    pub(in crate::worker) fn forget_input(&mut self) {
        if let Some(link) = self.job.link.clone() {
            self.forget_job();
            self.forget_rest(&link.peer);
        }
    }

    /// The connection of the request in hand is gone: what came with the request is here, and gets no turn.
    pub(in crate::worker) fn forget_followers(&mut self) {
        if let Some(link) = self.job.link.clone() {
            self.forget_rest(&link.peer);
        }
    }

    fn forget_rest(&mut self, peer: &Peer) {
        self.with_rest(|ctx, rest| ctx.forget_pipelined(peer, rest));
        self.input.forget();
    }
}
