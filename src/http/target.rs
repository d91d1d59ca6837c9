//! The parts of a request target (RFC 9112 section 3.2), and percent-decoding (RFC 3986 section 2.1).
//!
//! Three of the four forms are served. The authority form is that of CONNECT, which only a proxy can mean: a 2xx to it would make
//! a proxy in front open a tunnel, past all its rules (RFC 9110 section 9.3.6). So it is refused before any application sees it.

use std::net::Ipv6Addr;

use super::bytes::{decimal, hex};
use super::error::Error;
use super::head::{Head, Span};

/// The form in which a target was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`, OPTIONS only.
    Asterisk,
}

/// The parts of a target, as spans into the bytes of the head; a part that is not there is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The form.
    pub form: Form,
    /// Path as sent, still percent-encoded. Empty in the asterisk form and in `http://host`: see [`Target::path`].
    pub path: Span,
    /// Query without its question mark.
    pub query: Span,
    /// Authority (`host[:port]`) of the absolute form. It takes the place of the Host field (RFC 9112 section 3.2.2).
    pub authority: Span,
    /// Whether it names the server and no resource of it: the asterisk form, and in OPTIONS an absolute form with neither path
    /// nor query (RFC 9112 section 3.2.4).
    pub server: bool,
}

impl Target {
    /// Refuses what [`Target::of`] refuses, at the price of a look at the first byte in the common case.
    #[inline]
    pub fn check(head: &Head, bytes: &[u8]) -> Result<(), Error> {
        if bytes[head.target.start as usize] == b'/' && head.method.of(bytes) != b"CONNECT" {
            return Ok(());
        }
        Self::of(head, bytes).map(|_| ())
    }

    /// Splits the target of a parsed head. Refuses a form that the method does not allow.
    #[inline]
    pub fn of(head: &Head, bytes: &[u8]) -> Result<Self, Error> {
        let target = head.target.of(bytes);
        let method = head.method.of(bytes);
        if method == b"CONNECT" {
            return Err(Error::Connect);
        }
        let nothing = Span { start: head.target.end, end: head.target.end };
        if target.first() == Some(&b'/') {
            let (path, query) = split(target, head.target.start as usize);
            return Ok(Self { form: Form::Origin, path, query, authority: nothing, server: false });
        }
        let options = method == b"OPTIONS";
        if target == b"*" {
            return match options {
                true => Ok(Self { form: Form::Asterisk, path: nothing, query: nothing, authority: nothing, server: true }),
                false => Err(Error::TargetForm),
            };
        }
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(|scheme| target.len() >= scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes()))
            .ok_or(Error::TargetForm)?;
        let rest = &target[scheme.len()..];
        let len = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        // Userinfo fails here too: RFC 9110 section 4.2.4 calls it an attempt to obscure the authority.
        if !is_authority(&rest[..len]) {
            return Err(Error::TargetAuthority);
        }
        let start = head.target.start as usize + scheme.len();
        let (path, query) = split(&rest[len..], start + len);
        let server = options && len == rest.len();
        Ok(Self { form: Form::Absolute, path, query, authority: Span::new(start, start + len), server })
    }

    /// The path, still percent-encoded: it begins with a slash, which an absolute form may leave out, or is empty when the server
    /// as a whole is meant.
    pub fn path<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if self.path.is_empty() && !self.server { b"/" } else { self.path.of(bytes) }
    }
}

/// Path and query of the text that begins at `offset`.
fn split(text: &[u8], offset: usize) -> (Span, Span) {
    let end = text.len();
    let mark = memchr::memchr(b'?', text);
    let path = Span::new(offset, offset + mark.unwrap_or(end));
    let query = Span::new(offset + mark.map_or(end, |mark| mark + 1), offset + end);
    (path, query)
}

/// Whether it is `host[:port]` without userinfo (RFC 3986 section 3.2), with a host that is not empty. The port may be empty.
pub fn is_authority(text: &[u8]) -> bool {
    let host_len = match text.first() {
        Some(b'[') => memchr::memchr(b']', text).filter(|end| is_ipv6(&text[1..*end])).map(|end| end + 1),
        Some(_) => reg_name_len(text),
        None => None,
    };
    let Some(len) = host_len.filter(|len| *len > 0) else { return false };
    match &text[len..] {
        [] | [b':'] => true,
        [b':', digits @ ..] => decimal(digits).is_some_and(|port| u16::try_from(port).is_ok()),
        _ => false,
    }
}

fn is_ipv6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Bytes of a registered name but for percent-encodings: unreserved and sub-delims (RFC 3986 section 3.2.2).
static REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~')
            || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        byte += 1;
    }
    table
};

/// Bytes of a registered name or IPv4 address at the start of `text`; `None` for a malformed percent-encoding in it.
#[inline]
fn reg_name_len(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        match b {
            _ if REG_NAME[b as usize] => at += 1,
            b'%' if matches!(text.get(at + 1..at + 3), Some([a, b]) if hex(*a).is_some() && hex(*b).is_some()) => at += 3,
            b'%' => return None,
            _ => break,
        }
    }
    Some(at)
}

/// The part of a decoded path below a root path, which begins with a slash and does not end with one; the whole path when it is not
/// below it, as where a proxy has cut the root off.
pub fn below<'a>(path: &'a [u8], root: &[u8]) -> &'a [u8] {
    match path.strip_prefix(root) {
        Some(rest @ ([] | [b'/', ..])) => rest,
        Some(_) | None => path,
    }
}

/// Appends a byte of a decoded path, encoded if it cannot stand in a path (RFC 3986 section 3.3).
pub fn push_encoded(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if REG_NAME[usize::from(byte)] || matches!(byte, b'/' | b':' | b'@') {
        out.push(byte);
    } else {
        out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// As [`percent_decode`] in place; returns the length of what is left at the start.
pub fn percent_decode_in_place(text: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    while from < text.len() {
        let decoded = match text[from..] {
            [b'%', high, low, ..] => hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        text[to] = decoded.unwrap_or(text[from]);
        from += if decoded.is_some() { 3 } else { 1 };
        to += 1;
    }
    to
}

/// Appends `text` to `out` with each `%xx` replaced by its byte, once. A malformed one stays as it is, as other servers do.
pub fn percent_decode(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        match rest.get(at + 1..at + 3).and_then(|pair| Some(hex(pair[0])? << 4 | hex(pair[1])?)) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[at + 3..];
            }
            None => {
                out.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests;
