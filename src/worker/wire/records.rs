//! FastCGI on a connection: records up to the end of a request, one request after the other.

use std::mem::take;

use crate::handoff::INPUT_MAX;
use crate::http::chunked::Decoded;
use crate::http::error::Error;
use crate::http::framing::Length;
use crate::http::head::Parsed;
use crate::http::records::{self, kind};
use crate::http::terms::Dialect;
use crate::protocol::fastcgi::{RecordEvent, RecordReader, RecordStep, STASH_FREE, STASH_MAX};
use crate::protocol::pairs::Packing;
use crate::protocol::variables;
use crate::worker::app::RequestBody;
use crate::worker::ctx::ThreadCtx;
use crate::worker::job::QueuedRequest;
use crate::worker::kept::{InputBudget, InputLease, Kept, Leased, reserve};

use super::pairs::make_room;
use super::{BodyEnd, HeadError, HeadResult, bad};

/// A reader, and the memory for what it keeps of other requests.
#[derive(Debug, Default)]
struct LeasedReader {
    reader: RecordReader,
    lease: Option<InputLease>,
}

impl LeasedReader {
    /// As [`RecordReader::step`].
    fn step(&mut self, input: &[u8], replies: &mut Vec<u8>, memory: &InputBudget) -> Result<RecordStep, Error> {
        let lease = &mut self.lease;
        self.reader.step(input, replies, &mut || {
            *lease = memory.lease(STASH_MAX - STASH_FREE);
            lease.is_some()
        })
    }

    /// As [`RecordReader::take_stash`]. Its memory is the caller's to account for.
    fn take_stash(&mut self) -> Vec<u8> {
        self.lease = None;
        self.reader.take_stash()
    }
}

/// The state between the records of a connection.
#[derive(Debug, Default)]
pub struct RecordWire {
    /// Reads the records of the request that has begun; `None`: none has, or its body has the reader.
    reader: Option<Box<LeasedReader>>,
    /// The id of the request in hand; 0: there is none.
    id: u16,
    /// The length of its body, as its variables say.
    length: Length,
}

impl RecordWire {
    /// The id of the request in hand; 0: there is none.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// As [`super::Wire::read_head`]. The kept bytes are the variables, without their records.
    #[inline(never)]
    pub(super) fn read_head(&mut self, kept: &mut Option<Box<Kept>>, ctx: &mut ThreadCtx) -> HeadResult {
        let mut params = match kept.take().map(|kept| *kept) {
            Some(Kept::Partial(bytes)) => bytes,
            _ => Leased::default(),
        };
        let mut reader = self.reader.take().unwrap_or_else(|| {
            self.id = 0;
            Box::default()
        });
        let (mut rest, mut used) = (ctx.input.rest(), 0);
        let keep = loop {
            let RecordStep { used: more, event } = reader.step(&rest[used..], &mut ctx.out, &ctx.memory).map_err(bad)?;
            let from = used;
            used += more;
            self.id = reader.reader.active().map_or(0, |active| active.id);
            match event {
                RecordEvent::Params(part) => {
                    if params.len() + part.len() > ctx.rules.head_max {
                        return Err(bad(Error::HeadTooLong(ctx.rules.head_max)));
                    }
                    if !params.push(&rest[from..][part], &ctx.memory) {
                        return Err(Box::new(HeadError::NoMemory));
                    }
                }
                RecordEvent::ParamsEnd => break reader.reader.active().is_some_and(|active| active.keep),
                RecordEvent::Aborted { keep: false } => {
                    ctx.input.forget();
                    return Err(Box::new(HeadError::Over));
                }
                RecordEvent::Aborted { keep: true } => {
                    params = Leased::default();
                    // Those that have waited for it have their turn.
                    ctx.input.used(used);
                    ctx.input.put_first(&reader.take_stash());
                    (rest, used) = (ctx.input.rest(), 0);
                }
                RecordEvent::Refused => {
                    ctx.input.forget();
                    return Err(Box::new(HeadError::Over));
                }
                RecordEvent::None if more == 0 => {
                    ctx.input.forget();
                    if !reader.reader.is_idle() {
                        *kept = Some(Box::new(Kept::Partial(params)));
                        self.reader = Some(reader);
                    }
                    return Ok(Parsed::Partial);
                }
                // The body comes after the end of the variables.
                RecordEvent::None | RecordEvent::Stdin(_) | RecordEvent::StdinEnd => {}
            }
        };
        // Nearly every request without a body has its end in the same read.
        let end = records::head(kind::STDIN, self.id, 0);
        let whole = rest[used..].starts_with(&end);
        let job: &mut QueuedRequest = &mut ctx.job;
        job.own = take(&mut params).into_bytes();
        if !make_room(&mut job.own, 0) {
            return Err(Box::new(HeadError::NoMemory));
        }
        let pairs = 0..job.own.len();
        let pairs = (Packing::Long, pairs);
        let (mut framing, block) = ctx.variables.read(&mut job.head, &mut job.own, pairs, &ctx.rules.head).map_err(bad)?;
        (framing.persistent, self.length) = (keep, framing.length);
        if matches!(framing.length, Length::None | Length::Known(0)) {
            if whole {
                used += end.len();
            } else {
                // What its end is before is read and thrown away, or is a body without a length.
                framing.length = Length::Chunked;
            }
        }
        (job.framing, job.block) = (framing, block);
        ctx.input.used(used);
        if framing.length == Length::Chunked || matches!(framing.length, Length::Known(1..)) {
            self.reader = Some(reader);
        } else {
            ctx.input.put_first(&reader.take_stash());
        }
        Ok(Parsed::Complete)
    }

    /// As [`super::Wire::decoder`].
    pub(super) fn decoder(&mut self, memory: &InputBudget) -> Box<RecordDecoder> {
        let (reader, memory) = (self.reader.take().unwrap_or_default(), memory.clone());
        Box::new(RecordDecoder { reader, memory, length: self.length, came: 0, aborted: false, replies: Vec::new() })
    }
}

/// The decoder of a body in records.
#[derive(Debug)]
pub struct RecordDecoder {
    reader: Box<LeasedReader>,
    /// What that may keep.
    memory: InputBudget,
    /// The length that the variables say.
    length: Length,
    /// Bytes of the body that have come, as far as they belong to it.
    came: u64,
    aborted: bool,
    replies: Vec<u8>,
}

impl RecordDecoder {
    /// As [`crate::http::body::Decoder::decode`]. Bytes beyond the length are thrown away; the body ends with its stream.
    pub(super) fn decode(&mut self, input: &[u8]) -> Result<Decoded, Error> {
        let RecordStep { used: consumed, event } = self.reader.step(input, &mut self.replies, &self.memory)?;
        let nothing = Decoded { consumed, data: 0..0, done: false };
        Ok(match event {
            RecordEvent::Stdin(part) => {
                let most = match self.length {
                    Length::Known(length) => usize::try_from(length - self.came).unwrap_or(usize::MAX),
                    Length::None | Length::Chunked => usize::MAX,
                };
                let data = part.start..part.start + part.len().min(most);
                self.came += data.len() as u64;
                Decoded { data, ..nothing }
            }
            RecordEvent::StdinEnd => match self.length {
                Length::Known(length) if self.came < length => return Err(Error::BodyShort),
                Length::Known(_) | Length::None | Length::Chunked => Decoded { done: true, ..nothing },
            },
            RecordEvent::Aborted { .. } => {
                self.aborted = true;
                Decoded { done: true, ..nothing }
            }
            RecordEvent::None | RecordEvent::Params(_) | RecordEvent::ParamsEnd | RecordEvent::Refused => nothing,
        })
    }

    /// What is due to be sent.
    pub(super) fn take_replies(&mut self) -> Vec<u8> {
        take(&mut self.replies)
    }

    /// As [`super::BodyDecoder::finish`].
    pub(super) fn finish(&mut self) -> BodyEnd {
        let length = match (self.length, self.came) {
            (known @ Length::Known(_), _) => known,
            (Length::None | Length::Chunked, 0) => Length::None,
            (Length::None | Length::Chunked, came) => Length::Known(came),
        };
        BodyEnd { aborted: self.aborted, length, replies: take(&mut self.replies), input: self.reader.take_stash() }
    }
}

/// As [`super::Wire::raw`].
pub(super) fn raw(queued: &QueuedRequest, rest: &[u8]) -> Option<Vec<u8>> {
    let Dialect::FastCgi(id) = queued.terms.dialect else { return None };
    let body: &[u8] = match &queued.body {
        RequestBody::Empty => &[],
        RequestBody::Memory(bytes) => bytes,
        RequestBody::File(_) => return None,
    };
    let head = queued.head.block.of(&queued.own);
    // Each record has at most that much around it, and there are three more.
    let around = (head.len() + body.len()) / records::CONTENT_MAX as usize + 5;
    let most = head.len() + body.len() + rest.len() + 2 * records::HEAD * around;
    let mut raw = Vec::new();
    if most > INPUT_MAX || !reserve(&mut raw, most) {
        return None;
    }
    records::put_head(&mut raw, kind::BEGIN_REQUEST, id, 8);
    raw.extend_from_slice(&[0, 1, u8::from(queued.framing.persistent), 0, 0, 0, 0, 0]);
    let start = raw.len();
    raw.extend_from_slice(head);
    variables::restore(&queued.head, &mut raw[start..]);
    records::wrap(&mut raw, start, kind::PARAMS, id);
    records::put_head(&mut raw, kind::PARAMS, id, 0);
    let start = raw.len();
    raw.extend_from_slice(body);
    records::wrap(&mut raw, start, kind::STDIN, id);
    records::put_head(&mut raw, kind::STDIN, id, 0);
    raw.extend_from_slice(rest);
    Some(raw)
}
