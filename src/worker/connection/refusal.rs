//! Answers that the server gives itself instead of the application, after which a connection closes; and requests that get none.

use crate::http::error::Error;
use crate::http::head::{HeadView, Parsed};
use crate::http::page;
use crate::http::response::Context;
use crate::http::terms::Terms;
use crate::scoreboard::RefusalReason;
use crate::worker::app::{Fate, StorageError};
use crate::worker::body::upload::UploadError;
use crate::worker::ctx::ThreadCtx;
use crate::worker::job::QueuedRequest;
use crate::worker::kept::Kept;
use crate::worker::overload::{RETRY_AFTER, Refusal};

use super::{CloseReason, Connection, Flow, Next, Phase};

/// The client left before its request was complete; nginx's number for it, only ever seen in the log.
pub(in crate::worker) const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Connection {
    /// Answers a request whose body cannot be taken.
    pub(super) fn refuse_body(&mut self, error: UploadError, head: HeadView<'_>, ctx: &mut ThreadCtx) -> Flow {
        match error {
            UploadError::Bad(error) => self.refuse(error, Some(head), ctx),
            UploadError::TooLarge => self.refuse(Error::BodyTooLong(ctx.rules.body_max), Some(head), ctx),
            UploadError::Spool(error) => {
                self.note_spool_error(&error, head, ctx);
                ctx.slot().count_refusal(RefusalReason::Disk);
                if error.passing {
                    self.answer_503("there is no room for the request body at present", Some(head), 0, ctx);
                } else {
                    self.answer_ourselves((500, "the request body could not be stored"), &[], (Some(head), 0), ctx);
                }
            }
        }
        Ok(())
    }

    /// Logs that a body could not be stored, from time to time: the log must not add to a full disk.
    fn note_spool_error(&self, error: &StorageError, head: HeadView<'_>, ctx: &ThreadCtx) {
        let Some(count) = ctx.bodies.disk.count_refusal(ctx.clock.ms()) else { return };
        let line = head.line().escape_ascii();
        let others = if count > 1 { format!(" ({} others since the last record)", count - 1) } else { String::new() };
        ctx.log.error(format_args!("cannot spool the body of {line}{others}: {error}"));
    }

    /// Answers a bad request and closes: nothing after it can be trusted.
    pub(super) fn refuse(&mut self, error: Error, head: Option<HeadView<'_>>, ctx: &mut ThreadCtx) {
        ctx.log.debug(format_args!("refused a request of {}: {error}", self.link.peer));
        // A body that ends early is one whose client has left; a gateway can do nothing about that.
        if self.wire.is_gateway() && matches!(error.status(), 400 | 403) && error != Error::BodyShort {
            ctx.gateways.note_malformed(&self.link.peer, error, ctx.clock.ms(), &ctx.log);
        }
        ctx.slot().count_refusal(RefusalReason::of_status(error.status()));
        self.answer_ourselves((error.status(), &error.to_string()), &[], (head, 0), ctx);
    }

    /// Answers plain HTTP on a port of HTTPS, in plain HTTP: the connection is not encrypted yet.
    #[cold]
    pub(super) fn refuse_plain(&mut self, ctx: &mut ThreadCtx) {
        let detail = "plain HTTP was sent to a port for HTTPS; the address has to begin with https://";
        ctx.log.debug(format_args!("refused a request of {}: {detail}", self.link.peer));
        ctx.slot().count_refusal(RefusalReason::Malformed);
        self.answer_ourselves((400, detail), &[], (None, 0), ctx);
    }

    /// Answers 503: the server has no time for a request.
    pub(super) fn refuse_overload(&mut self, refusal: Refusal, queued: &QueuedRequest, ctx: &mut ThreadCtx) {
        ctx.slot().count_refusal(refusal.reason());
        self.answer_503(refusal.detail(), Some(queued.detached()), queued.queued, ctx);
    }

    /// Answers 503 if a request of it waits, or has begun to come: the worker leaves. `None`: there is none.
    pub fn refuse_unserved(&mut self, ctx: &mut ThreadCtx) -> Option<Next> {
        match &self.phase {
            Phase::Waiting(_) => return Some(self.turn_away(Refusal::Stopping, ctx)),
            Phase::Head if self.kept.as_ref().map_or_else(|| self.link.stream.has_part(), |kept| kept.is_partial()) => {
                self.refuse_unread(None, ctx);
            }
            Phase::Body(_) => {
                let Phase::Body(upload) = std::mem::replace(&mut self.phase, Phase::Head) else { return None };
                self.refuse_unread(Some(upload.view()), ctx);
            }
            Phase::Preface
            | Phase::Handshake
            | Phase::Head
            | Phase::Serving(_)
            | Phase::Streaming(_)
            | Phase::File(_)
            | Phase::Closing(_)
            | Phase::Linger(_) => {
                return None;
            }
        }
        self.kept = None;
        Some(self.begin_turn(ctx))
    }

    fn refuse_unread(&mut self, head: Option<HeadView<'_>>, ctx: &mut ThreadCtx) {
        ctx.slot().count_refusal(Refusal::Stopping.reason());
        self.answer_503(Refusal::Stopping.detail(), head, 0, ctx);
    }

    /// Answers 503 to the request that it begins with, which another worker has handed over: its client was let in by rules that do
    /// not hold here, so nothing is served to it, no file either.
    #[cold]
    pub fn refuse_by_rules(&mut self, ctx: &mut ThreadCtx) -> Next {
        self.renew_turn(ctx);
        // Else it is refused already: there was no memory for it.
        if matches!(self.phase, Phase::Head) {
            ctx.slot().count_refusal(RefusalReason::TlsRules);
            let detail = "the rules for TLS connections have changed; connect again";
            let queued = ctx.clock.ns().saturating_sub(self.arrival.since);
            if matches!(self.wire.read_head(&mut self.kept, ctx), Ok(Parsed::Complete)) {
                // Without memory it has no name.
                let _ = self.find_sender(ctx);
                ctx.with_head(|ctx, head| self.answer_503(detail, Some(head), queued, ctx));
            } else {
                self.answer_503(detail, None, queued, ctx);
            }
        }
        self.kept = None;
        self.begin_turn(ctx)
    }

    /// Answers 503: the worker has no memory to keep the client's bytes.
    pub(super) fn refuse_kept(&mut self, head: Option<HeadView<'_>>, ctx: &mut ThreadCtx) {
        ctx.memory.note_refused(ctx.clock.ms(), &ctx.log);
        ctx.slot().count_refusal(RefusalReason::Memory);
        self.answer_503("too many requests are unfinished", head, 0, ctx);
    }

    /// Answers 503: the request that it has submitted finds no permit, and no memory to wait for one.
    pub fn refuse_job(&mut self, ctx: &mut ThreadCtx) -> Next {
        self.keep_behind(ctx.job.output.take());
        self.link.claim.end();
        ctx.give_up_job();
        self.phase = Phase::Head;
        ctx.with_head(|ctx, head| self.refuse_kept(Some(head), ctx));
        self.begin_turn(ctx)
    }

    /// Answers 408 when the client took too long, and 503 when the application did.
    pub(super) fn time_out(&mut self, ctx: &mut ThreadCtx) {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Body(upload) => self.refuse(Error::BodyTimeout, Some(upload.view()), ctx),
            Phase::Waiting(mut queued) => {
                queued.stop_waiting(ctx.clock.ns());
                self.refuse_overload(Refusal::Waited, &queued, ctx);
            }
            Phase::Preface
            | Phase::Handshake
            | Phase::Head
            | Phase::Serving(_)
            | Phase::Streaming(_)
            | Phase::File(_)
            | Phase::Closing(_)
            | Phase::Linger(_) => {
                self.refuse(Error::HeadTimeout, None, ctx);
            }
        }
    }

    /// The client is gone: returns why the connection ends. Half a head is logged here; [`Self::forget`] logs the rest.
    pub(in crate::worker) fn lost(&self, reason: CloseReason, ctx: &mut ThreadCtx) -> CloseReason {
        if matches!(self.phase, Phase::Preface) {
            self.miss_preface("ended before it was complete", ctx);
            return reason;
        }
        if matches!(self.phase, Phase::Handshake) {
            self.miss_handshake("the client has left", ctx);
            return reason;
        }
        if !matches!(self.phase, Phase::Body(_)) {
            if self.kept.is_none() {
                return reason;
            }
            ctx.record_refusal(&self.link.peer, CLIENT_CLOSED_REQUEST, (None, &[]), 0, 0);
        }
        CloseReason::ClientGone
    }

    /// Logs a request that is not in the application, when the connection ends.
    pub(in crate::worker) fn forget(&mut self, ctx: &mut ThreadCtx) {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Waiting(mut queued) => {
                queued.stop_waiting(ctx.clock.ns());
                let head = Some(queued.detached());
                ctx.record_refusal(&self.link.peer, CLIENT_CLOSED_REQUEST, (head, &[]), queued.queued, 0);
            }
            Phase::Body(upload) => {
                let head = Some(upload.view());
                ctx.record_refusal(&self.link.peer, CLIENT_CLOSED_REQUEST, (head, &[]), 0, 0);
            }
            Phase::File(body) => self.forget_file(&body, ctx),
            phase @ (Phase::Preface
            | Phase::Handshake
            | Phase::Head
            | Phase::Serving(_)
            | Phase::Streaming(_)
            | Phase::Closing(_)
            | Phase::Linger(_)) => self.phase = phase,
        }
        // Only requests of HTTP are told apart without the state of their protocol: what a front sends may look like one.
        if let Some(Kept::Rest(bytes)) = self.kept.take().map(|kept| *kept)
            && !self.wire.is_gateway()
        {
            ctx.forget_pipelined(&self.link.peer, &bytes);
        }
    }

    /// Answers 503, after which the client may try again.
    fn answer_503(&mut self, detail: &str, head: Option<HeadView<'_>>, queued: u64, ctx: &mut ThreadCtx) {
        self.answer_ourselves((503, detail), &[(b"Retry-After", RETRY_AFTER)], (head, queued), ctx);
    }

    /// Renders an answer of our own and logs it, for a request that has waited so long. One whose head cannot be read gets a name here.
    fn answer_ourselves(
        &mut self,
        (status, detail): (u16, &str),
        fields: &[page::FieldPair<'_>],
        (head, queued): (Option<HeadView<'_>>, u64),
        ctx: &mut ThreadCtx,
    ) {
        let new = if head.is_none() { ctx.registrar.as_mut().and_then(|registrar| registrar.name()) } else { None };
        let id = head.map_or(new.as_ref().map_or(&[][..], |id| id), HeadView::assigned_id);
        let sent = self.render_ourselves((status, detail), fields, (self.wire.terms(head, false), id), ctx);
        ctx.record_refusal(&self.link.peer, status, (head, id), queued, sent);
    }

    /// Renders an answer of our own, after which the connection closes, to a request of this name; returns the bytes of its body.
    pub(in crate::worker) fn render_ourselves(
        &mut self,
        (status, detail): (u16, &str),
        fields: &[page::FieldPair<'_>],
        (terms, id): (Terms, &[u8]),
        ctx: &mut ThreadCtx,
    ) -> u64 {
        self.io.unread = true;
        self.phase = Phase::Closing(Fate::Close);
        if !self.wire.can_answer() {
            return 0;
        }
        let date = *ctx.date.at(ctx.clock.wall());
        let page = page::render_with(&mut ctx.out, status, detail, fields, &Context { terms, date: &date, id });
        page.sent
    }
}
