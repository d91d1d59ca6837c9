//! Buffers that grow, change hands and are given back: no answer is lost with one, and what clients make grow has a bound.

mod common;

use std::time::Duration;

use common::client::Client;
use common::server::{Running, Server, at_once};
use common::{SOON, procfs, wait_for};

/// More than a worker keeps of its output buffer between two iterations, in bytes.
const GROWN: usize = 300_000;

/// Longer than a call keeps the loop, in seconds.
const SLOW: &str = "0.02";

/// Answers whose buffer has grown, and calls that lose the loop.
const APP: &str = "
import time

def app(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/write':
        write = start_response('200 OK', [])
        write(b'x' * GROWN)
        return [b'end']
    if path == '/slow':
        time.sleep(SLOW)
        start_response('200 OK', [])
        return [b'7 bytes']
    if path == '/head':
        time.sleep(SLOW)
        start_response('200 OK', [('X-Part', 'x' * 1000)] * (GROWN // 1000))
        return [b'7 bytes']
    if path == '/blocks':
        write = start_response('200 OK', [])
        write(b'x' * GROWN)
        return blocks()

def blocks():
    for number in range(5):
        time.sleep(SLOW)
        yield b'%d' % number * 5
";

fn server(threads: usize) -> Server {
    let app = APP.replace("GROWN", &GROWN.to_string()).replace("SLOW", SLOW);
    Server::source(&app).options(["--threads", &threads.to_string(), "--access-logfile", "-"])
}

const THREADS: [usize; 2] = [1, 4];

/// A connection that was served once and is registered with the worker's poll.
#[track_caller]
fn kept(server: &Running) -> Client {
    let mut client = server.connect();
    assert_eq!(client.get("/slow").text(), "7 bytes");
    client
}

#[test]
fn an_answer_is_not_lost_after_one_for_which_the_buffer_grew() {
    for threads in THREADS {
        let server = server(threads).start();
        let (mut large, mut small) = (kept(&server), kept(&server));
        for _ in 0..10 {
            at_once(server.workers()[0], || {
                large.send("GET /write HTTP/1.1\r\nHost: x\r\n\r\n");
                small.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
            });
            assert_eq!(small.response().text(), "7 bytes");
            let response = large.response();
            assert!(response.complete && response.body.len() == GROWN + 3, "{} bytes", response.body.len());
        }
        server.stop();
    }
}

#[test]
fn a_large_head_is_not_lost_after_a_slow_call() {
    for threads in THREADS {
        let server = server(threads).start();
        let mut client = kept(&server);
        for _ in 0..3 {
            let response = client.get("/head");
            assert_eq!((response.text().as_str(), response.fields.len() > GROWN / 1000), ("7 bytes", true));
        }
        server.stop();
    }
}

#[test]
fn a_block_of_a_stream_is_not_lost_after_a_large_write() {
    for threads in THREADS {
        let server = server(threads).start();
        let mut client = kept(&server);
        for _ in 0..3 {
            let response = client.get("/blocks");
            assert!(response.complete && response.body.len() == GROWN + 25, "{} bytes", response.body.len());
            assert_eq!(&response.body[GROWN..], b"0000011111222223333344444");
        }
        // As many bytes as the log says.
        wait_for("the access log", SOON, || {
            (server.stdout().matches(&format!("\"GET /blocks HTTP/1.1\" 200 {} ", GROWN + 25)).count() == 3).then_some(())
        });
        server.stop();
    }
}

#[test]
fn a_reload_that_lowers_the_limits_refuses_parts_of_heads_that_are_beyond_them() {
    const INNOCENT: usize = 20;
    let plain = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'7 bytes']\n";
    let server = Server::source(plain).workers(2);
    let config = server.temp().join("tapster.toml");
    let limits = |line: usize, fields: usize, size: usize| {
        let text = format!(
            "limit-request-line = {line}\nlimit-request-fields = {fields}\nlimit-request-field_size = {size}\n\
             keep-alive = 600\nheader-timeout = 600\n"
        );
        std::fs::write(&config, text).expect("the temp directory is writable");
    };
    limits(8190, 100, 8190);
    let server = server.options(["--config", &config.display().to_string(), "--access-logfile", "-"]).start();
    let mut innocent: Vec<Client> = (0..INNOCENT).map(|_| kept(&server)).collect();
    let field = |count: usize| format!("X: {}\r\n", "x".repeat(count));
    // Each with the answer that the same bytes get from a worker with the lower limits.
    let parts = [
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}", field(1_000).repeat(60)), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}", field(8_000).repeat(6)), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(3_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "X: 1\r\n".repeat(90)), 431),
        (format!("GET /{}", "x".repeat(8_000)), 414),
        ("GET / HTTP/1.1\r\nHost: x\r\n".to_owned(), 200),
        ("GET /".to_owned(), 200),
    ];
    let mut half: Vec<(Client, u16)> = Vec::new();
    for (part, status) in parts.iter().cycle().take(4 * parts.len()) {
        let mut client = kept(&server);
        client.send(part);
        half.push((client, *status));
    }
    // A worker that is asked later has read the earlier bytes.
    for client in &mut innocent {
        assert_eq!(client.get("/").status, 200);
    }
    limits(200, 5, 300);
    common::deploy::reload(&server, "reload done", 1);
    for (index, (client, status)) in half.iter_mut().enumerate() {
        match *status {
            200 if index % parts.len() == parts.len() - 1 => client.send(" HTTP/1.1\r\nHost: x\r\n\r\n"),
            200 => client.send("\r\n"),
            _ => {}
        }
        let response = client.response();
        assert_eq!((response.status, response.closes()), (*status, *status != 200), "part {}", index % parts.len());
    }
    for client in &mut innocent {
        assert_eq!(client.get("/").status, 200, "an innocent connection");
    }
    server.stop();
}

/// Memory for what the connections of a worker keep, in bytes.
const BUDGET: usize = 64 * 1024 * 1024;

/// Memory that the worker may need besides, in bytes.
const BESIDES: u64 = 24 * 1024 * 1024;

/// A part of a head in bytes.
const PART: usize = 1_000_000;

/// Time in which a busy machine reads all those parts with a debug build.
const READING: Duration = Duration::from_secs(120);

/// Connections that would have more than the budget with such a part each.
const MANY: usize = 90;

const PLAIN: &str = "
def app(environ, start_response):
    start_response('200 OK', [])
    if environ['PATH_INFO'] == '/stream':
        return (b'block' for _ in range(3))
    return [b'%d' % len(environ['wsgi.input'].read())]
";

fn heads_without_limit() -> Running {
    let limits = ["--limit-request-field_size", "0", "--limit-request-head", "0"];
    Server::source(PLAIN).options(limits).options(["--header-timeout", "600", "--keep-alive", "600"]).start()
}

/// Begins a request with a long head on each of many connections; returns those that are not refused.
fn begin_many(server: &Running) -> Vec<Client> {
    let part = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n", "x".repeat(PART));
    let mut clients: Vec<Client> = (0..MANY).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&part));
    wait_for("refusals", READING, || {
        clients.retain_mut(|client| {
            client.set_patience(Duration::from_millis(1)).expect("the socket is open");
            let is_kept = client.fill().is_err();
            client.set_patience(SOON).expect("the socket is open");
            if !is_kept {
                let response = client.response();
                assert_eq!((response.status, response.field("retry-after"), response.closes()), (503, Some("5"), true));
            }
            is_kept
        });
        (clients.len() <= BUDGET / PART).then_some(())
    });
    clients
}

#[test]
fn unfinished_heads_share_a_budget_that_is_given_back_whatever_becomes_of_them() {
    let server = heads_without_limit();
    let worker = server.workers()[0];
    let before = procfs::resident(worker);
    let files = procfs::open_files(worker);
    for round in 0..2 {
        let mut held = begin_many(&server);
        // Buffers that grow are at most twice as large as what is in them.
        assert!(held.len() >= BUDGET / PART / 2 - 2, "{} at the begin of round {round}", held.len());
        let grown = procfs::resident(worker).saturating_sub(before);
        assert!(grown < BUDGET as u64 + BESIDES, "{} heads took {grown} bytes", held.len());
        // A client that sends an ordinary request in pieces is still served.
        let mut ordinary = server.connect();
        ordinary.send(format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(1_000)));
        assert_eq!(server.get("/").status, 200);
        ordinary.send("\r\n\r\n");
        assert_eq!(ordinary.response().status, 200);
        // Each kind of end. The first make room for what the others still send.
        held.truncate(held.len() - 5);
        wait_for("the first ends", SOON, || (procfs::open_files(worker) <= files + held.len() + 1).then_some(()));
        let mut ended = [0; 5];
        for (index, client) in held.iter_mut().enumerate() {
            let (last, status) = match index % 5 {
                0 => ("\r\n", 200),
                1 => ("no field\r\n", 400),
                2 => ("Content-Length: 1\r\n\r\nx", 200),
                3 => ("Content-Length: 1\r\n\r\n", 200),
                _ => continue,
            };
            client.send(last);
            if index % 5 == 3 {
                assert_eq!(server.get("/").status, 200);
                client.send("x");
            }
            // The last of a long part may have come, and found no room, only after the others were counted.
            match client.response().status {
                503 => {}
                found => {
                    assert_eq!(found, status, "end {}", index % 5);
                    ended[index % 5] += 1;
                }
            }
        }
        assert!(ended[..4].iter().all(|count| *count > 2), "{ended:?} of {}", held.len());
        drop((held, ordinary));
        procfs::wait_for_open_files(worker, files);
    }
    let warnings = server.log().text().matches("the memory for unfinished requests is used up").count();
    assert!((1..10).contains(&warnings), "{warnings} lines for about a hundred refusals");
    server.stop();
}

#[test]
fn input_after_a_request_shares_the_budget_and_is_refused_in_order() {
    let server = heads_without_limit();
    let mut held = begin_many(&server);
    let ask = |requests: usize| {
        let mut client = server.connect();
        at_once(server.workers()[0], || {
            let next = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(requests);
            client.send(format!("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n{next}"));
        });
        assert_eq!(client.response().text(), "block".repeat(3));
        client
    };
    // As much as everybody may keep.
    let mut small = ask(100);
    for _ in 0..100 {
        assert_eq!(small.response().text(), "0");
    }
    let response = wait_for("a refusal", SOON, || {
        // They take a part of what those that were refused have left, down to less than the next request needs.
        for part in [PART / 2, PART / 32] {
            let mut client = server.connect();
            client.send(format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(part)));
            held.push(client);
        }
        Some(ask(2_000).response()).filter(|response| response.status != 200)
    });
    assert_eq!((response.status, response.field("retry-after"), response.closes()), (503, Some("5"), true));
    drop(held);
    wait_for("room for it", SOON, || (ask(2_000).response().status == 200).then_some(()));
    server.stop();
}

#[test]
fn a_head_has_a_limit_as_a_whole() {
    let server = Server::source(PLAIN).start();
    let head = |count: usize, rest: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}Y: {}\r\n\r\n",
            format!("X: {}\r\n", "x".repeat(7_995)).repeat(count),
            "y".repeat(rest)
        )
    };
    let longest = head(8, 65_536 - head(8, 0).len());
    assert_eq!(longest.len(), 65_536);
    let one_more = head(8, 65_537 - head(8, 0).len());
    for cuts in [&[][..], &[1, 65_535], &[10, 20_000, 65_536], &[65_530]] {
        for (head, status) in [(&longest, 200), (&one_more, 431)] {
            let mut client = server.connect();
            let mut start = 0;
            for &cut in cuts {
                client.send(&head[start..cut]);
                start = cut;
                assert_eq!(server.get("/").status, 200, "what was sent is read");
            }
            client.send(&head[start..]);
            let response = client.response();
            assert_eq!((response.status, response.closes()), (status, status != 200), "{} bytes cut at {cuts:?}", head.len());
        }
    }
    server.stop();
    let server = Server::source(PLAIN).options(["--limit-request-head", "1k"]).start();
    assert_eq!(server.exchange(head(0, 900)).status, 200);
    assert_eq!(server.exchange(head(0, 1_000)).status, 431);
    server.stop();
}
