//! The access log: gunicorn's `%(...)s` atoms compiled once into a list of parts, or JSON.

use crate::config::AccessFormat;
use crate::http::head::Head;

/// One served (or refused) request.
#[derive(Debug)]
pub struct Record<'a> {
    /// Client address without port, empty for a unix socket.
    pub peer: &'a str,
    /// The head with the bytes it was parsed from; `None` when no head could be parsed.
    pub head: Option<(&'a Head, &'a [u8])>,
    /// Status of the answer; 499 when the client left before one was made.
    pub status: u16,
    /// Body bytes sent.
    pub sent: u64,
    /// Rendered head of the answer (status line and fields); empty unless [`Format::wants_response_head`].
    pub response_head: &'a [u8],
    /// Start of the request, seconds since the epoch.
    pub began: u64,
    /// From the complete head to the last byte handed to the kernel, in microseconds.
    pub micros: u64,
    /// Environ values in the order of [`Format::environ_names`].
    pub environ: &'a [Option<String>],
    /// Process id of the worker.
    pub pid: u32,
}

/// A compiled format.
#[derive(Debug)]
pub struct Format {}

/// A format that cannot be compiled: what, at which byte, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError(pub String);

impl Format {
    /// Compiles a format.
    pub fn compile(format: &AccessFormat) -> Result<Self, FormatError> {
        let _ = format;
        todo!()
    }

    /// Whether `{name}o` atoms occur, so that the head of the answer must be kept.
    pub fn wants_response_head(&self) -> bool {
        todo!()
    }

    /// Names of the `{name}e` atoms, in order of first use.
    pub fn environ_names(&self) -> &[String] {
        todo!()
    }

    /// Appends one line with its line end to `out`.
    pub fn render(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let _ = (record, out);
        todo!()
    }
}
