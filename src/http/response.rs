//! Rendering an answer: status line, header fields, framing and body (RFC 9112 sections 4 to 7), strict in what it emits.

use super::head::Version;

/// What the encoder must know of the request and the connection.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Version of the request; an HTTP/1.0 client gets neither chunks nor silent keep-alive.
    pub version: Version,
    /// Whether the request was HEAD.
    pub head_only: bool,
    /// Whether the connection may stay open after this answer.
    pub persistent: bool,
    /// Value of the Date field that is added when the application sent none.
    pub date: &'a [u8],
}

/// What an application sent and HTTP forbids. `Display` says what and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// To be replaced by the real variants.
    Status,
}

/// Renders one head into a buffer. On an error the caller truncates the buffer to where it began.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Encoder<'o> {
    /// Writes the status line; `status` as WSGI gives it: `200 OK`.
    pub fn begin(out: &'o mut Vec<u8>, context: &Context<'_>, status: &[u8]) -> Result<Self, Refused> {
        let _ = (context, status);
        Ok(Self { out })
    }

    /// Writes one field of the application.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        let _ = (name, value);
        self.out.clear();
        todo!()
    }

    /// Adds what is missing (Date, Server, Content-Length or Transfer-Encoding, Connection) and the empty line.
    /// `known` is the length of the whole body when the server knows it and the application did not say.
    pub fn finish(self, known: Option<u64>) -> Body {
        let _ = known;
        todo!()
    }
}

/// The body of an answer whose head is rendered.
#[derive(Clone, Debug)]
pub struct Body {
    /// Status code, for the log.
    pub status: u16,
}

/// How much of a block was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All of it.
    All,
    /// So many bytes were cut off: the application sent more than its Content-Length.
    Cut(u64),
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Complete; `persistent` says whether the connection can serve another request.
    Complete {
        /// Whether the connection stays open.
        persistent: bool,
    },
    /// The application sent so many bytes less than its Content-Length: the connection must be closed so that the client sees it.
    Short(u64),
}

impl Body {
    /// Whether body bytes go on the wire at all (not for HEAD, 204, 304).
    pub fn is_sent(&self) -> bool {
        todo!()
    }

    /// Appends one block with its framing to `out`. An empty block writes nothing (an empty chunk would end the body).
    pub fn block(&mut self, out: &mut Vec<u8>, data: &[u8]) -> Fit {
        let _ = (out, data);
        todo!()
    }

    /// Framing around a block of `len` bytes that is sent without being copied: writes what goes before it to `out`, returns how
    /// many of its bytes to send and what to send after them.
    pub fn around(&mut self, out: &mut Vec<u8>, len: u64) -> (u64, &'static [u8]) {
        let _ = (out, len);
        todo!()
    }

    /// Ends the body: writes the last chunk if chunked.
    pub fn end(&mut self, out: &mut Vec<u8>) -> End {
        let _ = out;
        todo!()
    }

    /// Body bytes rendered so far, without framing.
    pub fn sent(&self) -> u64 {
        todo!()
    }

    /// Whether the end of the body is visible only by the connection's end, so that a cut one must be reset to be seen.
    pub fn until_close(&self) -> bool {
        todo!()
    }
}
