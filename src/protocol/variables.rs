//! What the variables of a gateway mean: a request as [`crate::http`] has it.
//!
//! `HTTP_*` and CONTENT_TYPE become the fields that the client has sent, under their names in HTTP, so that logs, limits and caches
//! know nothing of gateways. The others are passed on as variables. The path has been decoded by the gateway and is not decoded
//! again, but where it has to be taken from REQUEST_URI.
//!
//! What is never passed on: lengths and types of bodies as `HTTP_*`, which nginx and lighttpd send beside the real ones; `Proxy`
//! (CVE-2016-5385); names with a point, which belong to WSGI and to servers; `UWSGI_*`, by which uWSGI is told to load code, to
//! change directories and to read files.
//!
//! A line end may be where a path has been decoded, and in what the front itself says in lines (certificates). It is refused in
//! fields, as in HTTP, and in all that an application takes for one line and may write into a head of its own.
//!
//! Front servers differ in where they put the path (SCRIPT_NAME, PATH_INFO, or neither); the rules are in [`Seen::split`].

use std::ops::Range;

use crate::http::bytes::{bad_value_byte, decimal, is_token};
use crate::http::error::Error;
use crate::http::framing::{Framing, Length};
use crate::http::head::{Field, GatewayParts, Head, Limits, MAX_METHOD, NamedClient, Span, Version};
use crate::http::once;
use crate::http::target::{percent_decode_in_place, push_encoded};
use crate::protocol::pairs::Packing;

pub mod cache;
#[cfg(test)]
mod tests;

/// Prefix of the variables that are fields.
const FIELD: &[u8] = b"HTTP_";

/// Prefix of the variables that steer uWSGI.
const UWSGI: &[u8] = b"UWSGI_";

/// Beginnings of the names of other variables that are one line, beside those in [`is_one_line`].
const ONE_LINE: [&[u8]; 3] = [FIELD, b"REMOTE_", b"SERVER_"];

/// Longest length of a body in bytes: the largest offset of a file.
const BODY_MAX: u64 = i64::MAX as u64;

/// The variables that say what the request is, as far as they have come.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    method: Option<Span>,
    protocol: Option<Span>,
    uri: Option<Span>,
    document_uri: Option<Span>,
    script: Option<Span>,
    path: Option<Span>,
    query: Option<Span>,
    length: Option<Span>,
    client: Option<Span>,
    client_port: Option<Span>,
    https: Option<Span>,
    scheme: Option<Span>,
    chunked: bool,
    /// Whether the protocol itself says where a body ends.
    is_delimited: bool,
}

/// Room that `bytes` should have beyond their length before [`read`]: as much as it may append to so many bytes, so that no memory is
/// asked for whose size a client determines.
pub fn room(len: usize) -> usize {
    // The path once decoded, and once in the request line with each byte encoded.
    4 * len + 64
}

/// Reads a request from the pairs that are packed so at this place of `bytes`. What is put together is appended to `bytes`; `head` is replaced.
/// Fields are renamed in place, with hyphens for underscores, which [`restore`] takes back.
pub fn read(
    head: &mut Head,
    bytes: &mut Vec<u8>,
    (packing, pairs): (Packing, Range<usize>),
    limits: &Limits,
) -> Result<Framing, Error> {
    sort(head, bytes, (packing, pairs), limits)?.finish(head, bytes, limits)
}

/// Sorts the pairs into fields and variables of the head and what is read of them.
fn sort(head: &mut Head, bytes: &mut [u8], (packing, pairs): (Packing, Range<usize>), limits: &Limits) -> Result<Seen, Error> {
    head.fields.clear();
    head.variables.clear();
    head.request_id = None;
    let mut seen = Seen { is_delimited: packing == Packing::Long, ..Seen::default() };
    for pair in packing.pairs(bytes, pairs) {
        seen.take(pair?, head, bytes, limits)?;
    }
    for field in &head.fields {
        let name = &mut bytes[field.name.start as usize..field.name.end as usize];
        name.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
    }
    Ok(seen)
}

/// Gives the fields of a head, which [`read`] has made, their names as variables back in a copy of its bytes.
pub fn restore(head: &Head, bytes: &mut [u8]) {
    for field in &head.fields {
        let name = &mut bytes[field.name.start as usize..field.name.end as usize];
        name.iter_mut().filter(|byte| **byte == b'-').for_each(|byte| *byte = b'_');
    }
}

/// Puts a span in a place that it may have once, or twice with the same text.
fn once(place: &mut Option<Span>, value: Span, bytes: &[u8], name: &'static str) -> Result<(), Error> {
    match place.replace(value) {
        Some(first) if first.of(bytes) != value.of(bytes) => Err(Error::Twice(name)),
        Some(_) | None => Ok(()),
    }
}

/// Texts of a request that are read.
const TEXTS: usize = 12;

impl Seen {
    /// The texts, always in this order.
    fn texts(&mut self) -> [&mut Option<Span>; TEXTS] {
        let Self { method, protocol, uri, document_uri, script, path, query, length, client, client_port, https, scheme, .. } =
            self;
        [method, protocol, uri, document_uri, script, path, query, length, client, client_port, https, scheme]
    }

    /// Sorts a pair.
    fn take(&mut self, Field { name, value }: Field, head: &mut Head, bytes: &[u8], limits: &Limits) -> Result<(), Error> {
        let (key, text) = (name.of(bytes), value.of(bytes));
        if key.is_empty() || memchr::memchr2(0, b'=', key).is_some() {
            return Err(Error::Malformed("a variable has no name, or one with a NUL or an equals sign"));
        }
        if memchr::memchr(0, text).is_some() {
            return Err(Error::Malformed("the value of a variable has a NUL"));
        }
        if let Some(field) = key.strip_prefix(FIELD)
            && !field.is_empty()
            && field.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
        {
            match field {
                b"CONTENT_LENGTH" | b"CONTENT_TYPE" | b"PROXY" => return Ok(()),
                b"TRANSFER_ENCODING" => return self.take_coding(text),
                b"X_REQUEST_ID" if head.request_id.is_none() => head.request_id = Some(head.fields.len()),
                _ => {}
            }
            check_value(text)?;
            let start = name.start as usize + FIELD.len();
            return push(head, Field { name: Span::new(start, name.end as usize), value }, bytes, limits);
        }
        if key == b"CONTENT_TYPE" {
            check_value(text)?;
            return if text.is_empty() { Ok(()) } else { push(head, Field { name, value }, bytes, limits) };
        }
        if memchr::memchr2(b'\r', b'\n', text).is_some() && is_one_line(key) {
            return Err(Error::Malformed("the value of a variable that is one line has a line end"));
        }
        let known = match key {
            b"CONTENT_LENGTH" => return once(&mut self.length, value, bytes, "CONTENT_LENGTH"),
            b"REQUEST_METHOD" => return once(&mut self.method, value, bytes, "REQUEST_METHOD"),
            b"SCRIPT_NAME" => return once(&mut self.script, value, bytes, "SCRIPT_NAME"),
            b"PATH_INFO" => return once(&mut self.path, value, bytes, "PATH_INFO"),
            b"QUERY_STRING" => return once(&mut self.query, value, bytes, "QUERY_STRING"),
            b"REQUEST_URI" => return once(&mut self.uri, value, bytes, "REQUEST_URI"),
            b"REMOTE_ADDR" => return once(&mut self.client, value, bytes, "REMOTE_ADDR"),
            b"REMOTE_PORT" => return once(&mut self.client_port, value, bytes, "REMOTE_PORT"),
            b"SERVER_PROTOCOL" => return once(&mut self.protocol, value, bytes, "SERVER_PROTOCOL"),
            b"SERVER_NAME" => {
                let host = Span::new(value.start as usize, value.start as usize + host_len(text));
                head.variables.extend((!host.is_empty()).then_some(Field { name, value: host }));
                return Ok(());
            }
            b"SERVER_PORT" if text.is_empty() => return Ok(()),
            b"HTTPS" => &mut self.https,
            b"REQUEST_SCHEME" => &mut self.scheme,
            b"DOCUMENT_URI" => &mut self.document_uri,
            _ if memchr::memchr(b'.', key).is_some() || key.starts_with(UWSGI) => return Ok(()),
            _ => {
                head.variables.push(Field { name, value });
                return Ok(());
            }
        };
        *known = Some(value);
        head.variables.push(Field { name, value });
        Ok(())
    }

    /// How the body came to the front, which has removed the chunks and nothing else. The application would take a body with another
    /// coding for the plain one.
    fn take_coding(&mut self, text: &[u8]) -> Result<(), Error> {
        match text.trim_ascii() {
            b"" => Ok(()),
            coding if is_chunked(coding) => {
                self.chunked = true;
                Ok(())
            }
            _ => Err(Error::CodingUnknown),
        }
    }

    /// Puts the request together, of `bytes` that end with its pairs or with what closes them.
    fn finish(self, head: &mut Head, bytes: &mut Vec<u8>, limits: &Limits) -> Result<Framing, Error> {
        head.block = Span::new(0, bytes.len());
        let method = self.method.ok_or(Error::Malformed("REQUEST_METHOD is missing"))?;
        match method.of(bytes) {
            b"CONNECT" => return Err(Error::Connect),
            text if text.len() > MAX_METHOD => return Err(Error::MethodTooLong),
            text if !is_token(text) => return Err(Error::Malformed("REQUEST_METHOD is not a token")),
            _ => {}
        }
        let length = self.length(bytes)?;
        let (script, path) = self.split(method, bytes)?;
        let query = self.query(bytes);
        let some = |span: Option<Span>| span.unwrap_or_default();
        let scheme = |name: &[u8]| self.scheme.is_some_and(|scheme| scheme.of(bytes).eq_ignore_ascii_case(name));
        head.gateway = GatewayParts {
            script,
            path,
            query,
            https: self.https.map_or_else(|| scheme(b"https"), |https| is_on(https.of(bytes))),
        };
        head.client = Some(NamedClient { addr: some(self.client), port: some(self.client_port) });
        let protocol = self.protocol(bytes);
        head.version = if &protocol == b"HTTP/1.0" { Version::Http10 } else { Version::Http11 };
        self.name_protocol(head, bytes, &protocol);
        self.put_line(head, bytes, method, &protocol);
        // A log line is bounded by it.
        head.len = bytes.len();
        if head.line.len() > limits.request_line {
            return Err(Error::LineTooLong(limits.request_line));
        }
        Ok(Framing { length, persistent: false, expect_continue: false, upgrade: false })
    }

    /// The length of the body. An empty one is none: nginx sends it for requests without a body.
    fn length(&self, bytes: &[u8]) -> Result<Length, Error> {
        match self.length.map(|length| length.of(bytes)) {
            None | Some(b"" | b"-1") if self.is_delimited => Ok(Length::None),
            None | Some(b"") if self.chunked => Err(Error::LengthMissing),
            None | Some(b"") => Ok(Length::None),
            // Caddy sends -1 for a chunked body.
            Some(b"-1") => Err(Error::LengthMissing),
            Some(text) => decimal(text).filter(|length| *length <= BODY_MAX).map(Length::Known).ok_or(Error::Length),
        }
    }

    /// SCRIPT_NAME and PATH_INFO. Together they are the path.
    fn split(&self, method: Span, bytes: &mut Vec<u8>) -> Result<(Span, Span), Error> {
        let is_some = |span: &Span| !span.is_empty();
        let script = self.script.filter(is_some);
        let (script, path) = match (script, self.path.filter(is_some)) {
            // The stock parameters of nginx for FastCGI, Apache without proxy-fcgi-pathinfo, haproxy without path-info: the whole path.
            (Some(script), None) if self.path.is_none() => (Span::default(), script),
            // The application's own address, without a slash after it.
            (Some(script), None) => match script.of(bytes) {
                slashes if slashes.iter().all(|byte| *byte == b'/') => (Span::default(), script),
                _ => (without_slash(script, bytes), Span::default()),
            },
            (script, Some(path)) if path.of(bytes).starts_with(b"/") => {
                (script.map_or(Span::default(), |script| without_slash(script, bytes)), path)
            }
            // A mount with a slash at its end.
            (Some(script), Some(path)) => (Span::default(), join(bytes, script, path)),
            (None, Some(path)) => (Span::default(), path),
            // The stock parameters of nginx for SCGI.
            (None, None) => (Span::default(), self.path_of_uri(method, bytes)?),
        };
        let fits = |text: &[u8]| text.is_empty() || text.starts_with(b"/");
        if !fits(script.of(bytes)) || !fits(path.of(bytes)) {
            return Err(Error::Malformed("the path does not begin with a slash"));
        }
        Ok((script, path))
    }

    /// The path of DOCUMENT_URI, which is decoded, or of REQUEST_URI, which is not.
    fn path_of_uri(&self, method: Span, bytes: &mut Vec<u8>) -> Result<Span, Error> {
        if let Some(path) = self.document_uri.filter(|path| !path.is_empty()) {
            return Ok(path);
        }
        let uri = self.uri.filter(|uri| !uri.is_empty());
        let uri = uri.ok_or(Error::Malformed("it has neither PATH_INFO nor SCRIPT_NAME nor REQUEST_URI"))?;
        if method.of(bytes) == b"OPTIONS" && uri.of(bytes) == b"*" {
            return Ok(Span::default());
        }
        let (path, _) = parts_of_uri(uri, bytes);
        let start = bytes.len();
        bytes.extend_from_within(path.start as usize..path.end as usize);
        let len = percent_decode_in_place(&mut bytes[start..]);
        bytes.truncate(start + len);
        if bytes[start..].contains(&0) {
            return Err(Error::Malformed("the path has a NUL"));
        }
        Ok(Span::new(start, bytes.len()))
    }

    fn query(&self, bytes: &[u8]) -> Span {
        match (self.query, self.uri) {
            (Some(query), _) => query,
            (None, Some(uri)) => parts_of_uri(uri, bytes).1,
            (None, None) => Span::default(),
        }
    }

    /// The version of HTTP between client and gateway, as eight bytes.
    fn protocol(&self, bytes: &[u8]) -> [u8; 8] {
        match self.protocol.map(|protocol| protocol.of(bytes)) {
            Some(&[b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9']) => {
                [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            }
            Some(_) | None => *b"HTTP/1.1",
        }
    }

    /// SERVER_PROTOCOL is always among the variables, so that they are never empty.
    fn name_protocol(&self, head: &mut Head, bytes: &mut Vec<u8>, protocol: &[u8]) {
        let name = append(bytes, b"SERVER_PROTOCOL");
        let value = match self.protocol.filter(|value| !value.is_empty()) {
            Some(value) => value,
            None => append(bytes, protocol),
        };
        head.variables.push(Field { name, value });
    }

    /// The request line as the client may have sent it.
    fn put_line(&self, head: &mut Head, bytes: &mut Vec<u8>, method: Span, protocol: &[u8]) {
        let start = bytes.len();
        bytes.extend_from_within(method.start as usize..method.end as usize);
        head.method = Span::new(start, bytes.len());
        bytes.push(b' ');
        let target = bytes.len();
        let clean = |uri: &Span| !uri.is_empty() && uri.of(bytes).iter().all(|&byte| byte > b' ' && byte != 0x7F);
        match self.uri.filter(clean) {
            Some(uri) => bytes.extend_from_within(uri.start as usize..uri.end as usize),
            None => {
                let GatewayParts { script, path, query, .. } = head.gateway;
                for place in [script, path].into_iter().flat_map(|part| part.start..part.end) {
                    push_encoded(bytes[place as usize], bytes);
                }
                if bytes.len() == target {
                    bytes.push(b'*');
                }
                if !query.is_empty() {
                    bytes.push(b'?');
                }
                for place in query.start..query.end {
                    let byte = bytes[place as usize];
                    bytes.push(if byte > b' ' && byte != 0x7F { byte } else { b'+' });
                }
            }
        }
        head.target = Span::new(target, bytes.len());
        bytes.push(b' ');
        bytes.extend_from_slice(protocol);
        head.line = Span::new(start, bytes.len());
    }
}

/// Whether a Transfer-Encoding says that the body came in chunks, and in no other coding.
pub fn is_chunked(coding: &[u8]) -> bool {
    coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Whether a variable's value is one line for applications.
fn is_one_line(key: &[u8]) -> bool {
    matches!(key, b"QUERY_STRING" | b"REQUEST_URI" | b"REQUEST_SCHEME" | b"HTTPS" | b"AUTH_TYPE")
        || ONE_LINE.iter().any(|begin| key.starts_with(begin))
}

/// Refuses what no field in HTTP can have.
fn check_value(text: &[u8]) -> Result<(), Error> {
    bad_value_byte(text).map_or(Ok(()), |byte| Err(Error::FieldValue(byte)))
}

/// Adds a field, within the limits of fields. One that is no list comes once, or again with the same text, as where the parameters
/// of a front are included twice.
fn push(head: &mut Head, field: Field, bytes: &[u8], limits: &Limits) -> Result<(), Error> {
    if let Some(single) = once::single(field.name.of(bytes))
        && let Some(first) = head.fields.iter().find(|first| first.name.of(bytes) == field.name.of(bytes))
    {
        return if first.value.of(bytes) == field.value.of(bytes) { Ok(()) } else { Err(Error::Twice(single)) };
    }
    if head.fields.len() >= limits.fields {
        return Err(Error::TooManyFields(limits.fields));
    }
    if field.name.len() + field.value.len() > limits.field_size {
        return Err(Error::FieldTooLong(limits.field_size));
    }
    head.fields.push(field);
    Ok(())
}

fn append(bytes: &mut Vec<u8>, text: &[u8]) -> Span {
    let start = bytes.len();
    bytes.extend_from_slice(text);
    Span::new(start, bytes.len())
}

fn join(bytes: &mut Vec<u8>, first: Span, second: Span) -> Span {
    let start = bytes.len();
    bytes.extend_from_within(first.start as usize..first.end as usize);
    bytes.extend_from_within(second.start as usize..second.end as usize);
    Span::new(start, bytes.len())
}

/// The same without the slashes at its end: SCRIPT_NAME never ends so (PEP 3333).
fn without_slash(script: Span, bytes: &[u8]) -> Span {
    let slashes = script.of(bytes).iter().rev().take_while(|byte| **byte == b'/').count();
    Span { end: script.end - slashes as u32, ..script }
}

/// Path and query of a target, both as sent.
fn parts_of_uri(uri: Span, bytes: &[u8]) -> (Span, Span) {
    let text = uri.of(bytes);
    let mark = memchr::memchr(b'?', text);
    let path_end = mark.unwrap_or(text.len());
    // The absolute form, which a client of a proxy sends.
    let path = match memchr::memmem::find(&text[..path_end], b"://") {
        Some(scheme) if !text.starts_with(b"/") => {
            memchr::memchr(b'/', &text[scheme + 3..path_end]).map_or(path_end, |slash| scheme + 3 + slash)
        }
        Some(_) | None => 0,
    };
    let at = uri.start as usize;
    let query = mark.map_or(text.len(), |mark| mark + 1);
    (Span::new(at + path, at + path_end), Span::new(at + query, at + text.len()))
}

/// Length of the host in a text that may have a port behind it, as haproxy sends SERVER_NAME.
fn host_len(text: &[u8]) -> usize {
    match text.iter().rposition(|&byte| byte == b':') {
        Some(colon) if text[..colon].ends_with(b"]") || !text[..colon].contains(&b':') => colon,
        Some(_) | None => text.len(),
    }
}

/// Whether HTTPS says that the connection is encrypted: fronts say `on`, `1` or the name of the version.
fn is_on(text: &[u8]) -> bool {
    !(text.is_empty() || text == b"0" || text.eq_ignore_ascii_case(b"off"))
}
