//! Rules of request line and field lines, each case three ways.

use super::super::cuts::{self, LIMITS};
use super::*;

#[track_caller]
fn refused(input: impl AsRef<[u8]>) -> Error {
    cuts::head(input.as_ref(), &LIMITS).expect_err("refused")
}

#[track_caller]
fn parsed(input: &[u8]) -> Head {
    cuts::head(input, &LIMITS).expect("accepted").expect("complete")
}

#[test]
fn a_request_is_taken_apart() {
    let input = b"POST /a%20b?c=d HTTP/1.1\r\nHost: example.org\r\nX-Empty:\r\nX-Blank: \t \r\nX-Pad: \t in \t side \t\r\n\r\n";
    let head = parsed(input);
    assert_eq!(head.method.of(input), b"POST");
    assert_eq!(head.target.of(input), b"/a%20b?c=d");
    assert_eq!(head.line.of(input), b"POST /a%20b?c=d HTTP/1.1");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.len, input.len());
    assert_eq!(head.block.of(input), &input[26..]);
    let fields: Vec<_> = head.iter(input).collect();
    let expected: [(&[u8], &[u8]); 4] =
        [(b"Host", b"example.org"), (b"X-Empty", b""), (b"X-Blank", b""), (b"X-Pad", b"in \t side")];
    assert_eq!(fields, expected);
}

#[test]
fn a_request_without_fields_is_complete() {
    let input = b"GET / HTTP/1.0\r\n\r\n";
    let head = parsed(input);
    assert_eq!((head.version, head.fields.len(), head.block.of(input)), (Version::Http10, 0, &b"\r\n"[..]));
}

#[test]
fn a_head_is_reused_without_what_it_held() {
    let mut head = Head::default();
    head.parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", &LIMITS).unwrap();
    let second = b"PUT /b HTTP/1.0\r\nA: c\r\n\r\n";
    head.parse(second, &LIMITS).unwrap();
    assert_eq!((head.method.of(second), head.fields.len(), head.version), (&b"PUT"[..], 1, Version::Http10));
}

#[test]
fn latin1_utf8_and_long_values_pass() {
    let mut input = b"PROPFIND /caf\xc3\xa9/\xff HTTP/1.1\r\nHost: a\r\nX: \xe9\x80\xff\r\nCookie: ".to_vec();
    input.extend(vec![b'c'; 1500]);
    input.extend(b"\r\n\r\n");
    let head = parsed(&input);
    assert_eq!(head.target.of(&input), b"/caf\xc3\xa9/\xff");
    assert_eq!(head.fields[2].value.len(), 1500);
}

#[test]
fn higher_minor_versions_are_1_1_and_other_majors_are_505() {
    assert_eq!(parsed(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n").version, Version::Http11);
    assert_eq!(parsed(b"GET / HTTP/1.9\r\nHost: a\r\n\r\n").version, Version::Http11);
    for line in ["GET / HTTP/2.0\r\n", "GET / HTTP/0.9\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/3.0\r\n"] {
        assert_eq!((refused(line), refused(line).status()), (Error::Version, 505), "{line:?}");
    }
}

#[test]
fn a_malformed_version_is_400() {
    assert_eq!(refused("GET /\r\n\r\n"), Error::VersionMissing);
    assert_eq!(refused("GET / \r\n\r\n"), Error::VersionMissing);
    for line in ["GET / http/1.1\r\n", "GET / HTTP/1.10\r\n", "GET / HTTP/11.1\r\n", "GET / HTTP/1,1\r\n", "GET / HTTP/1.1 \r\n"]
    {
        assert_eq!(refused(line), Error::VersionMalformed, "{line:?}");
    }
    for line in ["GET / HTTPS/1.1\r\n", "GET / HTTP/+1.1\r\n", "GET / b HTTP/1.1\r\n", "GET /  HTTP/1.1\r\n", "GET / ICY/1.1\r\n"]
    {
        assert_eq!(refused(line), Error::VersionMalformed, "{line:?}");
    }
}

#[test]
fn a_method_is_a_token_of_bounded_length() {
    assert_eq!(parsed(b"M-SEARCH * HTTP/1.1\r\nHost: a\r\n\r\n").method.len(), 8);
    let longest = format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(MAX_METHOD));
    parsed(longest.as_bytes());
    assert_eq!(refused("M".repeat(MAX_METHOD + 1)), Error::MethodTooLong);
    assert_eq!(refused("GE(T / HTTP/1.1\r\n\r\n"), Error::Method(b'('));
    assert_eq!(refused(" GET / HTTP/1.1\r\n\r\n"), Error::Method(b' '));
    assert_eq!(refused("GET\0 / HTTP/1.1\r\n\r\n"), Error::Method(0));
    assert_eq!(refused("GET\t/ HTTP/1.1\r\n\r\n"), Error::Method(b'\t'));
    assert_eq!(refused("GET\r\n"), Error::TargetMissing);
}

#[test]
fn garbage_is_refused_at_its_first_byte() {
    let mut head = Head::default();
    assert_eq!(head.parse(b"\x16", &LIMITS), Err(Error::Tls));
    assert_eq!(head.parse(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &LIMITS), Err(Error::Tls));
    assert_eq!(head.parse(b"\x80", &LIMITS), Err(Error::Method(0x80)));
    assert_eq!(head.parse(b"{", &LIMITS), Err(Error::Method(b'{')));
    assert_eq!(head.parse(b"GET /\x01", &LIMITS), Err(Error::TargetByte(1)));
    assert_eq!(head.parse(b"GET / X", &LIMITS), Err(Error::VersionMalformed));
    assert_eq!(head.parse(b"GET / HTTP/1.1\r\nA\0", &LIMITS), Err(Error::FieldName));
}

#[test]
fn a_target_has_no_controls_at_any_place() {
    for len in [1, 15, 16, 17, 33] {
        for bad in [0, 1, b'\t', 0x0b, 0x1f, 0x7f] {
            let line = [b"GET /", "a".repeat(len).as_bytes(), &[bad], "b".repeat(20).as_bytes(), b" HTTP/1.1\r\n"].concat();
            assert_eq!(refused(line), Error::TargetByte(bad));
        }
    }
    assert_eq!(refused("GET  / HTTP/1.1\r\n\r\n"), Error::TargetMissing);
}

#[test]
fn a_few_empty_lines_before_the_request_line_are_skipped() {
    for lines in 0..=MAX_EMPTY_LINES {
        let input = format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(lines));
        let head = parsed(input.as_bytes());
        assert_eq!((head.method.start as usize, head.len), (2 * lines, input.len()));
    }
    assert_eq!(refused("\r\n".repeat(MAX_EMPTY_LINES + 1)), Error::EmptyLines);
    assert_eq!(refused("\nGET / HTTP/1.1\r\n\r\n"), Error::LineEnd);
    assert_eq!(refused("\rGET / HTTP/1.1\r\n\r\n"), Error::LineEnd);
}

#[test]
fn lines_end_with_crlf_only() {
    for input in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "GET / HTTP/1.1\r\n\n",
        "GET / HTTP/1.1\r\nHost:\n\r\n",
        "GET / HTTP/1.1\r\nHost: \n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
    ] {
        assert_eq!(refused(input), Error::LineEnd, "{input:?}");
    }
}

#[test]
fn field_names_are_tokens_and_folds_are_refused() {
    let field = |line: &str| refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"));
    assert_eq!(field("Host : b"), Error::SpaceBeforeColon);
    assert_eq!(field("Host\t: b"), Error::SpaceBeforeColon);
    assert_eq!(field(" folded: b"), Error::Fold);
    assert_eq!(field("\tfolded"), Error::Fold);
    for line in [": b", "no colon", "n\u{e9}: b", "a(b: c", "nocolon", "a\0: b", "a\"b\": c"] {
        assert!(matches!(field(line), Error::FieldName | Error::SpaceBeforeColon), "{line:?}");
    }
    assert_eq!(refused("GET / HTTP/1.1\r\n folded: a\r\n\r\n"), Error::Fold);
}

#[test]
fn field_values_have_no_controls() {
    for bad in (0..0x20).chain([0x7f]).filter(|b| !matches!(b, b'\t' | b'\r' | b'\n')) {
        let input = [b"GET / HTTP/1.1\r\nHost: a\r\nX: some".as_slice(), &[bad], b"thing\r\n\r\n"].concat();
        assert_eq!(refused(input), Error::FieldValue(bad));
    }
}

#[test]
fn limits_hold_exactly_and_before_the_head_is_complete() {
    let limits = Limits { request_line: 20, fields: 2, field_size: 10 };
    let verdict = |input: &str| cuts::head(input.as_bytes(), &limits).map(|head| head.is_some());
    assert_eq!(verdict("GET /abcdef HTTP/1.1\r\n\r\n"), Ok(true));
    assert_eq!(verdict("GET /abcdefg HTTP/1.1\r\n\r\n"), Err(Error::LineTooLong(20)));
    assert_eq!(verdict("GET /abcdefghijklmnopq"), Err(Error::LineTooLong(20)));
    assert_eq!(verdict("\r\nGET /abcdef HTTP/1.1\r\n\r\n"), Ok(true));
    assert_eq!(verdict("GET / HTTP/1.1\r\nName: 7890\r\nName:67890\r\n\r\n"), Ok(true));
    assert_eq!(verdict("GET / HTTP/1.1\r\nName: 78901\r\nName: 7890\r\n\r\n"), Err(Error::FieldTooLong(10)));
    assert_eq!(verdict("GET / HTTP/1.1\r\nName: 7890\r\nName: 78901\r\n\r\n"), Err(Error::FieldTooLong(10)));
    assert_eq!(verdict("GET / HTTP/1.1\r\nName:      \r\n\r\n"), Err(Error::FieldTooLong(10)));
    assert_eq!(verdict("GET / HTTP/1.1\r\nNameNameNam"), Err(Error::FieldTooLong(10)));
    assert_eq!(verdict("GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC"), Err(Error::TooManyFields(2)));
    assert_eq!(verdict("GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"), Err(Error::TooManyFields(2)));
    assert_eq!((Error::LineTooLong(20).status(), Error::FieldTooLong(10).status()), (414, 431));
}

#[test]
fn no_acceptable_head_is_longer_than_head_max_and_no_incomplete_one_reaches_it() {
    let limits = Limits { request_line: 20, fields: 2, field_size: 10 };
    let longest = format!("{}GET /abcdef HTTP/1.1\r\nName: 7890\r\nName: 7890\r\n\r\n", "\r\n".repeat(MAX_EMPTY_LINES));
    assert_eq!(longest.len(), limits.head_max());
    assert!(cuts::head(longest.as_bytes(), &limits).unwrap().is_some());
    let huge = Limits { request_line: usize::MAX, fields: usize::MAX, field_size: usize::MAX };
    assert_eq!(huge.head_max(), MAX_HEAD);
}

#[test]
fn as_many_fields_as_the_limit_allows() {
    for count in [31, 32, 33, 127, 128, 129, 600] {
        let input = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        let limits = |fields| Limits { fields, ..LIMITS };
        assert_eq!(cuts::head(input.as_bytes(), &limits(count)).unwrap().unwrap().fields.len(), count);
        assert_eq!(cuts::head(input.as_bytes(), &limits(32768)).unwrap().unwrap().fields.len(), count);
        assert_eq!(cuts::head(input.as_bytes(), &limits(count - 1)).unwrap_err(), Error::TooManyFields(count - 1));
    }
}

#[test]
fn the_request_line_alone_shows_where_the_block_begins() {
    let mut head = Head::default();
    let input = b"\r\nGET /x HTTP/1.1\r\nHost";
    assert_eq!(head.request_line(input, &LIMITS), Ok(Parsed::Complete));
    assert_eq!((head.target.of(input), &input[head.block.start as usize..]), (&b"/x"[..], &b"Host"[..]));
}

#[test]
fn trickled_bytes_of_a_target_are_looked_at_once() {
    let (mut head, mut progress) = (Head::default(), Progress::default());
    let mut seen = b"\r\nGET /".to_vec();
    assert_eq!(head.resume(&seen, &LIMITS, &mut progress), Ok(Parsed::Partial));
    for _ in 0..8_000 {
        seen.push(b'x');
        assert_eq!(head.resume(&seen, &LIMITS, &mut progress), Ok(Parsed::Partial));
        // A second look would be refused.
        *seen.last_mut().unwrap() = 0;
    }
    seen.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'x');
    for byte in *b" HTTP/1.1" {
        seen.push(byte);
        assert_eq!(head.resume(&seen, &LIMITS, &mut progress), Ok(Parsed::Partial));
    }
    seen.extend_from_slice(b"\r\n\r\n");
    assert_eq!(head.resume(&seen, &LIMITS, &mut progress), Ok(Parsed::Complete));
    assert_eq!((head.target.len(), head.len, progress), (8_001, seen.len(), Progress::default()));
}

#[test]
fn trickled_bytes_are_looked_at_once() {
    let input = format!("GET / HTTP/1.1\r\n{}", "Name: value\r\n".repeat(50));
    let block = input.find('\n').unwrap() + 1;
    let (mut head, mut progress) = (Head::default(), Progress::default());
    let mut seen = input.as_bytes()[..block].to_vec();
    assert_eq!(head.resume(&seen, &LIMITS, &mut progress), Ok(Parsed::Partial));
    for &byte in &input.as_bytes()[block..] {
        seen.push(byte);
        assert_eq!(head.resume(&seen, &LIMITS, &mut progress), Ok(Parsed::Partial));
        // A second look would be refused.
        *seen.last_mut().unwrap() = 0;
    }
}

#[test]
fn a_composed_head_has_what_the_parser_finds_in_the_same_line_and_fields() {
    let (head, bytes) = Head::compose(b"PUT /a?b HTTP/1.0", Version::Http10, &[(b"X-Request-ID", b"7f")]).unwrap();
    let view = HeadView { head: &head, bytes: &bytes };
    assert_eq!((view.method(), view.target(), view.line()), (&b"PUT"[..], &b"/a?b"[..], &b"PUT /a?b HTTP/1.0"[..]));
    assert_eq!((head.version, head.len), (Version::Http10, bytes.len()));
    assert_eq!(head.iter(&bytes).collect::<Vec<_>>(), [(&b"X-Request-ID"[..], &b"7f"[..])]);
}

#[test]
fn a_line_that_was_cut_composes_no_head() {
    let line = b"GET /long HTTP/1.1";
    for end in 0..line.len() {
        assert!(Head::compose(&line[..end], Version::Http11, &[]).is_none(), "{end}");
    }
    assert!(Head::compose(line, Version::Http11, &[]).is_some());
}
