//! How an answer goes over the wire: what of a request decides that, in a few bytes that outlive its head.

use super::head::{HeadView, Version};

/// How an answer goes over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Version of the request; an HTTP/1.0 client gets neither chunks nor silent keep-alive.
    pub version: Version,
    /// Whether the request was HEAD.
    pub head_only: bool,
    /// Whether the connection may stay open after this answer.
    pub persistent: bool,
}

impl Terms {
    /// The terms of the answer to this request.
    #[inline]
    pub fn of(request: HeadView<'_>, persistent: bool) -> Self {
        Self { version: request.head.version, head_only: request.method() == b"HEAD", persistent }
    }

    /// The same, behind which the connection closes.
    pub fn closing(self) -> Self {
        Self { persistent: false, ..self }
    }

    /// Whether a cut of the answer that is closed in order may look like its end: HTTP/1.0 has no chunks.
    pub fn ends_with_close(self) -> bool {
        self.version == Version::Http10
    }
}
