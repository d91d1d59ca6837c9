//! Any bytes as packets of AJP: no panic, one verdict wherever they are cut, a request whose parts are within its bytes and that can
//! be sent on as it came, a body that is the same wherever it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::http::framing::Length;
use tapster::http::head::{Head, Limits};
use tapster::protocol::ajp::body::{self, PacketDecoder};
use tapster::protocol::ajp::{Forward, FrontPacket, packet};
use tapster::protocol::pairs::Packing;
use tapster::protocol::variables;

const LIMITS: Limits = Limits { request_line: 1000, fields: 20, field_size: 500 };

/// Most bytes of a packet with a request.
const MAX: usize = 8 * 1024;

/// A packet with this payload.
fn packed(payload: &[u8]) -> Vec<u8> {
    [&[0x12, 0x34], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
}

fn check(bytes: &[u8]) {
    let whole = packet(bytes, MAX);
    let mut end = 0;
    let pieces = loop {
        match packet(&bytes[..end], MAX) {
            Ok(FrontPacket::Cut { missing, .. }) if end + missing <= bytes.len() => end += missing,
            verdict => break verdict,
        }
    };
    match (&whole, &pieces) {
        // What never came cannot be wrong.
        (Ok(FrontPacket::Cut { .. }) | Err(_), Ok(FrontPacket::Cut { .. })) => {}
        _ => assert_eq!(whole, pieces),
    }
    if let Ok(FrontPacket::Request(len)) = whole {
        check_request(&bytes[..len]);
    }
}

fn check_request(packet: &[u8]) {
    let (mut own, len) = (packet.to_vec(), packet.len());
    let Ok(forward) = Forward::read(&own, 0..len, LIMITS.fields) else { return };
    let _ = forward.secret(&own);
    forward.put(&mut own);
    assert!(own.len() - len <= forward.most());
    let (pairs, before) = (len..own.len(), own.len());
    for pair in Packing::Short.pairs(&own, pairs.clone()) {
        let pair = pair.expect("they are packed");
        let name = pair.name.of(&own);
        assert!(!name.contains(&b'.') && !name.is_empty(), "{name:?}");
    }
    let mut head = Head::default();
    let Ok(framing) = variables::read(&mut head, &mut own, (Packing::Short, pairs), &LIMITS) else { return };
    assert!(own.len() <= before + variables::room(before));
    assert!(own.starts_with(packet), "it can be sent on as it came");
    assert!(!(forward.is_chunked && framing.length != Length::None));
    assert!(head.is_from_gateway() && head.line.len() <= LIMITS.request_line && head.fields.len() <= LIMITS.fields);
    let (script, path) = (head.gateway.script.of(&own), head.gateway.path.of(&own));
    assert!(script.is_empty() && (path.is_empty() || path.starts_with(b"/")) && !path.contains(&0), "{script:?} {path:?}");
    for (name, value) in head.iter(&own) {
        assert!(!name.is_empty() && !name.contains(&b'_') && !name.contains(&0) && !value.contains(&0));
    }
}

/// What a decoder finds: the body up to its end, or to an error.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    body: Vec<u8>,
    used: usize,
    ended: bool,
    failed: bool,
}

fn decode(length: Length, bytes: &[u8], piece: usize) -> Found {
    let (mut decoder, mut found) = (PacketDecoder::new(length), Found::default());
    for end in (piece..bytes.len()).step_by(piece).chain([bytes.len()]) {
        loop {
            let input = &bytes[found.used..end];
            let Ok(step) = decoder.decode(input) else {
                // How far it came depends on the cuts.
                return Found { failed: true, used: 0, ..found };
            };
            assert!(step.consumed <= input.len());
            found.body.extend_from_slice(&input[step.data]);
            found.used += step.consumed;
            if step.done {
                let (finished, _) = decoder.finish();
                assert!(finished == length || matches!(finished, Length::None | Length::Known(_)) && length == Length::Chunked);
                found.ended = true;
                return found;
            }
            if step.consumed == 0 {
                break;
            }
        }
        assert!(decoder.take_replies().len() <= 5 * bytes.len() + 7);
    }
    found
}

fn check_body(bytes: &[u8]) {
    for length in [Length::Chunked, Length::Known(bytes.len() as u64 / 2 + 1)] {
        let whole = decode(length, bytes, bytes.len().max(1));
        for piece in [1, 7] {
            assert_eq!(decode(length, bytes, piece), whole);
        }
    }
    let mut out = Vec::new();
    body::put(&mut out, bytes, true);
    assert!(out.len() <= bytes.len() + body::around(bytes.len()));
    let back = decode(Length::Chunked, &out, out.len());
    assert!(back.ended && back.used == out.len() && back.body == bytes);
}

/// Parts of a body, each with some of the bytes.
fn parts(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in bytes.chunks(11) {
        let (first, content) = part.split_first().expect("no chunk is empty");
        let content = &content[..content.len().min(usize::from(first >> 4))];
        out.extend(packed(&[&(content.len() as u16).to_be_bytes()[..], content].concat()));
    }
    out
}

/// A request with texts between bytes of 0xFE, then attributes.
fn request(bytes: &[u8]) -> Vec<u8> {
    let (mut texts, text) = (bytes.split(|byte| *byte == 0xFE), |text: &[u8]| {
        [&(text.len() as u16).to_be_bytes()[..], text, b"\0"].concat()
    });
    let mut payload = vec![2, bytes.first().copied().unwrap_or(2) % 32];
    for _ in 0..5 {
        payload.extend(text(texts.next().unwrap_or(b"/")));
    }
    payload.extend([0, 80, 0, 0, 2]);
    for _ in 0..2 {
        payload.extend([text(texts.next().unwrap_or(b"a")), text(texts.next().unwrap_or(b"1"))].concat());
    }
    for attribute in texts {
        let Some((number, value)) = attribute.split_first() else { continue };
        payload.push(number % 16);
        payload.extend(text(value));
        if number % 16 == 10 {
            payload.extend(text(b"value"));
        }
    }
    payload.push(0xFF);
    packed(&payload)
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() > 8000 {
        return;
    }
    check(bytes);
    check(&packed(bytes));
    check(&packed(&[b"\x02", bytes].concat()));
    check(&request(bytes));
    check_body(bytes);
    check_body(&parts(bytes));
});
