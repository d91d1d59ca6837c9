//! A call that keeps the interpreter to itself (C code that never releases it) while other requests of its worker wait: those
//! were never begun, so they have no deadline, and any worker that can serves them.

mod common;

use std::collections::HashSet;

use common::client::{Client, Response};
use common::server::{Running, Server};
use common::{SOON, wait_for};

/// The record of the request that does not end.
const GIVEN_UP: &str = "a request does not end within --timeout";

/// The record of its worker's end.
const ENDED: &str = "does not go on and was ended";

/// The record of the exception in one that notices it.
const INTERRUPTED: &str = "interrupted at --timeout";

/// `--timeout` in seconds where something has to happen before it: more than a busy machine takes for that.
const UNHURRIED: &str = "12";

/// Connections of the worker that is stuck: more than it has threads, so that some wait for one of those.
const KEPT: usize = 6;

fn server(workers: usize, options: &[&str]) -> Server {
    let server = Server::new("deadline")
        .workers(workers)
        .options(["--keep-alive", "60", "--access-logfile", "-", "--log-level", "debug"])
        .options(options);
    let dir = server.temp().display().to_string();
    server.env("DEADLINE_DIR", dir)
}

fn notes(server: &Running, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(server.temp().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn worker_of(response: &Response) -> i32 {
    assert_eq!(response.status, 200, "{response:?}");
    response.field("x-worker").and_then(|pid| pid.parse().ok()).expect("the application names its worker")
}

/// Kept connections of one worker.
fn kept(server: &Running) -> (Vec<Client>, i32) {
    let mut clients: Vec<(Client, i32)> = Vec::new();
    let worker = server.workers()[0];
    wait_for("connections of one worker", SOON, || {
        let mut client = server.connect();
        let pid = worker_of(&client.get("/quick"));
        clients.push((client, pid));
        (clients.iter().filter(|(_, pid)| *pid == worker).count() == KEPT).then_some(())
    });
    (clients.into_iter().filter(|(_, pid)| *pid == worker).map(|(client, _)| client).collect(), worker)
}

/// A client whose call keeps the interpreter.
fn hold(server: &Running, mut client: Client, target: &str) -> Client {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    wait_for("the call", SOON, || (!notes(server, "holding").is_empty()).then_some(()));
    client
}

/// Requests after it, some of them with a body and some pipelined, each with a number.
fn ask(clients: &mut [Client]) {
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("POST /counted?{number} HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n!"));
        client.send(format!("GET /counted?{number}b HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
}

/// Each is answered once and was run once; by whom.
#[track_caller]
fn answered(server: &Running, clients: &mut [Client]) -> HashSet<i32> {
    let mut workers = HashSet::new();
    let mut expected = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        for (target, body) in [(format!("{number}"), format!("{number}!")), (format!("{number}b"), format!("{number}b"))] {
            let response = client.response();
            workers.insert(worker_of(&response));
            assert_eq!(response.text(), body);
            expected.push(target);
        }
    }
    let mut seen = notes(server, "counted");
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "each is run once");
    workers
}

#[test]
fn requests_after_a_call_that_keeps_the_interpreter_are_served_by_another_worker() {
    for threads in ["2", "8"] {
        let server =
            server(2, &["--threads", threads, "--timeout", UNHURRIED, "--timeout-grace", "200ms"]).expect_error(GIVEN_UP);
        let server = server.expect_error(ENDED).start();
        let (mut clients, worker) = kept(&server);
        let mut stuck = hold(&server, clients.pop().expect("there are some"), "/hold_gil");
        ask(&mut clients);
        assert!(!answered(&server, &mut clients).contains(&worker), "{threads} threads");
        assert!(server.log().find(&[GIVEN_UP]).is_none(), "before anything is done about the call");
        let response = stuck.response();
        assert_eq!(response.status, 504);
        wait_for("the replacement", SOON, || (!server.workers().contains(&worker)).then_some(()));
        assert_eq!(server.stdout().matches(" 504 ").count(), 1);
        server.stop();
    }
}

#[test]
fn requests_after_a_call_that_keeps_the_interpreter_of_the_only_worker_are_served_by_its_successor() {
    for threads in ["2", "8"] {
        let server = server(1, &["--threads", threads, "--timeout", "1", "--timeout-grace", "1"]).expect_error(GIVEN_UP);
        let server = server.expect_error(ENDED).start();
        let (mut clients, worker) = kept(&server);
        let mut stuck = hold(&server, clients.pop().expect("there are some"), "/hold_gil");
        ask(&mut clients);
        assert_eq!(stuck.response().status, 504);
        assert!(!answered(&server, &mut clients).contains(&worker), "{threads} threads");
        wait_for("the replacement", SOON, || (!server.workers().contains(&worker)).then_some(()));
        assert_eq!(server.stdout().matches(" 504 ").count(), 1);
        server.stop();
    }
}

#[test]
fn requests_that_waited_for_the_interpreter_for_longer_than_the_timeout_are_served_when_it_is_free() {
    // The call is interrupted, which it notices when it has finished with the interpreter.
    let server = server(1, &["--threads", "4", "--timeout", "1", "--timeout-grace", "20"]).expect_error(INTERRUPTED).start();
    let (mut clients, worker) = kept(&server);
    let mut holding = hold(&server, clients.pop().expect("there are some"), "/hold_gil_and_spin?2");
    ask(&mut clients);
    assert_eq!(answered(&server, &mut clients), HashSet::from([worker]));
    assert_eq!(holding.response().status, 504);
    assert_eq!(server.workers(), [worker]);
    let interrupted = server.log().records().iter().filter(|record| record.text.contains(INTERRUPTED)).count();
    assert_eq!(interrupted, 1, "no other request was late");
    server.stop();
}

#[test]
fn requests_that_cannot_have_the_interpreter_within_the_time_of_the_queue_are_refused() {
    let server = server(1, &["--threads", "4", "--queue-timeout", "1", "--timeout", "0"]).start();
    let (mut clients, worker) = kept(&server);
    let mut holding = hold(&server, clients.pop().expect("there are some"), "/hold_gil?10");
    for client in &mut clients {
        client.send("GET /counted HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    for client in &mut clients {
        let response = client.response();
        assert_eq!((response.status, response.field("retry-after")), (503, Some("5")), "{response:?}");
    }
    assert_eq!(holding.response().text(), "held");
    assert_eq!(server.get("/quick").text(), "quick");
    assert_eq!(notes(&server, "counted"), Vec::<String>::new(), "what is refused is not run");
    assert_eq!(server.workers(), [worker]);
    server.stop();
}

#[test]
fn requests_that_nobody_can_have_are_refused_when_their_worker_is_replaced() {
    // Those with a large body are not handed over; with `--no-lending` none is. A thread has the first one, the others wait for
    // one.
    for (options, body) in [(&[][..], 100_000), (&["--no-lending"][..], 1)] {
        let options = [&["--threads", "2", "--timeout", "1", "--timeout-grace", "1"], options].concat();
        let server = server(1, &options).expect_error(GIVEN_UP).expect_error(ENDED).start();
        let (mut clients, worker) = kept(&server);
        let mut stuck = hold(&server, clients.pop().expect("there are some"), "/hold_gil");
        for client in &mut clients {
            client.send(format!("POST /counted HTTP/1.1\r\nHost: test\r\nContent-Length: {body}\r\n\r\n{}", "x".repeat(body)));
        }
        assert_eq!(stuck.response().status, 504);
        for client in &mut clients {
            let response = client.response();
            assert_eq!((response.status, response.field("retry-after")), (503, Some("5")), "{response:?}");
        }
        wait_for("the replacement", SOON, || (!server.workers().contains(&worker)).then_some(()));
        assert_eq!(notes(&server, "counted"), Vec::<String>::new(), "what is refused is not run");
        server.stop();
    }
}
