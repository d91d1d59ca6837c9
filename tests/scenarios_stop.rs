//! Stops and changes of the number of workers, under load: whatever was accepted or waits to be is answered.

mod common;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use common::client::Client;
use common::deploy::{self, WORKERS, load, wait_for_records};
use common::load::{Plan, Tally};
use common::server::signal_to;
use common::{SOON, procfs, wait_for};

/// Longest time without any answer, on a busy machine that boots a worker beside the load.
const GAP: Duration = Duration::from_secs(1);

/// As [`GAP`], while workers boot and leave all the time, up to eight of them on few processors.
const GAP_BESIDE_BOOTS: Duration = Duration::from_secs(3);

/// While the workers are stopped nobody is answered.
const PAUSED: Duration = Duration::from_secs(10);

/// Stops under a load of new connections: a single one loses about one connection in a thousand when it loses any.
const STOPS: usize = 10;

#[test]
fn term_answers_what_runs_and_what_waits() {
    let mut server = deploy::server().start();
    let slow = |_| {
        let mut client = server.connect();
        client.send("GET /sleep HTTP/1.1\r\nHost: test\r\n\r\n");
        client
    };
    let mut clients: Vec<Client> = (0..6).map(slow).collect();
    let quick = |_| {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        client
    };
    clients.extend((0..50).map(quick));
    server.signal(Signal::SIGTERM);
    for (index, client) in clients.iter_mut().enumerate() {
        let response = client.try_response_to("GET").unwrap_or_else(|error| panic!("connection {index}: {error}"));
        assert!(response.status == 200 && response.complete, "connection {index}: {response:?}");
        // An answer whose head was begun before the signal could not say so.
        assert!(client.is_closed(), "connection {index} stays open");
    }
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.finish();
}

/// A request that comes so long after its connection was made has no promise: a server that stops waits 200 ms for it. So late is
/// a client that the machine did not let run.
const LATE: Duration = Duration::from_millis(150);

/// Requests that were not answered rightly, late ones left out, and refused connections: after the end there is nobody to accept.
fn lost(tally: &Tally) -> Vec<&str> {
    let failures = tally.failures.iter().filter(|failure| failure.late < LATE).map(|failure| failure.what.as_str());
    failures.filter(|what| !what.starts_with("connect: Connection refused")).collect()
}

#[test]
fn a_stop_loses_no_connection_that_was_let_in() {
    let mut answered = 0;
    for stop in 0..STOPS {
        let mut server = deploy::server().start();
        let plan = |keep_alive| Plan { keep_alive, clients: 12, ..Plan::new(server.address()) };
        let (new, kept) = (plan(false).start(), Plan { pause: Duration::from_millis(5), ..plan(true) }.start());
        new.wait_for_more(300);
        if stop % 2 == 0 {
            server.signal(Signal::SIGTERM);
        } else {
            // As a service manager does (systemd.kill(5), KillMode=control-group).
            killpg(Pid::from_raw(server.pid()), Signal::SIGTERM).expect("the group is there");
        }
        assert_eq!(server.wait(SOON).code(), Some(0));
        for tally in [new.stop(), kept.stop()] {
            assert_eq!(lost(&tally), [""; 0], "stop {stop}");
            answered += tally.ok;
        }
        server.finish();
    }
    eprintln!("{STOPS} stops, {answered} answers, none lost");
}

#[test]
fn workers_come_and_go_without_a_loss() {
    let server = deploy::server().start();
    let load = load(&server);
    let count = |wanted: usize| {
        wait_for(&format!("{wanted} workers"), SOON, || (server.workers().len() == wanted).then_some(()));
        load.wait_for_more(50);
    };
    for more in 1..=4 {
        server.signal(Signal::SIGTTIN);
        count(WORKERS + more);
    }
    for fewer in 1..=4 {
        server.signal(Signal::SIGTTOU);
        count(WORKERS + 4 - fewer);
    }
    load.assert_flawless(GAP_BESIDE_BOOTS);
    server.stop();
}

#[test]
fn the_workers_stop_and_come_back_without_a_loss() {
    let server = deploy::server().start();
    let load = load(&server);
    for (nth, signal) in [Signal::SIGTTIN, Signal::SIGHUP].into_iter().enumerate() {
        server.signal(Signal::SIGWINCH);
        wait_for("the end of the workers", SOON, || server.workers().is_empty().then_some(()));
        assert!(procfs::alive(server.pid()));
        server.signal(signal);
        wait_for("all workers", SOON, || (server.workers().len() == WORKERS).then_some(()));
        load.wait_for_more(100);
        wait_for_records(&server, "the workers leave", nth + 1);
    }
    load.assert_flawless(PAUSED);
    server.stop();
}

#[test]
fn a_server_without_workers_can_be_stopped() {
    let mut server = deploy::server().start();
    server.signal(Signal::SIGWINCH);
    wait_for("the end of the workers", SOON, || server.workers().is_empty().then_some(()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.finish();
}

#[test]
fn a_worker_that_is_sent_term_is_replaced_without_a_loss() {
    let server = deploy::server().start();
    let load = load(&server);
    for pid in server.workers() {
        signal_to(pid, Signal::SIGTERM);
        server.log().wait(&[&pid.to_string(), "was sent SIGTERM"]);
        wait_for("its end", SOON, || (!procfs::alive(pid)).then_some(()));
    }
    load.assert_flawless(GAP);
    assert_eq!(server.workers().len(), WORKERS);
    server.stop();
}

#[test]
fn a_second_int_ends_a_drain_at_once() {
    let mut server = deploy::server().options(["--timeout", "0"]).start();
    let mut stuck = server.connect();
    stuck.send("GET /spin HTTP/1.1\r\nHost: test\r\n\r\n");
    let busy = || server.workers().iter().any(|pid| procfs::cpu_millis(*pid) > 300);
    wait_for("the request to run", SOON, || busy().then_some(()));
    // Signals that are pending together are one.
    let send = |signal: Signal, record: &str| {
        server.signal(signal);
        server.log().wait(&[record]);
    };
    send(Signal::SIGTERM, "stopping: requests that were accepted");
    send(Signal::SIGTERM, "already stopping");
    let began = Instant::now();
    send(Signal::SIGINT, "stopping: only the requests that run");
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait(SOON).code(), Some(0));
    // The first of the two alone leaves the request five seconds.
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
    server.finish();
}
