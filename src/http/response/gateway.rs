//! Answers to front servers: a document as CGI has it (RFC 3875 section 6), as it is or in records of FastCGI, and packets of AJP.

use super::{BodyFraming, Encoder, Fit, HeadFacts, Mode, Piece, Refused};
use crate::http::bytes::{put_decimal, same};
use crate::http::terms::{Dialect, Terms};
use crate::http::{packets, records, request_id};

impl Encoder<'_> {
    /// As [`Self::finish`] for a front server, which has its own Date, Server and connection to the client: only Content-Length is
    /// added.
    #[inline(never)]
    pub(super) fn finish_for_gateway(&mut self, known: Option<u64>) -> BodyFraming {
        let &mut Self { ref mut out, start, ref context, facts: HeadFacts { status, length, dropped, status_field, .. } } = self;
        let Terms { head_only, persistent, dialect, .. } = context.terms;
        let mode = if matches!(status, 204 | 304) {
            Mode::None
        } else {
            let length = length.or_else(|| {
                let known = known.filter(|&known| known > 0 || !head_only)?;
                put_length(out, known);
                Some(known)
            });
            match length {
                _ if head_only => Mode::None,
                Some(left) => Mode::Length(left),
                None => Mode::UntilClose,
            }
        };
        out.extend_from_slice(b"\r\n");
        if status_field {
            drop_status_field(out, start);
        }
        match dialect {
            Dialect::Http | Dialect::Uwsgi => {}
            Dialect::Cgi => drop(out.splice(start..start + STATUS_LINE.len(), *STATUS_FIELD)),
            Dialect::FastCgi(id) => wrap_head(out, start, id),
            Dialect::Ajp => packets::wrap_head(out, start),
        }
        BodyFraming { status, mode, persistent, dialect, dropped, sent: 0 }
    }

    /// Whether the protocol of the answer can carry the head with the fields so far, and with those that the server adds.
    pub fn check_size(&self) -> Result<(), Refused> {
        if self.context.terms.dialect != Dialect::Ajp {
            return Ok(());
        }
        // Of each field a packet has the lengths and two NULs besides.
        let name =
            if self.context.id.is_empty() || self.facts.named { 0 } else { request_id::FIELD.len() + self.context.id.len() + 6 };
        let size = packets::head_size(&self.out[self.start..]) + name;
        if size > packets::PACKET_MAX { Err(Refused::HeadTooLarge { size, max: packets::PACKET_MAX }) } else { Ok(()) }
    }
}

/// What precedes a status in a status line.
const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

/// What precedes it in the first field of a document as CGI has it (RFC 3875 section 6.3.3).
const STATUS_FIELD: &[u8; 8] = b"Status: ";

/// Drops the application's fields of this name from the head that begins at `start`: each line is whole, and none is folded.
#[cold]
fn drop_status_field(out: &mut Vec<u8>, start: usize) {
    let mut at = start;
    while let Some(len) = memchr::memchr(b'\n', &out[at..]).map(|end| end + 1) {
        if out[at..at + len].first_chunk::<7>().is_some_and(|name| same(name, b"status:")) {
            out.drain(at..at + len);
        } else {
            at += len;
        }
    }
}

/// Makes a document's head of one of HTTP, in records of a request.
fn wrap_head(out: &mut Vec<u8>, start: usize, id: u16) {
    let len = (out.len() - start - STATUS_LINE.len() + STATUS_FIELD.len()) as u64;
    if len > records::CONTENT_MAX {
        out.splice(start..start + STATUS_LINE.len(), *STATUS_FIELD);
        return records::wrap(out, start, records::kind::STDOUT, id);
    }
    // The bytes behind are moved once.
    let mut first = [0; records::HEAD + STATUS_FIELD.len()];
    let (record, field) = first.split_at_mut(records::HEAD);
    record.copy_from_slice(&records::head(records::kind::STDOUT, id, len as u16));
    field.copy_from_slice(STATUS_FIELD);
    out.splice(start..start + STATUS_LINE.len(), first);
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    put_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

impl BodyFraming {
    /// As [`Self::block`] in records or packets.
    #[inline(never)]
    pub(super) fn block_in_parts(&mut self, out: &mut Vec<u8>, data: &[u8]) -> Fit {
        let mut data = data;
        loop {
            let Piece { take, after, cut, rest } = self.around(out, data.len() as u64);
            // At most the length of `data`, so it fits into usize.
            let (piece, others) = data.split_at(take as usize);
            out.extend_from_slice(piece);
            out.extend_from_slice(after);
            match (cut, rest) {
                (0, 0) => return Fit::All,
                (cut, 0) => return Fit::Cut(cut),
                (_, _) => data = others,
            }
        }
    }

    /// As [`Self::around`] for a record of this request, of which a large block needs several.
    pub(super) fn around_record(&mut self, out: &mut Vec<u8>, len: u64, id: u16) -> Piece {
        let piece = self.part(len, records::CONTENT_MAX);
        if piece.take > 0 {
            records::put_head(out, records::kind::STDOUT, id, piece.take as u16);
        }
        piece
    }

    /// As [`Self::around`] for a packet. Behind each block that is not the last one for certain, the front is told to send on what
    /// it has: it would wait for more, and the application may be long in making that.
    pub(super) fn around_packet(&mut self, out: &mut Vec<u8>, len: u64) -> Piece {
        let piece = self.part(len, packets::CHUNK_MAX);
        if piece.take == 0 {
            return piece;
        }
        packets::put_chunk_head(out, piece.take as u16);
        let is_last = self.mode == Mode::Length(0);
        let after = if piece.rest > 0 || is_last { packets::CHUNK_END } else { packets::CHUNK_END_AND_FLUSH };
        Piece { after, ..piece }
    }

    /// The next part of a block, of at most so many bytes.
    fn part(&mut self, len: u64, max: u64) -> Piece {
        let fits = match self.mode {
            Mode::None => return Piece { take: 0, after: b"", cut: 0, rest: 0 },
            Mode::Length(left) => len.min(left),
            Mode::Chunked | Mode::UntilClose => len,
        };
        let take = fits.min(max);
        if let Mode::Length(left) = &mut self.mode {
            *left -= take;
        }
        self.sent += take;
        let rest = fits - take;
        Piece { take, after: b"", cut: if rest == 0 { len - fits } else { 0 }, rest }
    }
}
