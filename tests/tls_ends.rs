//! How connections end over TLS. A client that is cut off knows it, and so does the server: an end that nobody has announced
//! (close_notify, RFC 8446 section 6.1) is an accident or an attack.

mod common;

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use nix::sys::signal::Signal;

use common::client::Client;
use common::server::{Running, Server};
use common::tls::{self, Manner, TLS12, TLS13};
use common::{SOON, wait_for};

/// Counts its calls, in `calls`.
const COUNTING: &str = "import os
def application(environ, start_response):
    with open('calls', 'a') as calls:
        calls.write(environ['PATH_INFO'] + '\\n')
    body = environ['wsgi.input'].read()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

fn calls(server: &Running) -> Vec<String> {
    let text = fs::read_to_string(server.temp().join("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Clients of both versions, each connected when it is its turn.
fn both(server: &Running) -> impl Iterator<Item = Client> {
    [&TLS12, &TLS13].into_iter().map(|version| {
        let config = Manner { version: Some(version), ..Manner::default() }.config();
        Client::try_connect_tls(server.address(), tls::localhost(), config).expect("a handshake")
    })
}

/// Ends the connection below TLS without a word.
fn cut(client: &mut Client) {
    client.tls().sock.shutdown(Shutdown::Write).expect("it is open");
}

const HALVES: [&str; 3] = [
    "POST /half HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello",
    "POST /half HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "POST /half HTTP/1.1\r\nHost: te",
];

#[test]
fn a_request_that_is_cut_off_is_not_begun() {
    let server = Server::source(COUNTING).tls().start();
    for half in HALVES {
        for announced in [false, true] {
            for mut client in both(&server) {
                client.send(half);
                if announced {
                    client.finish_sending()
                } else {
                    cut(&mut client)
                }
                let answer = client.rest();
                assert!(!answer.starts_with(b"HTTP/1.1 2"), "{half:?}: {}", answer.escape_ascii());
            }
        }
    }
    assert_eq!(calls(&server), [""; 0]);
    server.get("/whole");
    assert_eq!(calls(&server), ["/whole"]);
    server.stop();
}

#[test]
fn a_large_body_that_is_cut_off_is_not_begun() {
    /// More than is kept in memory, in bytes.
    const LARGE: usize = 3 * 1024 * 1024;
    let server = Server::source(COUNTING).tls().start();
    for mut client in both(&server) {
        client.send(format!("POST /large HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", LARGE + 1));
        client.send(vec![b'x'; LARGE]);
        cut(&mut client);
        assert!(!client.rest().starts_with(b"HTTP/1.1 2"));
    }
    // The last byte of a record is missing.
    for mut client in both(&server) {
        client.send("POST /record HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n");
        let mut record = Vec::new();
        let stream = client.tls();
        stream.conn.writer().write_all(b"hello").expect("there is room");
        stream.conn.write_tls(&mut record).expect("a vector takes everything");
        stream.sock.write_all(&record[..record.len() - 1]).expect("it listens");
        cut(&mut client);
        assert!(!client.rest().starts_with(b"HTTP/1.1 2"));
    }
    // One of its bytes is another one.
    for mut client in both(&server) {
        client.send("POST /forged HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n");
        let mut record = Vec::new();
        let stream = client.tls();
        stream.conn.writer().write_all(b"hello").expect("there is room");
        stream.conn.write_tls(&mut record).expect("a vector takes everything");
        let last = record.len() - 1;
        record[last] ^= 1;
        stream.sock.write_all(&record).expect("it listens");
        assert!(!client.rest().starts_with(b"HTTP/1.1 2"));
    }
    assert_eq!(calls(&server), [""; 0]);
    server.stop();
}

#[test]
fn a_whole_request_is_answered_however_its_client_ends() {
    let server = Server::source(COUNTING).tls().start();
    for announced in [false, true] {
        for mut client in both(&server) {
            client.send("POST /whole HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
            if announced {
                client.finish_sending()
            } else {
                cut(&mut client)
            }
            let response = client.response();
            assert_eq!((response.status, response.text().as_str()), (200, "hello"));
            // Who has not announced its own end learns that the answer was whole from its length.
            assert!(if announced { client.ends_in_order() } else { client.fill().is_err() || client.ends_in_order() });
        }
    }
    server.stop();
}

#[test]
fn an_answer_that_is_cut_off_looks_so() {
    let mut server = Server::new("probe").tls().start();
    server.expect_error("this was to happen");
    for (target, version) in [("/broken?pause=1", "1.0"), ("/broken?pause=1&length=1", "1.1"), ("/broken?pause=1", "1.1")] {
        for mut client in both(&server) {
            client.send(format!("GET {target} HTTP/{version}\r\nHost: test\r\n\r\n"));
            let response = client.response();
            assert!(response.status == 200 && !response.complete, "{target} {version}: {response:?}");
        }
    }
    // And one that has no length, but an end, is whole.
    for mut client in both(&server) {
        client.send("GET /no-length HTTP/1.0\r\nHost: test\r\n\r\n");
        let response = client.response();
        assert!(response.complete && response.text() == "one two three", "{response:?}");
    }
    server.stop();
}

#[test]
fn an_answer_of_a_worker_that_dies_looks_cut_off() {
    let mut server = Server::new("probe").tls().start();
    server.expect_error("SIGKILL");
    for mut client in both(&server) {
        client.send("GET /drip?n=1000 HTTP/1.0\r\nHost: test\r\n\r\n");
        while !client.leftover().ends_with(b".") {
            assert!(matches!(client.fill(), Ok(1..)), "the answer begins");
        }
        let worker = server.workers()[0];
        common::server::signal_to(worker, Signal::SIGKILL);
        while matches!(client.fill(), Ok(1..)) {}
        assert!(client.fill().is_err(), "no end in order");
        wait_for("another worker", SOON, || server.workers().iter().any(|pid| *pid != worker).then_some(()));
    }
    server.stop();
}

#[test]
fn every_end_by_the_server_is_announced() {
    let options =
        ["--keep-alive", "1", "--header-timeout", "1", "--limit-request-body", "10", "--limit-request-field_size", "200"];
    let server = Server::new("probe").tls().options(options).start();
    let long = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n\r\n", "x".repeat(400));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", 200),
        ("GET / HTTP/1.0\r\nHost: test\r\n\r\n", 200),
        ("HEAD / HTTP/1.0\r\nHost: test\r\n\r\n", 200),
        ("GET /big?n=300000&length=0 HTTP/1.0\r\nHost: test\r\n\r\n", 200),
        // The time of a kept connection is over.
        ("GET / HTTP/1.1\r\nHost: test\r\n\r\n", 200),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nhello", 413),
        (long.as_str(), 431),
        // The head does not come in time.
        ("GET / HTTP/1.1\r\nHo", 408),
    ] {
        for mut client in both(&server) {
            client.send(request);
            let response = client.response_to(request.split(' ').next().unwrap_or_default());
            assert_eq!(response.status, status, "{request:?}");
            assert!(response.complete && client.ends_in_order(), "{request:?}");
        }
    }
    // Nothing is asked at all.
    for mut client in both(&server) {
        assert!(client.ends_in_order());
    }
    server.stop();
}

/// Sends the first half of the record that these bytes are in, and gives the other one.
fn send_half(client: &mut Client, bytes: &str) -> Vec<u8> {
    let stream = client.tls();
    stream.conn.writer().write_all(bytes.as_bytes()).expect("there is room");
    let mut record = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut record).expect("a vector takes everything");
    }
    let rest = record.split_off(record.len() / 2);
    stream.sock.write_all(&record).expect("the server takes it");
    rest
}

#[test]
fn a_request_begins_with_its_record() {
    let server = Server::new("probe").tls().workers(1).options(["--keep-alive", "1"]).start();
    for mut client in both(&server) {
        client.get("/");
        let rest = send_half(&mut client, "GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut idle = both(&server).next().expect("a client");
        idle.get("/");
        assert!(idle.ends_in_order(), "the time of a kept connection is over, for this one later");
        client.tls().sock.write_all(&rest).expect("it is open");
        assert_eq!(client.response().status, 200);
    }
    let mut server = server;
    let mut clients: Vec<_> = both(&server).collect();
    let mut rests = Vec::new();
    for client in &mut clients {
        client.get("/");
        rests.push(send_half(client, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    let mut idle = both(&server).next().expect("a client");
    idle.get("/");
    server.signal(Signal::SIGTERM);
    assert!(idle.ends_in_order(), "the server leaves");
    for (client, rest) in clients.iter_mut().zip(rests) {
        client.tls().sock.write_all(&rest).expect("it is open");
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(server.wait(SOON).code(), Some(0));
}

#[test]
fn a_record_that_does_not_come_to_its_end_gets_the_time_of_a_head() {
    let server = Server::new("probe").tls().options(["--keep-alive", "300", "--header-timeout", "1"]).start();
    for mut client in both(&server) {
        client.get("/");
        let _rest = send_half(&mut client, "GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.response().status, 408);
        assert!(client.ends_in_order());
    }
    server.stop();
}

#[test]
fn a_server_that_stops_announces_it_to_kept_connections_and_one_that_reloads_keeps_them() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let mut server = Server::new("probe").tls().options(["--keep-alive", "300"]).start();
        let before = server.workers();
        let mut idle: Vec<Client> = both(&server).collect();
        for client in &mut idle {
            assert_eq!(client.get("/").status, 200);
        }
        let mut busy: Vec<Client> = both(&server).collect();
        for client in &mut busy {
            client.send("GET /sleep?ms=300 HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        // The requests are with the worker, or their connections say nothing yet.
        wait_for("the requests to run", SOON, || (common::procfs::open_files(before[0]) > 0).then_some(()));
        std::thread::sleep(Duration::from_millis(100));
        server.signal(signal);
        for client in &mut busy {
            assert_eq!(client.response().status, 200, "what runs is answered");
        }
        if signal == Signal::SIGHUP {
            server.wait_for_end_of(&before);
            for client in busy.iter_mut().chain(&mut idle) {
                assert_eq!(client.get("/").status, 200, "a new worker has it");
            }
            server.signal(Signal::SIGTERM);
        }
        for client in &mut busy {
            assert!(client.ends_in_order(), "{signal}: after the answer");
        }
        for client in &mut idle {
            assert!(client.ends_in_order(), "{signal}: while nothing is asked");
        }
        assert_eq!(server.wait(SOON).code(), Some(0));
        server.finish();
    }
}

#[test]
fn a_client_that_ends_without_a_word_is_told_that_the_end_is_meant() {
    let server = Server::new("probe").tls().start();
    for part in ["", "GET / HT", "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello"] {
        for mut client in both(&server) {
            assert_eq!(client.get("/").status, 200);
            client.send(part);
            cut(&mut client);
            assert!(client.ends_in_order(), "after {part:?}");
        }
    }
    server.stop();
}

#[test]
fn what_comes_after_the_end_is_thrown_away() {
    /// No record that anybody could open.
    const FORGED: [u8; 37] = {
        let mut record = [0; 37];
        [record[0], record[1], record[2], record[4]] = [0x17, 3, 3, 32];
        record
    };
    let server = Server::new("probe").tls().options(["--limit-request-body", "10"]).start();
    let workers = server.workers();
    for mut client in both(&server) {
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhello");
        assert_eq!(client.response().status, 413);
        assert!(client.ends_in_order());
        client.send("more");
        client.tls().sock.write_all(&FORGED).expect("the server still reads");
        client.send("more");
        cut(&mut client);
    }
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.workers(), workers);
    server.stop();
}

#[test]
fn a_client_that_says_its_end_is_let_go_and_one_that_is_gone_is_known() {
    /// Notes whether its client is still there.
    const GONE: &str = "import time
def application(environ, start_response):
    if environ['PATH_INFO'] == '/wait':
        until = time.monotonic() + 20
        while time.monotonic() < until and not environ['tapster.client_disconnected']():
            time.sleep(0.01)
        with open('gone', 'a') as gone:
            gone.write('gone\\n' if time.monotonic() < until else 'there\\n')
    start_response('200 OK', [('Content-Length', '0')])
    return []
";
    let server = Server::source(GONE).tls().options(["--threads", "4"]).start();
    for mut client in both(&server) {
        assert_eq!(client.get("/").status, 200);
        client.finish_sending();
        assert!(client.ends_in_order(), "the end of a client that has nothing running is answered");
    }
    for (index, mut client) in both(&server).enumerate() {
        client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
        std::thread::sleep(Duration::from_millis(100));
        client.reset();
        let path = server.temp().join("gone");
        wait_for("the application's note", SOON, || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            (text.lines().count() > index).then(|| assert!(!text.contains("there"), "{text}"))
        });
    }
    server.stop();
}
