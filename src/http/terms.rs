//! How an answer goes over the wire: what of a request decides that, in a few bytes that outlive its head.

use super::head::{HeadView, Version};

/// The form of an answer's head and of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// HTTP.
    #[default]
    Http,
    /// A document as CGI has it (RFC 3875 section 6): `Status` and the other fields, and the body up to the end of the connection.
    Cgi,
    /// The same with a status line as HTTP has it.
    Uwsgi,
    /// As CGI has it, in records of FastCGI for the request of this id.
    FastCgi(u16),
    /// In packets of AJP ([`super::packets`]).
    Ajp,
}

/// How an answer goes over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Version of the request; an HTTP/1.0 client gets neither chunks nor silent keep-alive.
    pub version: Version,
    /// Whether the request was HEAD.
    pub head_only: bool,
    /// Whether the connection may stay open after this answer.
    pub persistent: bool,
    /// The form of the answer.
    pub dialect: Dialect,
    /// Whether it is of code that is not the saved one any more, which cannot be loaded (`--reload`).
    pub stale: bool,
}

impl Terms {
    /// The terms of the answer to this request.
    #[inline]
    pub fn of(request: HeadView<'_>, persistent: bool) -> Self {
        Self {
            version: request.head.version,
            head_only: request.method() == b"HEAD",
            persistent,
            dialect: Dialect::Http,
            stale: false,
        }
    }

    /// The same in another form.
    pub fn in_dialect(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// The same, behind which the connection closes.
    pub fn closing(self) -> Self {
        Self { persistent: false, ..self }
    }

    /// Whether a cut of the answer that is closed in order may look like its end: HTTP/1.0 has no chunks, and front servers look at
    /// little else than the end of the connection.
    pub fn ends_with_close(self) -> bool {
        self.version == Version::Http10 || self.dialect != Dialect::Http
    }
}
