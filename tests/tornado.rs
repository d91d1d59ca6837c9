//! Tornado applications by `tapster.tornado.WSGIAdapter`: the same answers as by Tornado's own server, blocks as they are flushed,
//! ends that are told.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::client::find;
use common::server::{Running, Server};
use common::{SOON, apps, tools, venv, wait_for};

/// Time for one run of the client, which asks two servers.
const CLIENT_LIMIT: Duration = Duration::from_secs(120);

fn tornado(threads: usize) -> (Running, PathBuf) {
    let server = Server::new("tornadoapp:application").frameworks().options(["--threads", &threads.to_string()]);
    let notes = server.temp().join("notes");
    let server = server.env("TORNADO_NOTES", notes.display().to_string());
    (server.start(), notes)
}

#[track_caller]
fn wait_for_note(notes: &Path, text: &str) {
    wait_for(text, SOON, || fs::read_to_string(notes).ok().filter(|found| found.lines().any(|line| line == text)));
}

#[test]
fn answers_are_those_of_tornados_own_server() {
    for threads in [1, 4] {
        let (server, notes) = tornado(threads);
        let mut client = Command::new(venv::python());
        client.arg(apps().join("clients/tornado_client.py")).arg(server.address().to_string());
        client.env("PYTHONPATH", apps()).env("PYTHONDONTWRITEBYTECODE", "1");
        tools::run(&mut client, CLIENT_LIMIT).succeeded();
        for note in ["finished GET 200", "finished DELETE 405", "done behind the answer"] {
            wait_for_note(&notes, note);
        }
        server.log().wait(&["GET /behind", "still ran", "nothing runs between requests"]);
        assert!(!fs::read_to_string(&notes).expect("the notes are there").contains("never"));
        server.stop();
    }
}

#[test]
fn flushed_blocks_arrive_before_the_next_is_made_and_a_client_that_leaves_is_told_of() {
    let (server, notes) = tornado(2);
    let mut client = server.connect();
    client.send("GET /stream?count=100000&pause=0.01 HTTP/1.1\r\nHost: test\r\n\r\n");
    let began = Instant::now();
    while find(client.leftover(), b"2\n").is_none() {
        assert!(client.fill().is_ok_and(|count| count > 0), "the stream goes on");
    }
    assert!(began.elapsed() < SOON, "before its end, which is 1,000 s later");
    // The other thread is free meanwhile.
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    drop(client);
    wait_for_note(&notes, "the client has left");
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    server.stop();
}

#[test]
fn nothing_of_a_call_is_left_on_the_loop_of_its_thread() {
    let (mut server, notes) = tornado(1);
    server.expect_error("is not a token");
    let own = server.get("/tasks").text();
    assert_eq!(server.get("/no-head").status, 500);
    wait_for_note(&notes, "the flush has ended");
    assert_eq!(server.get("/tasks").text(), own);
    let body = vec![b'x'; 300_000];
    let early = server.exchange([b"PUT /enough HTTP/1.1\r\nHost: test\r\nContent-Length: 300000\r\n\r\n", &body[..]].concat());
    assert_eq!((early.status, early.text().as_str()), (200, "enough"));
    assert_eq!(server.get("/chain").text(), "answered");
    wait_for_note(&notes, "the chain goes on");
    server.log().wait(&["GET /chain", "link still ran"]);
    assert!(!server.log().text().contains("PUT /enough"), "{}", server.log().text());
    assert_eq!(server.get("/tasks").text(), own);
    server.stop();
}

#[test]
fn a_handler_that_ends_without_an_answer_is_an_error_and_one_that_stops_the_loop_goes_on() {
    let (mut server, _) = tornado(1);
    server.expect_error("no ordinary exception");
    server.expect_error("no ordinary exception");
    assert_eq!(server.get("/stopping").text(), "one two three");
    assert_eq!((server.get("/gone/at-once").status, server.get("/gone/detached").status), (500, 501));
    let mut client = server.connect();
    client.send("GET /gone/late HTTP/1.1\r\nHost: test\r\n\r\n");
    let cut = client.rest();
    assert!(find(&cut, b"begun").is_some() && !cut.ends_with(b"0\r\n\r\n"), "{:?}", cut.escape_ascii().to_string());
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    server.stop();
}

#[test]
fn an_answer_whose_handler_fails_after_a_flush_is_cut() {
    let (mut server, _) = tornado(2);
    let rest = |target: &str| {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.try_response_to("GET").expect("it has a head")
    };
    let failing = ["/fail/late", "/fail/late-more", "/fail/late-http", "/fail/late-length"];
    for target in failing {
        let cut = rest(target);
        assert_eq!((cut.status, cut.complete), (200, false), "{target}: {cut:?}");
        assert!(cut.text().starts_with("begun"), "{target}: {cut:?}");
    }
    for target in ["/fail/late-caught", "/fail/late-finish"] {
        let whole = server.get(target);
        assert_eq!((whole.status, whole.complete), (200, true), "{target}: {whole:?}");
    }
    server.log().wait(&["RuntimeError: failed: late-more"]);
    for _ in failing {
        server.expect_error("a handler has failed behind its first flush");
    }
    server.stop();
}

#[test]
fn what_wsgi_cannot_carry_is_said() {
    let (server, _) = tornado(1);
    let asked = "GET /socket HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = server.exchange(asked);
    assert_eq!(answer.status, 501);
    assert!(answer.text().contains("need Tornado's own HTTP server"), "{}", answer.text());
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    server.stop();
}

#[test]
fn a_request_that_takes_too_long_is_answered_and_the_thread_serves_on() {
    let options = ["--timeout", "1", "--timeout-grace", "5"];
    let server = Server::new("tornadoapp:application").frameworks().options(options).expect_error("GET /sleep").start();
    assert_eq!(server.get("/sleep").status, 504);
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    server.stop();
}

#[test]
fn the_example_of_the_manual_serves() {
    let source = common::manual::example("# story.py, by: tapster \\-\\-threads 4 story");
    let server = Server::source(&source).frameworks().start();
    assert_eq!(server.get("/story/7").text(), "this is story 7");
    assert_eq!(server.get("/other").text(), "Hello world!\n");
    server.stop();
    let server = Server::source(&source).frameworks().command_line(["app:simple_app", "--bind", "127.0.0.1:0", "--threads", "4"]);
    let server = server.start();
    assert_eq!(server.get("/other").text(), "Hello world!\n");
    server.stop();
}
