//! Properties of the HTTP module: cuts do not matter, encoding and decoding are inverse, a rendered head reads as it was meant.

#[path = "fuzz/exchange.rs"]
mod exchange;

use exchange::{End, LIMITS, MAX_TRAILER, read};
use proptest::collection::vec;
use proptest::prelude::*;
use tapster::http::body::Decoder;
use tapster::http::framing::{self, Length};
use tapster::http::head::{Head, Limits, Parsed, Progress, Version};
use tapster::http::header_cache::HeaderCache;
use tapster::http::response::{Context, Encoder, End as BodyEnd, Fit, Piece};
use tapster::http::target::percent_decode;
use tapster::http::terms::Terms;

const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// Bytes that requests are made of, and some that they are not; mostly well-formed pieces so that parsing gets far.
fn request_bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        8 => Just(b"GET / HTTP/1.1\r\n".to_vec()),
        4 => Just(b"POST /a?b HTTP/1.1\r\n".to_vec()),
        2 => Just(b"PUT /c HTTP/1.0\r\n".to_vec()),
        8 => Just(b"Host: a\r\n".to_vec()),
        4 => Just(b"Content-Length: 3\r\n".to_vec()),
        4 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        2 => Just(b"Connection: close, x\r\n".to_vec()),
        2 => Just(b"Expect: 100-continue\r\n".to_vec()),
        8 => Just(b"\r\n".to_vec()),
        3 => Just(b"3\r\nabc\r\n".to_vec()),
        3 => Just(b"0\r\n\r\n".to_vec()),
        2 => Just(b"abc".to_vec()),
        1 => Just(b"\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b" ".to_vec()),
        1 => Just(b"0\r\n".to_vec()),
        2 => "[A-Za-z-]{1,12}: [ -~]{0,40}\r\n".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(pieces, 0..16).prop_map(|pieces| pieces.concat())
}

/// Chunk extensions by the grammar of RFC 9112 section 7.1.1, maybe none.
fn extensions() -> impl Strategy<Value = String> {
    let quoted =
        vec(prop_oneof![4 => "[\t !#-\\[\\]-~]", 1 => "\\\\[\t -~]"], 0..6).prop_map(|parts| format!("\"{}\"", parts.concat()));
    let value = prop_oneof![token().boxed(), quoted.boxed()];
    let value = ("[ \t]{0,2}", "[ \t]{0,2}", value).prop_map(|(before, behind, value)| format!("{before}={behind}{value}"));
    let extension = ("[ \t]{0,2}", "[ \t]{0,2}", token(), proptest::option::of(value));
    let extension =
        extension.prop_map(|(before, behind, name, value)| format!("{before};{behind}{name}{}", value.unwrap_or_default()));
    vec(extension, 0..3).prop_map(|all| all.concat())
}

/// Parts of a chunk extension, and other text, in any order.
fn extension_bytes() -> impl Strategy<Value = String> {
    vec(prop_oneof![4 => ";", 4 => "[a-z]{1,3}", 2 => "=", 2 => "[ \t]", 2 => "\"", 1 => "\\\\", 1 => "[!-/:-@]"], 0..8)
        .prop_map(|parts| parts.concat())
}

/// The same grammar in another parser: the rest of a line without its extensions; `None` when one is broken.
fn without_extensions(line: &str) -> Option<&str> {
    let trim = |text| str::trim_start_matches(text, [' ', '\t']);
    let token =
        |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))).unwrap_or(text.len());
    let mut rest = line;
    while let Some(behind) = trim(rest).strip_prefix(';') {
        let behind = trim(behind);
        let len = token(behind);
        if len == 0 {
            return None;
        }
        rest = &behind[len..];
        let Some(value) = trim(rest).strip_prefix('=') else { continue };
        let value = trim(value);
        rest = match value.strip_prefix('"') {
            Some(text) => {
                let mut escaped = false;
                let end = text.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })?;
                &text[end + 1..]
            }
            None if token(value) == 0 => return None,
            None => &value[token(value)..],
        };
    }
    Some(rest)
}

/// One or more whole requests with a body, in order.
fn good_requests() -> impl Strategy<Value = Vec<u8>> {
    let fields = vec(("X-[A-Za-z]{1,8}", "[!-~]{0,20}"), 0..40);
    let body = (vec(any::<u8>(), 0..64), any::<bool>(), extensions());
    let request = ("[A-Z]{1,10}", "/[!\"$-~]{0,40}", fields, body);
    let request = request.prop_map(|(method, target, fields, (body, chunked, extension))| {
        let method = if method == "CONNECT" { "GET".into() } else { method };
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for (name, value) in fields {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        if chunked {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in body.chunks(7) {
                bytes.extend(format!("{:X}{extension}\r\n", piece.len()).bytes().chain(piece.iter().copied()).chain(*b"\r\n"));
            }
            bytes.extend(b"0\r\nX-Sum: 1\r\n\r\n");
        } else {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes().chain(body));
        }
        bytes
    });
    vec(request, 1..4).prop_map(|requests| requests.concat())
}

/// Heads without a body, often with the same block.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("GET / HTTP/1.1"),
        Just("GET /long/path?query HTTP/1.1"),
        Just("GET / HTTP/1.0"),
        Just("GET x HTTP/1.1")
    ];
    let fields = prop_oneof![
        Just("Host: example.org\r\n"),
        Just("Accept: */*\r\nHost: example.org\r\n"),
        Just("Accept: */*\r\n"),
        Just("X-Request-ID: 7\r\nHost: example.org\r\nx-request-id: 8\r\n"),
        Just("Authorization: a\r\nHost: example.org\r\n"),
        Just("Authorization: a\r\nHost: example.org\r\nAuthorization: b\r\n"),
        Just("Host: example.org\r\nIf-Modified-Since: a\r\nif-modified-since: a\r\n")
    ];
    (line, fields, "[a-b]{0,1}").prop_map(|(line, fields, value)| format!("{line}\r\nX: {value}\r\n{fields}\r\n").into_bytes())
}

/// Field lines, most of them right, and what follows them.
fn field_lines() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![8 => "[!#-'*+.0-9A-Z^-z|~-]{1,20}", 1 => "[ -~]{0,3}"];
    let odd = prop_oneof![8 => b' '..0x7f, 1 => Just(b'\t'), 1 => Just(0x7f), 1 => any::<u8>()];
    let value = prop_oneof![8 => "[ -~\t]{0,40}".prop_map(String::into_bytes), 1 => vec(odd, 0..20)];
    let end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\r\n"), 1 => Just("\r\n ")];
    let line = (name, prop_oneof![20 => Just(":"), 1 => Just(""), 1 => Just(" :")], value, end)
        .prop_map(|(name, colon, value, end)| [name.as_bytes(), colon.as_bytes(), &value, end.as_bytes()].concat());
    (vec(line, 0..6), prop_oneof![8 => Just("\r\n"), 1 => Just(""), 1 => Just("\n"), 1 => Just("\rx")])
        .prop_map(|(lines, end)| [lines.concat(), end.as_bytes().to_vec()].concat())
}

/// `bytes` cut at these places (taken modulo its length).
fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = places.iter().map(|place| place % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn token() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}"
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'\t'), 0x20..=0x7eu8, 0x80..=0xffu8], 0..60)
}

/// Name and value of each field.
type Fields = Vec<(String, Vec<u8>)>;

/// Status, fields, body and length of an answer, decoded by an independent reader: httparse and the chunk decoder.
fn client(bytes: &[u8], head_only: bool) -> (u16, Fields, Vec<u8>, usize) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let len = response.parse(bytes).expect("a valid head").unwrap();
    let fields: Vec<_> = response.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
    let find = |name: &str| fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| String::from_utf8_lossy(v));
    let status = response.code.unwrap();
    let rest = &bytes[len..];
    let length = match (find("transfer-encoding"), find("content-length")) {
        _ if head_only || matches!(status, 204 | 304) => Length::None,
        (Some(coding), None) => {
            assert_eq!(coding, "chunked");
            Length::Chunked
        }
        (None, Some(length)) => Length::Known(length.parse().unwrap()),
        (None, None) => Length::Known(rest.len() as u64),
        (Some(_), Some(_)) => panic!("two framings"),
    };
    let (mut decoder, mut body, mut at) = (Decoder::new(length, 0), Vec::new(), len);
    loop {
        let decoded = decoder.decode(&bytes[at..]).expect("a valid body");
        body.extend_from_slice(&bytes[at..][decoded.data]);
        at += decoded.consumed;
        if decoded.done || decoded.consumed == 0 {
            return (status, fields, body, at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn where_the_input_is_cut_does_not_matter(bytes in request_bytes(), places in vec(any::<usize>(), 0..8), small in any::<bool>()) {
        let limits = if small { Limits { request_line: 17, fields: 3, field_size: 24 } } else { LIMITS };
        let whole = read([bytes.as_slice()], &limits);
        prop_assert_eq!(read(cut(&bytes, &places), &limits), whole.clone());
        prop_assert_eq!(read(bytes.chunks(1), &limits), whole);
    }

    #[test]
    fn whole_requests_are_read_whole_wherever_they_are_cut(bytes in good_requests(), places in vec(any::<usize>(), 0..8)) {
        let whole = read([bytes.as_slice()], &LIMITS);
        prop_assert_eq!(whole.1, End::Idle);
        prop_assert_eq!(read(cut(&bytes, &places), &LIMITS), whole);
    }

    #[test]
    fn a_head_reads_the_same_whether_its_block_was_seen_before_or_not(
        requests in vec(prop_oneof![request_bytes(), good_requests(), heads()], 1..4),
        order in vec(any::<usize>(), 1..40),
    ) {
        let mut blocks = HeaderCache::new(1);
        for index in order {
            let bytes = &requests[index % requests.len()];
            let (mut plain, mut cached) = (Head::default(), Head::default());
            let wanted = plain.parse(bytes, &LIMITS);
            prop_assert_eq!(blocks.resume(&mut cached, bytes, &LIMITS, &mut Progress::default()), wanted);
            if wanted != Ok(Parsed::Complete) {
                continue;
            }
            prop_assert_eq!((&cached.fields, cached.block, cached.len), (&plain.fields, plain.block, plain.len));
            let id = plain.fields.iter().position(|field| field.name.of(bytes).eq_ignore_ascii_case(b"x-request-id"));
            prop_assert_eq!((cached.request_id, plain.request_id), (id, id));
            prop_assert_eq!((cached.method, cached.target, cached.line, cached.version), (plain.method, plain.target, plain.line, plain.version));
            prop_assert_eq!(blocks.framing(&cached, bytes).map(|(framing, _)| framing), framing::of(&plain, bytes));
        }
    }

    #[test]
    fn field_lines_read_as_an_independent_reader_reads_them(block in field_lines()) {
        const LINE: &[u8] = b"GET / HTTP/1.1\r\n";
        let bytes = [LINE, &block].concat();
        let mut head = Head::default();
        let ours = head.parse(&bytes, &LIMITS);
        let mut room = [httparse::EMPTY_HEADER; 16];
        let theirs = httparse::parse_headers(&block, &mut room);
        // It takes a bare LF for a line end.
        let strict = |len| block[..len].iter().enumerate().all(|(at, byte)| *byte != b'\n' || at > 0 && block[at - 1] == b'\r');
        match (ours, theirs) {
            (Ok(Parsed::Complete), Ok(httparse::Status::Complete((len, fields)))) => {
                prop_assert_eq!(head.len, LINE.len() + len);
                prop_assert!(strict(len));
                let theirs = fields.iter().map(|field| (field.name.as_bytes(), field.value));
                prop_assert!(head.iter(&bytes).eq(theirs), "{:?}", head);
            }
            (Ok(Parsed::Complete), theirs) => prop_assert!(false, "accepted what is {:?} to others", theirs),
            (ours, Ok(httparse::Status::Complete((len, _)))) => prop_assert!(!strict(len), "{:?}", ours),
            (Ok(Parsed::Partial) | Err(_), _) => {}
        }
    }

    #[test]
    fn any_bytes_are_refused_or_awaited_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        read([bytes.as_slice()], &LIMITS);
        let _ = Decoder::new(Length::Chunked, 10).decode(&bytes);
    }

    #[test]
    fn a_rendered_request_head_reads_as_it_was_meant(
        method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}",
        target in vec(prop_oneof![0x21..=0x22u8, 0x24..=0x7eu8, 0x80..=0xffu8], 1..80),
        fields in vec((token(), value()), 0..40),
    ) {
        let mut bytes = [method.as_bytes(), b" ", &target, b" HTTP/1.1\r\n"].concat();
        for (name, value) in &fields {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        let mut head = Head::default();
        prop_assert_eq!(head.parse(&bytes, &LIMITS), Ok(Parsed::Complete));
        prop_assert_eq!(head.method.of(&bytes), method.as_bytes());
        prop_assert_eq!(head.target.of(&bytes), target);
        let blank = |b: &u8| matches!(b, b' ' | b'\t');
        let read: Vec<_> = head.iter(&bytes).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let meant: Vec<_> = fields.into_iter().map(|(name, value)| {
            let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
            let end = value.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
            (name.into_bytes(), value[start..end].to_vec())
        }).collect();
        prop_assert_eq!(read, meant);
    }

    #[test]
    fn what_is_encoded_is_decoded(
        status in 200u16..=599, blocks in vec(vec(any::<u8>(), 0..40), 0..6), old in any::<bool>(), head_only in any::<bool>(),
        persistent in any::<bool>(), known in any::<bool>(), declared in proptest::option::of(0u64..120), copied in any::<bool>(),
        fields in vec((token(), value()), 0..8),
    ) {
        let version = if old { Version::Http10 } else { Version::Http11 };
        let whole = blocks.concat();
        let mut out = Vec::new();
        let context = Context { terms: Terms { version, head_only, persistent, ..Terms::default() }, date: DATE, id: b"" };
        let mut encoder = Encoder::begin(&mut out, &context, format!("{status} Some Thing").as_bytes()).unwrap();
        for (name, value) in &fields {
            encoder.field(format!("X{name}").as_bytes(), value).unwrap();
        }
        if let Some(declared) = declared {
            encoder.field(b"Content-Length", declared.to_string().as_bytes()).unwrap();
        }
        let mut body = encoder.finish(known.then_some(whole.len() as u64));
        let mut cut = 0;
        for block in &blocks {
            if copied {
                if let Fit::Cut(bytes) = body.block(&mut out, block) {
                    cut += bytes;
                }
            } else {
                let Piece { take, after, cut: excess, .. } = body.around(&mut out, block.len() as u64);
                out.extend_from_slice(&block[..take as usize]);
                out.extend_from_slice(after);
                cut += excess;
            }
        }
        let end = body.end(&mut out);
        let (read, sent_fields, data, len) = client(&out, head_only);
        prop_assert_eq!((read, len), (status, out.len()));
        prop_assert_eq!(sent_fields.iter().filter(|(name, _)| name == "Date").count(), 1);
        prop_assert_eq!(sent_fields.len() >= fields.len(), true);
        prop_assert_eq!(body.sent(), data.len() as u64);
        if !body.is_sent() {
            prop_assert!(data.is_empty() && (head_only || matches!(status, 204 | 304)));
        } else {
            let promised = declared.unwrap_or(whole.len() as u64);
            prop_assert_eq!(&data[..], &whole[..whole.len().min(promised as usize)]);
            match promised.saturating_sub(whole.len() as u64) {
                0 => prop_assert_eq!(end, BodyEnd::Complete { persistent: body.persistent() }),
                short => prop_assert_eq!(end, BodyEnd::Short(short)),
            }
            prop_assert_eq!(cut, (whole.len() as u64).saturating_sub(promised));
        }
        let close = sent_fields.iter().any(|(name, value)| name == "Connection" && value == b"close");
        prop_assert_eq!(close, !body.persistent());
    }

    #[test]
    fn chunks_decode_to_what_was_encoded_wherever_they_are_cut(blocks in vec(vec(any::<u8>(), 0..40), 0..6), places in vec(any::<usize>(), 0..8)) {
        let mut out = Vec::new();
        let context = Context { terms: Terms { persistent: true, ..Terms::default() }, date: DATE, id: b"" };
        let mut body = Encoder::begin(&mut out, &context, b"200 OK").unwrap().finish(None);
        out.clear();
        for block in &blocks {
            body.block(&mut out, block);
        }
        body.end(&mut out);
        let (mut decoder, mut data, mut done) = (Decoder::new(Length::Chunked, MAX_TRAILER), Vec::new(), false);
        for mut piece in cut(&out, &places) {
            while !piece.is_empty() {
                let decoded = decoder.decode(piece).unwrap();
                data.extend_from_slice(&piece[decoded.data]);
                piece = &piece[decoded.consumed..];
                done = decoded.done;
            }
        }
        prop_assert!(done);
        prop_assert_eq!(data, blocks.concat());
    }

    #[test]
    fn chunk_extensions_are_taken_as_the_grammar_says(
        good in extensions(), any in prop_oneof![extension_bytes(), extensions()], places in vec(any::<usize>(), 0..8),
    ) {
        // Such a digit would belong to the size.
        prop_assume!(!any.starts_with(|first: char| first.is_ascii_hexdigit()));
        prop_assert_eq!(without_extensions(&good), Some(""));
        let body = format!("3{any}\r\nabc\r\n0{good}\r\n\r\n");
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let (messages, end) = read(cut(request.as_bytes(), &places), &LIMITS);
        if without_extensions(&any) == Some("") {
            prop_assert_eq!((messages.len(), end), (1, End::Idle));
            prop_assert_eq!(&messages[0].body, b"abc");
        } else {
            prop_assert!(matches!(end, End::Refused(_)), "{:?}", end);
        }
    }

    #[test]
    fn percent_encoding_is_undone(bytes in vec(any::<u8>(), 0..40)) {
        let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
        let mut decoded = Vec::new();
        percent_decode(encoded.as_bytes(), &mut decoded);
        prop_assert_eq!(decoded, bytes);
    }
}
