//! `--request-id`: one name for a request in the environ, the answer, both logs and the status, whoever answers it.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use common::client::{Client, Response};
use common::server::{Running, Server};
use common::{SOON, wait_for};

/// Not in `--forwarded-allow-ips`.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

const APP: &str = r#"
import time

def application(environ, start_response):
    path, seen = environ["PATH_INFO"], environ.get("HTTP_X_REQUEST_ID", "none")
    if path == "/raise":
        raise ValueError("on purpose")
    if path == "/own":
        start_response("200 OK", [("x-request-ID", "of-the-application"), ("Content-Type", "text/plain")])
        return [seen.encode()]
    if path == "/stream":
        start_response("200 OK", [("X-Seen", seen)])
        return (part.encode() for part in seen)
    if path == "/hints":
        environ["wsgi.early_hints"]([("Link", "</a>; rel=preload")])
    if path == "/sleep":
        time.sleep(60)
    if path == "/short":
        start_response("200 OK", [("Content-Length", "100")])
        return [b"short"]
    start_response("204 No Content" if path == "/empty" else "200 OK", [("X-Seen", seen)])
    return [] if path == "/empty" else [seen.encode()]
"#;

fn server() -> (Server, PathBuf) {
    let server = Server::source(APP).options(["--request-id"]);
    let path = server.temp().join("access");
    (server.options(["--access-logfile", &path.display().to_string(), "--access-logformat", "%(I)s %(m)s %(U)s %(s)s"]), path)
}

fn ask(client: &mut Client, path: &str, id: Option<&str>) -> Response {
    let field = id.map_or(String::new(), |id| format!("X-Request-ID: {id}\r\n"));
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}Accept: */*\r\n\r\n"));
    client.response()
}

/// The name that the answer has, once.
#[track_caller]
fn id(response: &Response) -> String {
    let all = response.all("x-request-id");
    assert_eq!(all.len(), 1, "{response:?}");
    all[0].to_owned()
}

#[track_caller]
fn assert_new(id: &str) {
    assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
}

#[track_caller]
fn lines(path: &PathBuf, count: usize) -> Vec<String> {
    wait_for(&format!("{count} lines of the access log"), SOON, || {
        let lines: Vec<String> = fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect();
        (lines.len() == count).then_some(lines)
    })
}

#[test]
fn each_request_has_a_name_of_its_own_or_that_of_a_trusted_proxy() {
    let (server, path) = server();
    let server = server.start();
    let mut client = server.connect();
    let mut stranger = Client::connect_from(STRANGER, server.address());
    let mut seen = BTreeSet::new();
    let mut expected = Vec::new();
    let long = "x".repeat(129);
    // The first ones are not known blocks yet, the later ones are.
    for round in 0..6 {
        let given = format!("of-the-proxy.{round}/a:b+c=d@e_f");
        let response = ask(&mut client, "/", Some(&given));
        assert_eq!((id(&response), response.text()), (given.clone(), given.clone()));
        expected.push(given);
        for id_sent in [None, Some(""), Some("a b"), Some("a\u{e4}"), Some("a,b"), Some(&*long), Some("one\r\nX-Request-ID: two")]
        {
            let response = ask(&mut client, "/", id_sent);
            assert_new(&id(&response));
            assert_eq!(response.text(), id(&response), "{id_sent:?}");
            assert!(seen.insert(id(&response)), "a name comes twice");
            expected.push(id(&response));
        }
        let response = ask(&mut stranger, "/", Some("forged"));
        assert_new(&id(&response));
        assert_eq!(response.text(), id(&response));
        expected.push(id(&response));
    }
    let logged = lines(&path, expected.len());
    assert_eq!(logged, expected.iter().map(|id| format!("{id} GET / 200")).collect::<Vec<_>>());
    server.stop();
}

#[test]
fn every_kind_of_answer_has_it_once() {
    let (server, path) = server();
    let files = server.temp().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("small.txt"), "small").unwrap();
    fs::write(files.join("large.bin"), vec![b'x'; 1_000_000]).unwrap();
    let map = format!("/static={}", files.display());
    let server = server
        .options(["--static-map", &map, "--limit-request-body", "10"])
        .expect_error("on purpose")
        .expect_error("less than its Content-Length")
        .start();
    let mut client = server.connect();
    let mut count = 0;
    for (target, status) in [
        ("/", 200),
        ("/stream", 200),
        ("/empty", 204),
        ("/raise", 500),
        ("/static/small.txt", 200),
        ("/static/large.bin", 200),
        ("/static/none", 404),
        ("/short", 200),
    ] {
        for given in [Some("known"), None] {
            let mut client = server.connect();
            let response = ask(&mut client, target, given);
            assert_eq!(response.status, status, "{target}");
            match given {
                Some(given) => assert_eq!(id(&response), given, "{target}"),
                None => assert_new(&id(&response)),
            }
            count += 1;
        }
    }
    let response = ask(&mut client, "/own", Some("of-the-proxy"));
    assert_eq!((id(&response), response.text()), ("of-the-application".into(), "of-the-proxy".into()));
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nX-Request-ID: of-head\r\n\r\n");
    assert_eq!(id(&client.response_to("HEAD")), "of-head");
    // Interim answers have none: they are no answers yet.
    client.send("GET /hints HTTP/1.1\r\nHost: a\r\nX-Request-ID: of-hints\r\n\r\n");
    let hints = client.response();
    assert_eq!((hints.status, hints.all("x-request-id").len()), (103, 0), "{hints:?}");
    assert_eq!(id(&client.response()), "of-hints");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nX-Request-ID: of-body\r\n\r\n");
    let interim = client.response();
    assert_eq!((interim.status, interim.all("x-request-id").len()), (100, 0), "{interim:?}");
    client.send("12345");
    assert_eq!(id(&client.response()), "of-body");
    // What the server refuses: with a head, and without one, which gets a name all the same.
    for (bytes, status, name) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nX-Request-ID: too-long\r\nContent-Length: 11\r\n\r\n", 413, Some("too-long")),
        ("POST / HTTP/1.1\r\nHost: a\r\nX-Request-ID: unclear\r\nContent-Length: x\r\n\r\n", 400, Some("unclear")),
        ("GET / HTTP/1.1\r\nX-Request-ID: no-host\r\n\r\n", 400, Some("no-host")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: bad\r\nbad field\r\n\r\n", 400, None),
        ("nonsense\r\n\r\n", 400, None),
    ] {
        let response = server.exchange(bytes);
        assert_eq!(response.status, status, "{bytes}");
        match name {
            Some(name) => assert_eq!(id(&response), name),
            None => {
                assert_new(&id(&response));
                let new = id(&response);
                wait_for("the line of a request without a head", SOON, || {
                    fs::read_to_string(&path).unwrap_or_default().contains(&format!("{new} - - 400")).then_some(())
                });
            }
        }
    }
    let logged = lines(&path, count + 9);
    assert_eq!(logged.iter().filter(|line| line.starts_with("known ")).count(), count / 2, "{logged:#?}");
    for name in ["of-the-proxy", "of-head", "of-hints", "of-body", "too-long", "unclear", "no-host"] {
        assert!(logged.iter().any(|line| line.starts_with(&format!("{name} "))), "{name}: {logged:#?}");
    }
    let record = server.log().wait(&["on purpose", "request id known"]);
    assert!(record.text.contains("GET /raise, request id known: the application raised"), "{record:?}");
    server.log().wait(&["GET /short, request id known: the application sent 95 bytes less"]);
    server.stop();
}

#[test]
fn a_timeout_and_the_status_name_it() {
    let (server, path) = server();
    let server = server
        .options(["--timeout", "2", "--timeout-grace", "0", "--threads", "2", "--trusted-proxy-headers", "x-forwarded-for"])
        .expect_error("/sleep")
        .start();
    let mut client = server.connect();
    client.send("GET /sleep HTTP/1.1\r\nHost: a\r\nX-Request-ID: of-the-sleeper\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    let shown = wait_for("the status of a busy worker", SOON, || {
        let mut door = Client::connect(&server.control());
        let status = door.get("/status.json").json();
        let text = status.to_string();
        text.contains("of-the-sleeper").then_some(text)
    });
    assert!(shown.contains("192.0.2.7"), "{shown}");
    let response = client.response();
    assert_eq!((response.status, id(&response)), (504, "of-the-sleeper".to_owned()));
    server.log().wait(&["GET /sleep", "from 192.0.2.7", "request id of-the-sleeper"]);
    assert_eq!(lines(&path, 1), ["of-the-sleeper GET /sleep 504"]);
    server.stop();
}

#[test]
fn the_id_of_a_client_is_found_where_the_fields_before_it_are_cleared() {
    let server = Server::source(APP).options(["--clear-untrusted-proxy-headers"]).start();
    let mut client = Client::connect_from(STRANGER, server.address());
    // What is cleared stands before it, so that its place among the fields is another one then.
    for id in ["of-the-client", "of-another-one"] {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\nForwarded: for=x\r\nX-Request-ID: {id}\r\n\r\n"
        ));
        assert_eq!(client.response().text(), id);
    }
    server.stop();
}

#[test]
fn names_are_unique_over_workers_threads_and_restarts() {
    let mut seen = BTreeSet::new();
    let mut ask_all = |server: &Running, count: usize| {
        let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        for _ in 0..count {
            for client in &mut clients {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            for client in &mut clients {
                assert!(seen.insert(id(&client.response())), "a name comes twice");
            }
        }
    };
    for preload in [&[][..], &["--preload"]] {
        let (server, _) = server();
        let server = server.workers(4).options(["--threads", "2"]).options(preload).start();
        ask_all(&server, 10);
        server.signal(nix::sys::signal::Signal::SIGHUP);
        server.log().wait(&["reload done"]);
        ask_all(&server, 10);
        server.stop();
    }
    assert_eq!(seen.len(), 800);
}

#[test]
fn the_json_log_has_it_with_the_trace_and_the_peer() {
    let server =
        Server::new("probe").options(["--request-id", "--trusted-proxy-headers", "forwarded", "--access-logformat", "json"]);
    let path = server.temp().join("access");
    let server = server.options(["--access-logfile", &path.display().to_string()]).start();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut client = server.connect();
    for trace in [trace, "forged\"", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        client.send(format!(
            "GET /environ HTTP/1.1\r\nHost: a\r\nForwarded: for=192.0.2.7\r\nX-Request-ID: 7f\r\ntraceparent: {trace}\r\n\r\n"
        ));
        assert_eq!(client.response().json()["HTTP_TRACEPARENT"], trace, "it is passed on as it came");
    }
    let lines: Vec<serde_json::Value> = lines(&path, 3).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (line, trace) in lines.iter().zip([Some(trace), None, None]) {
        let of = |key: &str| line[key].as_str();
        assert_eq!((of("request_id"), of("remote_addr"), of("peer_addr")), (Some("7f"), Some("192.0.2.7"), Some("127.0.0.1")));
        assert_eq!(of("traceparent"), trace, "{line}");
    }
    server.stop();
}

#[test]
fn without_the_option_nothing_is_added() {
    let server = Server::source(APP).start();
    let mut client = server.connect();
    for (given, seen) in [(None, "none"), (Some("sent"), "sent")] {
        let response = ask(&mut client, "/", given);
        assert_eq!((response.all("x-request-id").len(), response.text()), (0, seen.to_owned()), "{response:?}");
    }
    server.stop();
}
