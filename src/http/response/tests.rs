//! Rules of an answer's head and of the end of its body.

use super::*;

const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
const OURS: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: tapster\r\n";
const HTTP11: Context<'static> = Context {
    terms: Terms { version: Version::Http11, head_only: false, persistent: true, dialect: Dialect::Http, stale: false },
    date: DATE,
    id: b"",
};
const HTTP10: Context<'static> = Context { terms: Terms { version: Version::Http10, ..HTTP11.terms }, ..HTTP11 };
const HEAD: Context<'static> = Context { terms: Terms { head_only: true, ..HTTP11.terms }, ..HTTP11 };

/// The head as text, and its body.
fn head(
    context: &Context<'_>,
    status: &str,
    fields: &[(&str, &str)],
    known: Option<u64>,
) -> Result<(String, BodyFraming), Refused> {
    let mut out = b"before".to_vec();
    let mut encoder = Encoder::begin(&mut out, context, status.as_bytes())?;
    for (name, value) in fields {
        encoder.field(name.as_bytes(), value.as_bytes())?;
    }
    let body = encoder.finish(known);
    Ok((String::from_utf8(out).unwrap().strip_prefix("before").expect("append only").to_owned(), body))
}

#[track_caller]
fn text(context: &Context<'_>, status: &str, fields: &[(&str, &str)], known: Option<u64>) -> String {
    head(context, status, fields, known).unwrap().0
}

#[track_caller]
fn refused(status: &str, fields: &[(&str, &str)]) -> Refused {
    head(&HTTP11, status, fields, None).expect_err("refused")
}

/// The whole answer as text, with its end.
fn answer(context: &Context<'_>, fields: &[(&str, &str)], known: Option<u64>, blocks: &[&str]) -> (String, End) {
    let (head, mut body) = head(context, "200 OK", fields, known).unwrap();
    let mut out = Vec::new();
    for block in blocks {
        body.block(&mut out, block.as_bytes());
    }
    let end = body.end(&mut out);
    (head + std::str::from_utf8(&out).unwrap(), end)
}

#[test]
fn the_fields_of_the_application_come_first_and_unchanged() {
    assert_eq!(
        text(
            &HTTP11,
            "404 Not Here",
            &[("content-type", "text/x; a=\t\u{e9}"), ("Set-Cookie", "a"), ("Set-Cookie", "a")],
            Some(3)
        ),
        format!(
            "HTTP/1.1 404 Not Here\r\ncontent-type: text/x; a=\t\u{e9}\r\nSet-Cookie: a\r\nSet-Cookie: a\r\n\
             Content-Length: 3\r\n{OURS}\r\n"
        )
    );
}

#[test]
fn date_and_server_of_the_application_replace_ours() {
    let out = text(&HTTP11, "200 OK", &[("date", "never"), ("SERVER", "mine")], Some(0));
    assert_eq!(out, "HTTP/1.1 200 OK\r\ndate: never\r\nSERVER: mine\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn a_status_is_three_digits_and_a_reason() {
    assert!(text(&HTTP11, "200", &[], None).starts_with("HTTP/1.1 200 \r\n"));
    assert!(text(&HTTP11, "200 ", &[], None).starts_with("HTTP/1.1 200 \r\n"));
    assert!(text(&HTTP11, "299 \u{e9} b", &[], None).starts_with("HTTP/1.1 299 \u{e9} b\r\n"));
    for status in
        ["", "20", "2000", "OK", "20x OK", "200OK", " 200 OK", "+20 OK", "200 OK\r\n", "200 O\nK", "200 \0", "200\t OK", "-1 X"]
    {
        assert!(matches!(refused(status, &[]), Refused::Status(_)), "{status:?}");
    }
    for status in ["100 Continue", "101 Switching Protocols", "103 Early Hints", "000 Zero"] {
        assert!(matches!(refused(status, &[]), Refused::StatusNotFinal(_)), "{status:?}");
    }
}

#[test]
fn nothing_in_a_field_can_split_the_answer() {
    for value in ["a\r\nb", "a\rb", "a\nb", "\0", "a\x1b", "\x7f"] {
        let refusal = refused("200 OK", &[("X-A", value)]);
        assert!(matches!(&refusal, Refused::Value { name, .. } if name == "X-A"), "{value:?}");
    }
    for name in ["", "a b", "a:", "a\r\nb", "\u{e9}", "a\0", ":a"] {
        assert!(matches!(refused("200 OK", &[(name, "x")]), Refused::Name(_)), "{name:?}");
    }
}

#[test]
fn hop_by_hop_fields_are_refused_in_any_case() {
    for name in HOP_BY_HOP.into_iter().chain(["transfer-encoding", "tE", "proxy-connection"]).filter(|name| *name != "Upgrade") {
        assert_eq!(refused("200 OK", &[(name, "x")]), Refused::HopByHop(name.into()));
    }
    assert!(head(&HTTP11, "200 OK", &[("Proxy-Status", "x"), ("Vary", "y"), ("Trail", "x")], None).is_ok());
    assert_eq!(refused("200 OK", &[("Connection", "close, X-Foo")]), Refused::ConnectionOption("X-Foo".into()));
}

#[test]
fn an_upgrade_field_goes_with_a_426_only_and_is_named_in_connection() {
    const STATUS: &str = "426 Upgrade Required";
    let fields = [("upgrade", "websocket, HTTP/2.0"), ("Connection", "Upgrade")];
    let old = Context { terms: Terms { version: Version::Http10, ..HTTP11.terms }, ..HTTP11 };
    for (context, connection) in [
        (HTTP11, "upgrade"),
        (old, "keep-alive, upgrade"),
        (Context { terms: HTTP11.terms.closing(), ..HTTP11 }, "close, upgrade"),
        (Context { terms: old.terms.closing(), ..old }, "close, upgrade"),
    ] {
        for fields in [&fields[..1], &fields] {
            let head = text(&context, STATUS, fields, Some(0));
            let expected = "upgrade: websocket, HTTP/2.0\r\nContent-Length: 0";
            assert_eq!(head, format!("HTTP/1.1 {STATUS}\r\n{expected}\r\n{OURS}Connection: {connection}\r\n\r\n"));
        }
    }
    let closing = text(&HTTP11, STATUS, &[("Connection", "close"), ("Upgrade", "TLS/1.0")], Some(0));
    assert!(closing.ends_with("\r\nConnection: close, upgrade\r\n\r\n"), "{closing}");
    // An option without its field has no effect.
    assert!(!text(&HTTP11, STATUS, &[("Connection", "upgrade")], Some(0)).contains("Connection"));
    for status in ["200 OK", "400 Bad Request", "427 X"] {
        for name in ["Upgrade", "UPGRADE"] {
            assert_eq!(refused(status, &[(name, "websocket")]), Refused::Upgrade);
        }
        assert_eq!(refused(status, &[("Connection", "upgrade")]), Refused::ConnectionOption("upgrade".into()));
    }
    let hints = [(b"Upgrade".to_vec(), b"websocket".to_vec())];
    assert!(early_hints(&mut Vec::new(), &hints).is_err());
}

#[test]
fn connection_close_of_the_application_is_honoured_once() {
    let (out, mut body) = head(&HTTP11, "200 OK", &[("connection", "Close")], Some(0)).unwrap();
    assert_eq!(out, format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{OURS}Connection: close\r\n\r\n"));
    assert_eq!(body.end(&mut Vec::new()), End::Complete { persistent: false });
    assert!(!body.dropped());
}

#[test]
fn keep_alive_of_the_application_is_dropped_and_reported() {
    for field in [("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")] {
        let (out, body) = head(&HTTP11, "200 OK", &[field], Some(0)).unwrap();
        assert_eq!(out, format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{OURS}\r\n"));
        assert!(body.dropped() && body.persistent());
    }
}

#[test]
fn the_connection_field_tells_what_the_version_does_not() {
    let closing = Context { terms: HTTP11.terms.closing(), ..HTTP11 };
    assert!(!text(&HTTP11, "200 OK", &[], Some(0)).contains("Connection"));
    assert!(text(&HTTP10, "200 OK", &[], Some(0)).ends_with("\r\nConnection: keep-alive\r\n\r\n"));
    assert!(text(&closing, "200 OK", &[], Some(0)).ends_with("\r\nConnection: close\r\n\r\n"));
    assert!(
        text(&Context { terms: Terms { version: Version::Http10, ..closing.terms }, ..closing }, "200 OK", &[], Some(0))
            .ends_with("\r\nConnection: close\r\n\r\n")
    );
}

#[test]
fn a_content_length_is_checked() {
    for value in ["", "x", "+1", "-1", "1,1", "1 1", "18446744073709551616"] {
        assert_eq!(refused("200 OK", &[("Content-Length", value)]), Refused::Length(value.into()), "{value:?}");
    }
    assert_eq!(refused("200 OK", &[("Content-Length", "1"), ("content-length", "2")]), Refused::Lengths(1, 2));
    let out = text(&HTTP11, "200 OK", &[("Content-Length", "1"), ("content-length", "1")], Some(7));
    assert_eq!(out, format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{OURS}\r\n"));
}

#[test]
fn head_keeps_the_length_and_has_no_body() {
    let out = answer(&HEAD, &[("Content-Length", "5")], None, &["hello"]);
    assert_eq!(out, (format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{OURS}\r\n"), End::Complete { persistent: true }));
    let out = answer(&HEAD, &[("Content-Length", "5")], Some(0), &[]);
    assert_eq!(out.1, End::Complete { persistent: true });
    assert!(text(&HEAD, "200 OK", &[], Some(5)).contains("\r\nContent-Length: 5\r\n"));
    assert_eq!(text(&HEAD, "200 OK", &[], Some(0)), format!("HTTP/1.1 200 OK\r\n{OURS}\r\n"));
    let old = Context { terms: Terms { version: Version::Http10, ..HEAD.terms }, ..HEAD };
    assert_eq!(text(&old, "200 OK", &[], None), format!("HTTP/1.1 200 OK\r\n{OURS}Connection: keep-alive\r\n\r\n"));
}

#[test]
fn status_204_has_no_length_and_304_keeps_it_and_neither_has_a_body() {
    let (out, mut body) = head(&HTTP11, "204 No Content", &[("Content-Length", "0"), ("X", "y")], Some(5)).unwrap();
    assert_eq!(out, format!("HTTP/1.1 204 No Content\r\nX: y\r\n{OURS}\r\n"));
    let mut wire = Vec::new();
    assert_eq!(body.block(&mut wire, b"hello"), Fit::All);
    assert_eq!(body.end(&mut wire), End::Complete { persistent: true });
    assert!(wire.is_empty() && !body.is_sent() && body.sent() == 0);

    let (out, body) = head(&HTTP11, "304 Not Modified", &[("Content-Length", "5")], None).unwrap();
    assert_eq!(out, format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n{OURS}\r\n"));
    assert!(!body.is_sent());
    assert_eq!(text(&HTTP11, "304 Not Modified", &[], Some(5)), format!("HTTP/1.1 304 Not Modified\r\n{OURS}\r\n"));
}

#[test]
fn chunks_go_to_http11_and_an_empty_block_does_not_end_them() {
    let (out, end) = answer(&HTTP11, &[], None, &["hello", "", "0123456789abcdef"]);
    let chunks = "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    assert_eq!(out, format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{OURS}\r\n{chunks}"));
    assert_eq!(end, End::Complete { persistent: true });
}

#[test]
fn http10_without_a_length_ends_with_the_connection() {
    let (out, end) = answer(&HTTP10, &[], None, &["hel", "lo"]);
    assert_eq!(out, format!("HTTP/1.1 200 OK\r\n{OURS}Connection: close\r\n\r\nhello"));
    assert_eq!(end, End::Complete { persistent: false });
    assert!(head(&HTTP10, "200 OK", &[], None).unwrap().1.until_close());
    assert!(!head(&HTTP10, "200 OK", &[], Some(1)).unwrap().1.until_close());
    assert!(!head(&HTTP11, "200 OK", &[], None).unwrap().1.until_close());
}

#[test]
fn excess_over_the_length_is_cut() {
    let (_, mut body) = head(&HTTP11, "200 OK", &[("Content-Length", "5")], None).unwrap();
    let mut out = Vec::new();
    assert_eq!(body.block(&mut out, b"hel"), Fit::All);
    assert_eq!(body.left(), Some(2));
    assert_eq!(body.block(&mut out, b"loXY"), Fit::Cut(2));
    assert_eq!(body.block(&mut out, b"Z"), Fit::Cut(1));
    assert_eq!((out.as_slice(), body.sent()), (&b"hello"[..], 5));
    assert_eq!(body.end(&mut out), End::Complete { persistent: true });
    assert_eq!(out, b"hello");
}

#[test]
fn a_short_body_is_reported() {
    assert_eq!(answer(&HTTP11, &[("Content-Length", "5")], None, &["hel"]).1, End::Short(2));
    assert_eq!(answer(&HTTP11, &[("Content-Length", "5")], Some(0), &[]).1, End::Short(5));
    assert_eq!(answer(&HTTP11, &[], Some(5), &["hello"]).1, End::Complete { persistent: true });
}

#[test]
fn a_block_that_is_not_copied_is_framed_alike() {
    for (context, fields) in [(HTTP11, &[][..]), (HTTP10, &[]), (HTTP11, &[("Content-Length", "4")]), (HEAD, &[])] {
        let (_, mut copied) = head(&context, "200 OK", fields, None).unwrap();
        let (_, mut around) = head(&context, "200 OK", fields, None).unwrap();
        for block in [&b"abc"[..], b"", b"defgh"] {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            let fit = copied.block(&mut left, block);
            let Piece { take, after, cut, .. } = around.around(&mut right, block.len() as u64);
            right.extend_from_slice(&block[..take as usize]);
            right.extend_from_slice(after);
            assert_eq!((left, copied.sent()), (right, around.sent()));
            assert_eq!(fit, if cut > 0 { Fit::Cut(cut) } else { Fit::All });
        }
    }
}

#[test]
fn a_refusal_says_what_and_what_to_do() {
    let refusal = refused("200 OK", &[("X-A", "a\nb")]);
    assert_eq!(
        refusal.to_string(),
        "the value of header X-A has the control character 0x0a: remove it (line ends would split the response)"
    );
    assert_eq!(
        refused("200 \u{e9}\n", &[]).to_string(),
        "the status \"200 \\xc3\\xa9\\n\" is not three digits, a space and a reason without controls: send \"200 OK\""
    );
}
