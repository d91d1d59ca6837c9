//! From bytes to a complete request: head, framing and body.

use crate::http::framing::Length;
use crate::http::head::HeadView;
use crate::http::head::Parsed;
use crate::worker::DRAIN_IDLE_MS;
use crate::worker::app::{Fate, RequestBody};
use crate::worker::body::upload::{Fed, Upload};
use crate::worker::ctx::ThreadCtx;
use crate::worker::kept::Leased;
use crate::worker::wire::{BodyEnd, HeadError};

use super::{CLIENT_CLOSED_REQUEST, Connection, Flow, Next, Phase};

impl Connection {
    /// Uses the thread's input for one head or a piece of a body.
    pub(super) fn consume(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if matches!(self.phase, Phase::Body(_))
            && let Phase::Body(upload) = std::mem::replace(&mut self.phase, Phase::Head)
        {
            return self.take_body(upload, ctx);
        }
        match self.wire.read_head(&mut self.kept, ctx) {
            Ok(Parsed::Complete) => {
                if !ctx.out.is_empty() {
                    self.send_replies(ctx)?;
                }
                if ctx.registrar.is_some() && self.refuse_nameless(ctx) {
                    return Ok(());
                }
                self.begin_request(ctx)
            }
            Ok(Parsed::Partial) => {
                if self.kept.is_none() {
                    self.await_request(ctx);
                }
                Ok(())
            }
            Err(error) => {
                self.refuse_head(*error, ctx);
                Ok(())
            }
        }
    }

    #[cold]
    fn refuse_head(&mut self, error: HeadError, ctx: &mut ThreadCtx) {
        match error {
            HeadError::Bad(error) => self.refuse(error, None, ctx),
            HeadError::Unclear(error) => {
                // It is refused anyway: without memory it has no name.
                let _ = self.find_sender(ctx);
                ctx.with_head(|ctx, head| self.refuse(error, Some(head), ctx));
            }
            HeadError::NoMemory => self.refuse_kept(None, ctx),
            HeadError::Over => self.close_in_order(),
        }
    }

    /// Finds out who has sent the request in the job, whose head is complete. `false`: there is no memory for that.
    #[inline(never)]
    pub(super) fn find_sender(&self, ctx: &mut ThreadCtx) -> bool {
        let ThreadCtx { registrar, job, input, .. } = ctx;
        registrar.as_mut().is_none_or(|registrar| registrar.assign(job, input.bytes(), &self.link.peer))
    }

    /// Finds out who has sent the request, or refuses it where there is no memory for that; whether it did.
    #[inline(never)]
    fn refuse_nameless(&mut self, ctx: &mut ThreadCtx) -> bool {
        let is_found = self.find_sender(ctx);
        if !is_found {
            ctx.with_head(|ctx, head| self.refuse_kept(Some(head), ctx));
        }
        !is_found
    }

    /// The head in the job is complete, and the bytes after it are in the thread context.
    fn begin_request(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if ctx.files.is_some()
            && let Some(flow) = self.offer_to_files(ctx)
        {
            return flow;
        }
        let job = &mut ctx.job;
        if !matches!(job.framing.length, Length::None | Length::Known(0)) {
            return self.begin_body(ctx);
        }
        if !job.body.is_empty() {
            job.body = RequestBody::Empty;
        }
        self.submit(ctx)
    }

    /// Reads as much of a body as is there.
    #[inline(never)]
    fn begin_body(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let framing = ctx.job.framing;
        let body = ctx.input.rest();
        let decoder = self.wire.decoder(&framing, &ctx.memory);
        let started =
            Upload::new(decoder, framing, &ctx.rules, &ctx.bodies).and_then(|mut upload| Ok((upload.feed(body)?, upload)));
        let error = match started {
            Ok((Fed { used, done: true, .. }, mut upload)) => {
                ctx.input.used(used);
                if let Some(end) = upload.end() {
                    ctx.job.framing.length = end.length;
                    if self.end_records(&end, ctx)? {
                        return ctx.with_head(|ctx, head| self.abandon(head, framing.persistent, ctx));
                    }
                }
                match upload.finish() {
                    Ok(body) => {
                        ctx.job.body = body;
                        return self.submit(ctx);
                    }
                    Err(error) => error,
                }
            }
            Ok((Fed { used, done: false, prompt }, mut upload)) => {
                ctx.input.used(used);
                let Some(bytes) = lease_head(ctx) else {
                    ctx.with_head(|ctx, head| self.refuse_kept(Some(head), ctx));
                    return Ok(());
                };
                (upload.head, upload.bytes) = (std::mem::take(&mut ctx.job.head), bytes);
                self.phase = Phase::Body(Box::new(upload));
                self.timer.deadline = ctx.clock.ms() + ctx.rules.body_timeout;
                if let Some(prompt) = prompt {
                    prompt.render(&mut ctx.out);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        ctx.with_head(|ctx, head| self.refuse_body(error, head, ctx))
    }

    /// Reads more of a body.
    #[inline(never)]
    pub(in crate::worker) fn take_body(&mut self, mut upload: Box<Upload>, ctx: &mut ThreadCtx) -> Flow {
        let fed = match upload.feed(ctx.input.rest()) {
            Ok(fed) => fed,
            Err(error) => return self.refuse_body(error, upload.view(), ctx),
        };
        ctx.input.used(fed.used);
        if !fed.done {
            self.phase = Phase::Body(upload);
            self.timer.deadline = ctx.clock.ms() + ctx.rules.body_timeout;
            if let Some(prompt) = fed.prompt {
                prompt.render(&mut ctx.out);
            }
            return Ok(());
        }
        let mut upload = *upload;
        if let Some(end) = upload.end() {
            upload.framing.length = end.length;
            if self.end_records(&end, ctx)? {
                return self.abandon(upload.view(), upload.framing.persistent, ctx);
            }
        }
        ctx.job.own = std::mem::take(&mut upload.bytes).into_bytes();
        ctx.job.head = std::mem::take(&mut upload.head);
        ctx.job.framing = upload.framing;
        ctx.job.block = None;
        ctx.job.lease = upload.lease();
        match upload.finish() {
            Ok(body) => {
                ctx.job.body = body;
                self.submit(ctx)
            }
            Err(error) => ctx.with_head(|ctx, head| self.refuse_body(error, head, ctx)),
        }
    }
}

impl Connection {
    /// Sends and keeps what a body in records or packets has left; whether its request is not wanted any more.
    #[cold]
    fn end_records(&mut self, end: &BodyEnd, ctx: &mut ThreadCtx) -> Result<bool, Next> {
        ctx.input.put_first(&end.input);
        ctx.out.extend_from_slice(&end.replies);
        self.send_replies(ctx)?;
        Ok(end.aborted)
    }

    /// Sends what answers a front's questions before the request that came with them is served. The answer goes behind what the
    /// socket does not take.
    #[cold]
    pub(super) fn send_replies(&mut self, ctx: &mut ThreadCtx) -> Flow {
        match self.flush(ctx) {
            Ok(()) | Err(Next::Wait) => Ok(()),
            Err(next) => Err(next),
        }
    }

    /// Ends the connection after what is rendered.
    #[cold]
    fn close_in_order(&mut self) {
        self.io.unread = true;
        self.phase = Phase::Closing(Fate::Close);
    }

    /// Goes on without a request that the front does not want any more, if the connection is to stay open after it.
    #[cold]
    fn abandon(&mut self, head: HeadView<'_>, persistent: bool, ctx: &mut ThreadCtx) -> Flow {
        ctx.record_refusal(&self.link.peer, CLIENT_CLOSED_REQUEST, (Some(head), &[]), 0, 0);
        if !persistent {
            self.close_in_order();
            return Ok(());
        }
        self.phase = Phase::Head;
        self.await_request(ctx);
        Ok(())
    }

    /// Waits for a request of which nothing has come: questions of a front were answered, or its request was dropped.
    #[cold]
    fn await_request(&mut self, ctx: &ThreadCtx) {
        let idle = if ctx.draining { DRAIN_IDLE_MS } else { ctx.rules.keep_alive.max(ctx.rules.header_timeout) };
        self.timer.deadline = ctx.clock.ms() + idle;
    }
}

/// The bytes of the head in hand, to be kept while its body comes; `None` when there is no memory.
fn lease_head(ctx: &mut ThreadCtx) -> Option<Leased> {
    let job = &mut ctx.job;
    if job.own.is_empty() {
        return Leased::copy(&ctx.input.bytes()[job.at.clone()], &ctx.memory);
    }
    Leased::own(std::mem::take(&mut job.own), &ctx.memory).map_err(|bytes| job.own = bytes).ok()
}
