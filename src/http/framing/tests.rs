//! Rules of message framing and connection persistence.

use super::super::cuts::{self, LIMITS};
use super::*;

/// The framing of a request with these lines after the request line (no Host is added).
#[track_caller]
fn raw(line: &str, fields: &str) -> Result<Framing, Error> {
    let input = format!("{line}\r\n{}\r\n", fields.lines().map(|field| format!("{field}\r\n")).collect::<String>());
    let head = cuts::head(input.as_bytes(), &LIMITS).expect("a valid head").expect("a complete head");
    of(&head, input.as_bytes())
}

#[track_caller]
fn http11(fields: &str) -> Result<Framing, Error> {
    raw("POST / HTTP/1.1", &format!("Host: a\n{fields}"))
}

#[track_caller]
fn http10(fields: &str) -> Result<Framing, Error> {
    raw("POST / HTTP/1.0", fields)
}

#[track_caller]
fn length(fields: &str) -> Result<Length, Error> {
    http11(fields).map(|framing| framing.length)
}

#[test]
fn without_length_and_coding_there_is_no_body() {
    assert_eq!(length(""), Ok(Length::None));
    assert_eq!(http10("").unwrap().length, Length::None);
}

#[test]
fn a_content_length_is_one_plain_decimal() {
    assert_eq!(length("Content-Length: 0"), Ok(Length::Known(0)));
    assert_eq!(length("content-LENGTH: \t10 \t"), Ok(Length::Known(10)));
    assert_eq!(length("Content-Length: 18446744073709551615"), Ok(Length::Known(u64::MAX)));
    for value in ["", "+5", "-5", "5, 5", "5,5", "5 5", "0x5", "5.0", "1e3", "five", "18446744073709551616", "5;", "\u{b2}"] {
        assert_eq!(length(&format!("Content-Length: {value}")), Err(Error::Length), "{value:?}");
    }
}

#[test]
fn two_lengths_are_refused_even_if_equal() {
    assert_eq!(length("Content-Length: 5\nContent-Length: 5"), Err(Error::Twice("Content-Length")));
    assert_eq!(length("Content-Length: 5\nX: y\ncontent-length: 6"), Err(Error::Twice("Content-Length")));
}

#[test]
fn two_types_are_refused_even_if_equal() {
    assert_eq!(length("Content-Type: text/plain"), Ok(Length::None));
    assert_eq!(length("Content-Type: text/plain\nX: y\ncontent-TYPE: text/plain"), Err(Error::Twice("Content-Type")));
    assert_eq!(length("Content-Typf: a\nContent-Type: a"), Ok(Length::None));
}

#[test]
fn lists_may_come_in_several_lines_and_other_fields_may_not() {
    for name in ["Authorization", "If-Modified-Since", "Content-Range", "Range", "Origin"] {
        let twice = format!("{name}: a\nX: y\n{}: a", name.to_uppercase());
        assert_eq!(length(&twice), Err(Error::Twice(name)));
        assert_eq!(http10(&twice), Err(Error::Twice(name)), "in any version");
    }
    assert_eq!(length("Accept: a\nAccept: b\nCookie: a\nCookie: b\nIf-Match: a\nIf-Match: b\nVia: a\nVia: b"), Ok(Length::None));
}

#[test]
fn chunked_is_the_one_coding() {
    assert_eq!(length("Transfer-Encoding: chunked"), Ok(Length::Chunked));
    assert_eq!(length("transfer-encoding: \tChUnKeD "), Ok(Length::Chunked));
}

#[test]
fn length_and_coding_exclude_each_other_in_both_orders() {
    assert_eq!(length("Content-Length: 5\nTransfer-Encoding: chunked"), Err(Error::LengthAndCoding));
    assert_eq!(length("Transfer-Encoding: chunked\nContent-Length: 0"), Err(Error::LengthAndCoding));
    assert_eq!(length("Transfer-Encoding: gzip, chunked\nContent-Length: 0"), Err(Error::LengthAndCoding));
}

#[test]
fn http10_has_no_coding() {
    assert_eq!(http10("Transfer-Encoding: chunked"), Err(Error::CodingInHttp10));
    assert_eq!(http10("Transfer-Encoding: chunked\nContent-Length: 3"), Err(Error::CodingInHttp10));
}

#[test]
fn nothing_follows_chunked_and_it_comes_once() {
    for value in
        ["chunked, chunked", "chunked, gzip", "chunked,", ", chunked", "", "identity", "identity, chunked", "chunked, identity"]
    {
        assert_eq!(length(&format!("Transfer-Encoding: {value}")), Err(Error::Coding), "{value:?}");
    }
    assert_eq!(length("Transfer-Encoding: chunked\nTransfer-Encoding: chunked"), Err(Error::Coding));
    assert_eq!(length("Transfer-Encoding: chunked\nTransfer-Encoding: gzip"), Err(Error::Coding));
    assert_eq!(length("Transfer-Encoding: chunked\nTransfer-Encoding:"), Err(Error::Coding));
    for value in
        ["chunked;", "chunked;a=b", "chunked ; a", "\"chunked\"", "chunked chunked", "[chunked]", "chunked\u{a0}", ";chunked"]
    {
        assert_eq!(length(&format!("Transfer-Encoding: {value}")), Err(Error::Coding), "{value:?}");
    }
}

#[test]
fn an_unknown_coding_is_501() {
    for value in ["gzip, chunked", "gzip", "xchunked", "chunkedx", "cow", "gzip;q=1, chunked", "chunke"] {
        assert_eq!(length(&format!("Transfer-Encoding: {value}")), Err(Error::CodingUnknown), "{value:?}");
    }
    assert_eq!(length("Transfer-Encoding: gzip\nTransfer-Encoding: chunked"), Err(Error::CodingUnknown));
    assert_eq!(Error::CodingUnknown.status(), 501);
}

#[test]
fn http11_has_exactly_one_valid_host() {
    assert_eq!(raw("GET / HTTP/1.1", ""), Err(Error::HostMissing));
    assert_eq!(raw("GET http://a/ HTTP/1.1", "X: y"), Err(Error::HostMissing));
    assert_eq!(raw("GET / HTTP/1.1", "Host: a\nHost: a"), Err(Error::Twice("Host")));
    assert_eq!(raw("GET / HTTP/1.0", "Host: a\nhost: b"), Err(Error::Twice("Host")));
    assert_eq!(raw("GET / HTTP/1.0", "Host: a/b"), Err(Error::Host));
    assert!(raw("GET / HTTP/1.0", "").is_ok());
    for host in ["", "a", "example.org:8000", "127.0.0.1", "[::1]:80", "a_b.c", "x:", "%C3%A9", "xn--bcher-kva.example"] {
        assert!(raw("GET / HTTP/1.1", &format!("Host: {host}")).is_ok(), "{host:?}");
    }
    for host in [
        "a b", "a/b", "a@b", "a:b", "a:99999", "a:-1", "a:+1", ":80", "[::1", "[x]", "[::1]x", "a\\b", "a?b", "a#b", "%zz",
        "a:1:2", "\u{e9}",
    ] {
        assert_eq!(raw("GET / HTTP/1.1", &format!("Host: {host}")), Err(Error::Host), "{host:?}");
    }
}

#[test]
fn http11_persists_unless_the_client_says_close() {
    let persistent = |fields: &str| http11(fields).unwrap().persistent;
    assert!(persistent(""));
    assert!(persistent("Connection: keep-alive"));
    assert!(persistent("Connection: upgrade, foo"));
    assert!(persistent("Connection: closed"));
    for fields in ["Connection: close", "connection: CLOSE", "Connection: foo, Close ,bar", "Connection: foo\nConnection: close"]
    {
        assert!(!persistent(fields), "{fields:?}");
    }
    assert!(!persistent("Connection: close, keep-alive") && !persistent("Connection: keep-alive\nConnection: close"));
}

#[test]
fn http10_persists_only_when_asked() {
    let persistent = |fields: &str| http10(fields).unwrap().persistent;
    assert!(!persistent(""));
    assert!(!persistent("Connection: keep-alive, close"));
    assert!(persistent("Connection: Keep-Alive"));
    assert!(persistent("Connection: foo\nConnection: , keep-alive"));
}

#[test]
fn continue_is_awaited_only_with_a_body_to_come() {
    let expects = |fields: &str| http11(fields).map(|framing| framing.expect_continue);
    assert_eq!(expects("Expect: 100-continue\nContent-Length: 5"), Ok(true));
    assert_eq!(expects("Expect: 100-Continue\nTransfer-Encoding: chunked"), Ok(true));
    assert_eq!(expects("Expect: 100-continue, 100-continue\nContent-Length: 5"), Ok(true));
    assert_eq!(expects("Expect: 100-continue\nContent-Length: 0"), Ok(false));
    assert_eq!(expects("Expect: 100-continue"), Ok(false));
    assert_eq!(expects("Expect:\nContent-Length: 5"), Ok(false));
    assert_eq!(expects("Expect: 200-ok"), Err(Error::Expectation));
    assert_eq!(expects("Expect: 100-continue\nExpect: cake"), Err(Error::Expectation));
    assert_eq!(Error::Expectation.status(), 417);
    let old = http10("Expect: 100-continue\nContent-Length: 5").unwrap();
    assert!(!old.expect_continue, "RFC 9110 section 10.1.1: to be ignored in HTTP/1.0");
    assert!(http10("Expect: cake").is_ok());
}

#[test]
fn an_upgrade_is_named_in_connection() {
    let upgrade = |fields: &str| http11(fields).unwrap().upgrade;
    assert!(upgrade("Upgrade: websocket\nConnection: keep-alive, Upgrade"));
    assert!(!upgrade("Upgrade: websocket"));
    assert!(!upgrade("Connection: Upgrade"));
    assert!(!http10("Upgrade: websocket\nConnection: Upgrade").unwrap().upgrade);
}

#[test]
fn the_form_of_the_target_is_checked() {
    for line in ["OPTIONS * HTTP/1.1", "GET http://a/ HTTP/1.1", "GET //x HTTP/1.1"] {
        assert!(raw(line, "Host: a").is_ok(), "{line}");
    }
    for line in ["GET * HTTP/1.1", "GET foo HTTP/1.1", "GET a:1 HTTP/1.1"] {
        assert_eq!(raw(line, "Host: a"), Err(Error::TargetForm), "{line}");
    }
    assert_eq!(raw("CONNECT a:1 HTTP/1.1", "Host: a"), Err(Error::Connect));
}

#[test]
fn names_that_only_look_alike_mean_nothing() {
    let framing = http11("Content_Length: 5\nTransfer_Encoding: chunked\nContent-Lengths: x\nX-Connection: close").unwrap();
    assert_eq!((framing.length, framing.persistent), (Length::None, true));
}
