//! The parts of a request target in its four forms (RFC 9112 section 3.2), and percent-decoding (RFC 3986 section 2.1).

use std::net::Ipv6Addr;

use super::error::Error;
use super::head::{Head, Span};

/// The form in which a target was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, CONNECT only.
    Authority,
    /// `*`, OPTIONS only.
    Asterisk,
}

/// The parts of a target, as spans into the bytes of the head; a part that is not there is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The form.
    pub form: Form,
    /// Path as sent, still percent-encoded. Empty in the authority form and in `http://host`: see [`Target::path`].
    pub path: Span,
    /// Query without its question mark. A fragment, which no client should send, belongs neither to path nor to query.
    pub query: Span,
    /// Authority (`host[:port]`) of the absolute or authority form. It takes the place of the Host field (RFC 9112 section
    /// 3.2.2).
    pub authority: Span,
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

    /// Takes the target of a parsed head apart. Refuses a form that the method does not allow.
    #[inline]
    pub fn of(head: &Head, bytes: &[u8]) -> Result<Self, Error> {
        let target = head.target.of(bytes);
        let connect = head.method.of(bytes) == b"CONNECT";
        let nothing = Span { start: head.target.end, end: head.target.end };
        if target.first() == Some(&b'/') && !connect {
            let (path, query) = split(target, head.target.start as usize);
            return Ok(Self { form: Form::Origin, path, query, authority: nothing });
        }
        if connect {
            let (_, port) = authority(target).ok_or(Error::TargetForm)?;
            return match port {
                Some(_) => Ok(Self { form: Form::Authority, path: nothing, query: nothing, authority: head.target }),
                None => Err(Error::TargetForm),
            };
        }
        if target == b"*" {
            return match head.method.of(bytes) {
                b"OPTIONS" => Ok(Self { form: Form::Asterisk, path: head.target, query: nothing, authority: nothing }),
                _ => Err(Error::TargetForm),
            };
        }
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(|scheme| target.len() >= scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes()))
            .ok_or(Error::TargetForm)?;
        let rest = &target[scheme.len()..];
        let len = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        // Userinfo fails here too: RFC 9110 section 4.2.4 calls it an attempt to obscure the authority.
        authority(&rest[..len]).ok_or(Error::TargetAuthority)?;
        let start = head.target.start as usize + scheme.len();
        let (path, query) = split(&rest[len..], start + len);
        Ok(Self { form: Form::Absolute, path, query, authority: Span::new(start, start + len) })
    }

    /// The path, still percent-encoded: `/` for an absolute form without one, `*` for the asterisk form, empty for the
    /// authority form.
    pub fn path<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self.form {
            Form::Absolute if self.path.is_empty() => b"/",
            Form::Origin | Form::Absolute | Form::Authority | Form::Asterisk => self.path.of(bytes),
        }
    }
}

/// Path and query of what begins at `offset`; a fragment is left out.
fn split(text: &[u8], offset: usize) -> (Span, Span) {
    let end = memchr::memchr(b'#', text).unwrap_or(text.len());
    let mark = memchr::memchr(b'?', &text[..end]);
    let path = Span::new(offset, offset + mark.unwrap_or(end));
    let query = Span::new(offset + mark.map_or(end, |mark| mark + 1), offset + end);
    (path, query)
}

/// Host and port of `host[:port]` without userinfo (RFC 3986 section 3.2), with a host that is not empty; `None` when it is not
/// of that form. The port is `None` when it is missing or empty.
pub fn authority(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let host_len = match text.first()? {
        b'[' => {
            let end = memchr::memchr(b']', text)?;
            let address = std::str::from_utf8(&text[1..end]).ok()?;
            address.parse::<Ipv6Addr>().ok()?;
            end + 1
        }
        _ => reg_name_len(text)?,
    };
    let (host, rest) = text.split_at(host_len);
    let port = match rest {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(u16::try_from(super::bytes::decimal(digits)?).ok()?),
        _ => return None,
    };
    (!host.is_empty()).then_some((host, port))
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

/// The value of one hexadecimal digit.
#[inline]
pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
