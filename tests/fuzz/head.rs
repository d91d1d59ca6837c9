//! Any bytes as a head: no panic, every span inside the input, and one verdict wherever the input is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::http::framing;
use tapster::http::head::{Head, Limits, Parsed, Progress};
use tapster::http::target::{Target, percent_decode};

/// Small enough that the fuzzer meets each of them.
const SMALL: Limits = Limits { request_line: 40, fields: 6, field_size: 40 };

const LARGE: Limits = Limits { request_line: 8190, fields: 100, field_size: 8190 };

fuzz_target!(|bytes: &[u8]| {
    for limits in [SMALL, LARGE] {
        let mut head = Head::default();
        let verdict = head.parse(bytes, &limits);
        let (mut cut, mut progress) = (Head::default(), Progress::default());
        let mut pieces = Ok(Parsed::Partial);
        // A step that is coprime to most lengths keeps the cost linear and moves the cuts about.
        for end in (0..bytes.len()).step_by(7).chain([bytes.len()]) {
            pieces = cut.resume(&bytes[..end], &limits, &mut progress);
            if pieces != Ok(Parsed::Partial) {
                break;
            }
        }
        assert_eq!(verdict, pieces);
        if verdict != Ok(Parsed::Complete) {
            continue;
        }
        assert!(head.len <= bytes.len() && head.len <= limits.head_max() && head.fields.len() <= limits.fields);
        assert!(bytes[..head.len].ends_with(b"\r\n\r\n") && head.block.end as usize == head.len);
        assert!(head.line.len() <= limits.request_line);
        assert_eq!((head.len, head.block, &head.fields), (cut.len, cut.block, &cut.fields));
        for (name, value) in head.iter(bytes) {
            assert!(!name.is_empty() && !name.contains(&b' ') && name.len() + value.len() < limits.field_size);
            assert!(!value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')));
        }
        if framing::of(&head, bytes).is_ok() {
            let target = Target::of(&head, bytes).expect("framing has checked the target");
            let mut path = Vec::new();
            percent_decode(target.path(bytes), &mut path);
            assert!(path.len() <= target.path(bytes).len());
            assert!(path.is_empty() == target.server && (path.is_empty() || path[0] == b'/'));
            assert!(!head.target.of(bytes).contains(&b'#') && head.method.of(bytes) != b"CONNECT");
        }
    }
});
