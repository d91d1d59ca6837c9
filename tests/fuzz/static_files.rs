//! Any bytes as a request for a static file: no panic, no name that leaves its directory or is hidden, a part that lies within the
//! file, and a head whose length is that of what is sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::config::StaticMap;
use tapster::files::coding::AcceptedCodings;
use tapster::files::conditions::{Selection, Wishes};
use tapster::files::head::{FileFacts, ReplyContext, address_of_directory, render};
use tapster::files::media::MediaTypes;
use tapster::files::paths::{Maps, decode};
use tapster::files::validator::Validator;
use tapster::http::framing;
use tapster::http::head::{Head, HeadView, Limits, Parsed};
use tapster::http::target::Target;
use tapster::http::terms::Terms;

const LIMITS: Limits = Limits { request_line: 4000, fields: 50, field_size: 2000 };

const NOW: u64 = 800_000_000;

/// Tag of the file of a thousand bytes.
const TAG: &str = "\"2ebc98a1.0-3e8\"";

/// What the fuzzer would need long to find: the fields that count, with the pieces of its bytes as their values.
const FIELDS: [&str; 9] = [
    "If-Match",
    "If-None-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "If-Range",
    "Range",
    "Accept-Encoding",
    "Accept-Encoding",
];

fn maps() -> Maps {
    let map = |prefix: &str| StaticMap { prefix: prefix.into(), directory: "/srv".into() };
    Maps::new(&[map("/static"), map(""), map("/static/deep/er")])
}

fn check_path(path: &[u8]) {
    let mut decoded = Vec::new();
    let is_sound = decode(path, &mut decoded);
    assert!(decoded.len() <= path.len());
    let Some(place) = maps().locate(&decoded, 0, is_sound) else {
        return assert!(!path.starts_with(b"/"));
    };
    let Some(name) = place.name else { return };
    let name = &decoded[name];
    assert!(is_sound && !name.contains(&0) && !name.starts_with(b"/") && !name.ends_with(b"/"));
    assert!(name.is_empty() || name.split(|&b| b == b'/').all(|part| !part.is_empty() && part[0] != b'.'));
    let address = address_of_directory(&decoded, b"");
    assert!(address.starts_with(b"/") && (!address.starts_with(b"//") || decoded == b"/"), "{}", address.escape_ascii());
    assert!(address.iter().all(u8::is_ascii_graphic) && !address.contains(&b'\\'));
}

fn check_request(bytes: &[u8], size: u64) {
    let mut head = Head::default();
    if head.parse(bytes, &LIMITS) != Ok(Parsed::Complete) || framing::of(&head, bytes).is_err() {
        return;
    }
    let view = HeadView { head: &head, bytes };
    if let Ok(target) = Target::of(&head, bytes) {
        check_path(target.path(bytes));
    }
    let wishes = Wishes::of(view);
    let codings: Vec<_> = AcceptedCodings::of(wishes.lines("accept-encoding")).iter().collect();
    assert!(codings.len() <= 3 && (1..codings.len()).all(|at| !codings[..at].contains(&codings[at])));
    let state = Validator { seconds: 784_111_777, nanos: 0, size, coding: codings.first().copied() };
    let tag = state.tag();
    for is_get in [true, false] {
        let selection = wishes.judge(&state, &tag, is_get, NOW);
        let types = MediaTypes::new(&[]);
        let media = types.of(view.target());
        let file = FileFacts { state: &state, tag: &tag, media, cache: b"no-cache", varies: true };
        let terms = Terms { head_only: !is_get, persistent: true, ..Terms::default() };
        let mut out = Vec::new();
        let body = render(&mut out, selection, &file, &ReplyContext { terms, date: b"Sun, 06 Nov 1994 08:49:37 GMT", id: b"", now: NOW });
        assert!(out.windows(4).any(|end| end == b"\r\n\r\n") && body.persistent());
        match selection {
            Selection::Part { first, len } => {
                assert!(is_get && len > 0 && first.checked_add(len).is_some_and(|end| end <= size));
                assert_eq!((body.status, body.left()), (206, Some(len)));
            }
            Selection::Whole => assert_eq!((body.status, body.left()), (200, is_get.then_some(size))),
            Selection::NotModified => assert_eq!((body.status, body.is_sent()), (304, false)),
            Selection::Failed => assert_eq!(body.status, 412),
            Selection::NoSuchRange => assert!(is_get && body.status == 416),
        }
    }
}

/// A request with these values in its fields.
fn named(bytes: &[u8]) -> Vec<u8> {
    let mut request = b"GET /static/a.txt HTTP/1.1\r\nHost: t\r\n".to_vec();
    let mut once = Vec::new();
    for (value, number) in bytes.split(|&b| b == b'\n').zip(0..) {
        let field = FIELDS[value.first().map_or(number, |&first| usize::from(first)) % FIELDS.len()];
        let is_list = matches!(field, "If-Match" | "If-None-Match" | "Accept-Encoding");
        if is_list || !once.contains(&field) {
            once.push(field);
            let value = value.get(1..).unwrap_or_default();
            let value: Vec<u8> = value.iter().flat_map(|&b| if b == b'@' { TAG.as_bytes().to_vec() } else { vec![b] }).collect();
            request.extend([field.as_bytes(), b": ", &value, b"\r\n"].concat());
        }
    }
    request.extend(b"\r\n");
    request
}

fuzz_target!(|bytes: &[u8]| {
    check_path(bytes);
    check_path(&[b"/static/", bytes].concat());
    for size in [0, 1, 1000, u64::MAX] {
        check_request(bytes, size);
        check_request(&named(bytes), size);
    }
});
