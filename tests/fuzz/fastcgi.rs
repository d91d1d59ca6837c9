//! Any bytes as records of FastCGI: no panic, the same found wherever the input is cut, parts that are within the input, and what is
//! kept for later that is made of whole records.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::http::records::{head, kind};
use tapster::protocol::fastcgi::{RecordEvent, RecordReader, RecordStep};

/// What a reader finds up to the end of a request, or to an error.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    params: Vec<u8>,
    stdin: Vec<u8>,
    replies: Vec<u8>,
    used: usize,
    ended: bool,
    failed: bool,
}

fn read(bytes: &[u8], piece: usize) -> (Found, Vec<u8>) {
    let (mut reader, mut found) = (RecordReader::default(), Found::default());
    for end in (piece..bytes.len()).step_by(piece).chain([bytes.len()]) {
        loop {
            let input = &bytes[found.used..end];
            let Ok(RecordStep { used, event }) = reader.step(input, &mut found.replies, &mut || true) else {
                // How far it came depends on the cuts.
                return (Found { failed: true, used: 0, ..found }, Vec::new());
            };
            assert!(used <= input.len());
            found.used += used;
            match event {
                RecordEvent::None if used == 0 => break,
                RecordEvent::None | RecordEvent::ParamsEnd | RecordEvent::Aborted { .. } | RecordEvent::Refused => {}
                RecordEvent::Params(part) => found.params.extend_from_slice(&input[part]),
                RecordEvent::Stdin(part) => found.stdin.extend_from_slice(&input[part]),
                RecordEvent::StdinEnd => {
                    found.ended = true;
                    return (found, reader.take_stash());
                }
            }
        }
    }
    (found, Vec::new())
}

fn check(bytes: &[u8]) {
    let (whole, stash) = read(bytes, bytes.len().max(1));
    for piece in [1, 7] {
        let (found, kept) = read(bytes, piece);
        assert_eq!((&found, &kept), (&whole, &stash));
    }
    assert!(whole.replies.len() <= 16 * bytes.len());
    let mut rest = &stash[..];
    while !rest.is_empty() {
        let len = 8 + usize::from(u16::from_be_bytes([rest[4], rest[5]])) + usize::from(rest[6]);
        rest = &rest[len..];
    }
}

/// Records of these kinds and ids, each with some of the bytes.
fn records(bytes: &[u8]) -> Vec<u8> {
    let mut out = head(kind::BEGIN_REQUEST, 1, 8).to_vec();
    out.extend_from_slice(&[0, 1, 1, 0, 0, 0, 0, 0]);
    for part in bytes.chunks(11) {
        let (first, content) = part.split_first().expect("no chunk is empty");
        let content = &content[..content.len().min(usize::from(first >> 4))];
        let (kind, id) = (first % 12, u16::from(content.first().copied().unwrap_or(1) % 4));
        out.extend_from_slice(&head(kind, id, content.len() as u16));
        out.extend_from_slice(content);
    }
    out
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&records(bytes));
});
