//! PEP 3333 end to end: what applications are given and what they may do. How their bodies travel is in answers.rs.

mod common;

use common::client::Response;
use common::server::{Running, Server};

fn cases() -> Server {
    let server = Server::new("cases:application");
    let temp = server.temp().display().to_string();
    server.env("CASES_DIR", temp)
}

#[track_caller]
fn assert_text(response: &Response, status: u16, text: &str) {
    assert_eq!((response.status, response.text().as_str()), (status, text), "{response:?}");
}

/// What `/complain` writes, line by line.
const COMPLAINTS: [&str; 6] = ["first line", "second line", "third line", "forged", "forged record", "without an end"];

/// The worker lives and serves, and is still this process.
#[track_caller]
fn assert_same_worker(server: &Running, pid: &str) {
    assert_text(&server.get("/pid"), 200, pid);
}

#[test]
fn the_environ_has_every_required_key() {
    let server = Server::new("probe:validated").start();
    let mut client = server.connect();
    client.send("POST /a?b=c HTTP/1.1\r\nHost: name:81\r\nContent-Type: text/x\r\nContent-Length: 2\r\nX-Multi: 1\r\nX-Multi: 2\r\n\r\nhi");
    let seen = client.response().json();
    let port = server.address().tcp().port().to_string();
    let remote = client.port().to_string();
    for (name, value) in [
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/a"),
        ("QUERY_STRING", "b=c"),
        ("CONTENT_TYPE", "text/x"),
        ("CONTENT_LENGTH", "2"),
        ("SERVER_NAME", "127.0.0.1"),
        ("SERVER_PORT", &port),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", &remote),
        ("RAW_URI", "/a?b=c"),
        ("REQUEST_URI", "/a?b=c"),
        ("HTTP_HOST", "name:81"),
        ("HTTP_X_MULTI", "1,2"),
        ("wsgi.url_scheme", "http"),
    ] {
        let found = seen[name].as_str().unwrap_or("(missing)");
        assert_eq!(found.replace(", ", ","), value, "{name} in {seen}");
    }
    assert!(seen["SERVER_SOFTWARE"].as_str().is_some_and(|name| name.to_ascii_lowercase().starts_with("tapster/")), "{seen}");
    assert_eq!(seen["version"], serde_json::json!([1, 0]));
    assert_eq!(seen["exact dict"], true);
    let flags = serde_json::json!({"wsgi.multithread": false, "wsgi.multiprocess": false, "wsgi.run_once": false});
    assert_eq!(seen["flags"], flags, "one worker with one thread");
    assert!(seen.get("HTTP_CONTENT_TYPE").is_none() && seen.get("HTTP_CONTENT_LENGTH").is_none(), "{seen}");
    server.stop();
}

#[test]
fn a_request_without_a_body_has_no_length_and_an_empty_input() {
    let server = Server::new("probe:validated").start();
    let seen = server.get("/environ").json();
    assert!(matches!(seen.get("CONTENT_LENGTH").map(|v| v.as_str()), None | Some(Some("" | "0"))), "{seen}");
    assert_eq!(seen["body"], "");
    assert_eq!(seen["QUERY_STRING"], "", "always there, as Python's own servers have it");
    server.stop();
}

#[test]
fn several_workers_are_several_processes() {
    let server = Server::new("probe:validated").workers(2).start();
    assert_eq!(server.get("/environ").json()["flags"]["wsgi.multiprocess"], true);
    server.stop();
}

#[test]
fn values_are_latin_1_text() {
    let server = Server::new("probe:validated").start();
    let seen =
        server.exchange(b"GET /environ HTTP/1.1\r\nHost: test\r\nX-Name: caf\xc3\xa9 \xff\r\nX-Blank:  a  b \t\r\n\r\n").json();
    assert_eq!(seen["HTTP_X_NAME"], "caf\u{c3}\u{a9} \u{ff}");
    assert_eq!(seen["HTTP_X_BLANK"], "a  b", "blanks around a value are not part of it");
    server.stop();
}

#[test]
fn environs_of_requests_on_one_connection_are_their_own() {
    let server = Server::new("probe:validated").start();
    let mut client = server.connect();
    client.send("GET /environ?1 HTTP/1.1\r\nHost: test\r\nX-One: 1\r\nCookie: a\r\n\r\n");
    assert_eq!(client.response().json()["HTTP_X_ONE"], "1");
    client.send("GET /environ?2 HTTP/1.1\r\nHost: test\r\nCookie: b\r\n\r\n");
    let second = client.response().json();
    assert!(second.get("HTTP_X_ONE").is_none(), "{second}");
    assert_eq!((second["HTTP_COOKIE"].as_str(), second["QUERY_STRING"].as_str()), (Some("b"), Some("2")));
    server.stop();
}

#[test]
fn the_validator_finds_nothing_on_any_path() {
    let server = Server::new("cases:validated");
    let temp = server.temp().display().to_string();
    std::fs::write(server.temp().join("large"), vec![b'x'; 100_000]).expect("the temp directory is writable");
    std::fs::write(server.temp().join("gate"), "open").expect("the temp directory is writable");
    let mut server = server.env("CASES_DIR", temp).start();
    for complaint in COMPLAINTS {
        server.expect_error(complaint);
    }
    let mut client = server.connect();
    for target in [
        "/pid",
        "/gated",
        "/gated-write",
        "/write-with-length",
        "/closing",
        "/exc-info",
        "/fields",
        "/complain",
        "/file-like",
        "/file",
        "/file-minimal",
        "/file-wrapped",
        "/thread",
        "/missing",
    ] {
        let response = client.get(target);
        assert!(matches!(response.status, 200 | 404 | 503) && response.complete, "{target}: {response:?}");
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.response_to("HEAD");
    }
    for way in ["read", "readline", "readlines", "hint", "iterate", "mixed"] {
        client.send(format!("POST /reading?{way} HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\na\nb\n"));
        assert_eq!(client.response().status, 200, "{way}");
    }
    let log = server.stop();
    // What wsgiref.validate writes, from a destructor, where it cannot raise.
    assert!(!log.text().contains("without being closed"), "{}", log.text());
}

#[test]
fn the_input_has_every_method_and_an_end() {
    let server = cases().start();
    let body = "first\nsecond line\n\nlast";
    for (way, parts) in [
        ("read", r"[b'firs', b'', b't\nsecond line\n\nlast', b'', b'']"),
        ("readline", r"[b'first\n', b'second line\n', b'\n', b'last', b'', b'']"),
        ("readlines", r"[b'first\n', b'second line\n', b'\n', b'last', b'']"),
        ("hint", r"[b'first\n', b'second line\n\nlast']"),
        ("iterate", r"[b'first\n', b'second line\n', b'\n', b'last', b'']"),
        ("mixed", r"[b'fir', b'st', b'\n', b'sec', b'ond line\n\nlast']"),
    ] {
        // By length, chunked, and spooled to a file: the same for the application.
        let by_length = format!("POST /reading?{way} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_text(&server.exchange(by_length), 200, parts);
        let chunked = format!("POST /reading?{way} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunks: String = body.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
        assert_text(&server.exchange(chunked + &chunks + "0\r\n\r\n"), 200, parts);
    }
    assert_text(&server.exchange("POST /read-all HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"), 200, "abc");
    assert_text(&server.get("/read-all"), 200, "");
    server.stop();

    let spooled = cases().options(["--body-buffer", "1024"]).start();
    let long = "x".repeat(2000);
    let body = format!("first\nsecond line\n{long}");
    let request = format!("POST /reading?mixed HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_text(&spooled.exchange(request), 200, &format!(r"[b'fir', b'st', b'\n', b'sec', b'ond line\n{long}']"));
    let mut client = spooled.connect();
    client.send("POST /reading?readline HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let parts = format!(r"[b'first\n', b'second line\n', b'{long}', b'', b'']");
    assert_text(&client.response(), 200, &parts);
    assert_text(&spooled.get("/read-all"), 200, "");
    spooled.stop();
}

#[test]
fn what_an_application_writes_to_wsgi_errors_is_in_the_error_log_line_by_line() {
    let mut server = cases().start();
    for complaint in COMPLAINTS {
        server.expect_error(complaint);
    }
    assert_text(&server.get("/complain"), 200, "complained");
    server.log().wait(&["without an end"]);
    let log = server.stop();
    for line in ["first line", "second line", "third line", "without an end"] {
        let lines: Vec<String> = log.text().lines().filter(|found| found.ends_with(line)).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{line:?} in\n{}", log.text());
    }
    assert!(log.text().contains("printed to stderr"), "sys.stderr is not lost");
    let forged = log.records().into_iter().any(|r| r.text.starts_with("2026-01-01T00:00:00") && r.level == "CRITICAL");
    assert!(!forged, "an application cannot forge a record:\n{}", log.text());
}

#[test]
fn an_error_is_answered_500_and_logged_with_its_request_and_traceback() {
    let server = cases().expect_error("raised before").expect_error("raised after").start();
    let pid = server.get("/pid").text();
    let mut client = server.connect();
    for path in ["/raises?x=1", "/raises-after-start"] {
        let response = client.get(path);
        assert_eq!(response.status, 500, "{response:?}");
        assert!(!response.text().contains("ValueError"), "an answer shows no traceback: {response:?}");
        if response.closes() {
            client = server.connect();
        }
    }
    let record = server.log().wait(&["ValueError: raised before start_response"]);
    for part in ["GET", "/raises", "Traceback (most recent call last)", "cases.py", "in raises"] {
        assert!(record.text.contains(part), "no {part:?} in {record:#?}");
    }
    assert_same_worker(&server, &pid);
    server.stop();
}

#[test]
fn an_application_that_exits_does_not_stop_its_worker() {
    let server = cases().expect_error("SystemExit").expect_error("KeyboardInterrupt").start();
    let pid = server.get("/pid").text();
    for _ in 0..2 {
        assert_eq!(server.get("/exits").status, 500);
        assert_eq!(server.get("/interrupts").status, 500);
        let cut = server.get("/exits-in-body");
        assert!(!cut.complete && cut.text() == "one", "{cut:?}");
    }
    assert_same_worker(&server, &pid);
    server.stop();
}

#[test]
fn the_application_runs_in_the_main_thread() {
    let server = cases().start();
    assert_text(&server.get("/thread"), 200, "True ran");
    server.stop();
}

#[test]
fn exc_info_replaces_an_answer_that_was_not_sent() {
    let server = cases().start();
    let replaced = server.get("/exc-info");
    assert_text(&replaced, 503, "replaced");
    assert_eq!((replaced.reason.as_str(), replaced.field("x-first"), replaced.field("x-second")), ("Later", None, Some("1")));
    let changed = server.get("/empty-then-late");
    assert_text(&changed, 500, "changed");
    assert_eq!(changed.reason, "Changed");
    server.stop();
}

#[test]
fn exc_info_is_raised_again_when_the_head_was_sent() {
    let server = cases().expect_error("too late to replace").start();
    let cut = server.get("/exc-info-late");
    assert_eq!((cut.status, cut.text().as_str(), cut.complete), (200, "already sent", false), "{cut:?}");
    server.stop();
}

#[test]
fn start_response_twice_is_an_error() {
    let server = cases().expect_error("start_response").start();
    assert_eq!(server.get("/start-twice").status, 500);
    server.stop();
}

#[test]
fn start_response_may_come_with_the_first_block() {
    let server = cases().start();
    assert_text(&server.get("/late-start"), 200, "late");
    server.stop();
}

#[test]
fn fields_of_the_application_pass_unchanged() {
    let server = cases().start();
    let response = server.get("/fields");
    assert_eq!((response.status, response.reason.as_str()), (200, "Very Well"));
    assert_eq!(response.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.field("x-latin"), Some("caf\u{e9}"));
    assert_eq!(response.field("x-empty"), Some(""));
    assert_eq!(response.all("date"), ["Thu, 01 Jan 1970 00:00:00 GMT"]);
    assert_eq!(response.all("server"), ["mine"]);
    assert_eq!(response.field("content-length"), Some("6"), "a list of one block has a length");
    let names: Vec<&str> =
        response.fields.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("Set-")).collect();
    assert_eq!(names, ["Set-Cookie", "Set-Cookie"], "spelling is kept");
    server.stop();
}

#[test]
fn statuses_without_a_standard_reason_pass() {
    let server = cases().start();
    for (query, status, reason) in [("299+Odd", 299, "Odd"), ("418+I'm+a+teapot", 418, "I'm a teapot"), ("599+", 599, "")] {
        let response = server.get(&format!("/odd-status?status={query}"));
        assert_eq!((response.status, response.reason.as_str()), (status, reason));
    }
    server.stop();
}

#[test]
fn fields_and_statuses_that_could_split_an_answer_are_refused() {
    let server = cases().expect_error("X-Bad").start();
    let mut refused = 0;
    for query in [
        "name=X-Bad&value=a%0d%0aX-Evil:1",
        "name=X-Bad&value=a%0aX-Evil:1",
        "name=X-Bad&value=a%00b",
        "name=X-Bad%0d&value=1",
        "name=X-Bad:&value=1",
        "name=X-Bad+&value=1",
    ] {
        let response = server.get(&format!("/bad-field?{query}"));
        assert!(response.status == 500 && response.field("x-evil").is_none(), "{query}: {response:?}");
        refused += 1;
    }
    let log = server.log().clone();
    let mut server = server;
    server.expect_error("status");
    for status in ["200+OK%0d%0aX-Evil:1", "200%0aX", "20+OK", "two+hundred", "100+Continue"] {
        let response = server.get(&format!("/odd-status?status={status}"));
        assert!(response.status == 500 && response.field("x-evil").is_none(), "{status}: {response:?}");
    }
    for name in ["Transfer-Encoding", "Upgrade", "Trailer"] {
        server.expect_error(name);
        let response = server.get(&format!("/bad-field?name={name}&value=chunked"));
        assert_eq!(response.status, 500, "hop-by-hop fields belong to the server: {response:?}");
    }
    assert!(log.records().iter().filter(|record| record.text.contains("X-Bad")).count() >= refused);
    server.stop();
}

#[test]
fn an_application_may_end_the_connection_but_not_keep_it() {
    let server = cases().start();
    let mut client = server.connect();
    assert!(client.get("/bad-field?name=Connection&value=close").closes());
    assert!(client.is_closed());
    let mut client = server.connect();
    client.send("GET /bad-field?name=Connection&value=keep-alive HTTP/1.0\r\n\r\n");
    assert!(client.response().closes() && client.is_closed());
    server.stop();
}

#[test]
fn diagnostics_name_the_mistake() {
    let mistakes: [(&str, &[&str]); 5] = [
        ("/no-start", &["start_response"]),
        ("/returns-none", &["None"]),
        ("/returns-str", &["str", "bytes"]),
        ("/yields-str", &["str", "bytes"]),
        ("/returns-bytes", &["bytes"]),
    ];
    let mut server = cases().start();
    for (path, parts) in mistakes {
        server.expect_error(path);
        let response = server.get(path);
        if path == "/returns-bytes" && response.status == 200 {
            panic!("an iterable of numbers was accepted: {response:?}");
        }
        assert_eq!(response.status, 500, "{path}: {response:?}");
        let record = server.log().wait(&[path]);
        assert!(parts.iter().all(|part| record.text.contains(part)), "{path}: {record:#?}");
    }
    server.stop();
}

#[test]
fn swapped_arguments_are_recognised() {
    let server = Server::new("cases:swapped").expect_error("start_response").start();
    assert_eq!(server.get("/").status, 500);
    let record = server.log().wait(&["start_response"]);
    assert!(record.text.contains("environ") && record.text.contains("order"), "the message says what to change: {record:#?}");
    server.stop();
}
