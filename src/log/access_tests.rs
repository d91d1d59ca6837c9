//! Each atom, the JSON form, and what a hostile client can make of a line: nothing.

use proptest::prelude::*;

use super::*;
use crate::config::options;
use crate::http::head::{Field, Head, NamedClient, Span};

/// A parsed head and its bytes, put together without the parser: logs must be safe whatever a head holds.
fn head(method: &[u8], target: &[u8], fields: &[(&[u8], &[u8])]) -> (Head, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut push = |text: &[u8], end: &[u8]| {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(text);
        let span = Span { start, end: bytes.len() as u32 };
        bytes.extend_from_slice(end);
        span
    };
    let method = push(method, b" ");
    let target = push(target, b" ");
    let version = push(b"HTTP/1.1", b"\r\n");
    let fields = fields.iter().map(|(n, v)| Field { name: push(n, b": "), value: push(v, b"\r\n") }).collect();
    let line = Span { start: method.start, end: version.end };
    (Head { method, target, line, fields, version: Version::Http11, len: bytes.len(), ..Head::default() }, bytes)
}

fn record<'a>(head: &'a (Head, Vec<u8>)) -> Record<'a> {
    Record {
        peer: b"192.0.2.7",
        socket: b"10.0.0.1",
        id: b"",
        head: Some(HeadView { head: &head.0, bytes: &head.1 }),
        status: 200,
        sent: 1234,
        response_head: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-A: 1\r\nx-a:  2 \r\n\r\n",
        timing: Timing { arrived: 1_795_255_200, lasted: 2_345_678_999, queued: 1_234_999 },
        environ: &[],
    }
}

fn line(format: &str, record: &Record<'_>) -> String {
    let format = Format::compile(&AccessFormat::Atoms(format.into())).expect("the format is right");
    let mut out = Vec::new();
    format.render(record, &mut Time::of(42), &mut out);
    let text = String::from_utf8(out).expect("lines are ASCII");
    text.strip_suffix('\n').expect("a line has an end").to_owned()
}

fn json(record: &Record<'_>) -> (String, serde_json::Value) {
    let format = Format::compile(&AccessFormat::Json).expect("JSON needs no compiling");
    let mut out = Vec::new();
    format.render(record, &mut Time::of(42), &mut out);
    let text = String::from_utf8(out).expect("lines are ASCII");
    let value = serde_json::from_str(&text).expect("it is JSON");
    (text, value)
}

#[test]
fn each_atom_has_gunicorns_meaning() {
    let head = head(
        b"POST",
        b"/caf%C3%A9/a%20b?x=%20&y",
        &[
            (b"Host", b"example.org"),
            (b"Referer", b"http://r/"),
            (b"User-Agent", b"curl/8"),
            (b"X-Twice", b"1"),
            (b"x-twice", b"2"),
            (b"Authorization", b"Basic YWxpY2U6c2VjcmV0"),
        ],
    );
    let record = record(&head);
    for (atom, expected) in [
        ("h", "192.0.2.7"),
        ("l", "-"),
        ("u", "alice"),
        ("r", "POST /caf%C3%A9/a%20b?x=%20&y HTTP/1.1"),
        ("m", "POST"),
        ("U", "/caf\\xC3\\xA9/a b"),
        ("q", "x=%20&y"),
        ("H", "HTTP/1.1"),
        ("s", "200"),
        ("B", "1234"),
        ("b", "1234"),
        ("f", "http://r/"),
        ("a", "curl/8"),
        ("T", "2"),
        ("M", "2345"),
        ("D", "2345678"),
        ("L", "2.345678"),
        ("p", "<42>"),
        ("{host}i", "example.org"),
        ("{X-TWICE}i", "2"),
        ("{x-none}i", "-"),
        ("{content-type}o", "text/html"),
        ("{X-A}o", "2"),
        ("{http/1.1 200 ok}o", "-"),
    ] {
        assert_eq!(line(&format!("%({atom})s"), &record), expected, "{atom}");
    }
    let mut time = Vec::new();
    stamp::common(&mut time, record.timing.arrived);
    assert_eq!(line("%(t)s", &record).as_bytes(), time);
}

#[test]
fn an_empty_answer_is_zero_bytes_or_a_dash() {
    let head = head(b"GET", b"/", &[]);
    let record = Record { sent: 0, ..record(&head) };
    assert_eq!(line("%(B)s %(b)s", &record), "0 -");
}

#[test]
fn what_is_missing_is_a_dash() {
    let nothing = (Head::default(), Vec::new());
    let record = Record { peer: b"", head: None, status: 400, ..record(&nothing) };
    assert_eq!(
        line("%(h)s %(u)s %(r)s %(m)s %(U)s %(q)s %(H)s %(f)s %(a)s %({x}i)s %({y}o)s %({z}e)s %(s)s", &record),
        "- - - - - - - - - - - - 400"
    );
}

#[test]
fn environ_values_come_in_the_order_of_their_names() {
    let head = head(b"GET", b"/", &[]);
    let values = [Some("a\"b".to_owned()), None];
    let record = Record { environ: &values, ..record(&head) };
    assert_eq!(line("%({REMOTE_USER}e)s %({x.y}e)s %({REMOTE_USER}e)s", &record), "a\\x22b - a\\x22b");
}

#[test]
fn only_formats_with_response_fields_ask_for_the_head_of_the_answer() {
    let wants = |text: &str| Format::compile(&AccessFormat::Atoms(text.into())).expect("right").wants_response_head();
    assert!(wants("%({etag}o)s"));
    let default = options::find("access-logformat").and_then(|option| option.default).expect("it has one");
    assert!(!wants(default));
}

#[test]
fn users_are_read_from_basic_credentials_only() {
    for (credentials, user) in [
        ("Basic YWxpY2U6c2VjcmV0", "alice"),
        ("bASIC  YWxpY2U6c2VjcmV0 ", "alice"),
        ("Basic YWxpY2U", "alice"),
        ("Basic Og==", "-"),
        ("Basic !!!", "-"),
        ("Basic", "-"),
        ("Bearer YWxpY2U6c2VjcmV0", "-"),
        ("Basic YSJiCmM6eA==", "a\\x22b\\x0Ac"),
    ] {
        let head = head(b"GET", b"/", &[(b"Authorization", credentials.as_bytes())]);
        assert_eq!(line("%(u)s", &record(&head)), user, "{credentials}");
    }
    let long = format!("Basic {}", "YWFh".repeat(2000));
    let head = head(b"GET", b"/", &[(b"Authorization", long.as_bytes())]);
    assert_eq!(line("%(u)s", &record(&head)), "a".repeat(CREDENTIALS_MAX / 4 * 3));
}

#[test]
fn targets_of_every_form_have_a_path() {
    for (target, path, query) in [
        ("/a?b?c", "/a", "b?c"),
        ("/a?", "/a", ""),
        ("http://h:1/a?b", "/a", "b"),
        ("http://h?b", "", "b"),
        ("*", "*", ""),
        ("h:443", "h:443", ""),
        ("/x%2", "/x%2", ""),
        ("/%zz%41", "/%zzA", ""),
        ("/%0a%22", "/\\x0A\\x22", ""),
    ] {
        let head = head(b"GET", target.as_bytes(), &[]);
        assert_eq!(line("%(U)s|%(q)s", &record(&head)), format!("{path}|{query}"), "{target}");
    }
}

#[test]
fn a_header_cannot_forge_a_line() {
    let agent = b"x\" 200 1\n10.0.0.1 - - [now] \"GET /admin\\\x1b[2J\xff";
    let head = head(b"GET", b"/", &[(b"User-Agent", agent)]);
    let text = line("\"%(a)s\"", &record(&head));
    assert_eq!(text, r#""x\x22 200 1\x0A10.0.0.1 - - [now] \x22GET /admin\x5C\x1B[2J\xFF""#);
}

#[test]
fn json_has_every_field_in_order() {
    let head = head(b"GET", b"/p%20q?a=1", &[(b"Host", b"h"), (b"Referer", b"r"), (b"User-Agent", b"u")]);
    let (text, value) = json(&record(&head));
    let object = value.as_object().expect("an object");
    let names: Vec<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "time",
            "remote_addr",
            "peer_addr",
            "request_id",
            "traceparent",
            "method",
            "path",
            "query",
            "protocol",
            "status",
            "bytes",
            "duration_us",
            "queue_us",
            "referer",
            "user_agent",
            "host",
            "pid"
        ]
    );
    assert!(text.contains(r#""method":"GET","path":"/p%20q","query":"a=1","protocol":"HTTP/1.1","status":200,"bytes":1234"#));
    let mut time = Vec::new();
    stamp::rfc3339(&mut time, 1_795_255_200, None);
    assert_eq!(value["time"].as_str().map(str::as_bytes), Some(&time[..]));
}

#[test]
fn json_of_a_request_without_a_head_has_nulls() {
    let (_, value) = json(&Record { peer: b"", socket: b"", head: None, ..record(&(Head::default(), Vec::new())) });
    for name in [
        "remote_addr",
        "peer_addr",
        "request_id",
        "traceparent",
        "method",
        "path",
        "query",
        "protocol",
        "referer",
        "user_agent",
        "host",
    ] {
        assert!(value[name].is_null(), "{name}");
    }
}

#[test]
fn peer_and_request_id_have_atoms_and_keys() {
    let mut named = head(b"GET", b"/", &[(b"X-Request-ID", b"of the client")]);
    assert_eq!(line("%(h)s %(P)s %(I)s", &record(&named)), "192.0.2.7 10.0.0.1 -");
    let start = named.1.len();
    named.1.extend_from_slice(b"198.51.100.1given");
    named.0.client = Some(NamedClient { addr: Span::new(start, start + 12), port: Span::default() });
    named.0.assigned.id = Span::new(start + 12, start + 17);
    assert_eq!(line("%(h)s %(P)s %(I)s %({x-request-id}i)s", &record(&named)), "198.51.100.1 10.0.0.1 given of the client");
    let (_, value) = json(&record(&named));
    assert_eq!((&value["remote_addr"], &value["peer_addr"]), (&"198.51.100.1".into(), &"10.0.0.1".into()));
    assert_eq!(value["request_id"], "given");
    let nameless = Record { head: None, id: b"7f", ..record(&named) };
    assert_eq!(line("%(I)s", &nameless), "7f");
}

#[test]
fn a_traceparent_is_shown_if_it_is_well_formed() {
    let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (value, shown) in [
        (sound.to_owned(), true),
        (format!("{sound}-more"), false),
        (format!("cc{}-more", &sound[2..]), true),
        (format!("cc{}more", &sound[2..]), false),
        (format!("ff{}", &sound[2..]), false),
        (sound.to_uppercase(), false),
        (sound[..54].to_owned(), false),
        (sound.replace("b7ad6b7169203331", "0000000000000000"), false),
        (sound.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"), false),
        (sound.replacen('-', "_", 1), false),
    ] {
        let head = head(b"GET", b"/", &[(b"traceparent", value.as_bytes())]);
        let (_, line) = json(&record(&head));
        assert_eq!(line["traceparent"].as_str(), shown.then_some(&*value), "{value}");
    }
}

#[test]
fn json_cannot_be_forged_and_stays_ascii() {
    let agent = "x\",\"status\":500}\n{\"status\":1,\"é\u{2028}\u{85}\u{7f}🦀\\".as_bytes();
    let head = head(b"GET", b"/\xff", &[(b"User-Agent", agent)]);
    let (text, value) = json(&record(&head));
    assert_eq!(value["user_agent"].as_str().map(str::as_bytes), Some(agent), "lossless");
    assert_eq!(value["status"], 200);
    assert_eq!(value["path"], "/\\xFF", "visible");
    assert!(text.contains(r"\u00e9\u2028\u0085\u007f\ud83e\udd80"), "{text}");
    assert_eq!(text.matches('\n').count(), 1);
}

#[test]
fn the_time_is_rendered_anew_for_another_second() {
    let format = Format::compile(&AccessFormat::Atoms("%(t)s".into())).expect("right");
    let head = head(b"GET", b"/", &[]);
    let (mut time, mut out) = (Time::of(42), Vec::new());
    for arrived in [0, 0, 1, 0] {
        format.render(&Record { timing: Timing { arrived, ..Timing::default() }, ..record(&head) }, &mut time, &mut out);
    }
    let lines: Vec<&[u8]> = out.split(|b| *b == b'\n').collect();
    assert!(lines[0] == lines[1] && lines[1] != lines[2] && lines[3] == lines[0]);
}

proptest! {
    #[test]
    fn whatever_a_client_sends_is_one_printable_line_and_one_json_object(
        method in "[A-Z]{1,9}",
        target in prop::collection::vec(any::<u8>(), 0..200),
        value in prop::collection::vec(any::<u8>(), 0..200),
        peer in ".{0,40}",
        environ in ".{0,40}",
    ) {
        let head = head(method.as_bytes(), &target, &[
            (b"User-Agent", &value), (b"Referer", &value), (b"Host", &value), (b"Authorization", &value),
        ]);
        let values = [Some(environ)];
        let record = Record { peer: peer.as_bytes(), environ: &values, response_head: &value, ..record(&head) };
        let all = r#"%(h)s %(u)s "%(r)s" %(U)s %(q)s "%(f)s" "%(a)s" %({host}i)s %({x}o)s "%({E}e)s""#;
        let text = line(all, &record);
        prop_assert!(text.bytes().all(|b| (0x20..0x7F).contains(&b)), "{}", text);
        prop_assert_eq!(text.matches('"').count(), 8);
        let (text, value) = json(&record);
        prop_assert!(text.trim_end_matches('\n').bytes().all(|b| (0x20..0x7F).contains(&b)), "{}", text);
        prop_assert_eq!(value.as_object().map(serde_json::Map::len), Some(17));
        prop_assert_eq!(value["remote_addr"].as_str().unwrap_or_default(), &peer[..]);
        let plain = Record { peer: b"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", ..record };
        for format in [AccessFormat::Atoms(all.into()), AccessFormat::Json] {
            let format = Format::compile(&format).expect("the format is right");
            let mut out = Vec::new();
            format.render(&plain, &mut Time::of(42), &mut out);
            prop_assert!(out.len() <= format.most(&plain), "{} bytes", out.len());
        }
    }
}
