//! Reads the requests of one connection as a server does, from pieces as they come off a socket. Shared by the corpus, the
//! property tests and the fuzz targets.

use tapster::http::body::Decoder;
use tapster::http::error::Error;
use tapster::http::framing::{self, Framing};
use tapster::http::head::{Head, Limits, Parsed, Progress};

/// The defaults of the options.
pub const LIMITS: Limits = Limits { request_line: 8190, fields: 100, field_size: 8190 };

/// Most bytes of a trailer section.
pub const MAX_TRAILER: usize = 8190;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub line: Vec<u8>,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub framing: Framing,
    pub body: Vec<u8>,
}

/// How the reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Between two requests.
    Idle,
    /// In the middle of one.
    Partial,
    /// After one that closes the connection.
    Closed,
    Refused(Error),
}

/// Reads what comes in `pieces`.
pub fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> (Vec<Message>, End) {
    let mut messages = Vec::new();
    let end = read_into(&mut messages, pieces, limits).unwrap_or_else(End::Refused);
    (messages, end)
}

fn read_into<'a>(messages: &mut Vec<Message>, pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Result<End, Error> {
    let mut buffer = Vec::new();
    let mut head = Head::default();
    let mut progress = Progress::default();
    let mut open: Option<(Message, Decoder)> = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let Some((message, decoder)) = &mut open else {
                if head.resume(&buffer, limits, &mut progress)? == Parsed::Partial {
                    assert!(buffer.len() < limits.head_max(), "an incomplete head is below the bound");
                    break;
                }
                assert!(head.len <= limits.head_max(), "a complete head is within the bound");
                let framing = framing::of(&head, &buffer)?;
                let fields = head.iter(&buffer).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                let message = Message { line: head.line.of(&buffer).to_vec(), fields, framing, body: Vec::new() };
                open = Some((message, Decoder::new(framing.length, MAX_TRAILER)));
                buffer.drain(..head.len);
                continue;
            };
            let decoded = decoder.decode(&buffer)?;
            message.body.extend_from_slice(&buffer[decoded.data]);
            buffer.drain(..decoded.consumed);
            if decoded.done {
                let persistent = message.framing.persistent;
                messages.extend(open.take().map(|(message, _)| message));
                if !persistent {
                    return Ok(End::Closed);
                }
            } else if decoded.consumed == 0 {
                break;
            }
        }
    }
    Ok(if open.is_none() && buffer.is_empty() { End::Idle } else { End::Partial })
}
