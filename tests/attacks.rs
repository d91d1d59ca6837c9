//! The server with hostile clients, careless applications and a failing environment.

mod common;

use std::time::{Duration, Instant};

use common::client::Client;
use common::server::{Running, Server, at_once};
use common::{SOON, wait_for};

/// Far less than any timeout of the server after which it would close a connection anyway.
const AT_ONCE: Duration = Duration::from_secs(4);

const HELLO: &str = "
def app(environ, start_response):
    start_response('200 OK', [])
    return [b'%d' % len(environ['wsgi.input'].read())]
";

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A connection that was served once and is registered with the worker's poll.
#[track_caller]
fn kept(server: &Running) -> Client {
    let mut client = server.connect();
    client.send(GET);
    assert_eq!(client.response().status, 200);
    client
}

#[test]
fn an_end_that_comes_together_with_a_request_is_seen() {
    let server = Server::source(HELLO).options(["--keep-alive", "60"]).start();
    let mut client = kept(&server);
    at_once(server.workers()[0], || {
        client.send(GET);
        client.finish_sending();
    });
    let began = Instant::now();
    assert_eq!(client.response().status, 200);
    assert!(client.is_closed() && began.elapsed() < AT_ONCE, "closed after {:?}", began.elapsed());
    server.stop();
}

#[test]
fn an_end_that_comes_together_with_a_part_of_a_body_is_seen() {
    let server = Server::source(HELLO).options(["--body-timeout", "60", "--access-logfile", "-"]).start();
    let mut client = kept(&server);
    at_once(server.workers()[0], || {
        client.send("POST /cut HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc");
        client.finish_sending();
    });
    let began = Instant::now();
    assert!(client.is_closed() && began.elapsed() < AT_ONCE, "closed after {:?}", began.elapsed());
    wait_for("the access log", SOON, || server.stdout().contains("\"POST /cut HTTP/1.1\" 499").then_some(()));
    server.stop();
}

#[test]
fn a_client_that_trickles_after_a_refusal_is_cut_at_last() {
    const PAUSE: Duration = Duration::from_millis(500);
    const LIMIT: Duration = Duration::from_secs(45);
    let server = Server::source(HELLO).start();
    let mut client = server.connect();
    client.send("BAD\r\n\r\n");
    assert_eq!(client.response().status, 400);
    let began = Instant::now();
    while client.try_send(b"x").is_ok() {
        assert!(began.elapsed() < LIMIT, "still read after {:?}", began.elapsed());
        std::thread::sleep(PAUSE);
    }
    server.stop();
}

#[test]
fn a_file_whose_size_is_given_as_0_is_read() {
    let app = "
def app(environ, start_response):
    start_response('200 OK', [])
    return environ['wsgi.file_wrapper'](open('/proc/self/status', 'rb'))
";
    let server = Server::source(app).start();
    let response = server.get("/");
    assert!(response.complete && response.text().contains("VmRSS:"), "{response:?}");
    server.stop();
}

/// The text of the error is made of the application's own `__repr__`, during which another thread may run.
#[test]
fn a_thread_in_a_refused_start_response_holds_nothing_of_the_server() {
    let app = "
import threading

entered, returned = threading.Event(), threading.Event()
found = []

class Header:
    def __repr__(self):
        entered.set()
        returned.wait(20)
        return 'a header'

def start(start_response):
    try:
        start_response('200 OK', [Header()])
    except Exception as error:
        found.append(type(error).__name__)

def app(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/leave':
        app.kept = start_response
        app.thread = threading.Thread(target=start, args=(start_response,))
        app.thread.start()
        entered.wait(20)
        return [b'nothing was started']
    if path == '/use':
        returned.set()
        app.thread.join()
        try:
            app.kept('200 OK', [])(b'to nowhere')
        except Exception as error:
            found.append(type(error).__name__)
    start_response('200 OK', [])
    return [' '.join(found).encode()]
";
    let server = Server::source(app).expect_error("did not call start_response").start();
    assert_eq!(server.get("/leave").status, 500);
    assert_eq!(server.get("/use").text(), "TypeError RuntimeError");
    let log = server.stop();
    assert!(log.find(&["CRITICAL"]).is_none());
}

const WRITES: &str = "
def app(environ, start_response):
    write = start_response('200 OK', [('X-Version', environ['SERVER_PROTOCOL'])])
    try:
        for number in range(40000):
            write(b'%08d' % number * 128)
    except OSError:
        if environ['PATH_INFO'] == '/raise':
            raise
    finally:
        open('written', 'w').close()
    return [b'the end']
";

/// More is written than sockets and memory hold, and there is no place for a file on the disk, and little in memory.
#[test]
fn output_that_cannot_be_kept_ends_in_a_visible_cut_and_an_error_in_the_log() {
    for (path, version) in [("/raise", "1.1"), ("/swallow", "1.1"), ("/swallow", "1.0")] {
        let server = Server::source(WRITES).env("TMPDIR", "/nonexistent").options(["--limit-spool", "64k"]);
        let server = server.expect_error("(TMPDIR)").start();
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/{version}\r\nHost: test\r\n\r\n"));
        wait_for("the end of the call", SOON, || server.temp().join("written").exists().then_some(()));
        let response = client.response();
        assert!(!response.complete, "{path} {version}: {} bytes", response.body.len());
        let mut expected = 0..;
        for block in response.body.chunks_exact(8 * 128) {
            let number = format!("{:08}", expected.next().unwrap_or(0));
            assert!(block.chunks(8).all(|part| part == number.as_bytes()), "{path}: a gap before {}", block.escape_ascii());
        }
        assert!(server.log().find(&["(TMPDIR)", path]).is_some());
        server.stop();
    }
}

#[test]
fn a_body_beyond_the_limit_of_file_sizes_is_refused_and_kills_nobody() {
    // 3 MB: the scoreboard of many threads has one.
    let server = Server::source(HELLO)
        .launcher(["/bin/sh", "-c", "ulimit -f 6000; exec \"$@\"", "sh"])
        .options(["--body-buffer", "64k"])
        .expect_error("cannot spool the body of POST /big HTTP/1.1")
        .start();
    let worker = server.workers();
    let body = vec![b'x'; 4 * 1024 * 1024];
    let head = format!("POST /big HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut client = server.connect();
    client.send(head);
    client.send_while_taken(&body, AT_ONCE);
    let response = client.response();
    assert_eq!((response.status, response.field("Retry-After").is_some()), (503, true), "{response:?}");
    assert_eq!((server.get("/").status, server.workers()), (200, worker));
    server.stop();
}

#[test]
fn the_access_log_shows_what_a_client_that_left_was_sent() {
    const SIZE: u64 = 64 * 1024 * 1024;
    let app = format!(
        "
import tempfile

def app(environ, start_response):
    start_response('200 OK', [])
    if environ['PATH_INFO'] == '/block':
        return [b'x' * {SIZE}]
    file = tempfile.TemporaryFile()
    file.truncate({SIZE})
    return environ['wsgi.file_wrapper'](file)
"
    );
    let server = Server::source(&app).options(["--access-logfile", "-", "--access-logformat", "%(U)s %(B)s"]).start();
    for path in ["/block", "/file"] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert!(client.fill().is_ok_and(|count| count > 0));
        client.reset();
        let sent = wait_for("the line of the log", SOON, || {
            server.stdout().lines().find_map(|line| line.strip_prefix(path)?.trim().parse::<u64>().ok())
        });
        assert!(sent < SIZE, "{path}: {sent}");
    }
    server.stop();
}

#[test]
fn a_second_content_type_is_refused() {
    let server = Server::source(HELLO).start();
    let response = server.exchange("GET / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n\r\n");
    assert_eq!((response.status, response.closes()), (400, true));
    server.stop();
}

/// 0 stands for the highest limits, whose product no memory holds.
#[test]
fn the_highest_limits_of_a_head_have_a_bound_together() {
    let zero = ["--limit-request-line", "--limit-request-fields", "--limit-request-field_size", "--limit-request-head"];
    let options = zero.into_iter().flat_map(|option| [option, "0"]);
    let server = Server::source(HELLO).options(options).start();
    assert_eq!(server.get("/").status, 200);
    let field = format!("X: {}\r\n", "x".repeat(1024 * 1024 - 8));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    for _ in 0..20 {
        client.send(&field);
    }
    client.send("\r\n");
    let response = client.response();
    assert!(response.status == 431 && response.text().contains("16777216"), "{response:?}");
    server.stop();
}

/// The kernel would find out only when the head is gone.
#[test]
fn a_file_that_is_open_for_writing_only_is_an_error_and_no_cut() {
    let app = "
import os

def app(environ, start_response):
    with open('file', 'wb') as file:
        file.write(b'x' * 100)
    start_response('200 OK', [])
    return environ['wsgi.file_wrapper'](open(os.open('file', os.O_WRONLY), 'wb', buffering=0))
";
    let server = Server::source(app).expect_error("the application raised an exception").start();
    assert_eq!(server.get("/").status, 500);
    server.stop();
}
