//! The access log: gunicorn's `%(...)s` atoms compiled once into a list of parts, or JSON.
//!
//! Rendering is on the path of every request: it appends to the buffer it is given, allocates nothing once its caches are warm,
//! and renders the time once a second.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::config::AccessFormat;
use crate::http::head::{HeadView, Version};
use crate::http::{packets, request_id};

use super::format::{self, Compiled, Part};
use super::{escape, json, stamp};

pub use super::format::FormatError;

/// Longest part of Basic credentials that is searched for the user's name, in characters of base64 (a multiple of four); a name
/// beyond it is cut. The buffer for it is on the stack.
const CREDENTIALS_MAX: usize = 1024;

/// Bytes that one byte becomes at most where it is escaped (`\xHH`).
const ESCAPED: usize = 4;

/// The same in JSON: a control character is `\u00HH`.
const JSON_BYTE: usize = 6;

/// Bytes of a JSON line beside what the client has sent, and more.
const JSON_FIXED: usize = 512;

/// Bytes of an atom that has nothing of a client's text but its address, and more.
const SHORT: usize = 64;

/// Longest address that a gateway may name, in bytes; the rest is cut. An IPv6 address has at most 39.
const CLIENT_MAX: usize = 48;

/// Base64 of credentials (RFC 7617): clients that leave the padding out are read as well.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// When a request was served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// When the request was complete, seconds since the epoch.
    pub arrived: u64,
    /// From its call to the last byte handed to the kernel, in nanoseconds: most formats show no time, and divide nothing.
    pub lasted: u64,
    /// How long it waited for the application before that, in nanoseconds.
    pub queued: u64,
}

/// Nanoseconds per microsecond.
const NS_PER_MICRO: u64 = 1_000;

impl Timing {
    /// [`Self::lasted`] in whole microseconds.
    pub(super) fn micros(&self) -> u64 {
        self.lasted / NS_PER_MICRO
    }

    /// [`Self::queued`] in whole microseconds.
    pub(super) fn queued_micros(&self) -> u64 {
        self.queued / NS_PER_MICRO
    }
}

/// One served (or refused) request.
#[derive(Debug)]
pub struct Record<'a> {
    /// Address of the connection's client without port, empty for a unix socket.
    pub peer: &'a [u8],
    /// Address of the socket's peer likewise: another one where the PROXY protocol has named the client.
    pub socket: &'a [u8],
    /// The head with the bytes it was parsed from; `None` when no head could be parsed.
    pub head: Option<HeadView<'a>>,
    /// The X-Request-ID that was given to a request without a head; empty: none.
    pub id: &'a [u8],
    /// Status of the answer; 499 when the client left before one was made.
    pub status: u16,
    /// Body bytes sent.
    pub sent: u64,
    /// Rendered head of the answer (status line and fields); empty unless [`Format::wants_response_head`].
    pub response_head: &'a [u8],
    /// When it was served.
    pub timing: Timing,
    /// Environ values in the order of [`Format::environ_names`].
    pub environ: &'a [Option<String>],
}

/// The parts of a request target that a log shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoggedTarget<'a> {
    /// Path as sent, percent-encoding included.
    pub path: &'a [u8],
    /// What follows the question mark.
    pub query: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// The X-Request-ID that the request has got from the server; `None` where requests get none.
    pub(super) fn given_id(&self) -> Option<&'a [u8]> {
        Some(self.head.map_or(self.id, HeadView::assigned_id)).filter(|id| !id.is_empty())
    }

    /// Address of the client: the one that a gateway or a trusted proxy names, else the peer's.
    #[inline]
    pub(super) fn client(&self) -> &'a [u8] {
        self.head.and_then(HeadView::client).map_or(self.peer, |client| &client[..client.len().min(CLIENT_MAX)])
    }

    pub(super) fn method(&self) -> Option<&'a [u8]> {
        self.head.map(HeadView::method)
    }

    pub(super) fn protocol(&self) -> Option<&'static str> {
        self.head.map(|view| match view.head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        })
    }

    pub(super) fn target(&self) -> Option<LoggedTarget<'a>> {
        self.head.map(|head| split_target(head.target()))
    }

    /// The value of the last field of this name (given in small letters), as gunicorn's table of headers has it.
    pub(super) fn field(&self, name: &[u8]) -> Option<&'a [u8]> {
        let HeadView { head, bytes } = self.head?;
        head.fields.iter().rev().find(|f| is_name(f.name.of(bytes), name)).map(|f| f.value.of(bytes))
    }

    /// The value of the last field of this name in the rendered head of the answer.
    fn response_field(&self, name: &[u8]) -> Option<&'a [u8]> {
        let head = self.response_head;
        if packets::is_head(head) {
            return packets::fields(head).filter(|(found, _)| is_name(found, name)).last().map(|(_, value)| value);
        }
        let mut found = None;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', head).chain([head.len()]) {
            let line = &head[start..end];
            start = end + 1;
            if let Some(colon) = memchr::memchr(b':', line)
                && is_name(&line[..colon], name)
            {
                found = Some(line[colon + 1..].trim_ascii());
            }
        }
        found
    }
}

/// Whether a field name is `wanted`, which is in small letters. Names are short: a plain loop beats the standard library's.
fn is_name(name: &[u8], wanted: &[u8]) -> bool {
    name.len() == wanted.len() && name.iter().zip(wanted).all(|(a, b)| a.to_ascii_lowercase() == *b)
}

fn split_target(target: &[u8]) -> LoggedTarget<'_> {
    // Absolute form: the path starts after the authority, as in the environ.
    let rest = if target.first() == Some(&b'/') {
        target
    } else {
        match memchr::memmem::find(target, b"://") {
            Some(scheme) => {
                let authority = &target[scheme + 3..];
                let end = authority.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(authority.len());
                &authority[end..]
            }
            None => target,
        }
    };
    match memchr::memchr(b'?', rest) {
        Some(mark) => LoggedTarget { path: &rest[..mark], query: Some(&rest[mark + 1..]) },
        None => LoggedTarget { path: rest, query: None },
    }
}

/// A compiled format.
#[derive(Debug)]
pub struct Format {
    shape: Shape,
    wants_response_head: bool,
    most: Most,
}

/// What a line has at most.
#[derive(Clone, Copy, Debug)]
struct Most {
    /// Bytes whatever the request is.
    fixed: usize,
    /// For each byte of the request's head.
    request: usize,
    /// For each byte of the answer's head.
    response: usize,
    /// For each byte of the environ's values.
    environ: usize,
}

#[derive(Debug)]
enum Shape {
    Atoms(Compiled, NameLengths),
    Json,
}

/// The start of the last request in the log's shape, and the process; one for each thread that renders.
#[derive(Debug, Default)]
pub struct Time {
    pid: u32,
    second: Option<u64>,
    text: Vec<u8>,
}

impl Format {
    /// Compiles a format.
    pub fn compile(format: &AccessFormat) -> Result<Self, FormatError> {
        let shape = match format {
            AccessFormat::Atoms(text) => {
                let compiled = format::compile(text)?;
                let lengths = NameLengths::of(&compiled.fields);
                Shape::Atoms(compiled, lengths)
            }
            AccessFormat::Json => Shape::Json,
        };
        let wants_response_head = match &shape {
            Shape::Atoms(compiled, _) => compiled.parts.iter().any(|part| matches!(part, Part::ResponseField(_))),
            Shape::Json => false,
        };
        let most = match &shape {
            Shape::Atoms(compiled, _) => Most::of(&compiled.parts),
            // Each part of the head is shown once.
            Shape::Json => Most { fixed: JSON_FIXED, request: JSON_BYTE, response: 0, environ: 0 },
        };
        Ok(Self { shape, wants_response_head, most })
    }

    /// Bytes of this record's line at most.
    #[inline]
    pub fn most(&self, record: &Record<'_>) -> usize {
        let head = record.head.map_or(0, |view| view.head.len);
        let environ: usize = record.environ.iter().flatten().map(String::len).sum();
        self.most.fixed + self.most.request * head + self.most.response * record.response_head.len() + self.most.environ * environ
    }

    /// Whether `{name}o` atoms occur, so that the head of the answer must be kept.
    pub fn wants_response_head(&self) -> bool {
        self.wants_response_head
    }

    /// Names of the `{name}e` atoms, in order of first use.
    pub fn environ_names(&self) -> &[String] {
        match &self.shape {
            Shape::Atoms(compiled, _) => &compiled.environ,
            Shape::Json => &[],
        }
    }

    /// Appends one line with its line end to `out`.
    pub fn render(&self, record: &Record<'_>, time: &mut Time, out: &mut Vec<u8>) {
        match &self.shape {
            Shape::Atoms(compiled, lengths) => {
                let fields = Fields::find(record, &compiled.fields, *lengths);
                for part in &compiled.parts {
                    put(part, record, &fields, time, out);
                }
                out.push(b'\n');
            }
            Shape::Json => {
                time.at(record.timing.arrived, |out, second| stamp::rfc3339(out, second, None));
                json::render(record, std::str::from_utf8(&time.text).unwrap_or_default(), time.pid, out);
            }
        }
    }
}

impl Most {
    fn of(parts: &[Part]) -> Self {
        let mut most = Self { fixed: 1, request: 0, response: 0, environ: 0 };
        for part in parts {
            match part {
                Part::Literal(text) => most.fixed += text.len(),
                Part::User(_) | Part::RequestLine | Part::Method | Part::Path | Part::Query | Part::RequestField(_) => {
                    most.fixed += SHORT;
                    most.request += ESCAPED;
                }
                Part::ResponseField(_) => {
                    most.fixed += SHORT;
                    most.response += ESCAPED;
                }
                Part::RemoteAddr | Part::Socket => most.fixed += CLIENT_MAX * ESCAPED,
                Part::GivenId => most.fixed += request_id::LONGEST,
                Part::Time
                | Part::Status
                | Part::Protocol
                | Part::Bytes
                | Part::BytesOrDash
                | Part::Seconds
                | Part::Millis
                | Part::Micros
                | Part::DecimalSeconds
                | Part::QueueMicros
                | Part::Pid => most.fixed += SHORT,
                Part::Environ(_) => {
                    most.fixed += SHORT;
                    most.environ += ESCAPED;
                }
            }
        }
        most
    }
}

/// Appends what a part of the format says of the record.
#[inline]
fn put(part: &Part, record: &Record<'_>, fields: &Fields<'_>, time: &mut Time, out: &mut Vec<u8>) {
    match part {
        // Most literals are blanks and quotes; what has a length that the compiler knows is stored without a call.
        Part::Literal(text) => match text[..] {
            [a] => out.push(a),
            [a, b] => out.extend_from_slice(&[a, b]),
            [a, b, c] => out.extend_from_slice(&[a, b, c]),
            _ => out.extend_from_slice(text),
        },
        Part::RemoteAddr => {
            let client = record.client();
            value(out, (!client.is_empty()).then_some(client));
        }
        Part::Socket => value(out, (!record.socket.is_empty()).then_some(record.socket)),
        Part::GivenId => value(out, record.given_id()),
        Part::User(index) => user(out, fields.value(*index)),
        Part::Time => {
            let text = time.at(record.timing.arrived, stamp::common);
            match text.first_chunk::<{ stamp::COMMON_LEN }>() {
                Some(usual) if text.len() == stamp::COMMON_LEN => out.extend_from_slice(usual),
                _ => out.extend_from_slice(text),
            }
        }
        Part::RequestLine => value(out, record.head.map(HeadView::line)),
        Part::Status => match record.status {
            status @ 100..=999 => out.extend_from_slice(&[100, 10, 1].map(|unit| b'0' + (status / unit % 10) as u8)),
            status => number(out, status.into()),
        },
        Part::Method => value(out, record.method()),
        Part::Path => match record.target() {
            Some(target) => decoded(out, target.path),
            None => out.push(b'-'),
        },
        Part::Query => value(out, record.target().map(|target| target.query.unwrap_or_default())),
        Part::Protocol => value(out, record.protocol().map(str::as_bytes)),
        Part::Bytes => number(out, record.sent),
        Part::BytesOrDash if record.sent == 0 => out.push(b'-'),
        Part::BytesOrDash => number(out, record.sent),
        Part::Seconds => number(out, record.timing.micros() / 1_000_000),
        Part::Millis => number(out, record.timing.micros() / 1_000),
        Part::Micros => number(out, record.timing.micros()),
        Part::DecimalSeconds => {
            number(out, record.timing.micros() / 1_000_000);
            out.push(b'.');
            stamp::number(out, (record.timing.micros() % 1_000_000) as u32, 6);
        }
        Part::QueueMicros => number(out, record.timing.queued_micros()),
        Part::Pid => {
            out.push(b'<');
            number(out, time.pid.into());
            out.push(b'>');
        }
        Part::RequestField(index) => value(out, fields.value(*index)),
        Part::ResponseField(name) => value(out, record.response_field(name)),
        Part::Environ(index) => {
            value(out, record.environ.get(*index).and_then(|v| v.as_deref()).map(str::as_bytes));
        }
    }
}

/// The lengths that wanted names have, one bit each; longer ones share the last bit.
#[derive(Clone, Copy, Debug)]
struct NameLengths(u64);

impl NameLengths {
    fn of(names: &[Vec<u8>]) -> Self {
        Self(names.iter().fold(0, |bits, name| bits | Self::bit(name.len())))
    }

    fn bit(len: usize) -> u64 {
        1 << len.min(63)
    }

    fn has(self, len: usize) -> bool {
        self.0 & Self::bit(len) != 0
    }
}

/// How many fields of the request are found in one pass; what a format wants beyond that is looked for one by one.
const FOUND: usize = 4;

/// The fields of the request that a format shows.
struct Fields<'a> {
    found: [Option<&'a [u8]>; FOUND],
    record: &'a Record<'a>,
    names: &'a [Vec<u8>],
}

impl<'a> Fields<'a> {
    /// One pass over the head: the length alone rules out nearly all fields that are not wanted.
    fn find(record: &'a Record<'a>, names: &'a [Vec<u8>], lengths: NameLengths) -> Self {
        let mut found = [None; FOUND];
        if let Some(HeadView { head, bytes }) = record.head {
            for field in &head.fields {
                if lengths.has((field.name.end - field.name.start) as usize) {
                    let name = field.name.of(bytes);
                    if let Some(at) = names.iter().take(FOUND).position(|wanted| is_name(name, wanted)) {
                        found[at] = Some(field.value.of(bytes));
                    }
                }
            }
        }
        Self { found, record, names }
    }

    fn value(&self, index: usize) -> Option<&'a [u8]> {
        if index < FOUND { self.found[index] } else { self.record.field(&self.names[index]) }
    }
}

impl Time {
    /// For a thread of the process with this id.
    pub fn of(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// The text of this second, rendered again only when it is another than the last one.
    fn at(&mut self, second: u64, render: impl FnOnce(&mut Vec<u8>, u64)) -> &[u8] {
        if self.second != Some(second) {
            self.text.clear();
            render(&mut self.text, second);
            self.second = Some(second);
        }
        &self.text
    }
}

fn value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => escape::field(out, value),
        None => out.push(b'-'),
    }
}

fn number(out: &mut Vec<u8>, n: u64) {
    if n < 100 {
        return match n {
            0..10 => out.push(b'0' + n as u8),
            _ => out.extend_from_slice(&[b'0' + (n / 10) as u8, b'0' + (n % 10) as u8]),
        };
    }
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Appends a path with its percent-encoding removed (PATH_INFO), then escaped.
fn decoded(out: &mut Vec<u8>, path: &[u8]) {
    let mut rest = path;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        escape::field(out, &rest[..percent]);
        let digit = |at: usize| rest.get(at).and_then(|&b| char::from(b).to_digit(16));
        match (digit(percent + 1), digit(percent + 2)) {
            (Some(high), Some(low)) => {
                escape::field(out, &[(high * 16 + low) as u8]);
                rest = &rest[percent + 3..];
            }
            _ => {
                out.push(b'%');
                rest = &rest[percent + 1..];
            }
        }
    }
    escape::field(out, rest);
}

/// Appends the user of Basic credentials (RFC 7617), a dash when there is none.
#[inline]
fn user(out: &mut Vec<u8>, authorization: Option<&[u8]>) {
    match authorization {
        Some(authorization) => user_of(out, authorization),
        None => out.push(b'-'),
    }
}

fn user_of(out: &mut Vec<u8>, authorization: &[u8]) {
    let token = authorization.split_at_checked(b"Basic ".len());
    let Some((_, token)) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Basic ")) else {
        out.push(b'-');
        return;
    };
    let token = token.trim_ascii();
    let mut buffer = [0; CREDENTIALS_MAX / 4 * 3];
    let len = BASE64.decode_slice(&token[..token.len().min(CREDENTIALS_MAX)], &mut buffer).unwrap_or(0);
    let name = buffer[..len].split(|&byte| byte == b':').next();
    value(out, name.filter(|name| !name.is_empty()));
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
