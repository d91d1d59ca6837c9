//! Workers that do not continue: found in time, reported with request and stack, replaced. And those that only seem not to.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use common::client::Client;
use common::deploy;
use common::errorlog::Record;
use common::server::{Running, Server, signal_to};
use common::{SOON, wait_for};

/// `--timeout` of these tests: so long that a worker which does not run for a second is not taken for one that does not continue.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A replacement is there within the timeout and this time. Two seconds are promised; the rest is for a boot on a busy machine.
const REPLACED_WITHIN: Duration = Duration::from_secs(6);

/// `--timeout-grace` of these tests: time for a thread that has to take the interpreter from one that spins.
const GRACE: Duration = Duration::from_secs(2);

/// The begin of the report about a worker that was ended.
const REPORT: &str = "does not go on and was ended";

fn server() -> Server {
    deploy::server().options(["--timeout", "3s", "--timeout-grace", "2s"])
}

/// Sends a request that names itself, and does not wait.
fn ask(server: &Running, target: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Request-ID: id-of{}\r\n\r\n", target.replace('/', "-")));
    client
}

/// Waits for a worker that was not there before, within the promised time from `began`; returns the report.
#[track_caller]
fn replaced(server: &Running, before: &[i32], began: Instant) -> Record {
    let limit = TIMEOUT + GRACE + REPLACED_WITHIN;
    wait_for("the replacement", limit.saturating_sub(began.elapsed()), || {
        let now = server.workers();
        (now.len() == before.len() && now != before).then_some(())
    });
    assert_eq!(server.workers().iter().filter(|pid| !before.contains(pid)).count(), 1, "only one was replaced");
    server.log().wait(&[REPORT])
}

/// The report names the request, its client, its id, and the lines of the application.
#[track_caller]
fn names(report: &Record, target: &str, function: &str) {
    let id = format!("request id id-of{}", target.replace('/', "-"));
    for part in [&format!("GET {target} HTTP/1.1"), "from 127.0.0.1", &id, "--timeout", "deploy.py", function, "in application"] {
        assert!(report.text.contains(part), "no {part:?} in {report:?}");
    }
}

#[test]
fn a_spinning_application_is_interrupted_and_its_worker_serves_on() {
    let server = server().workers(2).expect_error("interrupted at --timeout").start();
    let before = server.workers();
    let mut client = ask(&server, "/spin");
    assert_eq!(client.response().status, 504);
    assert!(client.is_closed());
    names(&server.log().wait(&["interrupted at --timeout"]), "/spin", "in spin");
    assert_eq!(server.log().records().iter().filter(|record| record.text.contains("/spin")).count(), 1, "one record");
    assert_eq!((server.get("/").status, server.workers()), (200, before));
    server.stop();
}

#[test]
fn a_c_call_that_holds_the_gil_is_found() {
    let server = server().workers(2).expect_error("a request does not end").expect_error(REPORT).start();
    let before = server.workers();
    let began = Instant::now();
    let mut client = ask(&server, "/gil");
    assert_eq!(client.response().status, 504);
    assert!(client.is_closed());
    names(&replaced(&server, &before, began), "/gil", "in hold_gil");
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn a_stopped_worker_is_found_in_its_request() {
    let server = server().workers(1).expect_error(REPORT).start();
    let before = server.workers();
    let client = ask(&server, "/stuck");
    let inside = server.temp().join("stuck");
    wait_for("the application to be asleep", SOON, || inside.exists().then_some(()));
    signal_to(before[0], Signal::SIGSTOP);
    let report = replaced(&server, &before, Instant::now());
    for part in ["GET /stuck HTTP/1.1", "id-of-stuck", "in application"] {
        assert!(report.text.contains(part), "no {part:?} in {report:?}");
    }
    drop(client);
    server.stop();
}

#[test]
fn a_worker_that_is_stopped_while_idle_is_found() {
    let server = server().workers(2).expect_error(REPORT).start();
    let before = server.workers();
    signal_to(before[0], Signal::SIGSTOP);
    let report = replaced(&server, &before, Instant::now());
    assert!(report.text.contains("no sign") && report.text.contains(&before[0].to_string()), "{report:?}");
    server.stop();
}

#[test]
fn without_a_timeout_nobody_is_ended() {
    let server = deploy::server().workers(1).options(["--timeout", "0"]).start();
    let before = server.workers();
    signal_to(before[0], Signal::SIGSTOP);
    thread::sleep(TIMEOUT + REPLACED_WITHIN);
    signal_to(before[0], Signal::SIGCONT);
    assert_eq!((server.get("/").status, server.workers()), (200, before));
    server.stop();
}

#[test]
fn idle_workers_and_short_requests_are_let_alone() {
    let server = server().start();
    let before = server.workers();
    let began = Instant::now();
    while began.elapsed() < 4 * TIMEOUT {
        assert_eq!(server.get("/nap").status, 200);
    }
    thread::sleep(3 * TIMEOUT);
    assert_eq!(server.workers(), before);
    server.stop();
}

#[test]
fn a_server_that_stood_still_as_a_whole_ends_nobody() {
    let server = server().start();
    let before = server.workers();
    let mut client = ask(&server, "/nap");
    let group = Pid::from_raw(server.pid());
    killpg(group, Signal::SIGSTOP).expect("the group is there");
    thread::sleep(4 * TIMEOUT);
    killpg(group, Signal::SIGCONT).expect("the group is there");
    assert_eq!(client.response().status, 200, "its request goes on");
    thread::sleep(2 * TIMEOUT);
    assert_eq!(server.workers(), before);
    server.stop();
}

#[test]
fn a_start_that_hangs_fails_and_says_where() {
    let server = deploy::server().workers(1).options(["--boot-timeout", "5s"]);
    std::fs::write(server.temp().join("mode"), "hang").expect("the temp directory is writable");
    let began = Instant::now();
    server.run_to_end().failed(3, &["--boot-timeout 5.0 s", "deploy.py", "in <module>"]);
    assert!(began.elapsed() < SOON);
}
