//! The callables of the environ beyond PEP 3333: early hints, and whether the client is still there. Also clients that leave in
//! crowds.

mod common;

use std::fs;
use std::time::Duration;

use common::client::Client;
use common::server::{Running, Server};
use common::{SOON, procfs, wait_for};

/// Clients that leave at once.
const CROWD: usize = 1_000;

/// How long the server is watched afterwards, and the processor time that it may use meanwhile.
const WATCH: Duration = Duration::from_secs(1);
const CPU_MILLIS: u64 = 200;

fn threaded(threads: usize) -> Server {
    let server = Server::new("threaded:application").options(["--threads", &threads.to_string()]);
    let temp = server.temp().display().to_string();
    server.env("THREADS_DIR", temp)
}

fn ask(server: &Running, target: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client
}

fn wait_for_note(server: &Running, note: &str, text: &str) {
    let path = server.temp().join(note);
    wait_for(note, SOON, || (fs::read_to_string(&path).unwrap_or_default() == text).then_some(()));
}

#[test]
fn early_hints_are_on_the_wire_before_the_answer() {
    let server = threaded(1).start();
    let mut client = ask(&server, "/hints?gate=1");
    let first = client.response();
    assert_eq!((first.status, first.reason.as_str()), (103, "Early Hints"));
    assert_eq!(first.field("link"), Some("</style.css>; rel=preload"));
    assert_eq!(first.fields.len(), 2, "{first:?}");
    assert_eq!(client.response().field("link"), Some("</more.css>; rel=preload"));
    fs::write(server.temp().join("gate"), "").expect("the temp directory is writable");
    assert_eq!(client.response().text(), "hinted");
    // Pipelined after another answer, and on a kept connection.
    client.send("GET /name HTTP/1.1\r\nHost: a\r\n\r\nGET /hints HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!([(); 4].map(|()| client.response().status), [200, 103, 103, 200]);
    server.stop();
}

#[test]
fn early_hints_for_a_client_that_has_left_do_not_disturb_the_application() {
    for threads in [1, 2] {
        let server = threaded(threads).start();
        let client = ask(&server, "/hints_for_nobody");
        wait_for_note(&server, "called", "called\n");
        client.reset();
        wait_for_note(&server, "hinted", "hinted\n");
        server.stop();
    }
}

#[test]
fn early_hints_for_a_client_that_has_left_make_no_failure_of_the_write_after_them() {
    let app = "import os, time\ndef app(e, s):\n    open(os.environ['CALLED'], 'w').close()\n    \
               deadline = time.monotonic() + 20\n    \
               while not e['tapster.client_disconnected']() and time.monotonic() < deadline: time.sleep(.01)\n    \
               for _ in range(3): e['wsgi.early_hints']([('Link', '</a.css>')])\n    \
               s('200 OK', [])(b'x')\n    return []\n";
    let server = Server::source(app).options(["--access-logfile", "-", "--access-logformat", "status %(s)s"]);
    let called = server.temp().join("called");
    let server = server.env("CALLED", called.display().to_string()).start();
    let client = ask(&server, "/");
    wait_for("the call", SOON, || called.exists().then_some(()));
    client.reset();
    let line = wait_for("the line", SOON, || server.stdout().lines().find(|line| line.starts_with("status")).map(str::to_owned));
    assert_eq!(line, "status 200");
    server.stop();
}

#[test]
fn early_hints_are_left_out_where_they_cannot_be_and_refused_when_broken() {
    let server = threaded(1).start();
    assert_eq!(server.exchange("GET /hints HTTP/1.0\r\n\r\n").text(), "hinted");
    assert_eq!(ask(&server, "/late_hints").response().text(), "first second");
    let errors = "ValueError ValueError ValueError ValueError TypeError TypeError";
    assert_eq!(ask(&server, "/bad_hints").response().text(), errors);
    server.stop();
}

#[test]
fn an_application_can_ask_whether_its_client_has_left() {
    for threads in [1, 4] {
        for half_closed in [false, true] {
            let server = threaded(threads).start();
            let mut client = ask(&server, "/disconnected");
            wait_for_note(&server, "told", "False\n");
            if half_closed {
                client.finish_sending();
                assert_eq!(client.response().text(), "left", "a client that only said that it sends nothing more is answered");
            } else {
                drop(client);
            }
            wait_for_note(&server, "told", "False\nTrue\n");
            assert!(server.get("/name").status == 200);
            server.stop();
        }
    }
}

#[test]
fn a_stream_can_ask_whether_its_client_has_left_and_a_finished_request_has_none() {
    let server = threaded(2).start();
    let mut client = ask(&server, "/disconnected_stream");
    while client.leftover().is_empty() {
        assert!(matches!(client.fill(), Ok(1..)));
    }
    drop(client);
    wait_for_note(&server, "told", "True\n");
    assert_eq!(server.get("/remember").text(), "kept");
    assert_eq!(server.get("/remembered").text(), "True");
    server.stop();
}

#[test]
fn a_crowd_of_clients_that_left_costs_nothing() {
    common::raise_open_files();
    for threads in [1, 4] {
        let server = threaded(threads).start();
        let worker = server.workers()[0];
        let before = procfs::open_files(worker);
        let clients: Vec<Client> = (0..CROWD)
            .map(|n| {
                let mut client = server.connect();
                client.send(match n % 4 {
                    0 => "GET / HT",
                    1 => "POST /name HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
                    2 => "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
                    _ => "GET /name HTTP/1.1\r\nHost: a\r\n\r\n",
                });
                client
            })
            .collect();
        drop(clients);
        procfs::wait_for_open_files(worker, before);
        let used = procfs::cpu_millis(worker);
        std::thread::sleep(WATCH);
        let spent = procfs::cpu_millis(worker) - used;
        assert!(spent <= CPU_MILLIS, "{spent} ms of processor time within {WATCH:?} of doing nothing");
        let closed = fs::read_to_string(server.temp().join("streams")).unwrap_or_default();
        assert!(closed.lines().count() <= CROWD / 4, "close() ran more than once");
        assert_eq!(server.get("/name").status, 200);
        server.stop();
    }
}
