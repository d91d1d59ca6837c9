//! From bytes to a complete request: head, framing and body.

use crate::http::error::Error;
use crate::http::framing::Length;
use crate::http::head::{Parsed, Progress};
use crate::http::response::CONTINUE;
use crate::worker::app::RequestBody;
use crate::worker::body::upload::{Fed, Upload};
use crate::worker::ctx::ThreadCtx;
use crate::worker::kept::{Kept, Leased};

use super::{Connection, Flow, Phase};

impl Connection {
    /// Uses the thread's input for one head or a piece of a body.
    pub(super) fn consume(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if matches!(self.phase, Phase::Body(_))
            && let Phase::Body(upload) = std::mem::replace(&mut self.phase, Phase::Head)
        {
            return self.take_body(upload, ctx);
        }
        let complete = match self.kept.take() {
            None => self.take_head(ctx),
            Some(kept) => self.take_more_head(kept, ctx),
        };
        if complete { self.begin_request(ctx) } else { Ok(()) }
    }

    /// Reads a head; returns whether it is complete, and in the job.
    fn take_head(&mut self, ctx: &mut ThreadCtx) -> bool {
        let rest = ctx.input.rest();
        let (rules, job) = (&ctx.rules, &mut ctx.job);
        // The verdict does not depend on where the input was cut.
        let window = &rest[..rest.len().min(rules.head_max)];
        let mut progress = Progress::default();
        match ctx.blocks.resume(&mut job.head, window, &rules.head, &mut progress) {
            Ok(Parsed::Complete) => {
                let start = ctx.input.at();
                job.own.clear();
                job.at = start..start + job.head.len;
                ctx.input.used(job.head.len);
                return true;
            }
            Ok(Parsed::Partial) if window.len() >= rules.head_max => self.refuse(Error::HeadTooLong(rules.head_max), None, ctx),
            Ok(Parsed::Partial) => match Leased::copy(window, &ctx.memory) {
                Some(bytes) => {
                    self.kept = Some(Box::new(Kept::Head(bytes, progress)));
                    ctx.input.forget();
                }
                None => self.refuse_kept(None, ctx),
            },
            Err(error) => self.refuse(error, None, ctx),
        }
        false
    }

    /// Reads more of a head whose beginning is kept; it is complete with these bytes, or they are kept too. Returns as
    /// [`Self::take_head`].
    #[cold]
    fn take_more_head(&mut self, mut kept: Box<Kept>, ctx: &mut ThreadCtx) -> bool {
        let Kept::Head(bytes, progress) = &mut *kept else { unreachable!("bytes that may be a request are taken first") };
        let (rules, job, before) = (&ctx.rules, &mut ctx.job, bytes.len());
        let more = ctx.input.rest();
        let more = &more[..more.len().min(rules.head_max - before)];
        if !bytes.push(more, &ctx.memory) {
            self.refuse_kept(None, ctx);
            return false;
        }
        match ctx.blocks.resume(&mut job.head, bytes, &rules.head, progress) {
            Ok(Parsed::Complete) => {
                let len = job.head.len;
                ctx.input.used(len - before);
                job.own = std::mem::take(bytes).into_bytes();
                job.own.truncate(len);
                return true;
            }
            Ok(Parsed::Partial) if bytes.len() >= rules.head_max => self.refuse(Error::HeadTooLong(rules.head_max), None, ctx),
            Ok(Parsed::Partial) => {
                self.kept = Some(kept);
                ctx.input.forget();
            }
            Err(error) => self.refuse(error, None, ctx),
        }
        false
    }

    /// The head in the job is complete, and the bytes after it are in the thread context.
    fn begin_request(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let job = &mut ctx.job;
        match ctx.blocks.framing(&job.head, job.bytes(ctx.input.bytes())) {
            Ok((framing, block)) => (job.framing, job.block) = (framing, block),
            Err(error) => {
                ctx.with_head(|ctx, head| self.refuse(error, Some(head), ctx));
                return Ok(());
            }
        }
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
        let wants_continue = framing.expect_continue && body.is_empty();
        let started = Upload::new(framing, &ctx.rules, &ctx.bodies).and_then(|mut upload| Ok((upload.feed(body)?, upload)));
        let error = match started {
            Ok((Fed { used, done: true }, upload)) => {
                ctx.input.used(used);
                match upload.finish() {
                    Ok(body) => {
                        ctx.job.body = body;
                        return self.submit(ctx);
                    }
                    Err(error) => error,
                }
            }
            Ok((Fed { used, done: false }, mut upload)) => {
                ctx.input.used(used);
                let Some(bytes) = lease_head(ctx) else {
                    ctx.with_head(|ctx, head| self.refuse_kept(Some(head), ctx));
                    return Ok(());
                };
                (upload.head, upload.bytes) = (std::mem::take(&mut ctx.job.head), bytes);
                self.phase = Phase::Body(Box::new(upload));
                self.timer.deadline = ctx.clock.ms() + ctx.rules.body_timeout;
                if wants_continue {
                    ctx.out.extend_from_slice(CONTINUE);
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
            return Ok(());
        }
        let mut upload = *upload;
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

/// The bytes of the head in hand, to be kept while its body comes; `None` when there is no memory.
fn lease_head(ctx: &mut ThreadCtx) -> Option<Leased> {
    let job = &mut ctx.job;
    if job.own.is_empty() {
        return Leased::copy(&ctx.input.bytes()[job.at.clone()], &ctx.memory);
    }
    Leased::own(std::mem::take(&mut job.own), &ctx.memory).map_err(|bytes| job.own = bytes).ok()
}
