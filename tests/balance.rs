//! How connections and requests spread over the workers, and how many wake-ups that takes.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;

use common::client::Client;
use common::server::{Running, Server, signal_to};
use common::{SOON, procfs, tools, wait_for};

/// Workers of the server.
const WORKERS: usize = 4;

/// Connections that are kept.
const CONNECTIONS: usize = 64;

/// The worker with the most has at most so many times what the one with the least has.
const SPREAD: f64 = 1.3;

/// Voluntary context switches of all workers for one request.
const SWITCHES: f64 = 1.3;

/// Each measurement is done so many times; the machine may have other work in one of them.
const TRIES: usize = 10;

/// Requests of one `ab` run.
const REQUESTS: u64 = 20_000;

/// Connections of which none is open with another: the workers change places every 16, so each is first ten times.
const ONE_BY_ONE: usize = 16 * 10 * WORKERS;

/// Time for one run of a tool on a slow machine.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// One load at a time: two would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

fn server() -> Server {
    let server = Server::new("hello").workers(WORKERS);
    let access = server.temp().join("access.log").display().to_string();
    // Kept connections must not end while they are counted.
    server.options(["--access-logfile", &access, "--access-logformat", "%(p)s %({REMOTE_PORT}e)s", "--keep-alive", "60"])
}

/// The result of a load.
enum Load {
    /// So many requests, each of which counts for its worker.
    Requests(usize),
    /// Connections, whose requests do not count: how many a worker serves in a given time is the machine's affair too.
    Connections,
    /// Nothing that is worth counting.
    Spoilt,
}

/// Requests or connections by worker, once there are all of them.
#[track_caller]
fn served(server: &Running, load: &Load) -> BTreeMap<String, usize> {
    let path = server.temp().join("access.log");
    let (total, is_each) = match load {
        Load::Requests(total) => (*total, true),
        Load::Connections => (1, false),
        Load::Spoilt => return BTreeMap::new(),
    };
    let text = wait_for("the access log", SOON, || fs::read_to_string(&path).ok().filter(|text| text.lines().count() >= total));
    let mut lines: Vec<&str> = text.lines().collect();
    if !is_each {
        lines.sort_unstable();
        lines.dedup();
    }
    let mut counts = BTreeMap::new();
    for line in lines {
        let pid = line.split(' ').next().expect("a line begins with the worker");
        *counts.entry(pid.to_owned()).or_default() += 1;
    }
    counts
}

/// How many times as much the first worker has as the last one; infinite when one has nothing.
fn spread(counts: &BTreeMap<String, usize>) -> f64 {
    let least = if counts.len() < WORKERS { 0 } else { counts.values().copied().min().unwrap_or(0) };
    counts.values().copied().max().unwrap_or(0) as f64 / least as f64
}

/// Measures on a fresh server each time, until a spread is small enough.
#[track_caller]
fn spreads_evenly(what: &str, load: impl Fn(&Running) -> Load) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let running = server().start();
        let counts = served(&running, &load(&running));
        running.stop();
        eprintln!("{what}: {:?}", counts.values().collect::<Vec<_>>());
        seen.push(spread(&counts));
        if seen.last().is_some_and(|spread| *spread < SPREAD) {
            return;
        }
    }
    panic!("{what}: most to least was {seen:.2?}, not once below {SPREAD}");
}

#[test]
fn connections_that_are_opened_at_once_are_spread_over_the_workers() {
    spreads_evenly("opened at once", |server| {
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 200);
        }
        Load::Requests(CONNECTIONS)
    });
}

#[test]
fn connections_that_are_opened_one_by_one_are_spread_over_the_workers() {
    spreads_evenly("opened one by one", |server| {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = server.connect();
            assert_eq!(client.get("/").status, 200);
            clients.push(client);
        }
        Load::Requests(CONNECTIONS)
    });
}

#[test]
fn kept_connections_of_a_load_are_spread_over_the_workers() {
    let Some(wrk) = tools::tool("wrk") else { return };
    spreads_evenly("wrk", |server| {
        let mut command = Command::new(&wrk);
        command.args(["-t2", &format!("-c{CONNECTIONS}"), "-d2s"]).arg(server.url("/"));
        tools::run(&mut command, RUN_LIMIT).succeeded();
        Load::Connections
    });
}

/// Voluntary context switches of all threads of these processes.
fn switches(pids: &[i32]) -> u64 {
    pids.iter().map(|pid| procfs::voluntary_switches(*pid)).sum()
}

#[test]
fn short_connections_are_spread_over_the_workers_and_wake_one_each() {
    let Some(ab) = tools::tool("ab") else { return };
    spreads_evenly("ab", |server| {
        let (workers, requests) = (server.workers(), REQUESTS.to_string());
        let before = switches(&workers);
        let mut command = Command::new(&ab);
        command.args(["-q", "-n", &requests, "-c", "25"]).arg(server.url("/"));
        tools::run(&mut command, RUN_LIMIT).succeeded();
        let each = (switches(&workers) - before) as f64 / REQUESTS as f64;
        eprintln!("ab: {each:.2} voluntary switches for a request");
        if each < SWITCHES { Load::Requests(REQUESTS as usize) } else { Load::Spoilt }
    });
}

#[test]
fn connections_that_come_and_go_one_by_one_are_spread_over_the_workers() {
    spreads_evenly("one at a time", |server| {
        for _ in 0..ONE_BY_ONE {
            assert_eq!(server.get("/").status, 200);
        }
        Load::Requests(ONE_BY_ONE)
    });
}

#[test]
fn connections_do_not_wait_for_a_worker_that_has_few_and_does_not_run() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let running = server().start();
    let stopped = running.workers()[1];
    signal_to(stopped, Signal::SIGSTOP);
    // As long as it runs it may be woken for a connection that it does not take.
    wait_for("the worker to stand still", SOON, || procfs::process(stopped).filter(|process| process.state == 'T'));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = running.connect();
        assert_eq!(client.get("/").status, 200);
        clients.push(client);
    }
    signal_to(stopped, Signal::SIGCONT);
    let counts = served(&running, &Load::Requests(CONNECTIONS));
    running.stop();
    assert_eq!(counts.len(), WORKERS - 1, "{counts:?}");
}
