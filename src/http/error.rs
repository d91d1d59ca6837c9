//! The mistakes of a request, and the statuses that answer them: one table.

use std::fmt;

/// A request that cannot be served as sent. `Display` is one clause that names what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A TLS handshake on a plain port.
    Tls,
    /// More empty lines before the request line than are tolerated.
    EmptyLines,
    /// A line that does not end with CRLF, or a CR or LF elsewhere.
    LineEnd,
    /// A method that is no token; the byte.
    Method(u8),
    /// A method longer than [`super::head::MAX_METHOD`].
    MethodTooLong,
    /// An empty target or more than one space before it.
    TargetMissing,
    /// A control character in the target; the byte.
    TargetByte(u8),
    /// A fragment in the target: it is for the client alone (RFC 9110 section 4.2.5), and readers disagree about where the path
    /// ends.
    TargetFragment,
    /// CONNECT, which is for proxies.
    Connect,
    /// A target whose form its method does not allow (RFC 9112 section 3.2).
    TargetForm,
    /// A target with an authority that is no `host[:port]`.
    TargetAuthority,
    /// No version after the target: HTTP/0.9, or something else.
    VersionMissing,
    /// Something other than a version in the place of the version.
    VersionMalformed,
    /// A version that Tapster does not speak.
    Version,
    /// A request line longer than the limit, in bytes.
    LineTooLong(usize),
    /// A field line that begins with a blank (obs-fold, RFC 9112 section 5.2).
    Fold,
    /// A blank between field name and colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// An empty field name, a byte in it that is no token byte, or no colon.
    FieldName,
    /// A control character in a field value; the byte.
    FieldValue(u8),
    /// A field line longer than the limit, in bytes.
    FieldTooLong(usize),
    /// More field lines than the limit.
    TooManyFields(usize),
    /// A head that is longer than any may be, in bytes, although its fields are within their limits.
    HeadTooLong(usize),
    /// No Host in HTTP/1.1.
    HostMissing,
    /// A Host that is no `host[:port]`.
    Host,
    /// A Content-Length that is no plain decimal number.
    Length,
    /// Two fields with this name, equal or not, although it is no list (RFC 9110 section 5.3).
    Twice(&'static str),
    /// Both Transfer-Encoding and Content-Length.
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0.
    CodingInHttp10,
    /// A Transfer-Encoding in which `chunked` is not the last coding, comes twice, or that is malformed.
    Coding,
    /// A transfer coding that Tapster does not know.
    CodingUnknown,
    /// An expectation other than `100-continue`.
    Expectation,
    /// A chunk size that is no plain hexadecimal number of 64 bits.
    ChunkSize,
    /// A chunk extension that does not follow the grammar (RFC 9112 section 7.1.1), or a blank after a size without one.
    ChunkExtension,
    /// More chunk extensions than are tolerated.
    ChunkExtensionTooLong,
    /// No CRLF after the data of a chunk.
    ChunkEnd,
    /// A malformed trailer field.
    Trailer,
    /// A trailer section longer than the limit, in bytes.
    TrailerTooLong(usize),
    /// A body longer than the limit, in bytes.
    BodyTooLong(u64),
    /// A request of a gateway protocol that is malformed; how, as a clause.
    Malformed(&'static str),
    /// A gateway without the secret, or with another one.
    Secret,
    /// The body of a request of a gateway ended before it was as long as its length says.
    BodyShort,
    /// A body without a length, where only the length says where it ends.
    LengthMissing,
    /// The head did not come in time.
    HeadTimeout,
    /// The body did not come in time.
    BodyTimeout,
}

impl Error {
    /// The status that answers it (RFC 9110 section 15).
    pub fn status(self) -> u16 {
        self.entry().0
    }

    fn entry(self) -> (u16, &'static str) {
        match self {
            Self::Tls => (400, "this is a TLS handshake and the port speaks plain HTTP: use http:// or put a TLS proxy in front"),
            Self::EmptyLines => (400, "too many empty lines before the request line"),
            Self::LineEnd => (400, "a line does not end with CR LF"),
            Self::Method(_) => (400, "the method is not a token"),
            Self::MethodTooLong => (501, "the method is longer than any known one"),
            Self::TargetMissing => (400, "the request target is missing or more than one space precedes it"),
            Self::TargetByte(_) => (400, "the request target has a control character"),
            Self::TargetFragment => (400, "the request target has a fragment"),
            Self::Connect => (501, "CONNECT is for proxies, and this is none"),
            Self::TargetForm => (400, "the request target has a form that the method does not allow"),
            Self::TargetAuthority => (400, "the request target has an invalid authority"),
            Self::VersionMissing => (400, "the request line has no HTTP version"),
            Self::VersionMalformed => (400, "the request line does not end with a well-formed HTTP version"),
            Self::Version => (505, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
            Self::LineTooLong(_) => (414, "the request line is longer than"),
            Self::Fold => (400, "a header field is folded over several lines or begins with a blank"),
            Self::SpaceBeforeColon => (400, "a blank stands between a header field's name and its colon"),
            Self::FieldName => (400, "a header field's name is empty or not a token"),
            Self::FieldValue(_) => (400, "a header field's value has a control character"),
            Self::FieldTooLong(_) => (431, "a header field is longer than"),
            Self::TooManyFields(_) => (431, "the request has more header fields than"),
            Self::HeadTooLong(_) => (431, "the request's head is longer than"),
            Self::HostMissing => (400, "the Host header field is missing"),
            Self::Host => (400, "the Host header field is not a host with an optional port"),
            Self::Length => (400, "Content-Length is not a decimal number of 64 bits"),
            Self::Twice(_) => (400, "comes more than once"),
            Self::LengthAndCoding => (400, "Content-Length and Transfer-Encoding exclude each other"),
            Self::CodingInHttp10 => (400, "HTTP/1.0 has no Transfer-Encoding"),
            Self::Coding => (400, "Transfer-Encoding is malformed, or chunked is not its last coding exactly once"),
            Self::CodingUnknown => (501, "the only transfer coding known here is chunked"),
            Self::Expectation => (417, "the only expectation that can be met is 100-continue"),
            Self::ChunkSize => (400, "a chunk size is not a hexadecimal number of 64 bits"),
            Self::ChunkExtension => (400, "a chunk extension is malformed, or a blank follows a chunk size that has none"),
            Self::ChunkExtensionTooLong => (400, "the chunk extensions are too long for the data they come with"),
            Self::ChunkEnd => (400, "a chunk's data does not end with CR LF"),
            Self::Trailer => (400, "a trailer field is malformed"),
            Self::TrailerTooLong(_) => (431, "the trailer section is longer than"),
            Self::BodyTooLong(_) => (413, "the body is longer than"),
            Self::Malformed(_) => (400, "the request is malformed"),
            Self::Secret => (403, "the front server's secret is missing or not that of --ajp-secret"),
            Self::BodyShort => (400, "the body ended before it was complete"),
            Self::LengthMissing => (411, "the request has a body and no length of it"),
            Self::HeadTimeout => (408, "the request's head did not arrive in time"),
            Self::BodyTimeout => (408, "the request's body did not arrive in time"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Twice(name) = self {
            write!(f, "{name} ")?;
        }
        f.write_str(self.entry().1)?;
        match *self {
            Self::Method(byte) | Self::TargetByte(byte) | Self::FieldValue(byte) => write!(f, " (byte 0x{byte:02x})"),
            Self::LineTooLong(limit) | Self::FieldTooLong(limit) | Self::HeadTooLong(limit) | Self::TrailerTooLong(limit) => {
                write!(f, " {limit} bytes")
            }
            Self::TooManyFields(limit) => write!(f, " {limit}"),
            Self::BodyTooLong(limit) => write!(f, " {limit} bytes"),
            Self::Malformed(how) => write!(f, ": {how}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::page::reason;

    #[test]
    fn every_status_of_the_table_has_a_reason_and_every_text_is_one_clause() {
        for error in [
            Error::Tls,
            Error::Method(0x16),
            Error::MethodTooLong,
            Error::Version,
            Error::LineTooLong(1),
            Error::FieldTooLong(1),
            Error::TooManyFields(1),
            Error::Expectation,
            Error::Connect,
            Error::Twice("Range"),
            Error::CodingUnknown,
            Error::BodyTooLong(1),
            Error::HeadTimeout,
        ] {
            let text = error.to_string();
            assert!(!reason(error.status()).is_empty() && !text.contains('\n') && !text.ends_with('.'), "{text}");
        }
    }
}
