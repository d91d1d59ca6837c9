//! SCGI and uwsgi by hand; and in modules, the other gateway protocols, and all of them behind real web servers with the
//! configurations of the manual page.

#[path = "gateways/ajp.rs"]
mod ajp;
#[path = "gateways/cgi.rs"]
mod cgi;
mod common;
#[path = "gateways/fastcgi.rs"]
mod fastcgi;
#[path = "gateways/front.rs"]
mod front;
#[path = "gateways/hostile.rs"]
mod hostile;
#[path = "gateways/records.rs"]
mod records;
#[path = "gateways/repeated.rs"]
mod repeated;
#[path = "gateways/served.rs"]
mod served;
#[path = "gateways/spawned.rs"]
mod spawned;
#[path = "gateways/through.rs"]
mod through;
#[path = "gateways/wire.rs"]
mod wire;

use std::time::Duration;

use serde_json::Value;

use common::client::{Address, Client, Response};
use common::server::{Running, Server};
use common::{SOON, wait_for};
use wire::{scgi, uwsgi, with};

/// Makes the head of a request.
type Encode = fn(&[(&str, &str)]) -> Vec<u8>;

/// The protocols, and how their heads are made.
const PROTOCOLS: [(&str, Encode); 2] = [("scgi", scgi), ("uwsgi", uwsgi)];

/// A server that speaks this protocol over TCP and a unix socket.
fn server(protocol: &str) -> Server {
    Server::new("probe").binds([format!("{protocol}:127.0.0.1:0"), format!("{protocol}:unix:{{temp}}/s")])
}

/// The whole answer on this connection as a response of HTTP.
#[track_caller]
fn answer(mut client: Client) -> Response {
    parse(&client.rest())
}

#[track_caller]
pub(crate) fn parse(bytes: &[u8]) -> Response {
    let end =
        common::client::find(bytes, b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {:?}", bytes.escape_ascii().to_string()));
    let head: String = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
    let (first, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
    let status =
        first.strip_prefix("Status: ").or(first.strip_prefix("HTTP/1.1 ")).unwrap_or_else(|| panic!("no status: {first}"));
    let (code, reason) = status.split_once(' ').unwrap_or((status, ""));
    Response {
        version: "HTTP/1.1".into(),
        status: code.parse().expect("a status is a number"),
        reason: reason.into(),
        fields: fields.split("\r\n").filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.into(), v.into())).collect(),
        body: bytes[end + 4..].to_vec(),
        complete: true,
    }
}

#[track_caller]
fn ask(address: &Address, request: &[u8]) -> Response {
    let mut client = Client::connect(address);
    client.send(request);
    answer(client)
}

/// What operators are told.
#[track_caller]
fn figures(server: &Running) -> Value {
    let mut client = Client::connect(&server.control());
    client.send("GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.response().json()
}

#[test]
fn bytes_behind_a_request_whose_front_leaves_are_no_requests_in_the_log() {
    for (protocol, encode) in PROTOCOLS {
        let server = Server::new("unserved").binds([format!("{protocol}:127.0.0.1:0")]);
        let here = server.temp().display().to_string();
        let (path, inside) = (server.temp().join("access").display().to_string(), server.temp().join("inside"));
        let options = ["--threads", "1", "--access-logfile", &path, "--access-logformat", "%(U)s %(s)s"];
        let server = server.env("UNSERVED_DIR", here).options(options).start();
        let slow = encode(&with(&[("REQUEST_URI", "/slow")]));
        let mut first = server.connect();
        first.send(&slow);
        wait_for("the call", SOON, || inside.exists().then_some(()));
        // It waits for the thread, and is left there.
        let mut second = server.connect();
        second.send([&slow[..], b"GET /forged HTTP/1.1\r\nHost: test\r\n\r\n"].concat());
        wait_for("the second request", SOON, || (figures(&server)["queue"]["waiting"] == 1).then_some(()));
        second.reset();
        server.open_gate("gate");
        assert_eq!(answer(first).status, 200);
        assert_eq!(ask(server.address(), &encode(&with(&[("REQUEST_URI", "/kept")]))).status, 200);
        let lines = wait_for("the last line", SOON, || {
            std::fs::read_to_string(&path).ok().filter(|text| text.contains("/kept 200") && text.contains("499"))
        });
        assert!(!lines.contains("/forged"), "{lines}");
        server.stop();
    }
}

#[test]
fn a_request_is_served_whole_byte_by_byte_and_with_trailing_bytes() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol).start();
        for address in server.addresses() {
            let head = encode(&with(&[("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/echo"), ("CONTENT_LENGTH", "5")]));
            let request = [&head[..], b"hello"].concat();
            let whole = ask(address, &request);
            assert_eq!((whole.status, whole.text().as_str()), (200, "hello"), "{protocol}");
            assert_eq!(whole.field("date"), None, "the front has its own");
            let mut slow = Client::connect(address);
            for byte in &request {
                slow.send([*byte]);
                std::thread::sleep(Duration::from_micros(200));
            }
            assert_eq!(answer(slow), whole);
            for cut in [1, 3, head.len() - 1, head.len(), head.len() + 1, request.len() - 1] {
                let mut client = Client::connect(address);
                client.send(&request[..cut]);
                std::thread::sleep(Duration::from_millis(2));
                client.send(&request[cut..]);
                assert_eq!(answer(client), whole, "{protocol} cut at {cut}");
            }
            assert_eq!(ask(address, &[&request[..], b"trailing bytes", &request].concat()), whole);
            let mut half = Client::connect(address);
            half.send(&request);
            half.finish_sending();
            assert_eq!(answer(half), whole, "a front that sends nothing more still reads");
        }
        server.stop();
    }
}

#[test]
fn the_application_and_both_logs_see_what_the_front_says() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol);
        let path = server.temp().join("access").display().to_string();
        let format = "%(h)s|%(r)s|%(s)s|%({x-request-id}i)s|%({content-type}o)s|%(a)s|%({REMOTE_USER}e)s";
        let server = server.options(["--access-logfile", &path, "--access-logformat", format]).start();
        let seen = ask(
            server.address(),
            &encode(&with(&[
                ("REQUEST_URI", "/caf%C3%A9/x?a=%2F"),
                ("SCRIPT_NAME", "/caf\u{e9}"),
                ("PATH_INFO", "/x"),
                ("QUERY_STRING", "a=%2F"),
                ("HTTP_X_REQUEST_ID", "id-1"),
                ("HTTP_USER_AGENT", "hand"),
                ("HTTP_COOKIE", "a=1"),
                ("HTTP_COOKIE", "b=2"),
                ("HTTP_X_A", "1"),
                ("HTTP_X_A", "2"),
                ("HTTP_PROXY", "http://evil"),
                ("HTTP_X_FORWARDED_PROTO", "http"),
                ("HTTPS", "on"),
                ("REMOTE_PORT", "4711"),
                ("REMOTE_USER", "ann"),
                ("SERVER_NAME", "front:8080"),
                ("SERVER_PORT", "8080"),
                ("SERVER_PROTOCOL", "HTTP/2.0"),
                ("wsgi.url_scheme", "evil"),
                ("wsgi.multithread", ""),
                ("UWSGI_FILE", "/evil"),
            ])),
        );
        let seen = seen.json();
        for (name, value) in [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_NAME", "/caf\u{c3}\u{a9}"),
            ("PATH_INFO", "/x"),
            ("QUERY_STRING", "a=%2F"),
            ("REQUEST_URI", "/caf%C3%A9/x?a=%2F"),
            ("RAW_URI", "/caf%C3%A9/x?a=%2F"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTP_X_A", "1,2"),
            ("HTTP_X_FORWARDED_PROTO", "http"),
            ("HTTPS", "on"),
            ("wsgi.url_scheme", "https"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "4711"),
            ("REMOTE_USER", "ann"),
            ("SERVER_NAME", "front"),
            ("SERVER_PORT", "8080"),
            ("SERVER_PROTOCOL", "HTTP/2.0"),
        ] {
            assert_eq!(seen[name], value, "{protocol}: {name}: {seen}");
        }
        for name in ["HTTP_PROXY", "UWSGI_FILE", "HTTP_CONTENT_LENGTH"] {
            assert_eq!(seen[name], Value::Null, "{protocol}: {name}");
        }
        assert_eq!(seen["flags"]["wsgi.multithread"], false);
        let line = wait_for("a line of the access log", SOON, || {
            std::fs::read_to_string(&path).ok().filter(|line| line.ends_with('\n'))
        });
        assert_eq!(line, "192.0.2.7|GET /caf%C3%A9/x?a=%2F HTTP/2.0|200|id-1|application/json|hand|ann\n", "{protocol}");
        server.stop();
    }
}

#[test]
fn answers_have_the_shape_of_their_protocol() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol).expect_error("this was to happen").expect_error("this was to happen").start();
        let first = if protocol == "uwsgi" { "HTTP/1.1 " } else { "Status: " };
        let raw = |method: &str, uri: &str| {
            let mut client = server.connect();
            client.send(encode(&with(&[("REQUEST_METHOD", method), ("REQUEST_URI", uri)])));
            let bytes = client.rest();
            assert!(bytes.starts_with(first.as_bytes()), "{protocol}: {:?}", bytes.escape_ascii().to_string());
            parse(&bytes)
        };
        let hello = raw("GET", "/");
        assert_eq!((hello.reason.as_str(), hello.field("content-length"), hello.text().as_str()), ("OK", Some("6"), "hello\n"));
        for name in ["connection", "transfer-encoding", "date", "server"] {
            assert_eq!(hello.field(name), None);
        }
        let head = raw("HEAD", "/");
        assert_eq!((head.field("content-length"), head.body.len()), (Some("6"), 0));
        assert_eq!(raw("HEAD", "/no-length").body.len(), 0);
        let streamed = raw("GET", "/no-length");
        assert_eq!((streamed.field("transfer-encoding"), streamed.text().as_str()), (None, "one two three"));
        assert_eq!((raw("GET", "/no-content").status, raw("GET", "/not-modified").status), (204, 304));
        assert_eq!(raw("GET", "/big?n=300000").body.len(), 300_000);
        assert_eq!(raw("GET", "/redirect").field("location"), Some("/elsewhere?a=%2F"));
        let failed = raw("GET", "/failing");
        assert_eq!((failed.status, failed.field("connection")), (500, None));
        let mut broken = server.connect();
        broken.send(encode(&with(&[("REQUEST_URI", "/broken")])));
        let end = loop {
            match broken.fill() {
                Ok(1..) => {}
                end => break end,
            }
        };
        assert!(end.is_err(), "{protocol}: a broken answer ends with a reset: {end:?}");
        server.stop();
    }
}

#[test]
fn what_is_malformed_is_refused_and_logged_once() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol).start();
        let mut cases = vec![
            encode(&[("SCGI", "1"), ("CONTENT_LENGTH", "0")]),
            encode(&with(&[("REQUEST_METHOD", "G T")])),
            encode(&with(&[("CONTENT_LENGTH", "+5")])),
            encode(&with(&[("REQUEST_URI", "no slash")])),
            encode(&with(&[("QUERY_STRING", "a\nb")])),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00".to_vec(),
        ];
        if protocol == "scgi" {
            cases.extend([
                b"5:hello,".to_vec(),
                b"007:hello..,".to_vec(),
                b"2:a\0x".to_vec(),
                encode(&[("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/")]),
            ]);
        } else {
            cases.extend([vec![22, 4, 0, 0, b'e', b'v', b'a', b'l'], vec![0, 3, 0, 0, 9, 0, b'x']]);
        }
        for case in &cases {
            let refused = ask(server.address(), case);
            assert_eq!(refused.status, 400, "{protocol}: {:?}", case.escape_ascii().to_string());
        }
        for name in ["HTTP_X", "HTTP_COOKIE", "CONTENT_TYPE"] {
            for value in ["a\r\nX-Evil: 1", "a\nb", "a\rb"] {
                let refused = ask(server.address(), &encode(&with(&[(name, value)])));
                assert_eq!(refused.status, 400, "{protocol}: {name}: {value:?}");
                assert!(refused.text().contains("control character"), "{}", refused.text());
            }
        }
        let long = "x".repeat(9000);
        assert_eq!(ask(server.address(), &encode(&with(&[("REQUEST_URI", &format!("/{long}"))]))).status, 414);
        assert_eq!(ask(server.address(), &encode(&with(&[("HTTP_X", &long)]))).status, 431);
        assert_eq!(ask(server.address(), &encode(&with(&[]))).status, 200, "the worker lives");
        wait_for("the count of the refusals", SOON, || {
            (figures(&server)["queue"]["refused"]["malformed"] == cases.len() + 9).then_some(())
        });
        let log = server.stop();
        let text = log.text();
        let told = text.lines().filter(|line| line.contains("WARNING refused a request of 127.0.0.1: ")).count();
        assert_eq!(told, cases.len() + 9, "one line for each connection: {text}");
    }
}

#[test]
fn only_peers_that_may_are_served() {
    for (protocol, encode) in PROTOCOLS {
        let server = server(protocol).options(["--gateway-allow-from", "10.0.0.0/8"]).start();
        let request = encode(&with(&[]));
        let mut stranger = Client::connect(&server.addresses()[0]);
        let _ = stranger.try_send(&request);
        assert!(stranger.is_closed(), "{protocol}: {:?}", stranger.leftover());
        assert_eq!(ask(&server.addresses()[1], &request).text(), "hello\n");
        let log = server.stop();
        assert!(log.text().contains("closed a connection of 127.0.0.1: it is not in --gateway-allow-from"), "{}", log.text());
    }
}

#[test]
fn a_root_path_is_the_script_name_in_every_protocol() {
    let binds = ["127.0.0.1:0", "scgi:127.0.0.1:0", "uwsgi:127.0.0.1:0"];
    let server = Server::new("probe").binds(binds).options(["--root-path", "/shop/"]).start();
    for (target, path) in [("/shop/a%20b?q", "/a b"), ("/shop", ""), ("/shopping", "/shopping"), ("/", "/")] {
        if path != "/" {
            let seen = server.get(target).json();
            assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"/shop".into(), &path.into()), "{seen}");
        }
        for ((_, encode), address) in PROTOCOLS.iter().zip(&server.addresses()[1..]) {
            if path != "/" {
                let seen = ask(address, &encode(&with(&[("REQUEST_URI", target)]))).json();
                assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"/shop".into(), &path.into()), "{seen}");
            }
        }
    }
    server.stop();
}

#[test]
fn protocols_are_named_by_addresses_and_by_an_option() {
    let server = Server::new("probe").binds(["127.0.0.1:0", "http:127.0.0.1:0"]).options(["--protocol", "scgi"]).start();
    assert_eq!(ask(server.address(), &scgi(&with(&[]))).text(), "hello\n");
    assert_eq!(Client::connect(&server.addresses()[1]).get("/").text(), "hello\n");
    let log = server.stop();
    assert!(log.text().contains(" on scgi:127.0.0.1:"), "{}", log.text());
    Server::new("probe")
        .binds(["https:127.0.0.1:0"])
        .run_to_end()
        .failed(2, &["--bind https:127.0.0.1:0", "needs a certificate"]);
    Server::new("probe").options(["--protocol", "gopher"]).run_to_end().failed(2, &["--protocol gopher", "must be one of http"]);
    Server::new("probe")
        .binds(["fcgi:127.0.0.1:0"])
        .run_to_end()
        .failed(2, &["fastcgi, scgi, uwsgi, ajp", "did you mean fastcgi?"]);
    Server::new("probe").options(["--protocol", "fcgi"]).run_to_end().failed(2, &["did you mean fastcgi?"]);
}
