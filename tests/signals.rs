//! Signal handlers that the application installs: they run on the main thread, soon, whatever the worker does meanwhile, and what
//! they do concerns no request.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::client::Client;
use common::load::Plan;
use common::server::{Running, Server, at_once, signal_to};
use common::{SOON, wait_for};
use nix::sys::signal::Signal;

/// Longest time between a signal and its handler. A switch of threads takes 5 ms (`sys.setswitchinterval`); the rest is for a
/// busy machine.
const PROMPT: u64 = 3_000;

/// As [`PROMPT`], for a request beside a handler.
const BESIDE: Duration = Duration::from_secs(5);

fn with_handlers(threads: usize) -> Server {
    let server = Server::new("handlers:application").options(["--threads", &threads.to_string()]);
    let temp = server.temp().display().to_string();
    server.env("HANDLERS_DIR", temp)
}

/// What the handlers have noted so far.
fn notes(server: &Running) -> Vec<String> {
    let text = fs::read_to_string(server.temp().join("handled"));
    text.map_or_else(|_| Vec::new(), |text| text.lines().map(str::to_owned).collect())
}

/// Waits for so many notes, each of a handler that ran soon and on the main thread.
#[track_caller]
fn expect_prompt(server: &Running, count: usize) {
    let notes = wait_for("handlers", SOON, || Some(notes(server)).filter(|notes| notes.len() >= count));
    for note in &notes {
        let (late, thread) = note.split_once(' ').expect("milliseconds and a name");
        assert_eq!(thread, "MainThread");
        assert!(late.parse::<u64>().expect("a number") < PROMPT, "a handler was late: {notes:?}");
    }
}

fn ask(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
}

/// Requests that are slow at the same time: the loop goes from thread to thread, and the main thread is mostly left without it.
fn churn(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| ask(client, "/churn?sleep=0.01"));
    clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "churned"));
}

#[test]
fn a_handler_runs_soon_while_the_worker_is_idle() {
    for threads in [1, 8] {
        let server = with_handlers(threads).start();
        let mut clients: Vec<Client> = (0..12).map(|_| server.connect()).collect();
        for round in 0..8 {
            churn(&mut clients);
            let target = if round % 2 == 0 { "/alarm?after=0.05" } else { "/kick?after=0.05" };
            assert_eq!(server.get(target).text(), "armed");
            expect_prompt(&server, round + 1);
        }
        churn(&mut clients);
        server.stop();
    }
}

#[test]
fn a_handler_runs_soon_while_every_thread_is_in_a_slow_call() {
    for threads in [1, 8] {
        let server = with_handlers(threads).start();
        let mut clients: Vec<Client> = (0..threads).map(|_| server.connect()).collect();
        for round in 0..3 {
            assert_eq!(server.get("/alarm?after=0.2").text(), "armed");
            // A handler that waited for the calls would be late.
            clients.iter_mut().for_each(|client| ask(client, "/churn?sleep=6"));
            expect_prompt(&server, round + 1);
            clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "churned"));
        }
        server.stop();
    }
}

#[test]
fn handlers_run_soon_under_load_and_fail_no_request() {
    for threads in [1, 8] {
        let server = with_handlers(threads).start();
        wait_for("the main thread", SOON, || (server.get("/often").text() == "ticking").then_some(()));
        for target in ["/churn", "/churn?sleep=0.005"] {
            let before = notes(&server).len();
            let mut plan = Plan::new(server.address());
            target.clone_into(&mut plan.target);
            let load = plan.start();
            expect_prompt(&server, before + 25);
            load.wait_for_more(100);
            load.stop().assert_flawless();
        }
        server.stop();
    }
}

#[test]
fn an_exception_of_a_handler_is_logged_and_concerns_no_request() {
    for threads in [1, 8] {
        let mut server = with_handlers(threads).start();
        server.expect_error("out of the handler");
        let mut clients: Vec<Client> = (0..12).map(|_| server.connect()).collect();
        for target in ["/alarm?after=1&what=raise", "/kick?after=0&what=raise"] {
            let before = notes(&server).len();
            churn(&mut clients);
            assert_eq!(server.get(target).text(), "armed");
            if target.starts_with("/kick") {
                server.open_gate("answered");
            }
            expect_prompt(&server, before + 1);
        }
        let parts =
            ["a signal handler of the application raised an exception", "handlers.py", "RuntimeError: out of the handler"];
        wait_for("both records", SOON, || {
            let records = server.log().records();
            (records.iter().filter(|record| parts.iter().all(|part| record.text.contains(part))).count() == 2).then_some(())
        });
        churn(&mut clients);
        server.stop();
    }
}

#[test]
fn a_handler_that_lasts_holds_up_no_other_request() {
    let server = with_handlers(8).start();
    let mut clients: Vec<Client> = (0..12).map(|_| server.connect()).collect();
    churn(&mut clients);
    assert_eq!(server.get("/kick?after=0&what=wait").text(), "armed");
    server.open_gate("answered");
    expect_prompt(&server, 1);
    let began = Instant::now();
    churn(&mut clients);
    assert!(began.elapsed() < BESIDE, "waited {:?} beside a handler", began.elapsed());
    server.open_gate("gate");
    server.stop();

    // The only thread is in the handler: all work without the application continues.
    let server = with_handlers(1).options(["--header-timeout", "300ms"]).start();
    assert_eq!(server.get("/kick?after=0&what=wait").text(), "armed");
    server.open_gate("answered");
    expect_prompt(&server, 1);
    let began = Instant::now();
    assert_eq!(server.exchange("NO HTTP\r\n\r\n").status, 400);
    assert_eq!(server.exchange("GET / HTTP/1.1\r\nHo").status, 408);
    let mut waiting = server.connect();
    ask(&mut waiting, "/churn");
    assert!(began.elapsed() < BESIDE, "waited {:?} beside a handler", began.elapsed());
    server.open_gate("gate");
    assert_eq!(waiting.response().text(), "churned");
    server.stop();
}

#[test]
fn a_request_does_not_wait_for_a_handler_while_a_thread_is_idle() {
    for threads in [2, 8] {
        let server = with_handlers(threads).env("HANDLERS_ONE_CPU", "1").start();
        let worker = server.workers()[0];
        let mut client = server.connect();
        // The first call costs the main thread the loop; from then on requests go to the thread that was idle last: this one.
        for _ in 0..4 {
            assert_eq!(client.get("/churn?sleep=0.02").text(), "churned");
        }
        assert_eq!(client.get("/what?do=wait").text(), "wait");
        // The loop sends the handler to the main thread, and finds the request before that thread has woken up.
        at_once(worker, || {
            signal_to(worker, Signal::SIGALRM);
            ask(&mut client, "/churn");
        });
        let began = Instant::now();
        assert_eq!(client.response().text(), "churned");
        assert!(began.elapsed() < BESIDE, "waited {:?} beside a handler", began.elapsed());
        wait_for("the handler", SOON, || (notes(&server).len() == 1).then_some(()));
        server.open_gate("gate");
        server.stop();
    }
}

#[test]
fn a_handler_that_does_not_end_is_interrupted_at_the_timeout() {
    for threads in [1, 4] {
        let mut server = with_handlers(threads).options(["--timeout", "2s"]).start();
        server.expect_error("RequestTimeout");
        assert_eq!(server.get("/kick?after=0&signal=stuck").text(), "armed");
        server.open_gate("answered");
        let record = server.log().wait(&["a signal handler of the application raised an exception", "RequestTimeout"]);
        assert!(record.text.contains("signal handlers of the application"), "{}", record.text);
        assert_eq!(server.get("/churn").text(), "churned");
        server.stop();
    }
}

#[test]
fn an_application_has_its_own_wakeup_descriptor_until_it_gives_it_back() {
    let server = with_handlers(1).start();
    for round in 0..2 {
        assert_eq!(server.get("/own").text(), "-1 True True");
        assert_eq!(server.get("/kick?after=0.05").text(), "armed");
        expect_prompt(&server, 2 * (round + 1));
    }
    server.stop();
}

#[test]
fn handlers_of_child_processes_are_their_own() {
    for threads in [1, 4] {
        let server = with_handlers(threads).start();
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for method in ["os.fork", "fork", "spawn"] {
            for client in &mut clients {
                assert_eq!(client.get(&format!("/child?method={method}")).text(), "0", "{method} with {threads} threads");
            }
        }
        server.stop();
    }
}
