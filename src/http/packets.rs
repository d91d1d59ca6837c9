//! The packets of AJP 1.3 as a server writes them (Apache Tomcat Connectors, "AJP Protocol Reference"), for answers and for what it
//! wants of a front.
//!
//! ```text
//! 'A' 'B', length of the payload (2), payload: its type (1) and
//!   SEND_HEADERS    status (2), reason, number of fields (2), name and value of each
//!   SEND_BODY_CHUNK length (2), bytes, NUL
//!   END_RESPONSE    whether the connection stays open (1)
//!   GET_BODY_CHUNK  bytes that are wanted (2)
//! a text: length (2), bytes, NUL; the name of a well-known field: 0xA0 and its number
//! ```

/// Longest packet in bytes, its head included: what fronts have room for unless they are told otherwise.
pub const PACKET_MAX: usize = 8192;

/// Bytes before the payload: what it begins with, and its length.
pub const HEAD: usize = 4;

/// Most bytes of a body in one packet: its type, its length and the NUL stand around them.
pub const CHUNK_MAX: u64 = (PACKET_MAX - HEAD - 4) as u64;

/// Most bytes of a request's body that a front is asked for at once: its length stands before them.
pub const WANTED_MAX: u16 = (PACKET_MAX - HEAD - 2) as u16;

/// What follows the bytes of a chunk.
pub(super) const CHUNK_END: &[u8] = b"\0";

/// The same, and an empty chunk: it has the front send on what it has.
pub(super) const CHUNK_END_AND_FLUSH: &[u8] = b"\0AB\x00\x04\x03\x00\x00\x00";

/// The answer to a front that asks whether the server lives.
pub const PONG: &[u8] = b"AB\x00\x01\x09";

/// What every packet begins with.
const MARK: &[u8; 2] = b"AB";

/// Bytes of a packet with a head besides its reason and its fields: mark, length, type, status, and the lengths and ends of the rest.
const AROUND_HEAD: usize = HEAD + 1 + 2 + 3 + 2;

/// Bytes of the fields that the server may add to a head, with room to spare: Content-Length, and that the code is stale.
const OWN_FIELDS: usize = 80;

/// The byte before the number of a well-known field.
const KNOWN: u8 = 0xA0;

/// The well-known fields of answers, whose numbers begin with 1, in small letters.
const FIELDS: [&[u8]; 11] = [
    b"content-type",
    b"content-language",
    b"content-length",
    b"date",
    b"last-modified",
    b"location",
    b"set-cookie",
    b"set-cookie2",
    b"servlet-engine",
    b"status",
    b"www-authenticate",
];

/// What a packet from a server is.
mod kind {
    pub(super) const SEND_BODY_CHUNK: u8 = 3;
    pub(super) const SEND_HEADERS: u8 = 4;
    pub(super) const END_RESPONSE: u8 = 5;
    pub(super) const GET_BODY_CHUNK: u8 = 6;
}

/// Appends what precedes a chunk of so many bytes.
pub(super) fn put_chunk_head(out: &mut Vec<u8>, len: u16) {
    let ([high, low], [all_high, all_low]) = (len.to_be_bytes(), (len + 4).to_be_bytes());
    out.extend_from_slice(&[MARK[0], MARK[1], all_high, all_low, kind::SEND_BODY_CHUNK, high, low]);
}

/// Appends the end of an answer.
pub(super) fn put_end(out: &mut Vec<u8>, reuse: bool) {
    out.extend_from_slice(&[MARK[0], MARK[1], 0, 2, kind::END_RESPONSE, u8::from(reuse)]);
}

/// Appends the wish for so many bytes of a request's body.
pub fn put_wish(out: &mut Vec<u8>, wanted: u16) {
    let [high, low] = wanted.to_be_bytes();
    out.extend_from_slice(&[MARK[0], MARK[1], 0, 3, kind::GET_BODY_CHUNK, high, low]);
}

/// At most so many bytes has the packet of a head whose lines are these, the empty one excluded.
pub(super) fn head_size(lines: &[u8]) -> usize {
    let ends = memchr::memchr_iter(b'\n', lines).count();
    // Of a line, colon, blank and end are left out, and two lengths and two ends are added.
    AROUND_HEAD + lines.len() + 2 * ends + OWN_FIELDS
}

/// Makes a packet of the head that stands in the output from `start` to its end, as HTTP has it.
pub(super) fn wrap_head(out: &mut Vec<u8>, start: usize) {
    const VERSION: usize = b"HTTP/1.1 ".len();
    const CODE: usize = b"200".len();
    let end = out.len();
    let line_end = |out: &[u8], at: usize| memchr::memchr(b'\r', &out[at..end]).map_or(end, |len| at + len);
    let status = start + VERSION..start + VERSION + CODE;
    let code = out[status.clone()].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let (mut at, packet) = (line_end(out, status.end), end);
    out.extend_from_slice(&[MARK[0], MARK[1], 0, 0, kind::SEND_HEADERS]);
    out.extend_from_slice(&code.to_be_bytes());
    // One blank stands before the reason, also where there is none.
    put_text(out, status.end + 1..at);
    let (count_at, mut count) = (out.len(), 0_u16);
    out.extend_from_slice(&[0, 0]);
    loop {
        at += 2;
        let line = at..line_end(out, at);
        let Some(name_len) = memchr::memchr(b':', &out[line.clone()]) else { break };
        let name = at..at + name_len;
        match FIELDS.iter().position(|known| known.eq_ignore_ascii_case(&out[name.clone()])) {
            Some(place) => out.extend_from_slice(&[KNOWN, place as u8 + 1]),
            None => put_text(out, name.clone()),
        }
        put_text(out, name.end + 2..line.end);
        (at, count) = (line.end, count + 1);
    }
    let len = out.len() - packet - HEAD;
    debug_assert!(len + HEAD <= PACKET_MAX, "a head that is too long is refused before");
    out[packet + 2..packet + HEAD].copy_from_slice(&(len as u16).to_be_bytes());
    out[count_at..count_at + 2].copy_from_slice(&count.to_be_bytes());
    out.drain(start..packet);
}

/// Appends a part of the output as a text.
fn put_text(out: &mut Vec<u8>, place: std::ops::Range<usize>) {
    out.extend_from_slice(&(place.len() as u16).to_be_bytes());
    out.extend_from_within(place);
    out.push(0);
}

/// Whether this is the packet of a head.
pub fn is_head(packet: &[u8]) -> bool {
    packet.starts_with(MARK) && packet.get(HEAD) == Some(&kind::SEND_HEADERS)
}

/// Name and value of each field in the packet of a head, a well-known name in small letters.
pub fn fields(packet: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = packet.get(HEAD + 1 + 2..).unwrap_or_default();
    let count = take_text(&mut rest).and_then(|_| take_number(&mut rest)).unwrap_or(0);
    (0..count).map_while(move |_| {
        let name = match *rest {
            [KNOWN, number, ..] => {
                rest = &rest[2..];
                FIELDS.get(usize::from(number).checked_sub(1)?)?
            }
            _ => take_text(&mut rest)?,
        };
        Some((name, take_text(&mut rest)?))
    })
}

fn take_number(rest: &mut &[u8]) -> Option<u16> {
    let (number, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_be_bytes(*number))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(take_number(rest)?);
    let text = rest.get(..len)?;
    *rest = rest.get(len + 1..)?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_becomes_a_packet_that_can_be_read_back() {
        let mut out = b"before".to_vec();
        let lines = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nX-A: b: c\r\nSet-Cookie: a=1\r\nX-Empty: \r\n";
        out.extend_from_slice(lines);
        out.extend_from_slice(b"\r\n");
        wrap_head(&mut out, 6);
        let (before, packet) = out.split_at(6);
        assert_eq!(before, b"before");
        let expected =
            b"AB\x00\x42\x04\x01\x94\x00\x09Not Found\0\x00\x04\xa0\x01\x00\x0atext/plain\0\x00\x03X-A\0\x00\x04b: c\0\
                         \xa0\x07\x00\x03a=1\0\x00\x07X-Empty\0\x00\x00\0";
        assert_eq!(packet.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert!(packet.len() <= head_size(lines), "{} {}", packet.len(), head_size(lines));
        let found: Vec<(&[u8], &[u8])> = fields(packet).collect();
        assert_eq!(
            found,
            [(&b"content-type"[..], &b"text/plain"[..]), (b"X-A", b"b: c"), (b"set-cookie", b"a=1"), (b"X-Empty", b"")]
        );
    }

    #[test]
    fn a_head_may_have_neither_reason_nor_fields() {
        let mut out = b"HTTP/1.1 299 \r\n\r\n".to_vec();
        wrap_head(&mut out, 0);
        assert_eq!(out, b"AB\x00\x08\x04\x01\x2b\x00\x00\0\x00\x00");
        assert!(is_head(&out) && fields(&out).next().is_none());
        assert!(!is_head(b"HTTP/1.1 200 OK\r\n") && fields(b"AB").next().is_none() && fields(&out[..9]).next().is_none());
    }
}
