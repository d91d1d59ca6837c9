//! What the server refuses and how: limits, smuggling, malformed and late requests. Each refusal is one answer and the end of the
//! connection; nothing after it is served.

mod common;

use std::time::{Duration, Instant};

use common::SOON;
use common::client::Client;
use common::server::{Running, Server};

/// A refusal that needs no timeout comes well before this.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The timeouts under test, short enough to wait for.
const SHORT: &str = "1";

/// A request that must not be served when it is hidden after a refused one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

fn probe() -> Server {
    Server::new("probe:application")
}

/// Sends the request with another after it; expects one answer with this status, and the end of the connection.
#[track_caller]
fn assert_refused(server: &Running, request: &[u8], status: u16) {
    let began = Instant::now();
    let mut client = server.connect();
    client.send([request, SMUGGLED.as_bytes()].concat());
    let response = client.response();
    assert_eq!(response.status, status, "{}\n{response:?}", request.escape_ascii());
    assert!(response.closes() && response.complete, "{}\n{response:?}", request.escape_ascii());
    let rest = client.rest();
    assert_eq!(rest, b"", "something was answered behind the refusal of {}", request.escape_ascii());
    assert!(began.elapsed() < AT_ONCE, "refused only after {:?}: {}", began.elapsed(), request.escape_ascii());
}

#[test]
fn two_framings_are_refused() {
    let server = probe().start();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: ",
        "Content-Length: five",
        "Content-Length: 99999999999999999999999",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        assert_refused(&server, request.as_bytes(), 400);
    }
    let with_1_0 = "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_refused(&server, with_1_0.as_bytes(), 400);
    server.stop();
}

#[test]
fn unknown_codings_and_versions_are_not_implemented() {
    let server = probe().start();
    assert_refused(&server, b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501);
    assert_refused(&server, b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501);
    assert_refused(&server, b"GET / HTTP/2.0\r\nHost: test\r\n\r\n", 505);
    assert_refused(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    server.stop();
}

#[test]
fn malformed_chunks_are_refused() {
    let server = probe().start();
    for body in [
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "0\r\nbad trailer\r\n\r\n",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_refused(&server, request.as_bytes(), 400);
    }
    server.stop();
}

#[test]
fn malformed_heads_are_refused() {
    let server = probe().start();
    let lines: [&[u8]; 10] = [
        b"GET /\r\nHost: test",
        b"GET  / HTTP/1.1\r\nHost: test",
        b"GET / x HTTP/1.1\r\nHost: test",
        b"GET / HTTP/1.1 \r\nHost: test",
        b"G@T / HTTP/1.1\r\nHost: test",
        b"GET path HTTP/1.1\r\nHost: test",
        b"GET test:80 HTTP/1.1\r\nHost: test",
        b"GET /#fragment HTTP/1.1\r\nHost: test",
        b"GET /\x00 HTTP/1.1\r\nHost: test",
        b"GET / http/1.1\r\nHost: test",
    ];
    let fields: [&[u8]; 13] = [
        b"Host: test\r\nX Y: 1",
        b"Host: test\r\nX : 1",
        b"Host: test\r\n: 1",
        b"Host: test\r\nno colon",
        b"Host: test\r\nX: a\r\n folded",
        b"Host: test\r\n folded",
        b"Host: test\r\nX: a\x00b",
        b"Host: test\r\nX: a\rb",
        b"Host: test\r\nX\xc3\xa9: 1",
        b"X: no host",
        b"Host: a\r\nHost: b",
        b"Host: a\r\nHost: a",
        b"Host: a b",
    ];
    for line in lines {
        assert_refused(&server, &[line, b"\r\n\r\n"].concat(), 400);
    }
    for field in fields {
        assert_refused(&server, &[b"GET / HTTP/1.1\r\n", field, b"\r\n\r\n"].concat(), 400);
    }
    server.stop();
}

/// A 2xx would be a tunnel to the proxy in front, past all its rules (RFC 9110 section 9.3.6).
#[test]
fn connect_is_refused_whatever_its_target_and_the_connection_ends() {
    let server = probe().start();
    for target in ["test:443", "/echo", "http://test/echo", "*", "test"] {
        assert_refused(&server, format!("CONNECT {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes(), 501);
        assert_refused(&server, format!("CONNECT {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes(), 501);
    }
    server.stop();
}

/// RFC 9110 section 5.3: only fields that are lists may come in several lines. The second of three requests makes the block of
/// fields a known one, if it is not refused.
#[test]
fn a_field_that_may_come_once_is_refused_when_it_comes_twice_and_lists_are_joined() {
    let server = probe().start();
    for (name, values) in [
        ("Authorization", ["Basic YTpi", "Basic YTpj"]),
        ("Proxy-Authorization", ["Basic YTpi", "Basic YTpi"]),
        ("Content-Type", ["text/plain", "text/html"]),
        ("Content-Range", ["bytes 0-1/2", "bytes 0-1/3"]),
        ("Content-Location", ["/a", "/b"]),
        ("If-Modified-Since", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"]),
        ("If-Unmodified-Since", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"]),
        ("If-Range", ["\"a\"", "\"b\""]),
        ("Range", ["bytes=0-1", "bytes=0-2"]),
        ("Max-Forwards", ["0", "1"]),
        ("Origin", ["http://a", "http://b"]),
    ] {
        let [first, second] = values;
        let twice =
            format!("GET / HTTP/1.1\r\nHost: test\r\n{name}: {first}\r\nX: y\r\n{}: {second}\r\n\r\n", name.to_lowercase());
        for _ in 0..3 {
            assert_refused(&server, twice.as_bytes(), 400);
        }
        let response = server.exchange(twice.as_bytes());
        assert!(response.text().contains(&format!("{name} comes more than once")), "{}", response.text());
    }
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(
            "GET /environ HTTP/1.1\r\nHost: test\r\nIf-Match: \"a\"\r\nVia: 1.1 a\r\nif-match: \"b\"\r\nVia: 1.1 b\r\n\r\n",
        );
        let seen = client.response().json();
        assert_eq!((seen["HTTP_IF_MATCH"].as_str(), seen["HTTP_VIA"].as_str()), (Some("\"a\",\"b\""), Some("1.1 a,1.1 b")));
    }
    server.stop();
}

#[test]
fn names_that_can_be_forged_never_reach_the_environ() {
    let server = probe().start();
    let forged = "X_Forwarded_For: evil\r\nProxy: http://evil\r\nContent_Length: 7\r\nContent_Type: evil\r\nX-Ok: 1";
    let seen = server.exchange(format!("GET /environ HTTP/1.1\r\nHost: test\r\n{forged}\r\n\r\n")).json();
    assert_eq!(seen["HTTP_X_OK"], "1");
    for name in ["HTTP_X_FORWARDED_FOR", "HTTP_PROXY", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"] {
        assert!(seen.get(name).is_none(), "{name} in {seen}");
    }
    server.stop();
}

#[test]
fn limits_of_the_head_are_answered_414_and_431() {
    let server = probe()
        .options(["--limit-request-line", "200", "--limit-request-fields", "10", "--limit-request-field-size", "300"])
        .start();
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
    let long = |count: usize| "x".repeat(count);
    assert_eq!(server.exchange(get(&format!("/environ?{}", long(150)), "")).status, 200);
    assert_eq!(server.exchange(get("/environ", &format!("X: {}\r\n", long(250)))).status, 200);
    assert_eq!(server.exchange(get("/environ", &"X: 1\r\n".repeat(9))).status, 200);
    assert_refused(&server, get(&format!("/environ?{}", long(250)), "").as_bytes(), 414);
    assert_refused(&server, get("/environ", &format!("X: {}\r\n", long(350))).as_bytes(), 431);
    assert_refused(&server, get("/environ", &"X: 1\r\n".repeat(11)).as_bytes(), 431);
    server.stop();
}

#[test]
fn default_limits_stop_endless_heads() {
    let server = probe().start();
    for (start, status) in [("GET /".to_owned(), 414), ("GET / HTTP/1.1\r\nHost: test\r\nX: ".to_owned(), 431)] {
        let mut client = server.connect();
        client.send(start + &"x".repeat(9_000));
        assert_eq!(client.response().status, status, "before the line ends");
        assert_eq!(client.rest(), b"");
    }
    server.stop();
}

#[test]
fn a_body_beyond_the_limit_is_answered_413_before_it_is_read() {
    let server = probe().options(["--limit-request-body", "1000"]).start();
    let head = |fields: &str| format!("POST /echo HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n");
    let response = server.exchange(head("Content-Length: 1001"));
    assert!(response.status == 413 && response.closes(), "{response:?}");
    let response = server.exchange(head("Content-Length: 1001\r\nExpect: 100-continue"));
    assert_eq!(response.status, 413, "no 100 Continue first");
    assert_eq!(server.exchange(head("Content-Length: 1000") + &"x".repeat(1000)).status, 200);

    let chunks = |count: usize| format!("64\r\n{}\r\n", "x".repeat(100)).repeat(count);
    assert_eq!(server.exchange(head("Transfer-Encoding: chunked") + &chunks(10) + "0\r\n\r\n").status, 200);
    let response = server.exchange(head("Transfer-Encoding: chunked") + &chunks(11));
    assert_eq!(response.status, 413, "as soon as the chunks exceed it");
    server.stop();
}

#[test]
fn a_client_that_sends_on_still_reads_its_refusal() {
    /// More than the socket buffers of both sides hold: a close without lingering would reset and lose the answer.
    const BODY: usize = 8 * 1024 * 1024;
    let server = probe().options(["--limit-request-body", "1000"]).start();
    for _ in 0..10 {
        let mut client = server.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY}\r\n\r\n"));
        client.send_while_taken(&vec![b'x'; BODY], Duration::from_secs(1));
        let response = client.response();
        assert_eq!(response.status, 413);
    }
    server.stop();
}

#[test]
fn tls_on_a_plain_port_is_refused_at_once() {
    /// The start of a TLS 1.3 ClientHello as curl sends it; it holds no line end.
    const HELLO: &[u8] =
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x8f\x11\x92\x5b\x6c\x77\x01\x45\x20\x13\x02\x13\x03\x13\x01";
    let server = probe().start();
    let began = Instant::now();
    let mut client = server.connect();
    client.send(HELLO);
    let answer = client.rest();
    assert!(began.elapsed() < AT_ONCE, "after {:?}", began.elapsed());
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
    server.stop();
}

#[test]
fn a_half_sent_head_times_out_with_408() {
    let server = probe().options(["--header-timeout", SHORT]).start();
    let mut clients: Vec<Client> = ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: test\r\n"]
        .map(|part| {
            let mut client = server.connect();
            client.send(part);
            client
        })
        .into();
    for client in &mut clients {
        let response = client.response();
        assert!(response.status == 408 && response.closes(), "{response:?}");
        assert_eq!(client.rest(), b"");
    }
    server.stop();
}

#[test]
fn a_trickled_head_times_out_as_a_whole() {
    let server = probe().options(["--header-timeout", SHORT]).start();
    let mut client = server.connect();
    let began = Instant::now();
    // A byte well within each timeout does not prolong it.
    while client.try_send(b"X").is_ok() && began.elapsed() < AT_ONCE {
        std::thread::sleep(Duration::from_millis(100));
        client.set_patience(Duration::from_millis(1)).expect("the socket is open");
        if matches!(client.fill(), Ok(1..)) {
            break;
        }
    }
    assert!(began.elapsed() < AT_ONCE, "not ended after {:?}", began.elapsed());
    assert!(client.leftover().starts_with(b"HTTP/1.1 4"), "{}", client.leftover().escape_ascii());
    server.stop();
}

#[test]
fn a_body_that_stops_times_out_with_408() {
    let server = probe().options(["--body-timeout", SHORT]).start();
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n3\r\n"));
        let response = client.response();
        assert!(response.status == 408 && response.closes(), "{framing}: {response:?}");
    }
    server.stop();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = probe().options(["--keep-alive", SHORT]).start();
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    assert!(client.is_closed(), "an idle connection gets no 408");
    server.stop();
}

#[test]
fn no_keep_alive_means_one_request_a_connection() {
    let server = probe().options(["--keep-alive", "0"]).start();
    let mut client = server.connect();
    assert!(client.get("/").closes());
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_request_is_forgotten() {
    let server = probe().start();
    for part in ["GET / HT", "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf"] {
        for reset in [false, true] {
            let mut client = server.connect();
            client.send(part);
            if reset {
                client.reset();
            }
        }
    }
    let worker = server.workers()[0];
    let few = || (common::procfs::open_files(worker) < 40).then_some(());
    assert_eq!(server.get("/").status, 200);
    common::wait_for("the descriptors of gone clients to be closed", SOON, few);
    server.stop();
}

#[test]
fn slow_clients_do_not_delay_others() {
    const SLOW: usize = 50;
    let server = probe().start();
    let starts = ["GET / HTTP/1.1\r\nHost:", "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nx", "G"];
    let mut slow: Vec<Client> = (0..SLOW)
        .map(|n| (server.connect(), starts[n % 3]))
        .map(|(mut client, start)| {
            client.send(start);
            client
        })
        .collect();
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(server.get("/").status, 200);
    }
    // Less than the time after which a slow client is given up.
    assert!(began.elapsed() < SOON, "100 requests beside {SLOW} slow clients took {:?}", began.elapsed());
    slow[0].send(" test\r\n\r\n");
    assert_eq!(slow[0].response().status, 200, "a slow client is served when it is complete");
    // A stop would wait for what they began to send.
    drop(slow);
    server.stop();
}
