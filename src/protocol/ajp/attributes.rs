//! What a front says of a request besides its head.

use crate::http::error::Error;
use crate::http::head::Span;

use super::{DIGITS, PacketReader, PairName, PairValue};

/// The number of each attribute.
const CONTEXT: u8 = 1;
const SERVLET_PATH: u8 = 2;
const REMOTE_USER: u8 = 3;
const AUTH_TYPE: u8 = 4;
const QUERY_STRING: u8 = 5;
const JVM_ROUTE: u8 = 6;
const SSL_CERT: u8 = 7;
const SSL_CIPHER: u8 = 8;
const SSL_SESSION: u8 = 9;
const REQ_ATTRIBUTE: u8 = 10;
const SSL_KEY_SIZE: u8 = 11;
const SECRET: u8 = 12;
const STORED_METHOD: u8 = 13;
const DONE: u8 = 0xFF;

/// Attributes that fronts give a name, and the variables that they are.
const FROM_FRONTS: [(&[u8], &str); 3] =
    [(b"AJP_REMOTE_PORT", "REMOTE_PORT"), (b"AJP_LOCAL_ADDR", "SERVER_ADDR"), (b"AJP_SSL_PROTOCOL", "SSL_PROTOCOL")];

/// Beginnings of names that say what a request is, where it comes from, or what steers servers.
const RESERVED: [&[u8]; 15] = [
    b"AUTH_",
    b"CONTENT_",
    b"DOCUMENT_",
    b"GATEWAY_",
    b"HTTP",
    b"PATH_",
    b"QUERY_",
    b"RAW_",
    b"REMOTE_",
    b"REQUEST_",
    b"SCRIPT_",
    b"SERVER_",
    b"TAPSTER",
    b"UWSGI_",
    b"WSGI",
];

/// The attributes of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes {
    /// All of them, up to their end.
    place: Span,
    pub(super) query: Option<Span>,
    pub(super) secret: Option<Span>,
    /// The method that has no number.
    pub(super) method: Option<Span>,
}

/// One attribute.
enum Attribute {
    Variable(PairName, PairValue),
    Query(Span),
    Secret(Span),
    Method(Span),
    /// One that is for servlets, or that a front must not set.
    Ignored,
    /// There are no more.
    End,
}

impl Attributes {
    /// Reads them, with which the packet ends.
    pub(super) fn read(reader: &mut PacketReader<'_>) -> Result<Self, Error> {
        let start = reader.at();
        let mut attributes = Self::default();
        let once = |place: &mut Option<Span>, value: Span, name: &'static str| match place.replace(value) {
            Some(_) => Err(Error::Twice(name)),
            None => Ok(()),
        };
        loop {
            match next(reader)? {
                Attribute::Query(query) => once(&mut attributes.query, query, "the query")?,
                Attribute::Secret(secret) => once(&mut attributes.secret, secret, "the secret")?,
                Attribute::Method(method) => once(&mut attributes.method, method, "the method")?,
                Attribute::Variable(..) | Attribute::Ignored => {}
                Attribute::End if reader.rest().is_empty() => break,
                Attribute::End => return Err(Error::Malformed("bytes follow the end of its packet")),
            }
        }
        attributes.place = Span::new(start, reader.at());
        Ok(attributes)
    }

    /// Each that is a variable of its own, in order.
    pub(super) fn each<B: AsRef<[u8]>>(&self, bytes: &mut B, mut act: impl FnMut(&mut B, PairName, PairValue)) {
        let (mut at, end) = (self.place.start as usize, self.place.end as usize);
        loop {
            let mut reader = PacketReader::new(bytes.as_ref(), at, end);
            let found = next(&mut reader);
            at = reader.at();
            match found {
                Ok(Attribute::Variable(name, value)) => act(bytes, name, value),
                Ok(Attribute::End) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
}

/// The next attribute.
fn next(reader: &mut PacketReader<'_>) -> Result<Attribute, Error> {
    let variable = |name: &'static str, value: Option<Span>| match value {
        Some(value) => Attribute::Variable(PairName::Known(name), PairValue::Given(value)),
        None => Attribute::Ignored,
    };
    Ok(match reader.byte()? {
        DONE => Attribute::End,
        CONTEXT | SERVLET_PATH | JVM_ROUTE => {
            reader.text()?;
            Attribute::Ignored
        }
        REMOTE_USER => variable("REMOTE_USER", reader.text()?),
        AUTH_TYPE => variable("AUTH_TYPE", reader.text()?),
        SSL_CERT => variable("SSL_CLIENT_CERT", reader.text()?),
        SSL_CIPHER => variable("SSL_CIPHER", reader.text()?),
        SSL_SESSION => variable("SSL_SESSION_ID", reader.text()?),
        SSL_KEY_SIZE => Attribute::Variable(PairName::Known("SSL_CIPHER_USEKEYSIZE"), key_size(reader)?),
        QUERY_STRING => reader.text()?.map_or(Attribute::Ignored, Attribute::Query),
        SECRET => reader.text()?.map_or(Attribute::Ignored, Attribute::Secret),
        STORED_METHOD => reader.text()?.map_or(Attribute::Ignored, Attribute::Method),
        REQ_ATTRIBUTE => {
            let (name, value) = (reader.text()?, reader.text()?);
            match name.and_then(|name| named(name, reader.bytes())).zip(value) {
                Some((name, value)) => Attribute::Variable(name, PairValue::Given(value)),
                None => Attribute::Ignored,
            }
        }
        // Whether a number or a text follows is not known.
        _ => return Err(Error::Malformed("the number of an attribute is unknown")),
    })
}

/// The bits of a key: a number, or with lighttpd a text of it. No key has as few bits as such a text has digits.
fn key_size(reader: &mut PacketReader<'_>) -> Result<PairValue, Error> {
    let mut text = reader.clone();
    if let Ok(Some(size)) = text.text()
        && size.len() <= DIGITS
        && size.of(reader.bytes()).iter().all(u8::is_ascii_digit)
    {
        *reader = text;
        return Ok(PairValue::Given(size));
    }
    reader.number().map(PairValue::Number)
}

/// The variable that an attribute of this name is; `None`: a front must not set it.
pub(super) fn named(name: Span, bytes: &[u8]) -> Option<PairName> {
    let text = name.of(bytes);
    if let Some((_, known)) = FROM_FRONTS.iter().find(|(from, _)| *from == text) {
        return Some(PairName::Known(known));
    }
    let is_new = text.first().is_some_and(u8::is_ascii_uppercase)
        && text.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
        && !RESERVED.iter().any(|reserved| text.starts_with(reserved));
    is_new.then_some(PairName::Given(name))
}
