//! Buffers that grow, change hands and are given back: no answer is lost with one.

mod common;

use common::client::Client;
use common::server::{Running, Server, at_once};
use common::{SOON, wait_for};

/// More than a worker keeps of its output buffer between two turns, in bytes.
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
fn an_answer_is_not_lost_behind_one_for_which_the_buffer_grew() {
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
fn a_large_head_is_not_lost_behind_a_slow_call() {
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
fn a_block_of_a_stream_is_not_lost_behind_a_large_write() {
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
