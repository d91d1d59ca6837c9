//! Any bytes as a request of SCGI or uwsgi: no panic, one verdict wherever the head is cut, parts of the request that are within
//! its bytes, a head that can be sent on as it came, and the same verdict where its variables were seen before.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::http::error::Error;
use tapster::http::head::{Head, Limits};
use tapster::protocol::pairs::{Envelope, Measure};
use tapster::protocol::variables;
use tapster::protocol::variables::cache::VariableCache;

const LIMITS: Limits = Limits { request_line: 1000, fields: 20, field_size: 500 };

/// Most bytes of variables.
const MAX: usize = 8 * 1024;

/// What the fuzzer would need long to find: names that mean something.
const NAMES: [&str; 16] = [
    "REQUEST_METHOD",
    "REQUEST_URI",
    "DOCUMENT_URI",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "SERVER_PROTOCOL",
    "SERVER_NAME",
    "REMOTE_ADDR",
    "HTTPS",
    "HTTP_X_REQUEST_ID",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_COOKIE",
    "HTTP_COOKIE",
];

fn measure(envelope: Envelope, bytes: &[u8]) -> Result<Measure, Error> {
    let whole = envelope.measure(bytes, MAX);
    let mut end = 0;
    let pieces = loop {
        match envelope.measure(&bytes[..end], MAX) {
            Ok(Measure::Missing(more)) if end + more <= bytes.len() => end += more,
            verdict => break verdict,
        }
    };
    match (&whole, &pieces) {
        // It says how much more is needed, not how many pieces there will be; and what never came cannot be wrong.
        (Ok(Measure::Missing(_)) | Err(_), Ok(Measure::Missing(_))) => {}
        _ => assert_eq!(whole, pieces),
    }
    whole
}

fn check(envelope: Envelope, bytes: &[u8]) {
    let Ok(Measure::Whole { pairs, len }) = measure(envelope, bytes) else { return };
    assert!(pairs.end <= len && len <= bytes.len());
    let (mut head, mut own) = (Head::default(), bytes[..len].to_vec());
    let Ok(_framing) = variables::read(&mut head, &mut own, (envelope.packing(), pairs), &LIMITS) else { return };
    assert!(own.len() <= len + variables::room(len));
    assert!(head.is_from_gateway() && head.line.len() <= LIMITS.request_line && head.fields.len() <= LIMITS.fields);
    let (script, path) = (head.gateway.script.of(&own), head.gateway.path.of(&own));
    assert!(script.is_empty() || script.starts_with(b"/") && !script.ends_with(b"/"), "{script:?}");
    assert!(path.is_empty() || path.starts_with(b"/"), "{path:?}");
    assert!(!path.contains(&0) && head.line.of(&own).starts_with(head.method.of(&own)));
    for (name, value) in head.iter(&own) {
        assert!(!name.is_empty() && !name.contains(&b'_') && !name.contains(&0) && !value.contains(&0));
    }
    let mut restored = head.block.of(&own).to_vec();
    variables::restore(&head, &mut restored);
    assert_eq!(restored, bytes[..len], "it can be sent on as it came");
}

/// The values of the names, between bytes of 0xFF.
fn named(envelope: Envelope, bytes: &[u8]) -> Vec<u8> {
    let mut pairs = Vec::new();
    for (name, value) in NAMES.iter().zip(bytes.split(|byte| *byte == 0xFF)) {
        for text in [name.as_bytes(), value] {
            match envelope {
                Envelope::Scgi => pairs.extend([text, b"\0"].concat()),
                Envelope::Uwsgi => pairs.extend([&(text.len() as u16).to_le_bytes(), text].concat()),
            }
        }
    }
    match envelope {
        Envelope::Scgi => [format!("{}:", pairs.len()).as_bytes(), &pairs, b","].concat(),
        Envelope::Uwsgi => [&[0], &(pairs.len() as u16).to_le_bytes()[..], &[0], &pairs].concat(),
    }
}

/// Whether a reader that has seen other requests has the same verdict.
fn check_known(envelope: Envelope, cache: &mut VariableCache, bytes: &[u8]) {
    let Ok(Measure::Whole { pairs, len }) = envelope.measure(bytes, MAX) else { return };
    let pairs = (envelope.packing(), pairs);
    let (mut head, mut own) = (Head::default(), bytes[..len].to_vec());
    let (mut plain, mut plain_own) = (head.clone(), own.clone());
    let found = cache.read(&mut head, &mut own, pairs.clone(), &LIMITS).map(|(framing, _)| framing);
    assert_eq!(found, variables::read(&mut plain, &mut plain_own, pairs, &LIMITS));
    if found.is_ok() {
        assert_eq!(format!("{head:?}"), format!("{plain:?}"));
        assert_eq!(own, plain_own);
    }
}

fuzz_target!(|bytes: &[u8]| {
    for envelope in [Envelope::Scgi, Envelope::Uwsgi] {
        let mut cache = VariableCache::new(0);
        // A block is known from its third coming on, with other values too.
        (0..3).for_each(|_| check_known(envelope, &mut cache, bytes));
        for part in bytes.split(|byte| *byte == 0xFE).take(8) {
            (0..3).for_each(|_| check_known(envelope, &mut cache, &named(envelope, part)));
        }
        check(envelope, bytes);
        check(envelope, &named(envelope, bytes));
    }
});
