//! The request line and the header block (RFC 9112 sections 2 to 5).

use super::error::Error;

/// Where a piece of the head lies in the bytes it was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes that this span names; `bytes` must be the ones that were parsed.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// The versions that Tapster speaks (RFC 9112 section 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// Limits of a head; sizes in bytes without the line end, as gunicorn's options of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request line; beyond it 414.
    pub request_line: usize,
    /// Most header fields; beyond it 431.
    pub fields: usize,
    /// Longest header field line (name, colon, value); beyond it 431.
    pub field_size: usize,
}

/// One header field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name as sent.
    pub name: Span,
    /// Value without surrounding blanks.
    pub value: Span,
}

/// A parsed head: spans into the bytes that were parsed, so that it can be reused without allocation.
#[derive(Debug, Default)]
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
    /// Bytes consumed, empty lines before the request line and the final empty line included.
    pub len: usize,
}

/// Result of [`Head::parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The head is complete.
    Complete,
}

impl Head {
    /// Parses the head at the start of `bytes`, replacing what `self` held.
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Error> {
        let _ = (bytes, limits);
        todo!()
    }

    /// Name and value of each field, in order.
    pub fn iter<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter().map(|f| (f.name.of(bytes), f.value.of(bytes)))
    }
}
