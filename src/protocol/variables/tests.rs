use super::*;
use crate::protocol::pairs::{Envelope, Measure};

const LIMITS: Limits = Limits { request_line: 200, fields: 10, field_size: 100 };

/// A request of these variables, and the bytes that its spans name.
fn read_of(variables: &[(&[u8], &[u8])]) -> Result<(Head, Vec<u8>, Framing), Error> {
    let mut bytes = vec![0; 4];
    for text in variables.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(text);
    }
    let len = (bytes.len() - 4) as u16;
    bytes[1..3].copy_from_slice(&len.to_le_bytes());
    let Ok(Measure::Whole { pairs, .. }) = Envelope::Uwsgi.measure(&bytes, usize::MAX) else { panic!("it is whole") };
    let mut head = Head::default();
    let room = bytes.len() + room(bytes.len());
    let came = bytes.clone();
    let framing = read(&mut head, &mut bytes, (Packing::Short, pairs), &LIMITS)?;
    assert!(bytes.len() <= room, "{} bytes of {room}", bytes.len());
    let mut restored = head.block.of(&bytes).to_vec();
    restore(&head, &mut restored);
    assert_eq!(restored, came, "it can be sent on as it came");
    Ok((head, bytes, framing))
}

/// With a method.
fn get(variables: &[(&str, &str)]) -> Result<(Head, Vec<u8>, Framing), Error> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    read_of(&[&[(&b"REQUEST_METHOD"[..], &b"GET"[..])], &variables[..]].concat())
}

fn text(span: Span, bytes: &[u8]) -> String {
    String::from_utf8(span.of(bytes).to_vec()).expect("the tests are UTF-8")
}

/// SCRIPT_NAME, PATH_INFO, QUERY_STRING and the target.
#[track_caller]
fn parts(variables: &[(&str, &str)]) -> [String; 4] {
    let (head, bytes, _) = get(variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"));
    let GatewayParts { script, path, query, .. } = head.gateway;
    [script, path, query, head.target].map(|span| text(span, &bytes))
}

#[test]
fn the_path_is_found_wherever_a_front_puts_it() {
    let uri = ("REQUEST_URI", "/a%20b/c?x=%2F");
    for (variables, expected) in [
        // nginx with the stock fastcgi_params: all in SCRIPT_NAME.
        (vec![("SCRIPT_NAME", "/a b/c"), ("QUERY_STRING", "x=%2F"), uri], ["", "/a b/c", "x=%2F", uri.1]),
        // nginx with the stock scgi_params: neither, but DOCUMENT_URI.
        (vec![("DOCUMENT_URI", "/a b/c"), ("QUERY_STRING", "x=%2F"), uri], ["", "/a b/c", "x=%2F", uri.1]),
        // nginx with the stock uwsgi_params.
        (vec![("PATH_INFO", "/a b/c"), ("QUERY_STRING", "x=%2F"), uri], ["", "/a b/c", "x=%2F", uri.1]),
        // Only the target.
        (vec![uri], ["", "/a b/c", "x=%2F", uri.1]),
        (vec![("REQUEST_URI", "http://host:8/a%20b?q")], ["", "/a b", "q", "http://host:8/a%20b?q"]),
        // A mount, as the application's own address and below it.
        (vec![("SCRIPT_NAME", "/mnt"), ("PATH_INFO", ""), uri], ["/mnt", "", "x=%2F", uri.1]),
        (vec![("SCRIPT_NAME", "/mnt"), ("PATH_INFO", "/a b"), uri], ["/mnt", "/a b", "x=%2F", uri.1]),
        // Apache's mod_proxy_uwsgi, lighttpd with a prefix that ends with a slash.
        (vec![("SCRIPT_NAME", "/mnt/"), ("PATH_INFO", "/"), uri], ["/mnt", "/", "x=%2F", uri.1]),
        (vec![("SCRIPT_NAME", "/"), ("PATH_INFO", "env"), uri], ["", "/env", "x=%2F", uri.1]),
        (vec![("SCRIPT_NAME", "/"), ("PATH_INFO", "/env"), uri], ["", "/env", "x=%2F", uri.1]),
        (vec![("SCRIPT_NAME", "/"), uri], ["", "/", "x=%2F", uri.1]),
        (vec![("SCRIPT_NAME", "/"), ("PATH_INFO", ""), uri], ["", "/", "x=%2F", uri.1]),
        // However many slashes it ends with.
        (vec![("SCRIPT_NAME", "///"), ("PATH_INFO", ""), uri], ["", "///", "x=%2F", uri.1]),
        (vec![("SCRIPT_NAME", "/mnt//"), ("PATH_INFO", "/a"), uri], ["/mnt", "/a", "x=%2F", uri.1]),
        (vec![("SCRIPT_NAME", "//"), ("PATH_INFO", "/a"), uri], ["", "/a", "x=%2F", uri.1]),
        // Without a target one is made.
        (vec![("PATH_INFO", "/ä b/%2F?#"), ("QUERY_STRING", "q w")], ["", "/ä b/%2F?#", "q w", "/%C3%A4%20b/%252F%3F%23?q+w"]),
        (vec![("SCRIPT_NAME", "/m"), ("PATH_INFO", "/x")], ["/m", "/x", "", "/m/x"]),
    ] {
        assert_eq!(parts(&variables), expected.map(str::to_owned), "{variables:?}");
    }
    let options = [("REQUEST_METHOD", "OPTIONS"), ("REQUEST_URI", "*")].map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let (head, bytes, _) = read_of(&options).unwrap();
    assert_eq!((head.gateway.path.len(), head.line.of(&bytes)), (0, &b"OPTIONS * HTTP/1.1"[..]));
}

#[test]
fn a_decoded_path_is_not_decoded_again_and_a_raw_byte_stays() {
    assert_eq!(parts(&[("PATH_INFO", "/a%2541")])[1], "/a%2541");
    assert_eq!(parts(&[("REQUEST_URI", "/a%2541")])[1], "/a%41");
    let (head, bytes, _) =
        read_of(&[(b"REQUEST_METHOD", b"GET"), (b"REQUEST_URI", b"/caf\xe9/%C3%A9")]).expect("bytes are bytes");
    assert_eq!(head.gateway.path.of(&bytes), b"/caf\xe9/\xc3\xa9");
    assert_eq!(head.line.of(&bytes), b"GET /caf\xe9/%C3%A9 HTTP/1.1");
}

#[test]
fn fields_have_their_names_and_what_is_dangerous_is_dropped() {
    let (head, bytes, framing) = get(&[
        ("PATH_INFO", "/"),
        ("HTTP_X_REQUEST_ID", "id-1"),
        ("HTTP_COOKIE", "a=1"),
        ("HTTP_COOKIE", "b=2"),
        ("HTTP_CONTENT_LENGTH", "99"),
        ("HTTP_CONTENT_TYPE", "text/evil"),
        ("HTTP_PROXY", "http://evil"),
        ("CONTENT_TYPE", "text/plain"),
        ("CONTENT_LENGTH", "7"),
        ("wsgi.url_scheme", "https"),
        ("wsgi.input", "x"),
        ("UWSGI_FILE", "exec://x"),
        ("HTTP_", "odd"),
        ("HTTP_a-b", "odd"),
        ("REMOTE_USER", "ann"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "4711"),
        ("SERVER_NAME", "front.example:8080"),
        ("SERVER_PROTOCOL", "HTTP/1.0"),
    ])
    .unwrap();
    let fields: Vec<_> =
        head.iter(&bytes).map(|(name, value)| [name, value].map(|b| String::from_utf8_lossy(b).into_owned())).collect();
    let expected = [["X-REQUEST-ID", "id-1"], ["COOKIE", "a=1"], ["COOKIE", "b=2"], ["CONTENT-TYPE", "text/plain"]];
    assert_eq!(fields, expected.map(|pair| pair.map(str::to_owned)));
    let variables: Vec<_> = head.variables.iter().map(|v| (text(v.name, &bytes), text(v.value, &bytes))).collect();
    let expected = [
        ("HTTP_", "odd"),
        ("HTTP_a-b", "odd"),
        ("REMOTE_USER", "ann"),
        ("SERVER_NAME", "front.example"),
        ("SERVER_PROTOCOL", "HTTP/1.0"),
    ];
    assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(framing.length, Length::Known(7));
    assert_eq!((head.version, head.request_id), (Version::Http10, Some(0)));
    let view = crate::http::head::HeadView { head: &head, bytes: &bytes };
    assert_eq!((view.client(), view.request_id()), (Some(&b"192.0.2.7"[..]), &b"id-1"[..]));
    assert_eq!(text(head.client.expect("a gateway names one").port, &bytes), "4711");
}

#[test]
fn https_is_told_by_either_variable() {
    for (variables, https) in [
        (vec![("HTTPS", "on")], true),
        (vec![("HTTPS", "1")], true),
        (vec![("HTTPS", "off"), ("REQUEST_SCHEME", "https")], false),
        (vec![("HTTPS", "")], false),
        (vec![("REQUEST_SCHEME", "https")], true),
        (vec![("REQUEST_SCHEME", "http")], false),
        (vec![("HTTP_X_FORWARDED_PROTO", "https")], false),
        (vec![], false),
    ] {
        let (head, ..) = get(&[&[("PATH_INFO", "/")], &variables[..]].concat()).unwrap();
        assert_eq!(head.gateway.https, https, "{variables:?}");
    }
}

#[test]
fn a_length_is_a_number_or_none() {
    let length =
        |variables: &[(&str, &str)]| get(&[&[("PATH_INFO", "/")], variables].concat()).map(|(.., framing)| framing.length);
    let of = |text| length(&[("CONTENT_LENGTH", text)]);
    assert_eq!(
        (of(""), of("0"), of("18"), length(&[])),
        (Ok(Length::None), Ok(Length::Known(0)), Ok(Length::Known(18)), Ok(Length::None))
    );
    assert_eq!(of("9223372036854775807"), Ok(Length::Known(i64::MAX as u64)));
    for text in ["9223372036854775808", "+1", "1 ", " 1", "0x1", "1,1", "١"] {
        assert_eq!(of(text), Err(Error::Length), "{text}");
    }
    assert_eq!(of("-1"), Err(Error::LengthMissing));
    assert_eq!(length(&[("HTTP_TRANSFER_ENCODING", "chunked")]), Err(Error::LengthMissing));
    assert_eq!(length(&[("HTTP_TRANSFER_ENCODING", "chunked"), ("CONTENT_LENGTH", "3")]), Ok(Length::Known(3)));
    assert_eq!(length(&[("HTTP_TRANSFER_ENCODING", "Chunked "), ("CONTENT_LENGTH", "3")]), Ok(Length::Known(3)));
    assert_eq!(length(&[("HTTP_TRANSFER_ENCODING", "")]), Ok(Length::None));
    for coding in ["gzip, chunked", "gzip", "identity", "chunked, chunked"] {
        assert_eq!(length(&[("HTTP_TRANSFER_ENCODING", coding)]), Err(Error::CodingUnknown), "{coding}");
        assert_eq!(length(&[("HTTP_TRANSFER_ENCODING", coding), ("CONTENT_LENGTH", "3")]), Err(Error::CodingUnknown), "{coding}");
    }
    assert_eq!(length(&[("CONTENT_LENGTH", "3"), ("CONTENT_LENGTH", "3")]), Ok(Length::Known(3)));
    assert_eq!(length(&[("CONTENT_LENGTH", "3"), ("CONTENT_LENGTH", "4")]), Err(Error::Twice("CONTENT_LENGTH")));
}

#[test]
fn what_is_no_request_is_refused() {
    let malformed = |variables: &[(&[u8], &[u8])]| matches!(read_of(variables), Err(Error::Malformed(_)));
    let (method, path): (_, (&[u8], &[u8])) = ((&b"REQUEST_METHOD"[..], &b"GET"[..]), (b"PATH_INFO", b"/"));
    assert!(malformed(&[]));
    assert!(malformed(&[path]));
    assert!(malformed(&[method]), "no path anywhere");
    assert!(malformed(&[(method.0, b"G T"), path]));
    assert!(malformed(&[method, path, (b"", b"x")]));
    assert!(malformed(&[method, path, (b"A\0B", b"x")]));
    assert!(malformed(&[method, path, (b"A=B", b"x")]));
    assert!(malformed(&[method, path, (b"A", b"x\0")]));
    assert!(malformed(&[method, (b"PATH_INFO", b"x")]));
    assert!(malformed(&[method, (b"SCRIPT_NAME", b"x"), path]));
    assert!(malformed(&[method, (b"REQUEST_URI", b"/a%00")]));
    assert_eq!(read_of(&[(method.0, b"CONNECT"), path]).err(), Some(Error::Connect));
    assert_eq!(read_of(&[method, path, (b"PATH_INFO", b"/x")]).err(), Some(Error::Twice("PATH_INFO")));
    let long = [b'x'; 300];
    assert_eq!(read_of(&[method, path, (b"HTTP_A", &long)]).err(), Some(Error::FieldTooLong(100)));
    assert_eq!(read_of(&[method, path, (b"REQUEST_URI", &long)]).err(), Some(Error::LineTooLong(200)));
    let many = [&[method, path][..], &[(&b"HTTP_A"[..], &b""[..]); 11]].concat();
    assert_eq!(read_of(&many).err(), Some(Error::TooManyFields(10)));
    let plain = [&[method, path][..], &[(&b"A"[..], &b""[..]); 100]].concat();
    assert!(read_of(&plain).is_ok(), "other variables are bounded by the head's bytes");
}

#[test]
fn what_an_application_takes_for_one_line_has_no_line_end() {
    let base: [(&[u8], &[u8]); 2] = [(b"REQUEST_METHOD", b"GET"), (b"PATH_INFO", b"/")];
    let read = |name: &[u8], value: &[u8]| read_of(&[&base[..], &[(name, value)]].concat()).map(|_| ());
    for byte in (0..0x20).chain([0x7F]).filter(|byte| *byte != b'\t') {
        let value = [b"a", &[byte][..], b"b"].concat();
        for name in [&b"HTTP_X"[..], b"HTTP_COOKIE", b"HTTP_X_REQUEST_ID", b"CONTENT_TYPE"] {
            let expected =
                if byte == 0 { Error::Malformed("the value of a variable has a NUL") } else { Error::FieldValue(byte) };
            assert_eq!(read(name, &value), Err(expected), "{name:?} {byte}");
        }
    }
    assert_eq!(read(b"HTTP_X", b"a\tb \xe4"), Ok(()), "as in HTTP");
    for name in [
        "QUERY_STRING",
        "REQUEST_URI",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "REMOTE_HOST",
        "REMOTE_IDENT",
        "REMOTE_USER",
        "AUTH_TYPE",
        "SERVER_PROTOCOL",
        "SERVER_NAME",
        "SERVER_PORT",
        "HTTPS",
        "REQUEST_SCHEME",
        "HTTP_",
        "HTTP_a-b",
    ] {
        for value in ["/a\nb", "/a\rb", "/a\r\nX: b"] {
            let expected = Error::Malformed("the value of a variable that is one line has a line end");
            assert_eq!(read(name.as_bytes(), value.as_bytes()), Err(expected), "{name}");
        }
    }
    // A path is decoded, and a certificate has lines.
    for (name, value) in [
        ("SCRIPT_NAME", "/a\r\nb"),
        ("DOCUMENT_URI", "/a\nb"),
        ("PATH_TRANSLATED", "/srv/a\nb"),
        ("SCRIPT_FILENAME", "/srv/a\nb"),
        ("SSL_CLIENT_CERT", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"),
    ] {
        assert_eq!(read(name.as_bytes(), value.as_bytes()), Ok(()), "{name}");
    }
    let (head, bytes, _) = get(&[("PATH_INFO", "/a\r\nb")]).expect("as /a%0D%0Ab in HTTP");
    assert_eq!((text(head.gateway.path, &bytes), text(head.target, &bytes)), ("/a\r\nb".into(), "/a%0D%0Ab".into()));
}

#[test]
fn a_field_that_is_no_list_comes_once_or_with_the_same_text() {
    let values = |variables: &[(&str, &str)]| {
        get(&[&[("PATH_INFO", "/")], variables].concat())
            .map(|(head, bytes, _)| head.fields.iter().map(|field| text(field.value, &bytes)).collect::<Vec<_>>())
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(values(&[("CONTENT_TYPE", form), ("HTTP_HOST", "a"), ("CONTENT_TYPE", form)]), Ok(vec![form.into(), "a".into()]));
    assert_eq!(values(&[("HTTP_HOST", "a"), ("HTTP_HOST", "b")]), Err(Error::Twice("Host")));
    assert_eq!(values(&[("HTTP_IF_RANGE", "a"), ("HTTP_IF_RANGE", "b")]), Err(Error::Twice("If-Range")));
    assert_eq!(values(&[("HTTP_X_A", "1"), ("HTTP_X_A", "1")]), Ok(vec!["1".into(), "1".into()]), "a list is joined");
}
