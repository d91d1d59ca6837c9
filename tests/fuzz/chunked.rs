//! Any bytes as a chunked body: no panic, and one verdict wherever the input is cut. The body begins after the first empty line,
//! if there is one, so that the request corpus serves as seeds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::http::body::Decoder;
use tapster::http::error::Error;
use tapster::http::framing::Length;

/// Small enough that the fuzzer meets it.
const MAX_TRAILER: usize = 64;

/// Data, bytes consumed, and whether the end was seen.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, usize, bool), Error> {
    let mut decoder = Decoder::new(Length::Chunked, MAX_TRAILER);
    let (mut data, mut consumed) = (Vec::new(), 0);
    for mut piece in pieces {
        while !piece.is_empty() {
            let decoded = decoder.decode(piece)?;
            assert!(decoded.consumed <= piece.len() && decoded.data.end <= decoded.consumed);
            data.extend_from_slice(&piece[decoded.data]);
            consumed += decoded.consumed;
            if decoded.done {
                return Ok((data, consumed, true));
            }
            assert!(decoded.consumed > 0, "bytes that are there are always dealt with");
            piece = &piece[decoded.consumed..];
        }
    }
    Ok((data, consumed, false))
}

fuzz_target!(|bytes: &[u8]| {
    let start = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    let body = &bytes[start..];
    let whole = decode([body].into_iter());
    assert_eq!(decode(body.chunks(1)), whole);
    assert_eq!(decode(body.chunks(5)), whole);
    if let Ok((_, consumed, true)) = whole {
        assert!(body[..consumed].ends_with(b"\r\n"));
        assert_eq!(decode([&body[..consumed]].into_iter()), whole);
    }
});
