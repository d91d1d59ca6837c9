//! AJP on a connection: one request after the other, each in a packet, and pings between them.

use std::mem::take;

use crate::handoff::INPUT_MAX;
use crate::http::error::Error;
use crate::http::framing::Length;
use crate::http::head::Parsed;
use crate::http::packets::PONG;
use crate::protocol::ajp::{self, Forward, FrontPacket, body};
use crate::protocol::pairs::Packing;
use crate::worker::app::RequestBody;
use crate::worker::ctx::ThreadCtx;
use crate::worker::job::QueuedRequest;
use crate::worker::kept::{Kept, Leased, reserve};

use super::pairs::make_room;
use super::{HeadError, HeadResult, bad};

/// The state between the packets of a connection.
#[derive(Debug, Default)]
pub struct PacketWire {
    /// Whether a request has begun, or its answer is not complete.
    has_request: bool,
}

impl PacketWire {
    /// Whether there is a request that an answer can be for.
    pub fn has_request(&self) -> bool {
        self.has_request
    }

    /// As [`super::Wire::read_head`]. The kept bytes are a part of one packet.
    #[inline(never)]
    pub(super) fn read_head(&mut self, kept: &mut Option<Box<Kept>>, ctx: &mut ThreadCtx) -> HeadResult {
        self.has_request = false;
        let mut begun = match kept.take().map(|kept| *kept) {
            Some(Kept::Partial(bytes)) => bytes,
            _ => Leased::default(),
        };
        let max = ctx.rules.head_max;
        loop {
            let rest = ctx.input.rest();
            if rest.is_empty() && begun.is_empty() {
                return Ok(Parsed::Partial);
            }
            let found = ajp::packet(if begun.is_empty() { rest } else { &begun }, max);
            // Its first bytes say whether it is one.
            self.has_request = matches!(found, Ok(FrontPacket::Request(_) | FrontPacket::Cut { is_request: true, .. }))
                || matches!(found, Err(Error::HeadTooLong(_)));
            let (len, is_ping) = match found.map_err(bad)? {
                FrontPacket::Cut { missing, .. } => {
                    let more = if begun.is_empty() { rest } else { &rest[..missing.min(rest.len())] };
                    let (used, is_all) = (more.len(), more.len() == rest.len());
                    if !begun.push(more, &ctx.memory) {
                        return Err(Box::new(HeadError::NoMemory));
                    }
                    ctx.input.used(used);
                    if is_all && used < missing || used == 0 {
                        *kept = Some(Box::new(Kept::Partial(begun)));
                        return Ok(Parsed::Partial);
                    }
                    continue;
                }
                FrontPacket::Ping(len) => (len, true),
                FrontPacket::Ignored(len) => (len, false),
                FrontPacket::Request(len) => return take_request(begun, len, ctx),
            };
            if begun.is_empty() {
                ctx.input.used(len);
            } else {
                begun = Leased::default();
            }
            if is_ping {
                // It is sent before a request behind it is served.
                ctx.out.extend_from_slice(PONG);
                return Ok(Parsed::Partial);
            }
        }
    }
}

/// Takes the request whose packet is at the begin of the input, or is what has come before that.
fn take_request(mut begun: Leased, len: usize, ctx: &mut ThreadCtx) -> HeadResult {
    let job: &mut QueuedRequest = &mut ctx.job;
    if begun.is_empty() {
        // A packet that comes whole is copied once, to where it stays.
        job.own.clear();
        if !reserve(&mut job.own, len) {
            return Err(Box::new(HeadError::NoMemory));
        }
        job.own.extend_from_slice(&ctx.input.rest()[..len]);
        ctx.input.used(len);
    } else {
        job.own = take(&mut begun).into_bytes();
    }
    let rules = &ctx.rules.head;
    let forward = Forward::read(&job.own, 0..len, rules.fields).map_err(bad)?;
    if !ctx.gateways.knows(forward.secret(&job.own)) {
        return Err(bad(Error::Secret));
    }
    if !make_room(&mut job.own, forward.most()) {
        return Err(Box::new(HeadError::NoMemory));
    }
    forward.put(&mut job.own);
    let pairs = len..job.own.len();
    let pairs = (Packing::Short, pairs);
    let (mut framing, block) = ctx.variables.read(&mut job.head, &mut job.own, pairs, rules).map_err(bad)?;
    framing.persistent = true;
    if forward.is_chunked {
        framing.length = Length::Chunked;
    }
    (job.framing, job.block) = (framing, block);
    Ok(Parsed::Complete)
}

/// As [`super::Wire::raw`]. The packet of the request stands before its pairs.
pub(super) fn raw(queued: &QueuedRequest, rest: &[u8]) -> Option<Vec<u8>> {
    let body: &[u8] = match &queued.body {
        RequestBody::Empty => &[],
        RequestBody::Memory(bytes) => bytes,
        RequestBody::File(_) => return None,
    };
    let Ok(FrontPacket::Request(len)) = ajp::packet(&queued.own, usize::MAX) else { return None };
    let most = len + body.len() + body::around(body.len()) + rest.len();
    let mut raw = Vec::new();
    if most > INPUT_MAX || !reserve(&mut raw, most) {
        return None;
    }
    raw.extend_from_slice(&queued.own[..len]);
    body::put(&mut raw, body, Forward::read(&queued.own, 0..len, usize::MAX).ok()?.is_chunked);
    raw.extend_from_slice(rest);
    Some(raw)
}
