//! Requests that end beside the ordinary way: no line is missing in the access log, and no answer that is ready is lost.

mod common;

use common::client::Client;
use common::server::{Running, Server};
use common::{SOON, wait_for};
use nix::sys::signal::Signal;

fn server(threads: &str) -> Server {
    let server = Server::new("unserved").workers(1).options(["--threads", threads, "--access-logfile", "-"]);
    let temp = server.temp().display().to_string();
    server.env("UNSERVED_DIR", temp)
}

/// Waits until the call runs and another thread has the loop: only that one can refuse anything.
fn wait_for_call(server: &Running) {
    wait_for("the call", SOON, || server.temp().join("inside").exists().then_some(()));
    assert_eq!(server.exchange("GET /probe HTTP/9\r\n\r\n").status, 400);
}

/// A call that waits for its gate, and a client that has sent this request after it.
fn behind_a_slow_call(request: &str) -> (Running, Client) {
    let server = server("1").start();
    let mut client = server.connect();
    client.send(format!("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n{request}"));
    wait_for_call(&server);
    (server, client)
}

#[test]
fn a_pipelined_request_whose_client_has_left_is_logged() {
    let (server, client) = behind_a_slow_call("GET /behind HTTP/1.1\r\nHost: test\r\n\r\n");
    client.reset();
    server.open_gate("gate");
    wait_for("its line", SOON, || server.stdout().contains("\"GET /behind HTTP/1.1\" 499").then_some(()));
    server.stop();
}

#[test]
fn a_refusal_after_a_slow_call_is_logged_at_once() {
    let (server, mut client) = behind_a_slow_call("GET /bad x\r\n\r\n");
    server.open_gate("gate");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 400);
    wait_for("both lines", SOON, || (server.stdout().matches(" 400 ").count() == 2).then_some(()));
    server.stop();
}

/// Whether a thread's answer that was ready when the loop failed reached its client; `None`: on a busy machine the loop did not
/// fail in the moment that is meant.
fn survives() -> Option<bool> {
    let mut server = server("3").start();
    let mut waiting = server.connect();
    waiting.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_for_call(&server);
    let mut breaking = server.connect();
    breaking.send("GET /break HTTP/1.1\r\nHost: test\r\n\r\n");
    let survives = waiting.try_response_to("GET").is_ok_and(|response| response.status == 200);
    // The wait for events shows it, or the look at the descriptors that comes once a second.
    server.log().wait(&["the application has closed or replaced a descriptor of the server"]);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(SOON).code(), Some(0));
    (!server.temp().join("overslept").exists()).then_some(survives)
}

#[test]
fn answers_that_are_ready_when_the_loop_fails_are_sent() {
    // A thread that does not run in time is not ready.
    const TRIES: usize = 9;
    /// On a busy machine many do not count.
    const TRIES_MAX: usize = 100;
    let counted: Vec<bool> = (0..TRIES_MAX).filter_map(|_| survives()).take(TRIES).collect();
    assert_eq!(counted.len(), TRIES, "the machine is too busy");
    let answered = counted.iter().filter(|answered| **answered).count();
    eprintln!("{answered} of {TRIES} were answered");
    assert!(answered * 2 > TRIES, "{answered} of {TRIES}");
}

/// More than sockets keep, so that the returned iterable is never asked.
const WRITES: &str = r#"
def application(environ, start_response):
    write = start_response("200 OK", [])
    write(b"x" * 20_000_000)
    return iter([b"end"])
"#;

#[test]
fn what_was_written_is_logged_when_the_client_leaves_before_the_rest() {
    let options = ["--access-logfile", "-", "--access-logformat", "%(s)s %(B)s"];
    let server = Server::source(WRITES).options(options).start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    client.fill().expect("the answer begins");
    client.reset();
    let line = wait_for("its line", SOON, || server.stdout().lines().next().map(str::to_owned));
    let bytes = line.strip_prefix("200 ").and_then(|bytes| bytes.parse::<u64>().ok());
    assert!(bytes.is_some_and(|bytes| bytes > 0), "{line}");
    server.stop();
}
