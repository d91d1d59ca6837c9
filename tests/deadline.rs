//! The deadline of a request (`--timeout`): an exception in the application, then an answer without it; others notice nothing.

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use common::client::{Client, Response};
use common::load::{Load, Plan};
use common::server::{Running, Server};
use common::{SOON, wait_for};

/// `--timeout` of the tests whose calls never end in time.
const TIMEOUT: Duration = Duration::from_secs(1);

/// `--timeout` of those with calls that are to end in time: above what they take by more than a busy machine stands still.
const ROOMY: Duration = Duration::from_secs(2);

/// `--timeout-grace` of those that do not set another: a call that notices the exception does so within it, even when the machine
/// stands still between the two.
const GRACE: Duration = Duration::from_secs(1);

/// An answer at the deadline is there within this time: the grace, and what a busy machine takes; a time in which everything
/// stood still is forgiven, which puts the deadline off. It may be wide, because nothing but the deadline is answered 504, and
/// shorter than the patience of a client, so that this is what fails.
const NEAR: Duration = Duration::from_secs(10);

/// The record of a request that is answered without the application.
const GIVEN_UP: &str = "a request does not end within --timeout";

/// The record of a worker that was ended for it.
const ENDED: &str = "does not go on and was ended";

/// The record of an exception that came out of the application.
const INTERRUPTED: &str = "interrupted at --timeout";

fn server(threads: usize, grace: Duration) -> Server {
    server_with(TIMEOUT, threads, grace)
}

fn server_with(timeout: Duration, threads: usize, grace: Duration) -> Server {
    let [timeout, grace] = [timeout, grace].map(|time| format!("{}ms", time.as_millis()));
    let threads = threads.to_string();
    let server = Server::new("deadline").options(["--threads", &threads, "--timeout", &timeout, "--timeout-grace", &grace]);
    let dir = server.temp().display().to_string();
    server.env("DEADLINE_DIR", dir)
}

/// Sends a request that names itself, and does not wait.
fn ask(client: &mut Client, target: &str) {
    let id = target.trim_start_matches('/');
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Request-ID: id-of-{id}\r\n\r\n"));
}

/// The answer to a request that lasts too long: 504 at the deadline, and the connection ends after it.
#[track_caller]
fn timed_out(client: &mut Client, began: Instant) -> Response {
    let response = client.response();
    assert_eq!(response.status, 504, "{response:?}");
    assert!((TIMEOUT..TIMEOUT + NEAR).contains(&began.elapsed()), "after {:?}", began.elapsed());
    assert!(client.is_closed(), "nothing follows");
    response
}

/// A client whose request lasts too long.
#[track_caller]
fn times_out(server: &Running, target: &str) {
    let mut client = server.connect();
    let began = Instant::now();
    ask(&mut client, target);
    timed_out(&mut client, began);
}

/// Checks how long the call had lasted that this text is about: `GET /x HTTP/1.1 for 1.0 s`. A time in which everything stood
/// still is forgiven and yet in the figure.
#[track_caller]
fn assert_lasted(text: &str, target: &str) {
    let start = format!("GET {target} HTTP/1.1 for ");
    let seconds: Option<f64> = text.split_once(&start).and_then(|(_, rest)| rest.split_once(' ')?.0.parse().ok());
    let lasted = seconds.map(Duration::from_secs_f64);
    assert!(lasted.is_some_and(|lasted| (TIMEOUT..TIMEOUT + NEAR).contains(&lasted)), "{lasted:?} behind {start:?} in {text}");
}

/// Clients of quick requests, which are being served.
fn quick_load(server: &Running) -> Load {
    let mut plan = Plan::new(server.address());
    plan.target = "/quick".to_owned();
    plan.pause = Duration::from_millis(5);
    let load = plan.start();
    load.wait_for_more(50);
    load
}

fn notes(server: &Running, name: &str) -> usize {
    fs::read_to_string(server.temp().join(name)).map_or(0, |text| text.lines().count())
}

/// A connection for which a worker that leaves stays: its request is not complete.
#[track_caller]
fn keep_busy(server: &Running) -> Client {
    let mut client = server.connect();
    assert_eq!(client.get("/quick").text(), "quick");
    client.send("GET /quick HTT");
    client
}

/// Waits until the one worker is another than before.
#[track_caller]
fn replaced(server: &Running, before: &[i32]) {
    wait_for("the replacement", SOON, || {
        let now = server.workers();
        (now.len() == before.len() && now != before).then_some(())
    });
}

#[test]
fn one_stuck_of_eight_costs_its_own_client_an_answer_and_nobody_else() {
    let server = server(8, GRACE).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    let load = quick_load(&server);
    times_out(&server, "/sleep");
    replaced(&server, &before);
    load.wait_for_more(100);
    let tally = load.stop();
    tally.assert_flawless();
    assert_eq!(tally.by_worker.len(), 2, "both workers have served: {:?}", tally.by_worker);
    let report = server.log().wait(&[GIVEN_UP]);
    for part in ["504", "GET /sleep HTTP/1.1 for ", "from 127.0.0.1", "request id id-of-sleep", "deadline.py", "in sleep"] {
        assert!(report.text.contains(part), "no {part:?} in {report:?}");
    }
    let report = server.log().wait(&[ENDED]);
    for part in ["SIGABRT", "GET /sleep", "in sleep", "most recent call first"] {
        assert!(report.text.contains(part), "no {part:?} in {report:?}");
    }
    assert!(server.log().find(&["failed again"]).is_none(), "it is no crash");
    server.stop();
}

#[test]
fn several_stuck_requests_are_each_answered() {
    let server = server(8, GRACE).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    let began = Instant::now();
    clients.iter_mut().for_each(|client| ask(client, "/sleep"));
    for client in &mut clients {
        timed_out(client, began);
    }
    replaced(&server, &before);
    assert_eq!(server.get("/quick").text(), "quick");
    assert_eq!(server.log().records().iter().filter(|record| record.text.contains(GIVEN_UP)).count(), 8);
    server.stop();
}

/// The exception comes out of the application: 504, and the worker continues as if nothing had happened.
fn unwinds(threads: usize) {
    let server = server(threads, SOON).expect_error(INTERRUPTED).start();
    let before = server.workers();
    times_out(&server, "/hang");
    let report = server.log().wait(&[INTERRUPTED]);
    assert_lasted(&report.text, "/hang");
    for part in ["from 127.0.0.1", "id-of-hang", "deadline.py", "in spin", "tapster.RequestTimeout"] {
        assert!(report.text.contains(part), "no {part:?} in {report:?}");
    }
    // On every thread.
    let mut clients: Vec<Client> = (0..threads * 2).map(|_| server.connect()).collect();
    for _ in 0..20 {
        clients.iter_mut().for_each(|client| ask(client, "/quick"));
        assert!(clients.iter_mut().all(|client| client.response().text() == "quick"));
    }
    assert_eq!(server.workers(), before);
    assert!(server.log().find(&["went on to answer"]).is_none());
    server.stop();
}

#[test]
fn an_exception_that_nobody_catches_is_answered_504_and_the_worker_goes_on() {
    unwinds(4);
}

#[test]
fn with_one_thread_it_is_the_main_thread_that_is_interrupted() {
    unwinds(1);
}

#[test]
fn an_application_that_catches_the_exception_may_still_answer() {
    let server = server(4, SOON).start();
    let before = server.workers();
    for _ in 0..2 {
        let mut client = server.connect();
        ask(&mut client, "/caught");
        let response = client.response();
        assert_eq!(response.status, 200);
        assert!(response.text().starts_with("caught: GET /caught "), "{}", response.text());
        assert_lasted(&response.text(), "/caught");
        assert_eq!(client.get("/quick").text(), "quick", "the connection goes on");
    }
    let warning = server.log().wait(&["WARNING", "went on to answer", "GET /caught"]);
    for part in ["deadline.py", "in caught", "in spin"] {
        assert!(warning.text.contains(part), "no {part:?}, where it was slow, in {warning:?}");
    }
    assert_eq!(server.workers(), before);
    server.stop();
}

#[test]
fn an_application_that_swallows_the_exception_is_done_without() {
    let server = server(4, GRACE).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    times_out(&server, "/stubborn");
    wait_for("the exception", SOON, || (notes(&server, "swallowed") >= 1).then_some(()));
    replaced(&server, &before);
    assert_eq!(notes(&server, "swallowed"), 1, "the exception comes once");
    server.stop();
}

#[test]
fn without_a_grace_no_exception_is_raised() {
    let server = server(4, Duration::ZERO).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    times_out(&server, "/stubborn");
    replaced(&server, &before);
    assert_eq!(notes(&server, "swallowed"), 0);
    server.stop();
}

#[test]
fn a_c_call_that_keeps_the_interpreter_does_not_keep_its_client() {
    let server = server(2, GRACE).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    times_out(&server, "/hold_gil");
    replaced(&server, &before);
    assert_eq!(server.get("/quick").text(), "quick");
    let report = server.log().wait(&[ENDED]);
    assert!(report.text.contains("in hold_gil"), "{report:?}");
    server.stop();
}

#[test]
fn a_stuck_call_without_the_interpreter_leaves_kept_connections_their_answers() {
    let server = server(2, GRACE).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    let mut kept: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/quick").text(), "quick"));
    let mut client = server.connect();
    let began = Instant::now();
    ask(&mut client, "/sleep");
    while began.elapsed() < TIMEOUT / 2 {
        kept.iter_mut().for_each(|client| assert_eq!(client.get("/quick").text(), "quick"));
    }
    timed_out(&mut client, began);
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/quick").text(), "quick"));
    replaced(&server, &before);
    server.stop();
}

#[test]
fn with_one_thread_the_client_of_a_stuck_call_is_answered_and_the_worker_replaced() {
    let server = server(1, GRACE).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    times_out(&server, "/sleep");
    // New connections wait for the next worker in the queue of the socket.
    assert_eq!(server.get("/quick").text(), "quick");
    replaced(&server, &before);
    server.stop();
}

#[test]
fn with_one_thread_and_another_worker_a_stuck_call_costs_nobody_else_anything() {
    let server = server(1, GRACE).workers(2).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    let load = quick_load(&server);
    times_out(&server, "/sleep");
    replaced(&server, &before);
    load.wait_for_more(100);
    let tally = load.stop();
    tally.assert_flawless();
    // A client that waits for the stuck one waits for almost all of TIMEOUT + GRACE; others wait for as long as the machine
    // stands still.
    assert!(tally.slowest < (TIMEOUT + GRACE) * 7 / 8, "somebody waited for the stuck one: {:?}", tally.slowest);
    server.stop();
}

#[test]
fn a_late_answer_is_dropped_and_logged() {
    let server = server(2, Duration::ZERO).expect_error(GIVEN_UP).start();
    let before = server.workers();
    let busy = keep_busy(&server);
    times_out(&server, "/gated");
    server.open_gate("gate");
    server.log().wait(&["WARNING", "has ended", "GET /gated", "id-of-gated"]);
    assert_eq!(notes(&server, "passed"), 1);
    drop(busy);
    replaced(&server, &before);
    assert!(server.log().find(&[ENDED]).is_none(), "it could leave in order");
    server.stop();
}

#[test]
fn the_access_log_has_the_whole_request_that_was_answered_without_its_call() {
    let format = "%(h)s|%(r)s|%(m)s|%(U)s|%(q)s|%(H)s|%(s)s|%({x-request-id}i)s|%({host}i)s|%(a)s|%(f)s|%({x-long}i)s";
    let server = server(1, Duration::ZERO).expect_error(GIVEN_UP).expect_error(ENDED);
    let server = server.options(["--access-logfile", "-", "--access-logformat", format]).start();
    let before = server.workers();
    let mut client = server.connect();
    let (query, long) = ("a".repeat(1000), "x".repeat(3000));
    client.send(format!(
        "GET /sleep?{query} HTTP/1.1\r\nHost: test.example\r\nX-Request-ID: id-of-it\r\nUser-Agent: patience/1.0\r\n\
         Referer: http://before.example/\r\nX-Long: {long}\r\n\r\n"
    ));
    assert_eq!(client.response().status, 504);
    let wanted = format!(
        "127.0.0.1|GET /sleep?{query} HTTP/1.1|GET|/sleep|{query}|HTTP/1.1|504|id-of-it|test.example|patience/1.0|\
         http://before.example/|{long}"
    );
    wait_for("the line", SOON, || server.stdout().lines().any(|line| line == wanted).then_some(()));
    replaced(&server, &before);
    server.stop();
}

#[test]
fn a_late_write_fails_and_the_answer_that_had_begun_is_cut() {
    let server = server(3, Duration::ZERO).expect_error(GIVEN_UP).start();
    let before = server.workers();
    let busy = keep_busy(&server);
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for (client, version) in clients.iter_mut().zip(["1.1", "1.0"]) {
        client.send(format!("GET /written HTTP/{version}\r\nHost: test\r\n\r\n"));
    }
    for client in &mut clients {
        let response = client.try_response_to("GET").expect("a head");
        assert!(!response.complete && response.text() == "one", "{response:?}");
    }
    server.log().wait(&[GIVEN_UP, "was cut", "GET /written HTTP/1.0"]);
    server.open_gate("gate");
    wait_for("the writes", SOON, || (notes(&server, "refused") == 6).then_some(()));
    drop(busy);
    replaced(&server, &before);
    server.stop();
}

#[test]
fn the_time_in_which_everything_stood_still_counts_for_no_call() {
    let server = server_with(ROOMY, 4, GRACE).start();
    let before = server.workers();
    let mut client = server.connect();
    ask(&mut client, "/steps");
    wait_for("the call", SOON, || (notes(&server, "stepping") == 1).then_some(()));
    let group = Pid::from_raw(server.pid());
    killpg(group, Signal::SIGSTOP).expect("the group is there");
    thread::sleep(2 * ROOMY);
    // Not before, so that the call has not ended when everything stands still.
    server.open_gate("gate");
    killpg(group, Signal::SIGCONT).expect("the group is there");
    assert_eq!(client.response().text(), "walked");
    assert_eq!(server.workers(), before);
    server.stop();
}

#[test]
fn each_block_of_a_stream_has_the_whole_time_and_a_stuck_one_is_cut() {
    let server = server_with(ROOMY, 2, GRACE).expect_error(GIVEN_UP).expect_error(ENDED).start();
    let before = server.workers();
    let mut client = server.connect();
    ask(&mut client, "/blocks");
    assert_eq!(client.response().text(), "block\n".repeat(8), "longer than --timeout in all");
    let mut client = server.connect();
    ask(&mut client, "/blocks?hang");
    let response = client.try_response_to("GET").expect("an answer without its end");
    assert!(!response.complete && response.text() == "block\n".repeat(8), "{response:?}");
    replaced(&server, &before);
    server.stop();
}
