//! More requests than the application has time for: how many wait, how long, and the answers to the others.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::client::{Client, Response};
use common::server::{Running, Server};
use common::{SOON, wait_for};

/// A server with an access log of status, path and queue wait.
fn server(threads: usize, options: &[&str]) -> Server {
    let server = Server::new("threaded:application").options(["--threads", &threads.to_string()]).options(options);
    let temp = server.temp().display().to_string();
    let log = server.temp().join("access.log").display().to_string();
    server.options(["--access-logfile", &log, "--access-logformat", "%(s)s %(U)s %(Q)s"]).env("THREADS_DIR", temp)
}

fn ask(server: &Running, target: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client
}

/// Takes every permit by calls that last until the gate opens.
fn occupy(server: &Running, slots: usize) -> Vec<Client> {
    let clients = (0..slots).map(|_| ask(server, "/gated")).collect();
    wait_for("calls in every slot", SOON, || {
        let inside = fs::read_to_string(server.temp().join("inside")).unwrap_or_default();
        (inside.lines().count() == slots).then_some(())
    });
    clients
}

/// Status, path and queue wait in microseconds of every line.
fn access(server: &Running, count: usize) -> Vec<(String, String, u64)> {
    wait_for("the access log", SOON, || {
        let text = fs::read_to_string(server.temp().join("access.log")).ok()?;
        let parse = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[0].to_owned(), words[1].to_owned(), words[2].parse().expect("microseconds"))
        };
        (text.ends_with('\n') && text.lines().count() >= count).then(|| text.lines().map(parse).collect())
    })
}

#[track_caller]
fn assert_refused(response: &Response) {
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(response.field("retry-after"), Some("5"), "{response:?}");
    assert!(response.closes() && response.complete, "{response:?}");
}

#[test]
fn a_request_that_waits_too_long_is_answered_503_and_logged() {
    for threads in [1, 3] {
        let server = server(threads, &["--queue-timeout", "300ms"]).start();
        let mut busy = occupy(&server, threads);
        let began = Instant::now();
        let mut late = ask(&server, "/name?late=1");
        assert_refused(&late.response());
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        assert!(late.is_closed());
        drop(late);
        let (status, path, queued) = access(&server, 1).remove(0);
        assert_eq!((status.as_str(), path.as_str()), ("503", "/name"));
        assert!((300_000..20_000_000).contains(&queued), "{queued}");
        server.log().wait(&["WARNING", "1 request got 503 (1 had waited for --queue-timeout"]);
        server.open_gate("gate");
        for client in &mut busy {
            assert_eq!(client.response().status, 200);
            assert_eq!(client.get("/name").status, 200, "the connection serves on");
        }
        server.stop();
    }
}

#[test]
fn no_more_requests_wait_than_may() {
    let server = server(2, &["--max-queue", "3"]).start();
    let mut busy = occupy(&server, 2);
    let mut waiting: Vec<Client> = (0..3).map(|_| ask(&server, "/name")).collect();
    // In order after the others, so that these are known to wait.
    let refused = wait_for("a refusal", SOON, || Some(server.get("/name")).filter(|response| response.status == 503));
    assert_refused(&refused);
    assert_refused(&server.exchange("POST /name HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"));
    let head = {
        let mut client = server.connect();
        client.send("HEAD /name HTTP/1.1\r\nHost: test\r\n\r\n");
        client.response_to("HEAD")
    };
    assert_eq!((head.status, head.field("retry-after")), (503, Some("5")));
    server.open_gate("gate");
    for client in busy.iter_mut().chain(&mut waiting) {
        assert_eq!(client.response().status, 200);
    }
    server.stop();
}

#[test]
fn requests_that_wait_are_not_begun_after_a_quick_stop() {
    let mut server = server(2, &["--max-queue", "2", "--log-level", "debug"]).start();
    let mut busy = occupy(&server, 2);
    let mut waiting: Vec<Client> = (0..2).map(|_| ask(&server, "/gated")).collect();
    // As above: the others wait by then.
    wait_for("a refusal", SOON, || Some(server.get("/name")).filter(|response| response.status == 503));
    server.signal(Signal::SIGQUIT);
    server.log().wait(&["is told to leave (Quit)"]);
    server.open_gate("gate");
    for client in &mut busy {
        assert_eq!(client.response().status, 200, "it ran");
    }
    assert_eq!(server.wait(SOON).code(), Some(0));
    for client in &mut waiting {
        assert_refused(&client.response());
        assert!(client.is_closed());
    }
    let inside = fs::read_to_string(server.temp().join("inside")).expect("the application has made it");
    assert_eq!(inside.lines().count(), 2, "nothing else is begun");
    server.finish();
}

#[test]
fn refusals_are_summed_up_in_the_error_log() {
    let server = server(1, &["--max-queue", "0"]).start();
    let began = Instant::now();
    let mut busy = occupy(&server, 1);
    for _ in 0..200 {
        assert_refused(&server.get("/name"));
    }
    server.open_gate("gate");
    assert_eq!(busy[0].response().status, 200);
    let lines = access(&server, 201);
    assert_eq!(lines.iter().filter(|(status, ..)| status == "503").count(), 200, "each is in the access log");
    let total = |text: &str| -> u64 {
        let counts = text.lines().filter_map(|line| line.split_once("too busy: ")?.1.split(' ').next()?.parse::<u64>().ok());
        counts.sum()
    };
    wait_for("all refusals in summaries", SOON, || (total(&server.log().text()) == 200).then_some(()));
    let summaries = server.log().text().matches("too busy").count() as u64;
    assert!(summaries <= began.elapsed().as_secs() + 2, "{summaries} summaries in {:?}", began.elapsed());
    server.stop();
}

#[test]
fn the_wait_for_the_application_is_in_the_access_log() {
    /// How long the call lasts that a request waits for. The wait counts from when the request was read, which may be late.
    const HELD: Duration = Duration::from_secs(1);
    let server = server(1, &[]).start();
    let mut first = occupy(&server, 1).remove(0);
    let mut second = ask(&server, "/name");
    std::thread::sleep(HELD);
    server.open_gate("gate");
    assert_eq!(first.response().status, 200);
    assert_eq!(second.response().status, 200);
    let lines = access(&server, 2);
    let wait = |path: &str| lines.iter().find(|(_, found, _)| found == path).expect("both are logged").2;
    assert!(wait("/name") > 100_000, "{lines:?}");
    assert!(wait("/gated") < wait("/name"), "nothing was before it: {lines:?}");
    server.stop();
}
