//! The request line and the header block (RFC 9112 sections 2 to 5).
//!
//! Two parsers read a head. The fast one walks once over the whole head, which is nearly always one read. [`Progress`] is a
//! byte-wise automaton of the same grammar: it takes over when a head comes in pieces, so that trickled bytes cost linear time
//! and limits apply before the head is complete. It also names the first fault when the fast one refuses. So the verdict does not
//! depend on where the input was cut.

use super::bytes::{TOKEN, same, target_len, token_len, value_len};
use super::error::Error;

pub use super::progress::{Limits, MAX_EMPTY_LINES, MAX_HEAD, Parsed, Progress};

/// Longest method in bytes. The longest registered one, UPDATEREDIRECTREF, has 17; a longer run of letters is no HTTP.
pub const MAX_METHOD: usize = 32;

/// The place of a piece of the head in the bytes it was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes that this span names; `bytes` must be the ones that were parsed.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    /// The same of bytes that may be others by now; empty when they are too few.
    #[inline]
    pub fn of_any(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Number of bytes.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// The same span when `by` more bytes precede it; an empty one stays empty.
    #[inline]
    pub fn moved(self, by: u32) -> Self {
        Self { start: self.start.wrapping_add(by), end: self.end.wrapping_add(by) }
    }

    /// Whether there are no bytes.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// A span of bytes whose number fits into 32 bits.
    #[inline]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
}

/// The versions that Tapster speaks (RFC 9112 section 2.3). A higher minor version of HTTP/1 counts as 1.1 (RFC 9110
/// section 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// One header field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name as sent.
    pub name: Span,
    /// Value without surrounding blanks.
    pub value: Span,
}

impl Field {
    /// The same field when `by` more bytes precede it.
    #[inline]
    pub fn moved(self, by: u32) -> Self {
        Self { name: self.name.moved(by), value: self.value.moved(by) }
    }
}

/// The parts of a request that a gateway says by variables, as spans into the bytes of the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayParts {
    /// SCRIPT_NAME: empty, or with a slash at its begin and none at its end.
    pub script: Span,
    /// PATH_INFO, decoded: empty or with a slash at its begin.
    pub path: Span,
    /// QUERY_STRING.
    pub query: Span,
    /// Whether the client's connection is encrypted.
    pub https: bool,
}

/// The client of a request where that is not the connection's own peer: as a gateway or a trusted proxy names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamedClient {
    /// Its address.
    pub addr: Span,
    /// Its port; empty where nobody knows it.
    pub port: Span,
}

/// A scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// What a trusted proxy tells of a request besides its client, and the name that it has got: texts that stand behind the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Whether one of the others but the name is set.
    pub is_told: bool,
    /// The scheme.
    pub scheme: Option<Scheme>,
    /// The host as `host[:port]`; empty: as the request says.
    pub host: Span,
    /// The host without the port.
    pub name: Span,
    /// The port of the server; empty: its own.
    pub port: Span,
    /// What the proxy has cut off the path; empty: nothing.
    pub prefix: Span,
    /// Its X-Request-ID, where requests get one.
    pub id: Span,
}

/// A parsed head: spans into the bytes that were parsed, so that it can be reused without allocation.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Method token.
    pub method: Span,
    /// Request target as sent (origin, absolute, authority or asterisk form).
    pub target: Span,
    /// The request line, from the method to the version.
    pub line: Span,
    /// The field lines including the final empty line: the exact bytes that a header-block cache compares.
    pub block: Span,
    /// Version.
    pub version: Version,
    /// Field lines in order.
    pub fields: Vec<Field>,
    /// Place of the first X-Request-ID among them: it names a request in the log of every server on its way.
    pub request_id: Option<usize>,
    /// Variables of a request from a gateway, in order, without those that are fields; empty for HTTP.
    pub variables: Vec<Field>,
    /// What a gateway has made of the request; meaningless for HTTP.
    pub gateway: GatewayParts,
    /// The client, where it is not the connection's own peer.
    pub client: Option<NamedClient>,
    /// What was found out about the request besides what it says.
    pub assigned: Findings,
    /// Bytes consumed, empty lines before the request line and the final empty line included.
    pub len: usize,
}

/// A head with the bytes that it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a> {
    /// The head.
    pub head: &'a Head,
    /// The bytes that its spans name.
    pub bytes: &'a [u8],
}

impl<'a> HeadView<'a> {
    /// Method token.
    #[inline]
    pub fn method(self) -> &'a [u8] {
        self.head.method.of(self.bytes)
    }

    /// Request target as sent.
    pub fn target(self) -> &'a [u8] {
        self.head.target.of(self.bytes)
    }

    /// The request line, from the method to the version.
    #[inline]
    pub fn line(self) -> &'a [u8] {
        self.head.line.of(self.bytes)
    }

    /// Address of the client as a gateway or a trusted proxy names it; `None` where the connection's own peer is the client.
    #[inline]
    pub fn client(self) -> Option<&'a [u8]> {
        self.head.client.map(|client| client.addr.of(self.bytes))
    }

    /// The X-Request-ID that it has got here; empty where requests get none.
    #[inline]
    pub fn assigned_id(self) -> &'a [u8] {
        self.head.assigned.id.of_any(self.bytes)
    }

    /// The same, or else the value of the first X-Request-ID; empty without one.
    #[inline]
    pub fn request_id(self) -> &'a [u8] {
        match self.head.request_id {
            _ if !self.head.assigned.id.is_empty() => self.assigned_id(),
            Some(place) => self.head.fields[place].value.of(self.bytes),
            None => &[],
        }
    }
}

impl Head {
    /// Parses the head at the start of `bytes`, replacing the contents of `self`. They are meaningless after `Partial` or an
    /// error.
    #[inline]
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Error> {
        self.resume(bytes, limits, &mut Progress::default())
    }

    /// As [`Head::parse`], for a head that comes in pieces: `bytes` begins with the bytes of the last call, and `progress` (one
    /// per connection, reset to its default when a head is complete or the bytes move on) remembers how much of it is known to be
    /// good.
    pub fn resume(&mut self, bytes: &[u8], limits: &Limits, progress: &mut Progress) -> Result<Parsed, Error> {
        if progress.is_started() && progress.go_on(bytes, limits)? == Some(Parsed::Partial) {
            return Ok(Parsed::Partial);
        }
        if self.request_line(bytes, limits)? == Parsed::Partial {
            progress.wait_for_line(bytes);
            return Ok(Parsed::Partial);
        }
        self.resume_fields(bytes, limits, progress)
    }

    /// The part of [`Head::resume`] after a complete request line.
    pub(super) fn resume_fields(&mut self, bytes: &[u8], limits: &Limits, progress: &mut Progress) -> Result<Parsed, Error> {
        if self.field_lines(bytes, limits)? == Parsed::Complete {
            *progress = Progress::default();
            return Ok(Parsed::Complete);
        }
        progress.start(self.block.start);
        progress.scan(bytes, limits)
    }

    /// Parses the request line alone: sets `method`, `target`, `line`, `version` and the start of `block` (its end is not known
    /// yet). A caller that has seen the block after it before can skip [`Head::field_lines`].
    #[inline]
    pub fn request_line(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Error> {
        let mut start = 0;
        while bytes.get(start) == Some(&b'\r') {
            match bytes.get(start + 1) {
                None => return Ok(Parsed::Partial),
                Some(b'\n') if start < MAX_EMPTY_LINES * 2 => start += 2,
                Some(b'\n') => return Err(Error::EmptyLines),
                Some(_) => return Err(Error::LineEnd),
            }
        }
        // The longest line with its CRLF fits into the window, so reaching the window's end means that it is too long.
        let window = &bytes[..bytes.len().min(start.saturating_add(limits.request_line).saturating_add(2))];
        let short = |got: usize| {
            if got >= start.saturating_add(limits.request_line).saturating_add(2) {
                Err(Error::LineTooLong(limits.request_line))
            } else {
                Ok(Parsed::Partial)
            }
        };

        // Nearly every request begins like this, and then not each byte has to be tested.
        let mut at = if window[start..].starts_with(b"GET ") { start + 3 } else { start };
        loop {
            match window.get(at) {
                None => return short(at),
                Some(&b) if TOKEN[b as usize] => at += 1,
                Some(b' ') if at > start => break,
                Some(&b) => return Err(method_fault(at == start, b)),
            }
            if at - start > MAX_METHOD {
                return Err(Error::MethodTooLong);
            }
        }
        self.method = Span::new(start, at);

        let target = at + 1;
        at = target + target_len(&window[target..]);
        match window.get(at) {
            None => return short(at),
            Some(b' ') if at == target => return Err(Error::TargetMissing),
            Some(b' ') => {}
            Some(b'\r' | b'\n') => return Err(Error::VersionMissing),
            Some(b'#') => return Err(Error::TargetFragment),
            Some(&b) => return Err(Error::TargetByte(b)),
        }
        self.target = Span::new(target, at);

        let version = at + 1;
        let rest = &window[version..];
        self.version = if rest.starts_with(b"HTTP/1.1\r\n") {
            Version::Http11
        } else if rest.starts_with(b"HTTP/1.0\r\n") {
            Version::Http10
        } else {
            match other_version(rest)? {
                Some(version) => version,
                None => return short(window.len()),
            }
        };
        let end = version + b"HTTP/1.1".len();
        self.line = Span::new(start, end);
        self.block = Span::new(end + 2, end + 2);
        Ok(Parsed::Complete)
    }

    /// Parses the field lines after a complete request line: sets `fields`, the end of `block` and `len`.
    #[inline]
    pub fn field_lines(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Error> {
        match walk(bytes, self.block.start as usize, limits, &mut self.fields) {
            Some(Walk::Complete(end)) => {
                self.request_id = self.fields.iter().position(|field| same(field.name.of(bytes), b"x-request-id"));
                self.block.end = end as u32;
                self.len = end;
                Ok(Parsed::Complete)
            }
            Some(Walk::Partial) => Ok(Parsed::Partial),
            None => {
                let mut progress = Progress::default();
                progress.start(self.block.start);
                // The automaton reads the same grammar; should it ever be more tolerant, the fast parser's refusal stands.
                Err(progress.scan(bytes, limits).err().unwrap_or(Error::FieldName))
            }
        }
    }

    /// A head with its bytes, put together from a request line that was read elsewhere and from fields. `None` for a line that
    /// ends before its version does.
    pub fn compose(line: &[u8], version: Version, fields: &[(&[u8], &[u8])]) -> Option<(Self, Vec<u8>)> {
        let method = memchr::memchr(b' ', line)?;
        let target = memchr::memrchr(b' ', line).filter(|&end| end > method && line.len() == end + " HTTP/1.1".len())?;
        let mut bytes = line.to_vec();
        let mut push = |text: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(text);
            Span::new(start, bytes.len())
        };
        let fields = fields.iter().map(|(name, value)| Field { name: push(name), value: push(value) }).collect();
        let (method, target, line) = (Span::new(0, method), Span::new(method + 1, target), Span::new(0, line.len()));
        Some((Self { method, target, line, version, fields, len: bytes.len(), ..Self::default() }, bytes))
    }

    /// Becomes a copy of another one, in the memory that it has.
    pub fn copy_from(&mut self, other: &Self) {
        let (mut fields, mut variables) = (std::mem::take(&mut self.fields), std::mem::take(&mut self.variables));
        fields.clone_from(&other.fields);
        variables.clone_from(&other.variables);
        let Self { method, target, line, block, version, request_id, gateway, client, assigned, len, .. } = *other;
        *self = Self { method, target, line, block, version, fields, request_id, variables, gateway, client, assigned, len };
    }

    /// Whether the request came by a gateway protocol.
    #[inline]
    pub fn is_from_gateway(&self) -> bool {
        !self.variables.is_empty()
    }

    /// Name and value of each field, in order.
    #[inline]
    pub fn iter<'a>(&'a self, bytes: &'a [u8]) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone {
        self.fields.iter().map(|f| (f.name.of(bytes), f.value.of(bytes)))
    }
}

/// How the fast parser left the field lines.
enum Walk {
    /// More bytes are needed.
    Partial,
    /// The first byte after the final empty line.
    Complete(usize),
}

/// Adds the field lines that begin at `start` to `fields`, in one walk; `None` when one has a mistake, which [`Progress`] then
/// names.
fn walk(bytes: &[u8], start: usize, limits: &Limits, fields: &mut Vec<Field>) -> Option<Walk> {
    let blank = |at: usize| matches!(bytes.get(at), Some(b' ' | b'\t'));
    fields.clear();
    let mut line = start;
    loop {
        let colon = line + token_len(bytes.get(line..)?);
        match bytes.get(colon) {
            Some(b':') if colon > line => {}
            Some(b'\r') if colon == line => {
                return match bytes.get(line + 1) {
                    Some(b'\n') => Some(Walk::Complete(line + 2)),
                    Some(_) => None,
                    None => Some(Walk::Partial),
                };
            }
            Some(_) => return None,
            None => return Some(Walk::Partial),
        }
        let mut value = colon + 1;
        while blank(value) {
            value += 1;
        }
        let mut end = value + value_len(bytes.get(value..)?);
        match bytes.get(end..) {
            Some([b'\r', b'\n', ..]) => {}
            Some([] | [b'\r']) => return Some(Walk::Partial),
            Some(_) | None => return None,
        }
        if end - line > limits.field_size || fields.len() >= limits.fields {
            return None;
        }
        let next = end + 2;
        while end > value && blank(end - 1) {
            end -= 1;
        }
        fields.push(Field { name: Span::new(line, colon), value: Span::new(value, end) });
        line = next;
    }
}

#[cold]
fn method_fault(at_start: bool, byte: u8) -> Error {
    /// Content type of the TLS record that a handshake begins with (RFC 8446 section 5.1).
    const TLS_HANDSHAKE: u8 = 0x16;
    match byte {
        TLS_HANDSHAKE if at_start => Error::Tls,
        b'\n' if at_start => Error::LineEnd,
        b'\r' | b'\n' => Error::TargetMissing,
        _ => Error::Method(byte),
    }
}

/// The version at the start of `rest`, CRLF included, when it is not simply HTTP/1.1; `None` when `rest` is too short.
fn other_version(rest: &[u8]) -> Result<Option<Version>, Error> {
    let pattern = b"HTTP/d.d\r\n";
    for (at, (&byte, &wanted)) in rest.iter().zip(pattern).enumerate() {
        let fits = if wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted };
        if !fits {
            return Err(match (at, byte) {
                (0, b'\r' | b'\n') => Error::VersionMissing,
                (8, b'\n') | (9, _) => Error::LineEnd,
                _ => Error::VersionMalformed,
            });
        }
        // This is known to be HTTP, so the answer to a preface of HTTP/2 names the versions, rather than calling it malformed.
        if at == 7 && rest[5] != b'1' {
            return Err(Error::Version);
        }
    }
    if rest.len() < pattern.len() {
        return Ok(None);
    }
    Ok(Some(if rest[7] == b'0' { Version::Http10 } else { Version::Http11 }))
}

#[cfg(test)]
mod tests;
