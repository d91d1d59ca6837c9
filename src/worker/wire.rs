//! The protocol of a connection's requests: how their heads are read, how their bodies are decoded, and the state of both.
//!
//! What knows the protocol before a request is complete is here, with a variant for each; [`crate::http::response`] encodes the
//! answers. The rest of the worker does not know which protocol it serves.

use std::mem::take;

use super::app::RequestBody;
use super::ctx::ThreadCtx;
use super::job::QueuedRequest;
use super::kept::{InputBudget, Kept, Leased, reserve};
use crate::handoff::INPUT_MAX;
use crate::http::body::Decoder;
use crate::http::chunked::Decoded;
use crate::http::error::Error;
use crate::http::framing::{Framing, Length};
use crate::http::head::{HeadView, Parsed, Progress};
use crate::http::response::CONTINUE;
use crate::http::terms::{Dialect, Terms};
use crate::protocol::Protocol;
use crate::protocol::ajp::body::PacketDecoder;
use crate::protocol::pairs::Envelope;
use packets::PacketWire;
use records::{RecordDecoder, RecordWire};

mod packets;
mod pairs;
mod records;

/// Longest trailer section of a chunked body, in bytes; trailers are checked and dropped.
const TRAILER_MAX: usize = 8 * 1024;

/// The protocol of a connection's requests, with the state of its head's parser.
#[derive(Debug)]
pub enum Wire {
    /// How much of the head that has begun is known to be good.
    Http(Progress),
    /// SCGI or uwsgi, whose heads say their length first.
    Pairs(Envelope),
    /// FastCGI. In a box: each idle connection has room for the largest of these.
    Records(Box<RecordWire>),
    /// AJP.
    Packets(PacketWire),
}

/// Why a head cannot be read.
#[derive(Debug)]
pub enum HeadError {
    /// The client broke the rules of its protocol, or a limit, before the head was complete.
    Bad(Error),
    /// The head is complete and in the job, but says nothing clear of the body or the target.
    Unclear(Error),
    /// There is no memory to keep its beginning.
    NoMemory,
    /// A request was refused or ended in its own protocol, and the connection ends with that.
    Over,
}

/// In a box, so that the ordinary result is a register: an error by value would cost each request 20 instructions.
type HeadResult = Result<Parsed, Box<HeadError>>;

impl Wire {
    /// Before the first head.
    #[inline]
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http => Self::Http(Progress::default()),
            Protocol::FastCgi => Self::Records(Box::default()),
            Protocol::Scgi => Self::Pairs(Envelope::Scgi),
            Protocol::Uwsgi => Self::Pairs(Envelope::Uwsgi),
            Protocol::Ajp => Self::Packets(PacketWire::default()),
        }
    }

    /// Reads a head from the thread's input, or more of the one whose beginning is in `kept`. When it is complete, it is in the job
    /// with its framing, and the input begins with what follows it. Otherwise all bytes are in `kept`.
    #[inline(always)] // each request comes through the one caller
    pub fn read_head(&mut self, kept: &mut Option<Box<Kept>>, ctx: &mut ThreadCtx) -> HeadResult {
        match self {
            Self::Http(progress) => {
                let parsed = match kept.take() {
                    None => read_http(progress, kept, ctx),
                    Some(begun) => read_more_http(progress, begun, kept, ctx),
                };
                // In one place, so that it is compiled into its caller.
                if matches!(parsed, Ok(Parsed::Complete)) { frame_http(ctx) } else { parsed }
            }
            Self::Pairs(envelope) => pairs::read_head(*envelope, kept, ctx),
            Self::Records(wire) => wire.read_head(kept, ctx),
            Self::Packets(wire) => wire.read_head(kept, ctx),
        }
    }

    /// How the answer to this request goes over the wire; as the newest clients have it where no head could be parsed.
    #[inline(always)] // each request comes through one caller, refusals through the others
    pub fn terms(&self, head: Option<HeadView<'_>>, persistent: bool) -> Terms {
        let terms = head.map_or_else(Terms::default, |head| Terms::of(head, persistent));
        match self {
            Self::Http(_) => terms,
            Self::Pairs(_) | Self::Records(_) | Self::Packets(_) => self.gateway_terms(terms),
        }
    }

    /// The same in the form of a gateway's answers.
    #[inline(never)]
    fn gateway_terms(&self, terms: Terms) -> Terms {
        match self {
            Self::Http(_) => terms,
            Self::Pairs(Envelope::Scgi) => terms.closing().in_dialect(Dialect::Cgi),
            Self::Pairs(Envelope::Uwsgi) => terms.closing().in_dialect(Dialect::Uwsgi),
            Self::Records(wire) => terms.in_dialect(Dialect::FastCgi(wire.id())),
            Self::Packets(_) => terms.in_dialect(Dialect::Ajp),
        }
    }

    /// A decoder for a body with this framing; `memory` bounds what it keeps of other requests.
    pub fn decoder(&mut self, framing: &Framing, memory: &InputBudget) -> BodyDecoder {
        match self {
            // Behind the head of the others the body stands as it is too.
            Self::Http(_) | Self::Pairs(_) => {
                BodyDecoder::Http { decoder: Decoder::new(framing.length, TRAILER_MAX), is_awaited: framing.expect_continue }
            }
            Self::Records(wire) => BodyDecoder::Records(wire.decoder(memory)),
            Self::Packets(_) => BodyDecoder::Packets(PacketDecoder::new(framing.length)),
        }
    }

    /// The request as a client would send it now, and the bytes after it; `None` when its body is in a file, when it is too large
    /// or when there is no memory for a copy.
    pub fn raw(&self, queued: &QueuedRequest, rest: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Http(_) => raw_http(queued, rest),
            Self::Pairs(envelope) => pairs::raw(*envelope, queued),
            Self::Records(_) => records::raw(queued, rest),
            Self::Packets(_) => packets::raw(queued, rest),
        }
    }

    /// Whether requests come from a front server that has read them before.
    pub fn is_gateway(&self) -> bool {
        match self {
            Self::Http(_) => false,
            Self::Pairs(_) | Self::Records(_) | Self::Packets(_) => true,
        }
    }

    /// Whether there is a request that an answer can be for.
    pub fn can_answer(&self) -> bool {
        match self {
            Self::Http(_) | Self::Pairs(_) => true,
            Self::Records(wire) => wire.id() != 0,
            Self::Packets(wire) => wire.has_request(),
        }
    }

    /// Whether the beginning of a head that is kept is as it came, so that another worker can continue with it.
    pub fn keeps_raw(&self) -> bool {
        match self {
            Self::Http(_) | Self::Pairs(_) | Self::Packets(_) => true,
            Self::Records(_) => false,
        }
    }
}

#[inline(always)]
fn read_http(progress: &mut Progress, kept: &mut Option<Box<Kept>>, ctx: &mut ThreadCtx) -> HeadResult {
    let rest = ctx.input.rest();
    let (rules, job) = (&ctx.rules, &mut ctx.job);
    // The verdict does not depend on where the input was cut.
    let window = &rest[..rest.len().min(rules.head_max)];
    let mut begun = Progress::default();
    match ctx.blocks.resume(&mut job.head, window, &rules.head, &mut begun) {
        Ok(Parsed::Complete) => {
            let start = ctx.input.at();
            job.own.clear();
            job.head.variables.clear();
            job.head.client = None;
            job.at = start..start + job.head.len;
            ctx.input.used(job.head.len);
            Ok(Parsed::Complete)
        }
        Ok(Parsed::Partial) if window.len() >= rules.head_max => Err(bad(Error::HeadTooLong(rules.head_max))),
        Ok(Parsed::Partial) => match Leased::copy(window, &ctx.memory) {
            Some(bytes) => {
                *progress = begun;
                *kept = Some(Box::new(Kept::Partial(bytes)));
                ctx.input.forget();
                Ok(Parsed::Partial)
            }
            None => Err(Box::new(HeadError::NoMemory)),
        },
        Err(error) => Err(bad(error)),
    }
}

#[cold]
fn read_more_http(
    progress: &mut Progress,
    mut begun: Box<Kept>,
    kept: &mut Option<Box<Kept>>,
    ctx: &mut ThreadCtx,
) -> HeadResult {
    let Kept::Partial(bytes) = &mut *begun else { unreachable!("bytes that may be a request are taken first") };
    let (rules, job, before) = (&ctx.rules, &mut ctx.job, bytes.len());
    let more = ctx.input.rest();
    let more = &more[..more.len().min(rules.head_max - before)];
    if !bytes.push(more, &ctx.memory) {
        return Err(Box::new(HeadError::NoMemory));
    }
    match ctx.blocks.resume(&mut job.head, bytes, &rules.head, progress) {
        Ok(Parsed::Complete) => {
            let len = job.head.len;
            ctx.input.used(len - before);
            job.own = take(bytes).into_bytes();
            job.own.truncate(len);
            job.head.variables.clear();
            job.head.client = None;
            *progress = Progress::default();
            Ok(Parsed::Complete)
        }
        Ok(Parsed::Partial) if bytes.len() >= rules.head_max => Err(bad(Error::HeadTooLong(rules.head_max))),
        Ok(Parsed::Partial) => {
            *kept = Some(begun);
            ctx.input.forget();
            Ok(Parsed::Partial)
        }
        Err(error) => Err(bad(error)),
    }
}

/// Decides about body and keep-alive of the head that is complete.
#[inline(always)]
fn frame_http(ctx: &mut ThreadCtx) -> HeadResult {
    let job = &mut ctx.job;
    match ctx.blocks.framing(&job.head, job.bytes(ctx.input.bytes())) {
        Ok((framing, block)) => {
            (job.framing, job.block) = (framing, block);
            Ok(Parsed::Complete)
        }
        Err(error) => Err(Box::new(HeadError::Unclear(error))),
    }
}

#[cold]
fn bad(error: Error) -> Box<HeadError> {
    Box::new(HeadError::Bad(error))
}

fn raw_http(queued: &QueuedRequest, rest: &[u8]) -> Option<Vec<u8>> {
    let body: &[u8] = match &queued.body {
        RequestBody::Empty => &[],
        RequestBody::Memory(bytes) => bytes,
        RequestBody::File(_) => return None,
    };
    let (size, end) = match queued.framing.length {
        Length::None | Length::Known(_) => (String::new(), ""),
        // Its chunks are decoded already: one chunk replaces them.
        Length::Chunked if body.is_empty() => (String::new(), "0\r\n\r\n"),
        Length::Chunked => (format!("{:x}\r\n", body.len()), "\r\n0\r\n\r\n"),
    };
    // Texts may stand behind the head.
    let head = queued.own.get(..queued.head.len)?;
    let parts = [head, size.as_bytes(), body, end.as_bytes(), rest];
    let len = parts.iter().map(|part| part.len()).sum();
    let mut raw = Vec::new();
    if len > INPUT_MAX || !reserve(&mut raw, len) {
        return None;
    }
    parts.iter().for_each(|part| raw.extend_from_slice(part));
    Some(raw)
}

/// The decoder of a body.
#[derive(Debug)]
pub enum BodyDecoder {
    /// Of HTTP.
    Http {
        /// The decoder of its framing.
        decoder: Decoder,
        /// Whether the client may wait for `100 Continue` before it sends the first byte.
        is_awaited: bool,
    },
    /// Of FastCGI.
    Records(Box<RecordDecoder>),
    /// Of AJP.
    Packets(PacketDecoder),
}

/// What a decoder wants sent to the client, so that it sends the body, or more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// `100 Continue` (RFC 9110 section 10.1.1).
    Continue,
    /// Records or packets that answer others, or ask for more.
    Replies(Vec<u8>),
}

impl Prompt {
    /// Appends it to `out`.
    pub fn render(self, out: &mut Vec<u8>) {
        match self {
            Self::Continue => out.extend_from_slice(CONTINUE),
            Self::Replies(replies) => out.extend_from_slice(&replies),
        }
    }
}

impl BodyDecoder {
    /// As [`Decoder::decode`].
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Error> {
        match self {
            Self::Http { decoder, .. } => decoder.decode(input),
            Self::Records(decoder) => decoder.decode(input),
            Self::Packets(decoder) => decoder.decode(input),
        }
    }

    /// What is to be sent now, when all that has come is decoded, and more is needed; `input`: the bytes that have come last.
    pub fn prompt(&mut self, input: &[u8]) -> Option<Prompt> {
        match self {
            // A client that has begun does not wait.
            Self::Http { is_awaited, .. } => (take(is_awaited) && input.is_empty()).then_some(Prompt::Continue),
            Self::Records(decoder) => replies(decoder.take_replies()),
            Self::Packets(decoder) => replies(decoder.take_replies()),
        }
    }

    /// As [`Decoder::left`].
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Http { decoder, .. } => decoder.left(),
            Self::Records(_) | Self::Packets(_) => None,
        }
    }

    /// As [`Decoder::pass`].
    pub fn pass(&mut self, count: u64) {
        match self {
            Self::Http { decoder, .. } => decoder.pass(count),
            Self::Records(_) | Self::Packets(_) => {}
        }
    }

    /// What is left when the body is complete; `None`: nothing ever is.
    #[inline]
    pub fn finish(&mut self) -> Option<BodyEnd> {
        match self {
            Self::Http { .. } => None,
            Self::Records(decoder) => Some(decoder.finish()),
            Self::Packets(decoder) => {
                let (length, replies) = decoder.finish();
                Some(BodyEnd { aborted: false, length, replies, input: Vec::new() })
            }
        }
    }
}

fn replies(bytes: Vec<u8>) -> Option<Prompt> {
    if bytes.is_empty() { None } else { Some(Prompt::Replies(bytes)) }
}

/// What a decoder of records or packets leaves behind.
#[derive(Debug)]
pub struct BodyEnd {
    /// Whether the request is not wanted any more.
    pub aborted: bool,
    /// The length of the body, as the head has it, or as it came.
    pub length: Length,
    /// What is to be sent before the answer.
    pub replies: Vec<u8>,
    /// Input of other requests, which comes before what follows the body.
    pub input: Vec<u8>,
}
