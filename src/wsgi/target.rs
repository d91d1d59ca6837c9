//! The request target's parts (RFC 9112 section 3.2) as the environ wants them.

use std::borrow::Cow;

/// A request target taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Path as sent; `*` for the asterisk form, empty for the authority form.
    pub path: &'a [u8],
    /// Query without its question mark.
    pub query: &'a [u8],
    /// Host and port of the absolute form, which override Host (RFC 9112 section 3.2.2).
    pub authority: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Takes a target apart; every input has an answer, since the head's parser has checked it.
    pub fn split(target: &'a [u8]) -> Self {
        if target.first() == Some(&b'/') {
            let (path, query) = split_query(target);
            return Self { path, query, authority: None };
        }
        if target == b"*" {
            return Self { path: target, query: b"", authority: None };
        }
        let Some(scheme) = memchr::memmem::find(target, b"://") else {
            return Self { path: b"", query: b"", authority: None };
        };
        let rest = &target[scheme + 3..];
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let authority = &rest[..end];
        // User information is no part of the host; a server that is no proxy has no use for it.
        let host = memchr::memrchr(b'@', authority).map_or(authority, |at| &authority[at + 1..]);
        let (path, query) = split_query(&rest[end..]);
        Self { path: if path.is_empty() { b"/" } else { path }, query, authority: Some(host) }
    }
}

fn split_query(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', bytes) {
        Some(mark) => (&bytes[..mark], &bytes[mark + 1..]),
        None => (bytes, b""),
    }
}

/// Decodes percent-encoded octets once (RFC 3986 section 2.1); what is no valid escape stays as it is.
pub fn percent_decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'%', bytes) else {
        return Cow::Borrowed(bytes);
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail.first().copied().and_then(hex), tail.get(1).copied().and_then(hex)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4) | low);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, path: &str, query: &str, authority: Option<&str>) {
        let expected = Target { path: path.as_bytes(), query: query.as_bytes(), authority: authority.map(str::as_bytes) };
        assert_eq!(Target::split(target.as_bytes()), expected, "{target}");
    }

    #[test]
    fn each_form_of_a_target_is_taken_apart() {
        check("/", "/", "", None);
        check("/a/b?c=d?e", "/a/b", "c=d?e", None);
        check("//host/x", "//host/x", "", None);
        check("/?http://x/", "/", "http://x/", None);
        check("*", "*", "", None);
        check("http://host:81/p?q", "/p", "q", Some("host:81"));
        check("http://host", "/", "", Some("host"));
        check("http://u:p@host?q", "/", "q", Some("host"));
        check("host:443", "", "", None);
    }

    #[test]
    fn octets_are_decoded_once_and_broken_escapes_stay() {
        assert_eq!(percent_decoded(b"/a%2Fb%252F%c3%A4"), b"/a/b%2F\xc3\xa4".as_slice());
        assert_eq!(percent_decoded(b"/100%/%zz/%4"), b"/100%/%zz/%4".as_slice());
        assert_eq!(percent_decoded(b"/%+5"), b"/%+5".as_slice());
    }
}
