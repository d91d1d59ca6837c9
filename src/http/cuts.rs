//! Feeds a parser in three ways (whole, byte by byte, with trailing bytes) and insists on one verdict.

use super::body::Decoder;
use super::error::Error;
use super::framing::Length;
use super::head::{Field, Head, Limits, Parsed, Progress, Span, Version};

/// The defaults of the options.
pub(super) const LIMITS: Limits = Limits { request_line: 8190, fields: 100, field_size: 8190 };

/// Bytes that may follow a message on the same connection.
const TRAILING: [&[u8]; 3] = [b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n", b"\0\xff\r\n", b"\n"];

/// All facts of a head.
type Facts = (Span, Span, Span, Span, Version, Vec<Field>, usize);

fn facts(head: &Head) -> Facts {
    (head.method, head.target, head.line, head.block, head.version, head.fields.clone(), head.len)
}

/// The verdict on `input` as a head; `None` when it is incomplete.
#[track_caller]
pub(super) fn head(input: &[u8], limits: &Limits) -> Result<Option<Head>, Error> {
    let mut whole = Head::default();
    let verdict = whole.parse(input, limits);

    // Byte by byte, once with memory of the bytes seen before and once without.
    let (mut resumed, mut fresh, mut progress) = (Head::default(), Head::default(), Progress::default());
    for end in 0..=input.len() {
        let step = resumed.resume(&input[..end], limits, &mut progress);
        assert_eq!(step, fresh.parse(&input[..end], limits), "with and without memory, after {end} bytes");
        if step == Ok(Parsed::Partial) {
            assert!(end < input.len() || verdict == Ok(Parsed::Partial), "whole {verdict:?}, byte by byte incomplete");
            continue;
        }
        assert_eq!(step, verdict, "byte by byte after {end} bytes, and whole");
        if verdict == Ok(Parsed::Complete) {
            assert_eq!((end, facts(&resumed), facts(&fresh)), (whole.len, facts(&whole), facts(&whole)));
        }
        break;
    }

    if verdict != Ok(Parsed::Partial) {
        for trailing in TRAILING {
            let mut more = Head::default();
            assert_eq!(more.parse(&[input, trailing].concat(), limits), verdict, "with trailing bytes");
            if verdict == Ok(Parsed::Complete) {
                assert_eq!(facts(&more), facts(&whole), "with trailing bytes");
            }
        }
    }
    verdict.map(|parsed| (parsed == Parsed::Complete).then_some(whole))
}

/// The verdict on `input` as a body: data and bytes consumed; `None` when it is incomplete.
#[track_caller]
pub(super) fn body(input: &[u8], length: Length, max_trailer: usize) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let verdict = decode([input], length, max_trailer);
    assert_eq!(decode(input.chunks(1), length, max_trailer), verdict, "byte by byte, and whole");
    if !matches!(verdict, Ok(None)) {
        for trailing in TRAILING {
            assert_eq!(decode([[input, trailing].concat().as_slice()], length, max_trailer), verdict, "with trailing bytes");
        }
    }
    verdict
}

fn decode<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    length: Length,
    max_trailer: usize,
) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let mut decoder = Decoder::new(length, max_trailer);
    let (mut data, mut buffer, mut total) = (Vec::new(), Vec::new(), 0);
    for piece in pieces.into_iter().chain([&b""[..]]) {
        buffer.extend_from_slice(piece);
        loop {
            let decoded = decoder.decode(&buffer)?;
            assert!(decoded.consumed <= buffer.len() && decoded.data.end <= decoded.consumed);
            data.extend_from_slice(&buffer[decoded.data]);
            buffer.drain(..decoded.consumed);
            total += decoded.consumed;
            if decoded.done {
                return Ok(Some((data, total)));
            }
            if decoded.consumed == 0 {
                break;
            }
        }
    }
    Ok(None)
}
