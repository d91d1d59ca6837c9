//! SCGI and uwsgi on a connection: one request, whose head is in an envelope that says its length.

use std::mem::take;

use crate::handoff::INPUT_MAX;
use crate::http::error::Error;
use crate::http::framing::Length;
use crate::http::head::Parsed;
use crate::protocol::pairs::{Envelope, Measure};
use crate::protocol::variables;
use crate::worker::app::RequestBody;
use crate::worker::ctx::ThreadCtx;
use crate::worker::job::QueuedRequest;
use crate::worker::kept::{Kept, Leased, reserve};

use super::{HeadError, HeadResult, bad};

/// As [`super::Wire::read_head`].
pub(super) fn read_head(envelope: Envelope, kept: &mut Option<Box<Kept>>, ctx: &mut ThreadCtx) -> HeadResult {
    let max = ctx.rules.head_max;
    let mut bytes = match kept.take().map(|kept| *kept) {
        Some(Kept::Partial(bytes)) => bytes,
        _ => Leased::default(),
    };
    let (before, rest) = (bytes.len(), ctx.input.rest());
    // A head that comes whole is copied once, to where it stays.
    let mut measured = envelope.measure(if before == 0 { rest } else { &bytes }, max).map_err(bad)?;
    if let (0, Measure::Whole { len, .. }) = (before, &measured) {
        let own = &mut ctx.job.own;
        own.clear();
        if !make_room(own, *len) {
            return Err(Box::new(HeadError::NoMemory));
        }
        own.extend_from_slice(&rest[..*len]);
    } else {
        let mut used = 0;
        while let Measure::Missing(more) = measured {
            let more = &rest[used..rest.len().min(used + more)];
            if more.is_empty() {
                ctx.input.forget();
                *kept = Some(Box::new(Kept::Partial(bytes)));
                return Ok(Parsed::Partial);
            }
            if !bytes.push(more, &ctx.memory) {
                return Err(Box::new(HeadError::NoMemory));
            }
            used += more.len();
            measured = envelope.measure(&bytes, max).map_err(bad)?;
        }
        ctx.job.own = take(&mut bytes).into_bytes();
        if !make_room(&mut ctx.job.own, 0) {
            return Err(Box::new(HeadError::NoMemory));
        }
    }
    let Measure::Whole { pairs, len } = measured else { unreachable!("what is missing was waited for") };
    ctx.input.used(len - before);
    let job: &mut QueuedRequest = &mut ctx.job;
    let pairs = (envelope.packing(), pairs);
    let (framing, block) = ctx.variables.read(&mut job.head, &mut job.own, pairs, &ctx.rules.head).map_err(bad)?;
    if envelope == Envelope::Scgi && framing.length == Length::None {
        return Err(bad(Error::Malformed("CONTENT_LENGTH is missing")));
    }
    (job.framing, job.block) = (framing, block);
    Ok(Parsed::Complete)
}

/// Asks for room for a head of so many bytes more, and for what is put together of it.
pub(super) fn make_room(own: &mut Vec<u8>, more: usize) -> bool {
    let needed = variables::room(own.len() + more) + more;
    own.capacity() - own.len() >= needed || reserve(own, needed)
}

/// As [`super::Wire::raw`]: what follows the body is nothing.
pub(super) fn raw(envelope: Envelope, queued: &QueuedRequest) -> Option<Vec<u8>> {
    let body: &[u8] = match &queued.body {
        RequestBody::Empty => &[],
        RequestBody::Memory(bytes) => bytes,
        RequestBody::File(_) => return None,
    };
    let head = queued.head.block.of(&queued.own);
    let mut raw = Vec::new();
    if head.len() + body.len() > INPUT_MAX || !reserve(&mut raw, head.len() + body.len()) {
        return None;
    }
    raw.extend_from_slice(head);
    variables::restore(&queued.head, &mut raw);
    raw.extend_from_slice(body);
    debug_assert!(matches!(envelope.measure(&raw, usize::MAX), Ok(Measure::Whole { .. })), "it is as it came");
    Some(raw)
}
