//! Rendering an answer: status line, header fields, framing and body (RFC 9112 sections 4 to 7), strict in what it emits.

use std::fmt;

use super::bytes::{bad_value_byte, decimal, is_token, put_decimal, same, trim};
use super::chunked;
use super::date;
use super::head::Version;
use super::terms::{Dialect, Terms};
use super::{packets, records, request_id};

mod gateway;

/// The interim answer that a client with `Expect: 100-continue` waits for (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The field that names the server when the application does not.
pub const SERVER: &[u8] = b"Server: tapster\r\n";

/// The field of an answer while the saved code cannot be loaded.
const STALE: &[u8] = b"Tapster-Reload: failed\r\n";

/// The one status with which the application may send an Upgrade field (RFC 9110 section 15.5.22).
const UPGRADE_REQUIRED: u16 = 426;

/// The facts about request and connection that the encoder needs.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// How the answer goes over the wire.
    pub terms: Terms,
    /// Value of the Date field that is added when the application sent none.
    pub date: &'a [u8],
    /// Value of the X-Request-ID field that is added when the application sent none; empty: it is not added.
    pub id: &'a [u8],
}

/// Something that an application sent and HTTP forbids. `Display` names it and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A status that is not three digits with an optional reason, or has a control character.
    Status(String),
    /// A status that cannot be final (1xx), or is none (0xx).
    StatusNotFinal(String),
    /// A field name that is not a token.
    Name(String),
    /// A control character in a field value.
    Value {
        /// Field name.
        name: String,
        /// The byte.
        byte: u8,
    },
    /// A field that only the server may send (hop-by-hop).
    HopByHop(String),
    /// An Upgrade field with another status than 426.
    Upgrade,
    /// A Connection option other than `close` and `keep-alive`.
    ConnectionOption(String),
    /// A Content-Length that is no decimal number.
    Length(String),
    /// Two Content-Length fields that differ.
    Lengths(u64, u64),
    /// A head that the protocol of the front server cannot carry.
    HeadTooLarge {
        /// Its bytes.
        size: usize,
        /// Most that there may be.
        max: usize,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => {
                write!(f, "the status \"{status}\" is not three digits, a space and a reason without controls: send \"200 OK\"")
            }
            Self::StatusNotFinal(status) => write!(f, "the status \"{status}\" cannot end a request: send one from 200 on"),
            Self::Name(name) => {
                write!(f, "the header name \"{name}\" is not a token: use letters, digits and hyphens, without colon or blank")
            }
            Self::Value { name, byte } => write!(
                f,
                "the value of header {name} has the control character 0x{byte:02x}: remove it (line ends would split the response)"
            ),
            Self::HopByHop(name) => {
                write!(
                    f,
                    "the header {name} is hop-by-hop and belongs to the server (PEP 3333): leave it out, the server frames the body"
                )
            }
            Self::Upgrade => {
                write!(f, "the header Upgrade is hop-by-hop (PEP 3333): send it with 426 Upgrade Required only, or leave it out")
            }
            Self::ConnectionOption(option) => {
                write!(f, "the Connection option \"{option}\" belongs to the server (PEP 3333): only close may be sent")
            }
            Self::Length(value) => {
                write!(
                    f,
                    "the Content-Length \"{value}\" is not a decimal number: send the body's bytes as digits, or leave it out"
                )
            }
            Self::Lengths(first, second) => write!(f, "Content-Length was sent as {first} and as {second}: send it once"),
            Self::HeadTooLarge { size, max } => write!(
                f,
                "the head has {size} bytes as AJP has it, and a packet at most {max}: send fewer or shorter headers, or use another \
                 protocol"
            ),
        }
    }
}

impl std::error::Error for Refused {}

/// The encoder's notes about the status and the fields it was given. They depend on nothing else, so they can be kept with the
/// rendered lines and serve for another request: see [`Encoder::resume`].
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadFacts {
    status: u16,
    length: Option<u64>,
    date: bool,
    server: bool,
    close: bool,
    dropped: bool,
    upgrade: bool,
    /// Whether there is a field X-Request-ID.
    named: bool,
    /// Whether there is a field Status, which is no field of HTTP and the status for a front server.
    status_field: bool,
}

impl HeadFacts {
    /// Status code.
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// Renders one head into a buffer. On an error the caller truncates the buffer to where it began.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    /// Where the head begins in the output.
    start: usize,
    context: Context<'o>,
    facts: HeadFacts,
}

impl<'o> Encoder<'o> {
    /// Writes the status line; `status` as WSGI gives it: `200 OK`.
    #[inline]
    pub fn begin(out: &'o mut Vec<u8>, context: &Context<'o>, status: &[u8]) -> Result<Self, Refused> {
        let start = out.len();
        // Nearly every answer has this status, which needs no checking.
        let code = if status == b"200 OK" {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
            200
        } else {
            let code = code(status)?;
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(status);
            // The space belongs to the grammar even without a reason (RFC 9112 section 4).
            out.extend_from_slice(if status.len() == 3 { b" \r\n" } else { b"\r\n" });
            code
        };
        let context = *context;
        Ok(Self { out, start, context, facts: HeadFacts { status: code, ..HeadFacts::default() } })
    }

    /// Continues after lines that an encoder has rendered before: the same status and fields, given again.
    #[inline]
    pub fn resume(out: &'o mut Vec<u8>, context: &Context<'o>, lines: &[u8], facts: HeadFacts) -> Self {
        let start = out.len();
        out.extend_from_slice(lines);
        Self { out, start, context: *context, facts }
    }

    /// The buffer with the lines rendered so far, and the notes about them.
    pub fn rendered(&self) -> (&[u8], HeadFacts) {
        (self.out, self.facts)
    }

    /// Writes one field of the application. `Connection: close` is honoured, `Connection: keep-alive` and `Keep-Alive` are
    /// dropped (see [`BodyFraming::dropped`]), a second equal Content-Length too; other hop-by-hop fields are refused, but for
    /// the Upgrade field that a 426 must have (RFC 9110 section 15.5.22).
    #[inline]
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        if !is_token(name) {
            return Err(Refused::Name(text(name)));
        }
        if let Some(byte) = bad_value_byte(value) {
            return Err(Refused::Value { name: text(name), byte });
        }
        // The length selects the few names that matter before any byte is compared.
        if name.len() < LENGTHS_END && LENGTHS & 1 << name.len() != 0 && !self.passes(name, value)? {
            return Ok(());
        }
        self.out.reserve(name.len() + value.len() + 4);
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Takes note of the fields that concern framing and connection; returns whether the field is sent as it is.
    fn passes(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Refused> {
        match name.len() {
            4 if same(name, b"date") => self.facts.date = true,
            6 if same(name, b"server") => self.facts.server = true,
            6 if same(name, b"status") => self.facts.status_field = true,
            // As long as Content-Type, which nearly every answer has: no other name is looked for.
            12 => self.facts.named |= same(name, b"x-request-id"),
            14 if same(name, b"content-length") => return self.content_length(value),
            10 if same(name, b"connection") => return self.connection(value).map(|()| false),
            10 if same(name, b"keep-alive") => {
                self.facts.dropped = true;
                return Ok(false);
            }
            7 if same(name, b"upgrade") => {
                if self.facts.status != UPGRADE_REQUIRED {
                    return Err(Refused::Upgrade);
                }
                self.facts.upgrade = true;
            }
            _ if HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes())) => {
                return Err(Refused::HopByHop(text(name)));
            }
            _ => {}
        }
        Ok(true)
    }

    fn content_length(&mut self, value: &[u8]) -> Result<bool, Refused> {
        let length = decimal(trim(value)).ok_or_else(|| Refused::Length(text(value)))?;
        match self.facts.length.replace(length) {
            Some(first) if first != length => Err(Refused::Lengths(first, length)),
            // RFC 9110 section 8.6 forbids it with 204.
            first => Ok(first.is_none() && self.facts.status != 204),
        }
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Refused> {
        for option in value.split(|&b| b == b',').map(trim).filter(|option| !option.is_empty()) {
            if same(option, b"close") {
                self.facts.close = true;
            } else if same(option, b"keep-alive") {
                self.facts.dropped = true;
            } else if same(option, b"upgrade") && self.facts.status == UPGRADE_REQUIRED {
                // The server adds it with each Upgrade field.
            } else {
                return Err(Refused::ConnectionOption(text(option)));
            }
        }
        Ok(())
    }

    /// Adds the fields that are missing (Date, Server, Content-Length or Transfer-Encoding, Connection) and the empty line.
    /// `known` is the length of the whole body when the server knows it and the application did not say. For HEAD a `known` of 0
    /// is not sent: an application that leaves the body out says nothing about the length that GET would have.
    /// To be called once, at the end.
    #[inline]
    pub fn finish(&mut self, known: Option<u64>) -> BodyFraming {
        if self.context.terms.stale {
            note_stale(self.out);
        }
        if !self.context.id.is_empty() && !self.facts.named {
            put_name(self.out, self.context.id);
        }
        if self.context.terms.dialect != Dialect::Http {
            return self.finish_for_gateway(known);
        }
        // By reference: an encoder is large, and this is on the path of every request.
        let Self { out, start: _, context, facts } = self;
        let &mut HeadFacts { status, length, date, server, close, dropped, upgrade, .. } = facts;
        let Terms { version, head_only, persistent, dialect, stale: _ } = context.terms;
        let old = version == Version::Http10;
        let mode = if matches!(status, 204 | 304) {
            Mode::None
        } else {
            let length = length.or_else(|| {
                let known = known.filter(|&known| known > 0 || !head_only)?;
                out.extend_from_slice(b"Content-Length: ");
                put_decimal(out, known);
                out.extend_from_slice(b"\r\n");
                Some(known)
            });
            match length {
                _ if head_only => Mode::None,
                Some(left) => Mode::Length(left),
                None if old => Mode::UntilClose,
                None => {
                    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                    Mode::Chunked
                }
            }
        };
        // Pieces of a length that the compiler knows are stored without a call.
        match context.date.first_chunk() {
            Some(value) if !date && !server => out.extend_from_slice(&date_and_server(value)),
            _ => {
                if !date {
                    out.extend_from_slice(b"Date: ");
                    out.extend_from_slice(context.date);
                    out.extend_from_slice(b"\r\n");
                }
                if !server {
                    out.extend_from_slice(SERVER);
                }
            }
        }
        let persistent = persistent && !close && mode != Mode::UntilClose;
        match (persistent, old) {
            _ if upgrade => connection_with_upgrade(out, persistent, old),
            (true, false) => out.extend_from_slice(b"\r\n"),
            (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n\r\n"),
            (false, _) => out.extend_from_slice(b"Connection: close\r\n\r\n"),
        }
        BodyFraming { status, mode, persistent, dialect, dropped, sent: 0 }
    }
}

/// Adds the name of the request.
#[inline(never)]
fn put_name(out: &mut Vec<u8>, id: &[u8]) {
    for part in [request_id::FIELD, b": ", id, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cold]
fn note_stale(out: &mut Vec<u8>) {
    out.extend_from_slice(STALE);
}

/// The Connection field of an answer with an Upgrade field, which it has to name (RFC 9110 section 7.8), and the empty line.
#[cold]
fn connection_with_upgrade(out: &mut Vec<u8>, persistent: bool, old: bool) {
    out.extend_from_slice(match (persistent, old) {
        (true, false) => b"Connection: upgrade\r\n\r\n",
        (true, true) => b"Connection: keep-alive, upgrade\r\n\r\n",
        (false, _) => b"Connection: close, upgrade\r\n\r\n",
    });
}

/// The two fields that nearly every answer lacks.
#[inline]
fn date_and_server(date: &[u8; date::LEN]) -> [u8; 6 + date::LEN + 2 + SERVER.len()] {
    let mut fields = *b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: tapster\r\n";
    fields[6..6 + date::LEN].copy_from_slice(date);
    fields
}

/// Appends a `103 Early Hints` answer (RFC 8297), which comes before the real one. On an error nothing is appended.
pub fn early_hints(out: &mut Vec<u8>, fields: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Refused> {
    for (name, value) in fields {
        if !is_token(name) {
            return Err(Refused::Name(text(name)));
        }
        if let Some(byte) = bad_value_byte(value) {
            return Err(Refused::Value { name: text(name), byte });
        }
        // An informational answer has no body and does not affect the connection.
        let framing = same(name, b"content-length") || same(name, b"connection") || same(name, b"keep-alive");
        if framing || HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes())) {
            return Err(Refused::HopByHop(text(name)));
        }
    }
    out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n");
    for (name, value) in fields {
        for part in [name, b": ".as_slice(), value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Fields that only a server or proxy may send (RFC 9110 section 7.6.1; PEP 3333, "Other HTTP Features"), besides Connection
/// and Keep-Alive; Upgrade may go with a 426.
const HOP_BY_HOP: [&str; 8] = [
    "TE",
    "Trailer",
    "Trailers",
    "Upgrade",
    "Proxy-Connection",
    "Transfer-Encoding",
    "Proxy-Authenticate",
    "Proxy-Authorization",
];

/// Other fields that [`Encoder::passes`] looks at.
const NOTED: [&str; 6] = ["Date", "Server", "Content-Length", "Connection", "Keep-Alive", "X-Request-ID"];

/// One more than the longest length in [`LENGTHS`].
const LENGTHS_END: usize = u32::BITS as usize;

/// The lengths of all these names, as bits.
const LENGTHS: u32 = lengths(&HOP_BY_HOP) | lengths(&NOTED);

const fn lengths(names: &[&str]) -> u32 {
    let (mut bits, mut at) = (0, 0);
    while at < names.len() {
        bits |= 1 << names[at].len();
        at += 1;
    }
    bits
}

/// The code of a status: three digits, then nothing or a space and a reason.
fn code(status: &[u8]) -> Result<u16, Refused> {
    let code = match status.first_chunk::<3>() {
        Some(digits) if digits.iter().all(u8::is_ascii_digit) && matches!(status.get(3), None | Some(b' ')) => {
            digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
        }
        _ => return Err(Refused::Status(text(status))),
    };
    if bad_value_byte(status).is_some() {
        return Err(Refused::Status(text(status)));
    }
    if code < 200 {
        return Err(Refused::StatusNotFinal(text(status)));
    }
    Ok(code)
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// How the body's end is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// No body is sent.
    None,
    /// Content-Length; the bytes still to come.
    Length(u64),
    Chunked,
    UntilClose,
}

/// The body of an answer whose head is rendered.
#[derive(Clone, Debug)]
pub struct BodyFraming {
    /// Status code, for the log.
    pub status: u16,
    mode: Mode,
    persistent: bool,
    dialect: Dialect,
    dropped: bool,
    sent: u64,
}

/// The piece of a block that is sent with one framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Piece {
    /// So many of its first bytes; 0 when the answer has no body.
    pub take: u64,
    /// The framing to send after them.
    pub after: &'static [u8],
    /// So many bytes were cut off its end: the application sent more than its Content-Length.
    pub cut: u64,
    /// So many bytes follow it in pieces of their own.
    pub rest: u64,
}

/// How much of a block was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All of it, or the answer has no body.
    All,
    /// So many bytes were cut off: the application sent more than its Content-Length.
    Cut(u64),
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Complete; `persistent` says whether the connection can serve another request.
    Complete {
        /// Whether the connection stays open.
        persistent: bool,
    },
    /// The application sent so many bytes less than its Content-Length: the connection must be closed so that the client sees it.
    Short(u64),
}

impl BodyFraming {
    /// Whether body bytes are sent at all (not for HEAD, 204, 304).
    #[inline]
    pub fn is_sent(&self) -> bool {
        self.mode != Mode::None
    }

    /// Appends one block with its framing to `out`. An empty block writes nothing (an empty chunk would end the body).
    #[inline]
    pub fn block(&mut self, out: &mut Vec<u8>, data: &[u8]) -> Fit {
        if !self.is_sent() {
            return Fit::All;
        }
        if matches!(self.dialect, Dialect::FastCgi(_) | Dialect::Ajp) {
            return self.block_in_parts(out, data);
        }
        let Piece { take, after, cut, .. } = self.around_whole(out, data.len() as u64);
        // At most the length of `data`, so it fits into usize.
        out.extend_from_slice(&data[..take as usize]);
        out.extend_from_slice(after);
        if cut == 0 { Fit::All } else { Fit::Cut(cut) }
    }

    /// Framing around a block of `len` bytes that is sent without being copied: writes the framing before it to `out`, and
    /// returns the piece of it to send.
    #[inline]
    pub fn around(&mut self, out: &mut Vec<u8>, len: u64) -> Piece {
        match self.dialect {
            Dialect::FastCgi(id) => self.around_record(out, len, id),
            Dialect::Ajp => self.around_packet(out, len),
            Dialect::Http | Dialect::Cgi | Dialect::Uwsgi => self.around_whole(out, len),
        }
    }

    /// As [`Self::around`] where a block of any length is one piece.
    #[inline(always)] // an ordinary answer comes through one of the two callers
    fn around_whole(&mut self, out: &mut Vec<u8>, len: u64) -> Piece {
        let mut cut = 0;
        let (take, after): (u64, &'static [u8]) = match &mut self.mode {
            Mode::None => (0, b""),
            Mode::Length(left) => {
                let take = len.min(*left);
                *left -= take;
                cut = len - take;
                (take, b"")
            }
            Mode::Chunked if len == 0 => (0, b""),
            Mode::Chunked => {
                chunked::put_head(out, len);
                (len, b"\r\n")
            }
            Mode::UntilClose => (len, b""),
        };
        self.sent += take;
        Piece { take, after, cut, rest: 0 }
    }

    /// Ends the body: writes the last chunk if chunked, and the end of a request of FastCGI or AJP. To be called once.
    #[inline]
    pub fn end(&mut self, out: &mut Vec<u8>) -> End {
        match self.mode {
            Mode::Length(left) if left > 0 => return End::Short(left),
            Mode::Chunked => out.extend_from_slice(chunked::LAST),
            Mode::None | Mode::Length(_) | Mode::UntilClose => {}
        }
        match self.dialect {
            Dialect::FastCgi(id) => records::put_last(out, id),
            Dialect::Ajp => packets::put_end(out, self.persistent),
            Dialect::Http | Dialect::Cgi | Dialect::Uwsgi => {}
        }
        End::Complete { persistent: self.persistent }
    }

    /// Body bytes rendered so far, without framing.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the end of the body may be visible only by the connection's end, so that a cut is visible only by a reset. That of a
    /// gateway always counts as such: front servers drop the length that the application gives.
    pub fn until_close(&self) -> bool {
        self.mode == Mode::UntilClose || self.dialect != Dialect::Http
    }

    /// Whether the head promised to keep the connection.
    pub fn persistent(&self) -> bool {
        self.persistent
    }

    /// Body bytes that Content-Length still promises; `None` when the body is delimited otherwise or not sent.
    pub fn left(&self) -> Option<u64> {
        match self.mode {
            Mode::Length(left) => Some(left),
            Mode::None | Mode::Chunked | Mode::UntilClose => None,
        }
    }

    /// Whether the application sent `Keep-Alive` or `Connection: keep-alive`, which were dropped; worth one warning.
    pub fn dropped(&self) -> bool {
        self.dropped
    }
}

#[cfg(test)]
mod tests;
