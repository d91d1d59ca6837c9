//! AJP 1.3 as a server reads it, without I/O (Apache Tomcat Connectors, "AJP Protocol Reference"): packets in, pairs of names and
//! values out, as the other gateways have them.
//!
//! ```text
//! 0x12 0x34, length of the payload (2), payload
//!   request: 2, method (1), protocol, URI, address, name and server of the client (texts), port (2), TLS (1), number of fields (2),
//!            name and value of each, attributes, 0xFF
//!   others:  7 shut down, 8 ping, 10 ping (CPing); a part of a body has no type ([`body`])
//! text: length (2), bytes, NUL; 0xFFFF alone: there is none
//! ```
//! A connection has one request after the other, and a kept one has nothing between them but pings.
//!
//! The URI comes as the client has sent it, encoded. What other servers let a front set by attributes (CVE-2020-1938) is bounded
//! here: a new name in capitals may be set, and nothing that says what the request is or who sends it.

use std::ops::Range;

use crate::http::bytes::{decimal, is_token};
use crate::http::error::Error;
use crate::http::head::Span;

mod attributes;
pub mod body;
mod reader;
#[cfg(test)]
mod tests;

use attributes::Attributes;
use reader::PacketReader;

/// What every packet of a front begins with.
const MARK: [u8; 2] = [0x12, 0x34];

/// Bytes before the payload: what it begins with, and its length.
const HEAD: usize = 4;

/// Types of packets from a front.
const FORWARD_REQUEST: u8 = 2;
const SHUTDOWN: u8 = 7;
const PING: u8 = 10;

/// The byte before the number of a well-known field.
const KNOWN: u8 = 0xA0;

/// The method that an attribute names.
const STORED_METHOD: u8 = 0xFF;

/// The methods, whose numbers begin with 1.
const METHODS: [&str; 27] = [
    "OPTIONS",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "TRACE",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "ACL",
    "REPORT",
    "VERSION-CONTROL",
    "CHECKIN",
    "CHECKOUT",
    "UNCHECKOUT",
    "SEARCH",
    "MKWORKSPACE",
    "UPDATE",
    "LABEL",
    "MERGE",
    "BASELINE-CONTROL",
    "MKACTIVITY",
];

/// The well-known fields of requests, whose numbers begin with 1, as variables.
const FIELDS: [&str; 14] = [
    "HTTP_ACCEPT",
    "HTTP_ACCEPT_CHARSET",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_ACCEPT_LANGUAGE",
    "HTTP_AUTHORIZATION",
    "HTTP_CONNECTION",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "HTTP_COOKIE",
    "HTTP_COOKIE2",
    "HTTP_HOST",
    "HTTP_PRAGMA",
    "HTTP_REFERER",
    "HTTP_USER_AGENT",
];

/// Prefix of the variables that are fields.
const FIELD: &[u8] = b"HTTP_";

/// What the input begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontPacket {
    /// A packet of which at least so many bytes are missing, one or more.
    Cut {
        /// How many.
        missing: usize,
        /// Whether it is a request.
        is_request: bool,
    },
    /// A request of so many bytes; its body follows.
    Request(usize),
    /// The question whether the server lives, of so many bytes.
    Ping(usize),
    /// So many bytes that want nothing: an empty part of a body, which lighttpd sends behind every request without one, or the wish
    /// that the server ends, which is for others to decide.
    Ignored(usize),
}

/// What these bytes, which are between two requests, begin with; `max` bounds a packet in bytes.
pub fn packet(bytes: &[u8], max: usize) -> Result<FrontPacket, Error> {
    if bytes.iter().zip(MARK).any(|(byte, mark)| *byte != mark) {
        return Err(Error::Malformed("it does not begin with a packet of AJP"));
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk::<HEAD>() else {
        return Ok(FrontPacket::Cut { missing: HEAD - bytes.len(), is_request: false });
    };
    let len = HEAD + usize::from(u16::from_be_bytes([high, low]));
    if len == HEAD {
        return Ok(FrontPacket::Ignored(len));
    }
    let kind = match bytes.get(HEAD) {
        None => return Ok(FrontPacket::Cut { missing: 1, is_request: false }),
        Some(&kind) => kind,
    };
    let whole = match kind {
        FORWARD_REQUEST if len > max => return Err(Error::HeadTooLong(max)),
        FORWARD_REQUEST => FrontPacket::Request(len),
        PING if len == HEAD + 1 => FrontPacket::Ping(len),
        SHUTDOWN if len <= max => FrontPacket::Ignored(len),
        _ => return Err(Error::Malformed("a packet is neither a request nor a question of AJP")),
    };
    match len.checked_sub(bytes.len()).filter(|missing| *missing > 0) {
        Some(missing) => Ok(FrontPacket::Cut { missing, is_request: kind == FORWARD_REQUEST }),
        None => Ok(whole),
    }
}

/// The name of a variable.
#[derive(Clone, Copy, Debug)]
enum PairName {
    Known(&'static str),
    /// The name of a field.
    Field(Span),
    /// A name as it is.
    Given(Span),
}

/// The value of a variable.
#[derive(Clone, Copy, Debug)]
enum PairValue {
    Known(&'static str),
    Given(Span),
    /// A path to be decoded.
    Path(Span),
    /// A path and a query.
    Target(Span, Option<Span>),
    Number(u16),
}

impl PairName {
    fn len(self) -> usize {
        match self {
            Self::Known(name) => name.len(),
            Self::Field(name) => FIELD.len() + name.len(),
            Self::Given(name) => name.len(),
        }
    }

    fn put(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Known(name) => bytes.extend_from_slice(name.as_bytes()),
            Self::Field(name) => {
                bytes.extend_from_slice(FIELD);
                let start = bytes.len();
                put_span(bytes, name);
                for byte in &mut bytes[start..] {
                    *byte = if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() };
                }
            }
            Self::Given(name) => put_span(bytes, name),
        }
    }
}

impl PairValue {
    /// Most bytes that it has.
    fn most(self) -> usize {
        match self {
            Self::Known(text) => text.len(),
            Self::Given(text) | Self::Path(text) => text.len(),
            Self::Target(path, query) => path.len() + query.map_or(0, |query| 1 + query.len()),
            Self::Number(_) => DIGITS,
        }
    }

    fn put(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Known(text) => bytes.extend_from_slice(text.as_bytes()),
            Self::Given(text) => put_span(bytes, text),
            Self::Path(path) => {
                let start = bytes.len();
                put_span(bytes, path);
                let len = crate::http::target::percent_decode_in_place(&mut bytes[start..]);
                bytes.truncate(start + len);
            }
            Self::Target(path, query) => {
                put_span(bytes, path);
                if let Some(query) = query {
                    bytes.push(b'?');
                    put_span(bytes, query);
                }
            }
            Self::Number(number) => {
                let (mut digits, mut at, mut rest) = ([b'0'; DIGITS], DIGITS, number);
                loop {
                    at -= 1;
                    digits[at] += (rest % 10) as u8;
                    rest /= 10;
                    if rest == 0 {
                        break;
                    }
                }
                bytes.extend_from_slice(&digits[at..]);
            }
        }
    }
}

/// Digits of the largest number of 16 bits.
const DIGITS: usize = 5;

fn put_span(bytes: &mut Vec<u8>, span: Span) {
    bytes.extend_from_within(span.start as usize..span.end as usize);
}

/// A request, as places in the bytes that its packet stands in.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    method: PairValue,
    protocol: Option<Span>,
    uri: Span,
    client: Option<Span>,
    client_name: Option<Span>,
    server: Option<Span>,
    port: u16,
    is_tls: bool,
    /// The fields: how many, and where.
    count: u16,
    fields: Span,
    attributes: Attributes,
    /// Whether its body has no length, and ends with an empty packet.
    pub is_chunked: bool,
    /// Most bytes that its pairs have.
    most: usize,
}

impl Forward {
    /// Reads the request whose packet stands at this place; `max_fields` bounds its fields.
    pub fn read(bytes: &[u8], place: Range<usize>, max_fields: usize) -> Result<Self, Error> {
        let mut reader = PacketReader::new(bytes, place.start + HEAD + 1, place.end);
        let method = reader.byte()?;
        let protocol = reader.text()?;
        let uri = reader.text()?.ok_or(Error::Malformed("it has no URI"))?;
        let (client, client_name, server) = (reader.text()?, reader.text()?, reader.text()?);
        let port = reader.number()?;
        let is_tls = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return Err(Error::Malformed("it says neither yes nor no to TLS")),
        };
        let count = reader.number()?;
        if usize::from(count) > max_fields {
            return Err(Error::TooManyFields(max_fields));
        }
        let start = reader.at();
        let (mut length, mut is_chunked) = (false, false);
        for _ in 0..count {
            let (name, value) = reader.field()?;
            let text = value.of(bytes);
            match name {
                Some(PairName::Known("CONTENT_LENGTH")) if length => return Err(Error::Twice("Content-Length")),
                Some(PairName::Known("CONTENT_LENGTH")) => {
                    decimal(text).ok_or(Error::Length)?;
                    length = true;
                }
                Some(PairName::Known(CODING)) if is_chunked => return Err(Error::Coding),
                Some(PairName::Known(CODING)) if text.eq_ignore_ascii_case(b"chunked") => is_chunked = true,
                Some(PairName::Known(CODING)) => return Err(Error::CodingUnknown),
                _ => {}
            }
        }
        if length && is_chunked {
            return Err(Error::LengthAndCoding);
        }
        let fields = Span::new(start, reader.at());
        let attributes = Attributes::read(&mut reader)?;
        let method = match method {
            STORED_METHOD => PairValue::Given(attributes.method.ok_or(Error::Malformed("its method is missing"))?),
            number => PairValue::Known(
                METHODS
                    .get(usize::from(number).wrapping_sub(1))
                    .ok_or(Error::Malformed("the number of its method is unknown"))?,
            ),
        };
        check_uri(uri.of(bytes))?;
        let mut forward = Self {
            method,
            protocol,
            uri,
            client,
            client_name,
            server,
            port,
            is_tls,
            count,
            fields,
            attributes,
            is_chunked,
            most: 0,
        };
        let mut most = 0;
        forward.each(&mut &*bytes, |_, name, value| most += 2 * LENGTH + name.len() + value.most());
        forward.most = most;
        Ok(forward)
    }

    /// The secret that the front has sent.
    pub fn secret<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.attributes.secret.map(|secret| secret.of(bytes))
    }

    /// Most bytes that [`Self::put`] appends.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Appends its pairs, packed as [`super::pairs::Packing::Short`], to the bytes that it was read from.
    pub fn put(&self, bytes: &mut Vec<u8>) {
        self.each(bytes, |bytes, name, value| {
            let [low, high] = (name.len() as u16).to_le_bytes();
            bytes.extend_from_slice(&[low, high]);
            name.put(bytes);
            let length = bytes.len();
            bytes.extend_from_slice(&[0; LENGTH]);
            value.put(bytes);
            let len = (bytes.len() - length - LENGTH) as u16;
            bytes[length..length + LENGTH].copy_from_slice(&len.to_le_bytes());
        });
    }

    /// Each variable, in order.
    fn each<B: AsRef<[u8]>>(&self, bytes: &mut B, mut act: impl FnMut(&mut B, PairName, PairValue)) {
        act(bytes, PairName::Known("REQUEST_METHOD"), self.method);
        let query = self.attributes.query;
        let uri = self.uri.of(bytes.as_ref());
        // lighttpd sends it decoded, and then it is no target.
        let is_target = uri.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'?');
        if is_target {
            act(bytes, PairName::Known("REQUEST_URI"), PairValue::Target(self.uri, query));
        }
        if self.uri.of(bytes.as_ref()) != b"*" {
            act(bytes, PairName::Known("PATH_INFO"), PairValue::Path(self.uri));
        }
        if self.is_tls {
            act(bytes, PairName::Known("HTTPS"), PairValue::Known("on"));
        }
        let known = [
            ("QUERY_STRING", query),
            ("SERVER_PROTOCOL", self.protocol),
            ("REMOTE_ADDR", self.client),
            ("REMOTE_HOST", self.client_name),
            ("SERVER_NAME", self.server),
        ];
        for (name, value) in known {
            if let Some(value) = value {
                act(bytes, PairName::Known(name), PairValue::Given(value));
            }
        }
        act(bytes, PairName::Known("SERVER_PORT"), PairValue::Number(self.port));
        let (mut at, end) = (self.fields.start as usize, self.fields.end as usize);
        for _ in 0..self.count {
            let mut reader = PacketReader::new(bytes.as_ref(), at, end);
            let Ok((name, value)) = reader.field() else { break };
            at = reader.at();
            match name {
                Some(PairName::Known(CODING)) | None => {}
                Some(name) => act(bytes, name, PairValue::Given(value)),
            }
        }
        self.attributes.each(bytes, act);
    }
}

/// Bytes of a length in a pair.
const LENGTH: usize = 2;

/// The field that says how a body is framed, which is for the packets to do.
const CODING: &str = "HTTP_TRANSFER_ENCODING";

/// The name of a field that is written out, as a variable; `None`: one that must not become one, as in HTTP, since it could pose as
/// the name with a hyphen.
fn field_name(name: Span, bytes: &[u8]) -> Result<Option<PairName>, Error> {
    let text = name.of(bytes);
    if !is_token(text) {
        return Err(Error::FieldName);
    }
    let known: [(&[u8], &str); 3] =
        [(b"content-type", "CONTENT_TYPE"), (b"content-length", "CONTENT_LENGTH"), (b"transfer-encoding", CODING)];
    if let Some((_, known)) = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(text)) {
        return Ok(Some(PairName::Known(known)));
    }
    let is_plain = text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    Ok(is_plain.then_some(PairName::Field(name)))
}

/// Refuses a URI whose escapes are none, and what is no path.
fn check_uri(uri: &[u8]) -> Result<(), Error> {
    if uri != b"*" && !uri.starts_with(b"/") {
        return Err(Error::Malformed("its URI does not begin with a slash"));
    }
    for at in memchr::memchr_iter(b'%', uri) {
        if !uri.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Error::Malformed("its URI has a percent sign that begins no escape"));
        }
    }
    Ok(())
}
