//! `--threads` as a Python application sees it: named threads that keep their values, one thread for a request, child processes,
//! signals, and a call that keeps the interpreter for itself.

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use common::client::Client;
use common::load::Plan;
use common::server::{Running, Server, signal_to};
use common::{SOON, wait_for};
use nix::sys::signal::Signal;

/// Longest wait for a request beside one that keeps the interpreter: several switch intervals of 5 ms, on a busy machine.
const BESIDE: Duration = Duration::from_secs(5);

fn threaded(threads: usize) -> Server {
    let server = Server::new("threaded:application").options(["--threads", &threads.to_string()]);
    let temp = server.temp().display().to_string();
    server.env("THREADS_DIR", temp)
}

fn ask(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
}

/// Lines of a note; none when it is not there yet.
fn lines(server: &Running, note: &str) -> Vec<String> {
    fs::read_to_string(server.temp().join(note)).map_or_else(|_| Vec::new(), |text| text.lines().map(str::to_owned).collect())
}

fn wait_for_lines(server: &Running, note: &str, count: usize) -> Vec<String> {
    wait_for(note, SOON, || Some(lines(server, note)).filter(|lines| lines.len() >= count))
}

#[test]
fn multithread_and_the_main_thread_are_given_as_they_are() {
    let server = threaded(1).start();
    assert_eq!(server.get("/name").text(), "MainThread False");
    server.stop();
    let server = threaded(2).start();
    let text = server.get("/name").text();
    assert!(text.ends_with(" True"), "{text}");
    server.stop();
}

#[test]
fn requests_beside_each_other_are_on_named_threads_with_a_context_of_their_own() {
    let server = threaded(4).start();
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for (id, client) in clients.iter_mut().enumerate() {
        ask(client, &format!("/gated?id={id}"));
    }
    wait_for_lines(&server, "inside", 4);
    server.open_gate("gate");
    let mut names = HashSet::new();
    for (id, client) in clients.iter_mut().enumerate() {
        let text = client.response().text();
        let (seen, name) = text.split_once(' ').expect("id and name");
        assert_eq!(seen, id.to_string());
        assert!(name == "MainThread" || name.starts_with("tapster-"), "{name}");
        assert!(names.insert(name.to_owned()), "{name} had two requests at once");
    }
    server.stop();
}

#[test]
fn a_thread_keeps_its_local_values_from_request_to_request() {
    let server = threaded(4).start();
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    let mut counts: HashMap<String, Vec<u32>> = HashMap::new();
    for _ in 0..10 {
        for client in &mut clients {
            ask(client, "/local?sleep=0.004");
        }
        for client in &mut clients {
            let text = client.response().text();
            let (name, count) = text.split_once(' ').expect("name and count");
            counts.entry(name.to_owned()).or_default().push(count.parse().expect("a number"));
        }
    }
    assert!(counts.len() > 1, "one thread served everything: {counts:?}");
    for (name, mut seen) in counts {
        seen.sort_unstable();
        assert_eq!(seen, (1..=seen.len() as u32).collect::<Vec<_>>(), "values of {name}");
    }
    server.stop();
}

#[test]
fn a_request_is_on_one_thread_from_its_call_to_its_close() {
    let server = threaded(4).start();
    let mut clients: Vec<Client> = (0..12).map(|_| server.connect()).collect();
    for client in &mut clients {
        ask(client, "/stream");
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), "block\n".repeat(4));
    }
    let streams = wait_for_lines(&server, "streams", 12);
    let mut used = HashSet::new();
    for line in &streams {
        let threads: HashSet<&str> = line.split(' ').collect();
        assert_eq!(threads.len(), 1, "a stream changed its thread: {line}");
        used.extend(threads);
    }
    assert!(used.len() > 1, "one thread served everything: {streams:?}");
    server.stop();
}

#[test]
fn a_signal_handler_of_the_application_runs_on_the_main_thread() {
    let server = threaded(4).start();
    let worker = server.workers()[0];
    signal_to(worker, Signal::SIGUSR2);
    wait_for("the handler", SOON, || {
        server.get("/name");
        Some(lines(&server, "signals")).filter(|names| names == &["MainThread"])
    });
    // Beside the main thread Python refuses it.
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| ask(client, "/refused?sleep=0.05"));
    let answers: Vec<String> = clients.iter_mut().map(|client| client.response().text()).collect();
    assert!(answers.iter().any(|text| text.contains("only works in main thread")), "{answers:?}");
    server.stop();
}

#[test]
fn child_processes_of_the_application_work_on_every_thread() {
    for threads in [1, 4] {
        // Each client waits for the others, whose processes take their time on a busy machine.
        let server = threaded(threads).options(["--keep-alive", "300"]).start();
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for (target, answer) in
            [("/fork", "7"), ("/run", "42"), ("/pool?method=fork", "[1, 2, 3]"), ("/pool?method=spawn", "[1, 2, 3]")]
        {
            // One after the other, each on the next thread: a pool that is forked while another thread holds a lock of
            // multiprocessing waits for ever, in every server (DeprecationWarning of os.fork, Python 3.12).
            for client in &mut clients {
                assert_eq!(client.get(target).text(), answer, "{target} with {threads} threads");
            }
        }
        server.stop();
    }
}

#[test]
fn a_child_process_that_is_killed_at_its_birth_dies_and_the_worker_does_not() {
    for threads in [1, 4] {
        let server = threaded(threads).start();
        let workers = server.workers();
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/killed").text(), "killed");
        }
        assert_eq!(server.workers(), workers);
        server.stop();
    }
}

#[test]
fn a_call_that_keeps_the_interpreter_busy_does_not_stop_other_requests() {
    let server = threaded(4).start();
    let mut spinner = server.connect();
    ask(&mut spinner, "/spin");
    wait_for_lines(&server, "inside", 1);
    let mut quick = server.connect();
    for _ in 0..5 {
        let began = Instant::now();
        assert!(quick.get("/name").text().ends_with(" True"));
        assert!(began.elapsed() < BESIDE, "waited {:?}", began.elapsed());
    }
    server.open_gate("gate");
    assert_eq!(spinner.response().text(), "span");
    server.stop();
}

#[test]
fn a_call_that_keeps_the_only_thread_does_not_stop_refusals_and_timeouts() {
    let server = threaded(1).options(["--header-timeout", "300ms"]).start();
    let mut spinner = server.connect();
    ask(&mut spinner, "/spin");
    wait_for_lines(&server, "inside", 1);
    assert_eq!(server.exchange("NO HTTP\r\n\r\n").status, 400);
    assert_eq!(server.exchange("GET / HTTP/1.1\r\nHo").status, 408);
    server.open_gate("gate");
    assert_eq!(spinner.response().text(), "span");
    server.stop();
}

#[test]
fn a_thread_of_another_language_gets_the_interpreter_while_the_server_waits() {
    // No deadline ends the wait too soon.
    let server = threaded(1).options(["--keep-alive", "300"]).start();
    let mut client = server.connect();
    // Polls that end at once keep the interpreter, which must not last.
    for _ in 0..20 {
        assert_eq!(client.get("/name").text(), "MainThread False");
    }
    assert_eq!(client.get("/native").text(), "0");
    let began = Instant::now();
    wait_for_lines(&server, "native", 1);
    assert!(began.elapsed() < BESIDE, "waited {:?}", began.elapsed());
    server.stop();
}

#[test]
fn nothing_fails_under_load_with_eight_threads() {
    let server = threaded(8).start();
    let mut plan = Plan::new(server.address());
    plan.clients = 16;
    plan.target = "/local?sleep=0.002".to_owned();
    let load = plan.start();
    load.wait_for_more(2_000);
    load.stop().assert_flawless();
    server.stop();
}

#[test]
fn a_request_that_an_idle_thread_serves_during_a_drain_says_that_its_connection_ends() {
    let mut server = threaded(4).start();
    let mut kept: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    // Slow calls: from here on requests go to idle threads.
    for client in &mut kept {
        ask(client, "/local?sleep=0.02");
        assert_eq!(client.response().status, 200);
    }
    let mut running = server.connect();
    ask(&mut running, "/gated");
    wait_for_lines(&server, "inside", 1);
    let mut other = server.connect();
    assert!(!other.get("/name").closes());
    // An idle connection is closed soon after the order to leave; one whose head has begun is not.
    kept.iter_mut().for_each(|client| client.send("GET /local?sleep=0.02 HT"));
    server.signal(Signal::SIGTERM);
    wait_for("the worker to leave", SOON, || {
        let sent = other.try_send(b"GET /name HTTP/1.1\r\nHost: test\r\n\r\n");
        // Closed without an answer: it was idle for too long, and the worker leaves as well.
        sent.and_then(|()| other.try_response_to("GET")).map_or(Some(()), |response| response.closes().then_some(()))
    });
    kept.iter_mut().for_each(|client| client.send("TP/1.1\r\nHost: test\r\n\r\n"));
    let mut answers = kept.iter_mut().map(Client::response);
    assert!(answers.all(|response| response.status == 200 && response.closes()), "the client would send another request");
    server.open_gate("gate");
    assert_eq!(running.response().status, 200);
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.finish();
}
