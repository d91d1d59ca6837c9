//! Requests that end beside the ordinary way: no line is missing in the access log, and no answer that is ready is lost.

mod common;

use std::fs;

use common::server::{Running, Server};
use common::{SOON, wait_for};
use nix::sys::signal::Signal;

/// `/slow` waits for the file `gate`; `/wait` waits for `/break`, which takes the event loop's poll away behind its own call.
const APP: &str = "
import os
import threading
import time

GO = threading.Event()


def poll():
    for number in os.listdir('/proc/self/fd'):
        try:
            if 'eventpoll' in os.readlink('/proc/self/fd/' + number):
                return int(number)
        except OSError:
            pass


def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/slow':
        open('inside', 'w').close()
        while not os.path.exists('gate'):
            time.sleep(0.002)
    elif path == '/wait':
        open('inside', 'w').close()
        GO.wait()
    elif path == '/break':
        number, null = poll(), os.open('/dev/null', os.O_RDONLY)
        GO.set()
        # For the other call to end, and no tick of the loop.
        time.sleep(0.0003)
        os.dup2(null, number)
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";

fn server(threads: &str) -> Server {
    let server = Server::source(APP).workers(1).options(["--threads", threads, "--access-logfile", "-"]);
    let temp = server.temp().to_owned();
    server.dir(&temp)
}

/// Waits until the call runs and another thread has the loop: only that one can refuse anything.
fn wait_for_call(server: &Running) {
    wait_for("the call", SOON, || server.temp().join("inside").exists().then_some(()));
    assert_eq!(server.exchange("GET /probe HTTP/9\r\n\r\n").status, 400);
}

fn open_gate(server: &Running) {
    fs::write(server.temp().join("gate"), "").expect("the temp directory is writable");
}

#[test]
fn a_pipelined_request_whose_client_has_left_is_logged() {
    let server = server("1").start();
    let mut client = server.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\nGET /behind HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_for_call(&server);
    client.reset();
    open_gate(&server);
    wait_for("its line", SOON, || server.stdout().contains("\"GET /behind HTTP/1.1\" 499").then_some(()));
    server.stop();
}

#[test]
fn a_refusal_behind_a_slow_call_is_logged_at_once() {
    let server = server("1").start();
    let mut client = server.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\nGET /bad x\r\n\r\n");
    wait_for_call(&server);
    open_gate(&server);
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 400);
    wait_for("both lines", SOON, || (server.stdout().matches(" 400 ").count() == 2).then_some(()));
    server.stop();
}

/// Whether a thread's answer that lay ready when the loop failed came to its client.
fn survives() -> bool {
    let mut server = server("3").start();
    let mut waiting = server.connect();
    waiting.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_for_call(&server);
    let mut breaking = server.connect();
    breaking.send("GET /break HTTP/1.1\r\nHost: test\r\n\r\n");
    let survives = waiting.try_response_to("GET").is_ok_and(|response| response.status == 200);
    server.log().wait(&["the event loop failed"]);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(SOON).code(), Some(0));
    survives
}

#[test]
fn answers_that_are_ready_when_the_loop_fails_are_sent() {
    // A thread that does not run in time is not ready.
    const TRIES: usize = 9;
    let answered = (0..TRIES).filter(|_| survives()).count();
    eprintln!("{answered} of {TRIES} were answered");
    assert!(answered * 2 > TRIES, "{answered} of {TRIES}");
}
