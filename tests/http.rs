//! HTTP/1.1 and 1.0 over real sockets: what a well-behaved client may send and how it is answered. What is refused is in
//! refusals.rs, what applications see and send is in wsgi.rs.

mod common;

use common::client::{Client, Response};
use common::server::{Running, Server};

/// Requests sent at once by the pipelining tests.
const DEPTH: usize = 16;

fn probe() -> Running {
    Server::new("probe:validated").start()
}

/// The environ that a request led to.
#[track_caller]
fn environ(server: &Running, request: impl AsRef<[u8]>) -> serde_json::Value {
    let response = server.exchange(request);
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

fn post(target: &str, fields: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: test\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
fn assert_answers(client: &mut Client) {
    let response = client.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, "hello\n"), "{response:?}");
}

#[test]
fn a_connection_serves_many_requests_in_1_1() {
    let server = probe();
    let mut client = server.connect();
    for _ in 0..50 {
        assert_answers(&mut client);
    }
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let last = client.response();
    assert!(last.closes(), "{last:?}");
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn a_1_0_connection_is_kept_only_when_asked() {
    let server = probe();
    let mut client = server.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let response = client.response();
        assert!(response.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")), "{response:?}");
        assert_eq!(response.text(), "hello\n");
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert!(client.response().closes());
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn connection_is_a_list_over_all_its_lines_in_any_case() {
    let server = probe();
    for fields in
        ["Connection: x, CLOSE", "Connection: x\r\nconnection: ,Close ,y", "CONNECTION: close\r\nConnection: keep-alive"]
    {
        let mut client = server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n"));
        let response = client.response();
        assert!(response.closes(), "{fields}: {response:?}");
        assert!(client.is_closed(), "{fields}");
    }
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = probe();
    let mut client = server.connect();
    let requests: String = (0..DEPTH).map(|n| post(&format!("/echo?{n}"), "", &format!("request {n}"))).collect();
    client.send(&requests);
    for n in 0..DEPTH {
        assert_eq!(client.response().text(), format!("request {n}"));
    }
    assert_eq!(client.leftover(), b"");

    for byte in requests.bytes() {
        client.send([byte]);
    }
    for n in 0..DEPTH {
        assert_eq!(client.response().text(), format!("request {n}"), "sent byte by byte");
    }
    server.stop();
}

#[test]
fn pipelined_answers_of_every_kind_keep_their_order() {
    let server = probe();
    let mut client = server.connect();
    let targets =
        ["/no-length", "/", "/big?n=300000", "/no-content", "/big?n=200000&length=0", "/not-modified", "/no-length", "/"];
    for _ in 0..2 {
        client.send(targets.map(|target| format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")).concat());
        let answers = targets.map(|_| client.response());
        assert!(answers.iter().all(|response| response.complete), "{answers:?}");
        assert_eq!(answers.each_ref().map(|a| a.body.len()), [13, 6, 300_000, 0, 200_000, 0, 13, 6]);
        assert_eq!(answers.map(|a| a.status), [200, 200, 200, 204, 200, 304, 200, 200]);
    }
    server.stop();
}

#[test]
fn nothing_after_a_closing_request_is_answered() {
    let server = probe();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert!(client.is_closed());
    server.stop();
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    let server = probe();
    let mut client = server.connect();
    client.send("\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    server.stop();
}

#[test]
fn chunked_bodies_reach_the_application_decoded() {
    let server = probe();
    let head = "POST /environ HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "5\r\nhello\r\n6;name=value\r\n world\r\nA\r\n0123456789\r\n0\r\nX-Trailer: 1\r\nX-Other: 2\r\n\r\n";
    let request = format!("{head}{body}");

    let seen = environ(&server, &request);
    assert_eq!(seen["body"], "hello world0123456789");
    assert_eq!(seen["CONTENT_LENGTH"], "21");
    assert!(seen.get("HTTP_TRANSFER_ENCODING").is_none(), "the coding is removed: {seen}");
    assert!(seen.get("HTTP_X_TRAILER").is_none(), "a trailer is no header: {seen}");

    let mut client = server.connect();
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().json()["body"], "hello world0123456789", "sent byte by byte");
    client.send(request + "GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().json()["body"], "hello world0123456789", "on the same connection");
    assert_eq!(client.response().text(), "hello\n", "what follows the trailers is the next request");
    server.stop();
}

#[test]
fn large_bodies_arrive_whole_in_both_framings() {
    const SIZE: usize = 3 * 1024 * 1024 + 7;
    const CHUNK: usize = 70_000;
    let server = probe();
    let body: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    let mut client = server.connect();
    client.send(format!("POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.send(&body);
    let by_length = client.response().text();
    assert!(by_length.starts_with(&format!("{SIZE} ")), "{by_length}");

    client.send("POST /digest HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(CHUNK) {
        client.send(format!("{:x}\r\n", chunk.len()));
        client.send(chunk);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), by_length);

    client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.send(&body);
    assert!(client.response().body == body, "an echoed body is the body");
    server.stop();
}

#[test]
fn continue_is_said_once_when_it_is_awaited() {
    let server = probe();
    let mut client = server.connect();
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n"));
        assert_eq!(client.response().status, 100, "{framing}");
        client.send(if framing.starts_with('C') { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" });
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{framing}");
        assert_eq!(client.leftover(), b"");
    }
    assert_answers(&mut client);
    server.stop();
}

#[test]
fn continue_is_not_said_when_nobody_awaits_it() {
    let server = probe();
    let mut client = server.connect();
    for request in [
        post("/echo", "Expect: 100-continue\r\n", ""),
        post("/echo", "Expect: 100-continue\r\n", "already here"),
        "GET / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n\r\n".to_owned(),
        "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab".to_owned(),
    ] {
        client.send(&request);
        let response = client.response();
        assert_eq!(response.status, 200, "{request}");
    }
    server.stop();
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let server = probe();
    let mut client = server.connect();
    for target in ["/", "/no-length", "/big?n=100000", "/big?n=100000&length=0"] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let head = client.response_to("HEAD");
        let get = client.get(target);
        assert_eq!(head.status, get.status, "{target}");
        assert_eq!(head.field("content-type"), get.field("content-type"), "{target}");
        if target == "/" || target == "/big?n=100000" {
            assert_eq!(head.field("content-length"), get.field("content-length"), "{target}");
        }
    }
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    client.response_to("HEAD");
    assert!(client.is_closed(), "no byte follows the head");
    server.stop();
}

#[test]
fn answers_without_content_have_none() {
    let server = probe();
    let mut client = server.connect();
    let empty = client.get("/no-content");
    assert_eq!((empty.status, empty.field("content-length"), empty.field("transfer-encoding")), (204, None, None));
    let unmodified = client.get("/not-modified");
    assert_eq!((unmodified.status, unmodified.field("content-length")), (304, Some("5")), "{unmodified:?}");
    assert_answers(&mut client);
    server.stop();
}

#[test]
fn a_body_of_unknown_length_is_chunked_for_1_1_and_ends_the_connection_for_1_0() {
    let server = probe();
    let mut client = server.connect();
    let response = client.get("/no-length");
    assert_eq!(response.all("transfer-encoding"), ["chunked"]);
    assert!(response.complete && !response.closes(), "an empty block ends nothing: {response:?}");
    assert_eq!(response.text(), "one two three");
    assert_answers(&mut client);

    for connection in ["", "Connection: keep-alive\r\n"] {
        let mut client = server.connect();
        client.send(format!("GET /no-length HTTP/1.0\r\n{connection}\r\n"));
        let response = client.response();
        assert_eq!(response.field("transfer-encoding"), None, "{response:?}");
        assert!(response.closes() && response.complete, "{response:?}");
        assert_eq!(response.text(), "one two three");
    }
    server.stop();
}

#[test]
fn every_answer_has_one_date_and_one_server_field() {
    let server = probe();
    let mut client = server.connect();
    for target in ["/", "/no-length", "/no-content", "/not-modified"] {
        let response: Response = client.get(target);
        assert_eq!((response.all("date").len(), response.all("server").len()), (1, 1), "{response:?}");
        assert!(response.field("date").is_some_and(|date| date.len() == 29 && date.ends_with(" GMT")), "{response:?}");
    }
    server.stop();
}

#[test]
fn an_absolute_target_names_host_and_path() {
    let server = probe();
    let seen = environ(&server, "GET http://example.org:81/a%20b/c?q=1 HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(seen["PATH_INFO"], "/a b/c");
    assert_eq!(seen["QUERY_STRING"], "q=1");
    assert_eq!(seen["HTTP_HOST"], "example.org:81", "RFC 9112 section 3.2.2: the target's host replaces the field");
    let root = server.exchange("GET http://example.org HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert_eq!(root.text(), "hello\n", "an empty path is the root");
    server.stop();
}

#[test]
fn odd_methods_reach_the_application() {
    let server = Server::new("probe:application").start();
    let mut client = server.connect();
    for method in ["PROPFIND", "MKCALENDAR", "REPORT", "PATCH", "DELETE", "M-SEARCH", "get", "X'!#$%&*+.^_`|~"] {
        client.send(format!("{method} /dav HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(client.response().json()["REQUEST_METHOD"], method);
    }
    client.send("PROPFIND /dav HTTP/1.1\r\nHost: test\r\nDepth: 1\r\nContent-Length: 4\r\n\r\n<a/>");
    assert_eq!(client.response().json()["body"], "<a/>");
    server.stop();
}

/// `validated` refuses any other PATH_INFO than an empty one and one that begins with a slash.
#[test]
fn options_for_the_whole_server_have_an_empty_path() {
    let server = probe();
    for (target, host) in [("*", "test"), ("http://example.org", "example.org"), ("http://example.org:81", "example.org:81")] {
        let seen = environ(&server, format!("OPTIONS {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let of = |name: &str| seen[name].as_str().map(str::to_owned).unwrap_or_default();
        assert_eq!((of("PATH_INFO"), of("RAW_URI"), of("HTTP_HOST")), (String::new(), target.into(), host.into()), "{seen}");
    }
    server.stop();
}

#[test]
fn long_targets_and_cookies_arrive_whole() {
    let server = probe();
    let query = "q=".to_owned() + &"x".repeat(7 * 1024);
    let cookie = "c=".to_owned() + &"y".repeat(8 * 1024 - 100);
    let request = format!("GET /long?{query} HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n");
    let seen = environ(&server, &request);
    assert_eq!(seen["QUERY_STRING"], query);
    assert_eq!(seen["HTTP_COOKIE"], cookie);
    let mut client = server.connect();
    for part in request.as_bytes().chunks(100) {
        client.send(part);
    }
    assert_eq!(client.response().json()["HTTP_COOKIE"], cookie, "sent in parts");
    server.stop();
}

#[test]
fn the_path_is_decoded_once_into_latin_1() {
    let server = probe();
    for (target, path) in [
        ("/a%2Fb", "/a/b"),
        ("/a%252Fb", "/a%2Fb"),
        ("/caf%C3%A9", "/caf\u{c3}\u{a9}"),
        ("/%ff", "/\u{ff}"),
        ("/plus+plus", "/plus+plus"),
        ("/a//b/../c", "/a//b/../c"),
    ] {
        let seen = environ(&server, format!("GET {target}?a=%20b HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(seen["PATH_INFO"], path, "{target}");
        assert_eq!(seen["QUERY_STRING"], "a=%20b", "the query stays as sent");
        assert_eq!(seen["RAW_URI"], format!("{target}?a=%20b"));
    }
    let raw = environ(&server, b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(raw["PATH_INFO"], "/caf\u{c3}\u{a9}", "raw UTF-8 bytes, as browsers of old and curl send them");
    server.stop();
}

#[test]
fn a_body_that_was_not_read_never_becomes_the_next_request() {
    let server = probe();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
    for target in ["/unread", "/partly?n=3"] {
        let mut client = server.connect();
        client.send(post(target, "", smuggled) + "GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.response().status, 200);
        assert_eq!(client.response().text(), "hello\n", "after a body by length");

        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
            smuggled.len()
        ));
        assert_eq!(client.response().status, 200);
        assert_answers(&mut client);
        assert_eq!(client.leftover(), b"");
    }
    server.stop();
}

#[test]
fn a_large_unread_body_does_not_hurt_the_answer() {
    const SIZE: usize = 4 * 1024 * 1024;
    let server = probe();
    let mut client = server.connect();
    client.send(format!("POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.send(vec![b'x'; SIZE]);
    assert_eq!(client.response().text(), "unread\n");
    server.stop();
}

#[test]
fn a_client_that_has_finished_sending_is_still_answered() {
    let server = probe();
    for target in ["/", "/no-length", "/big?n=3000000"] {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.finish_sending();
        let response = client.response();
        assert!(response.status == 200 && response.complete, "{response:?}");
        assert!(client.is_closed());
    }
    server.stop();
}

#[test]
fn a_large_answer_reaches_a_reader_that_starts_late() {
    const SIZE: usize = 20_000_000;
    let server = probe();
    let mut slow = server.connect();
    slow.send(format!("GET /big?n={SIZE} HTTP/1.1\r\nHost: test\r\n\r\n"));
    // Answered while the large one waits for its reader.
    for _ in 0..20 {
        assert_eq!(server.get("/").status, 200);
    }
    let response = slow.response();
    assert!(response.complete);
    assert_eq!(response.body.len(), SIZE);
    assert_answers(&mut slow);
    server.stop();
}

#[test]
fn several_streams_of_one_worker_interleave() {
    const SIZE: usize = 8_000_000;
    let server = probe();
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(format!("GET /big?n={SIZE}&length=0 HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    // The last is read first: it must not wait for the others, which nobody reads yet.
    for client in clients.iter_mut().rev() {
        let response = client.response();
        assert!(response.complete);
        assert_eq!(response.body.len(), SIZE);
    }
    server.stop();
}
