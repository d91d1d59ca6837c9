use super::*;
use crate::http::framing::Length;
use crate::http::head::{Head, Limits};
use crate::protocol::pairs::Packing;
use crate::protocol::variables;

const LIMITS: Limits = Limits { request_line: 1000, fields: 20, field_size: 500 };

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes(), b"\0"].concat()
}

/// The payload of a request with these fields, and attributes after their number.
fn forward(method: u8, uri: &str, fields: &[(&[u8], &str)], attributes: &[u8]) -> Vec<u8> {
    let mut payload = vec![FORWARD_REQUEST, method];
    payload.extend([text("HTTP/1.1"), text(uri), text("192.0.2.7"), vec![0xFF, 0xFF], text("front")].concat());
    payload.extend([0, 80, 0]);
    payload.extend((fields.len() as u16).to_be_bytes());
    for (name, value) in fields {
        payload.extend([name, &text(value)[..]].concat());
    }
    payload.extend_from_slice(attributes);
    payload
}

fn packed(payload: &[u8]) -> Vec<u8> {
    [&[0x12, 0x34], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
}

/// The pairs of this request.
fn pairs(payload: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let mut bytes = packed(payload);
    let len = bytes.len();
    let forward = Forward::read(&bytes, 0..len, LIMITS.fields)?;
    forward.put(&mut bytes);
    assert!(bytes.len() - len <= forward.most());
    let place = len..bytes.len();
    let latin = |text: &[u8]| text.iter().map(|byte| char::from(*byte)).collect::<String>();
    let pairs = Packing::Short.pairs(&bytes, place);
    Ok(pairs
        .map(|pair| pair.expect("it is whole"))
        .map(|pair| (latin(pair.name.of(&bytes)), latin(pair.value.of(&bytes))))
        .collect())
}

fn value_of(pairs: &[(String, String)], name: &str) -> Option<String> {
    let mut found = pairs.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone());
    let value = found.next();
    assert_eq!(found.next(), None, "{name} comes once");
    value
}

#[test]
fn methods_and_fields_have_their_numbers() {
    for (number, method) in (1..).zip(METHODS) {
        assert_eq!(value_of(&pairs(&forward(number, "/", &[], b"\xFF")).unwrap(), "REQUEST_METHOD").as_deref(), Some(method));
    }
    assert_eq!((METHODS[1], METHODS[16], METHODS[26]), ("GET", "VERSION-CONTROL", "MKACTIVITY"));
    for number in [0, 28, 0xFE] {
        assert!(pairs(&forward(number, "/", &[], b"\xFF")).is_err(), "{number}");
    }
    let stored = [&[13][..], &text("PATCH"), b"\xFF"].concat();
    assert_eq!(value_of(&pairs(&forward(0xFF, "/", &[], &stored)).unwrap(), "REQUEST_METHOD").as_deref(), Some("PATCH"));
    assert_eq!(pairs(&forward(0xFF, "/", &[], b"\xFF")), Err(Error::Malformed("its method is missing")));
    for (number, name) in (1..).zip(FIELDS) {
        let found = pairs(&forward(2, "/", &[(&[0xA0, number], "7")], b"\xFF")).unwrap();
        assert_eq!(value_of(&found, name).as_deref(), Some("7"), "{found:?}");
    }
    assert_eq!((FIELDS[6], FIELDS[7], FIELDS[13]), ("CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_USER_AGENT"));
    for number in [0, 15, 0xFF] {
        assert!(pairs(&forward(2, "/", &[(&[0xA0, number], "7")], b"\xFF")).is_err());
    }
}

#[test]
fn a_request_is_what_the_front_says() {
    let attributes = [
        &[3][..],
        &text("ann"),
        &[4],
        &text("Basic"),
        &[5],
        &text("a=%2F"),
        &[6],
        &text("route"),
        &[7],
        &text("-----BEGIN\n"),
        &[8],
        &text("AES"),
        &[9],
        &text("ab"),
        &[11, 1, 0],
        &[12],
        &text("secret"),
        &[10],
        &text("AJP_REMOTE_PORT"),
        &text("4711"),
        &[10],
        &text("AJP_LOCAL_ADDR"),
        &text("10.0.0.1"),
        &[10],
        &text("AJP_SSL_PROTOCOL"),
        &text("TLSv1.3"),
        &[10],
        &text("MY_NAME2"),
        &text("x"),
        &[1],
        &text("context"),
        &[2, 0xFF, 0xFF],
        b"\xFF",
    ]
    .concat();
    let x = text("x-a-B");
    let found = pairs(&forward(2, "/caf%C3%A9/%2541", &[(&x, "1"), (&[0xA0, 11], "h")], &attributes)).unwrap();
    for (name, value) in [
        ("REQUEST_URI", "/caf%C3%A9/%2541?a=%2F"),
        ("PATH_INFO", "/caf\u{c3}\u{a9}/%41"),
        ("QUERY_STRING", "a=%2F"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "4711"),
        ("SERVER_NAME", "front"),
        ("SERVER_PORT", "80"),
        ("SERVER_ADDR", "10.0.0.1"),
        ("REMOTE_USER", "ann"),
        ("AUTH_TYPE", "Basic"),
        ("SSL_CLIENT_CERT", "-----BEGIN\n"),
        ("SSL_CIPHER", "AES"),
        ("SSL_SESSION_ID", "ab"),
        ("SSL_CIPHER_USEKEYSIZE", "256"),
        ("SSL_PROTOCOL", "TLSv1.3"),
        ("HTTP_X_A_B", "1"),
        ("HTTP_HOST", "h"),
        ("MY_NAME2", "x"),
    ] {
        assert_eq!(value_of(&found, name).as_deref(), Some(value), "{name}: {found:?}");
    }
    assert_eq!(found.len(), 20, "and the method: {found:?}");
    let bytes = packed(&forward(2, "/", &[], &attributes));
    assert_eq!(Forward::read(&bytes, 0..bytes.len(), 20).unwrap().secret(&bytes), Some(&b"secret"[..]));
}

#[test]
fn a_key_size_may_be_a_text() {
    for (size, expected) in
        [(&b"\x00\x80"[..], "128"), (b"\x00\x03128\0", "128"), (b"\x00\x00", "0"), (b"\x00\x00\0", ""), (b"\x00\x05", "5")]
    {
        let found = pairs(&forward(2, "/", &[], &[&[11], size, b"\xFF"].concat())).unwrap();
        assert_eq!(value_of(&found, "SSL_CIPHER_USEKEYSIZE").as_deref(), Some(expected), "{size:?}");
    }
}

#[test]
fn an_attribute_cannot_say_what_the_request_is() {
    for name in [
        "REMOTE_ADDR",
        "REMOTE_USER",
        "AUTH_TYPE",
        "HTTP_COOKIE",
        "HTTPS",
        "CONTENT_LENGTH",
        "PATH_INFO",
        "SCRIPT_NAME",
        "SERVER_NAME",
        "REQUEST_METHOD",
        "wsgi.input",
        "WSGI_X",
        "UWSGI_FILE",
        "javax.servlet.include.request_uri",
        "lower",
        "1A",
        "",
        "A-B",
    ] {
        let found = pairs(&forward(2, "/", &[], &[&[10][..], &text(name), &text("evil"), b"\xFF"].concat())).unwrap();
        assert!(found.iter().all(|(_, value)| value != "evil"), "{name}: {found:?}");
    }
}

#[test]
fn uris_are_decoded_once_and_only_paths() {
    let path = |uri: &str| {
        pairs(&forward(2, uri, &[], b"\xFF")).map(|found| (value_of(&found, "PATH_INFO"), value_of(&found, "REQUEST_URI")))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(path("/a%2Fb"), Ok((some("/a/b"), some("/a%2Fb"))));
    // What lighttpd has decoded.
    assert_eq!(path("/a b"), Ok((some("/a b"), None)));
    assert_eq!(path("/a?b"), Ok((some("/a?b"), None)));
    assert_eq!(path("/caf\u{e9}"), Ok((some("/caf\u{c3}\u{a9}"), None)));
    assert_eq!(path("*"), Ok((None, some("*"))));
    for uri in ["", "a", "http://x/", "/%", "/%4", "/%zz", "/a%+1"] {
        assert!(path(uri).is_err(), "{uri}");
    }
}

/// The verdict on a whole request.
fn verdict(payload: &[u8]) -> Result<Length, Error> {
    let mut bytes = packed(payload);
    let len = bytes.len();
    let forward = Forward::read(&bytes, 0..len, LIMITS.fields)?;
    forward.put(&mut bytes);
    let place = len..bytes.len();
    let framing = variables::read(&mut Head::default(), &mut bytes, (Packing::Short, place), &LIMITS)?;
    Ok(if forward.is_chunked { Length::Chunked } else { framing.length })
}

#[test]
fn what_leaves_the_length_of_a_body_open_is_refused() {
    let (length, other, coding) = (text("Content-Length"), text("content-length"), text("Transfer-Encoding"));
    let with = |fields: &[(&[u8], &str)]| verdict(&forward(4, "/", fields, b"\xFF"));
    assert_eq!(with(&[]), Ok(Length::None));
    assert_eq!(with(&[(&[0xA0, 8], "5")]), Ok(Length::Known(5)));
    assert_eq!(with(&[(&length, "0")]), Ok(Length::Known(0)));
    assert_eq!(with(&[(&coding, "Chunked")]), Ok(Length::Chunked));
    for fields in [
        &[(&[0xA0, 8][..], "")][..],
        &[(&[0xA0, 8], "+5")],
        &[(&[0xA0, 8], "5, 5")],
        &[(&[0xA0, 8], "99999999999999999999")],
        &[(&[0xA0, 8], "5"), (&length, "5")],
        &[(&length, "5"), (&other, "6")],
        &[(&coding, "gzip")],
        &[(&coding, "gzip, chunked")],
        &[(&coding, "chunked"), (&coding, "chunked")],
        &[(&coding, "chunked"), (&length, "5")],
    ] {
        assert!(with(fields).is_err(), "{fields:?}");
    }
}

#[test]
fn what_is_malformed_or_too_large_is_refused() {
    let good = forward(2, "/", &[(&text("x-a"), "1")], b"\xFF");
    assert_eq!(verdict(&good), Ok(Length::None));
    for len in 1..good.len() {
        assert!(verdict(&good[..len]).is_err(), "cut at {len}");
    }
    assert_eq!(verdict(&[&good[..], b"\xFF"].concat()), Err(Error::Malformed("bytes follow the end of its packet")));
    let bad = |fields: &[(&[u8], &str)], attributes: &[u8]| assert!(verdict(&forward(2, "/", fields, attributes)).is_err());
    bad(&[(&text("x a"), "1")], b"\xFF");
    bad(&[(&text(""), "1")], b"\xFF");
    bad(&[(b"\xFF\xFF", "1")], b"\xFF");
    bad(&[(&text("x"), "a\r\nb")], b"\xFF");
    bad(&[(&text("x"), "a\0b")], b"\xFF");
    bad(&[], &[&[5][..], &text("a\nb"), b"\xFF"].concat());
    bad(&[], &[&[5][..], &text("a"), &[5], &text("b"), b"\xFF"].concat());
    bad(&[], &[&[12][..], &text("a"), &[12], &text("b"), b"\xFF"].concat());
    for number in [0, 14, 0xFE] {
        bad(&[], &[&[number][..], &text("a"), b"\xFF"].concat());
    }
    assert!(verdict(&forward(2, "/%00", &[], b"\xFF")).is_err());
    let mut tls = good.clone();
    tls[2 + 11 + 4 + 12 + 2 + 8 + 2] = 2;
    assert_eq!(verdict(&tls), Err(Error::Malformed("it says neither yes nor no to TLS")));
    let (x, many) = (text("x"), LIMITS.fields + 1);
    assert_eq!(verdict(&forward(2, "/", &vec![(&x[..], "1"); many], b"\xFF")), Err(Error::TooManyFields(LIMITS.fields)));
    // Another field's name could be meant with a hyphen.
    assert_eq!(pairs(&forward(2, "/", &[(&text("x_a"), "1")], b"\xFF")).unwrap().len(), 7);
}

#[test]
fn packets_between_requests_are_known_by_their_first_bytes() {
    let request = packed(&forward(2, "/", &[], b"\xFF"));
    assert_eq!(packet(&[&request[..], b"\x12"].concat(), 1000), Ok(FrontPacket::Request(request.len())));
    for len in 0..request.len() {
        let Ok(FrontPacket::Cut { missing, is_request }) = packet(&request[..len], 1000) else { panic!("cut at {len}") };
        assert!(missing > 0 && len + missing <= request.len() && is_request == (len > 4), "cut at {len}");
    }
    assert_eq!(packet(&request, request.len() - 1), Err(Error::HeadTooLong(request.len() - 1)));
    assert_eq!(packet(b"\x12\x34\x00\x01\x0a", 1000), Ok(FrontPacket::Ping(5)));
    assert_eq!(packet(b"\x12\x34\x00\x00\x12\x34", 1000), Ok(FrontPacket::Ignored(4)));
    assert_eq!(packet(b"\x12\x34\x00\x01\x07", 1000), Ok(FrontPacket::Ignored(5)));
    for bytes in [
        &b"GET"[..],
        b"\x12\x35",
        b"AB\x00\x01\x09",
        b"\x12\x34\x00\x01\x08",
        b"\x12\x34\x00\x07\x00\x05hello",
        b"\x12\x34\x00\x02\x0a\x0a",
    ] {
        assert!(packet(bytes, 1000).is_err(), "{bytes:?}");
    }
}

/// A body, what was sent for it, how many bytes it took when it was complete.
type Decoding = (Vec<u8>, Vec<u8>, Option<usize>);

/// What a decoder makes of these bytes, in pieces of this size.
fn decode(length: Length, bytes: &[u8], piece: usize) -> Result<Decoding, Error> {
    let (mut decoder, mut body, mut sent, mut used) = (body::PacketDecoder::new(length), Vec::new(), Vec::new(), 0);
    for end in (0..bytes.len()).step_by(piece).skip(1).chain([bytes.len()]) {
        loop {
            let step = decoder.decode(&bytes[used..end])?;
            body.extend_from_slice(&bytes[used..end][step.data]);
            used += step.consumed;
            if step.done {
                sent.extend(decoder.finish().1);
                return Ok((body, sent, Some(used)));
            }
            if step.consumed == 0 {
                break;
            }
        }
        sent.extend(decoder.take_replies());
    }
    Ok((body, sent, None))
}

#[test]
fn a_body_is_asked_for_piece_by_piece() {
    let two = b"\x12\x34\x00\x05\x00\x03hel\x12\x34\x00\x04\x00\x02lo";
    for piece in [1, 9, two.len()] {
        // Between the two it is asked for, unless the second is there.
        let sent = if piece == two.len() { &b""[..] } else { b"AB\x00\x03\x06\x00\x02" };
        assert_eq!(decode(Length::Known(5), two, piece), Ok((b"hello".to_vec(), sent.to_vec(), Some(two.len()))), "{piece}");
    }
    let (wish, pong) = (b"AB\x00\x03\x06\x1f\xfa", b"AB\x00\x01\x09");
    assert_eq!(decode(Length::Chunked, b"", 1), Ok((Vec::new(), wish.to_vec(), None)), "nothing comes without being asked for");
    assert_eq!(decode(Length::Chunked, b"\x12\x34\x00\x00", 4), Ok((Vec::new(), Vec::new(), Some(4))));
    assert_eq!(
        decode(Length::Chunked, b"\x12\x34\x00\x03\x00\x01x\x12\x34\x00\x02\x00\x00", 7),
        Ok((b"x".to_vec(), wish.to_vec(), Some(13)))
    );
    assert_eq!(decode(Length::Known(9), b"", 1), Ok((Vec::new(), Vec::new(), None)), "the first packet comes by itself");
    let pinged = b"\x12\x34\x00\x01\x0a\x12\x34\x00\x03\x00\x01x";
    assert_eq!(decode(Length::Known(1), pinged, 5), Ok((b"x".to_vec(), pong.to_vec(), Some(pinged.len()))));
    assert_eq!(decode(Length::Known(5), b"\x12\x34\x00\x05\x00\x03hel\x12\x34\x00\x00", 99), Err(Error::BodyShort));
    for bad in [
        &b"\x12\x34\x00\x08\x00\x06hello!"[..],
        b"\x12\x34\x00\x05hello",
        b"\x12\x34\x00\x01x",
        b"\x12\x34\x00\x08\x00\x05hello",
        b"AB",
        b"\x12\x34\x00\x05\x00\x03hel\x12\x35",
    ] {
        for piece in [1, 99] {
            assert!(matches!(decode(Length::Known(5), bad, piece), Err(Error::Malformed(_))), "{bad:?}");
        }
    }
}

#[test]
fn a_body_can_be_sent_on() {
    for (len, is_chunked) in [(0, true), (5, false), (8186, true), (20_000, false), (20_000, true)] {
        let body = vec![b'x'; len];
        let mut bytes = Vec::new();
        body::put(&mut bytes, &body, is_chunked);
        assert!(bytes.len() <= len + body::around(len));
        let length = if is_chunked { Length::Chunked } else { Length::Known(len as u64) };
        assert_eq!(decode(length, &bytes, bytes.len()), Ok((body, Vec::new(), Some(bytes.len()))), "{len}");
    }
}
