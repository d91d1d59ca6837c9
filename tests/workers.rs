//! Workers that end and servers that stop: the losses, the log, and how soon everything is back. How servers start is in
//! startup.rs.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::client::Client;
use common::load::{Failure, Plan, Tally, WORKER_FIELD};
use common::server::{Running, STOP_LIMIT, Server, signal_to};
use common::{ROLLED, SOON, procfs, wait_for};

/// Workers of the tests under load.
const WORKERS: usize = 4;

/// Load clients; more than workers, so that each worker has some.
const CLIENTS: usize = 16;

/// A replacement answers within this time and that of four boots: the one of the test is without a load, and restarts are two a
/// second. That it is not put off is seen in the log.
const REPLACED_WITHIN: Duration = Duration::from_secs(5);

/// Workers whose master was killed are gone within this time once their request ends; five times what is promised, for a busy
/// machine.
const ORPHANS_LEAVE: Duration = Duration::from_secs(5);

/// Pause of a load client, so that the load does not take the processors from what is tested.
const PAUSE: Duration = Duration::from_millis(1);

/// A quick stop takes well less than the graceful timeout of 30 s.
const QUICK: Duration = Duration::from_secs(5);

fn unsteady() -> Server {
    let server = Server::new("unsteady");
    let temp = server.temp().display().to_string();
    server.env("UNSTEADY_DIR", temp)
}

/// The worker that a fresh connection reaches.
fn answering(server: &Running) -> Option<i32> {
    server.get("/").field(WORKER_FIELD)?.parse().ok()
}

/// Sends a gated request and waits until the application runs it.
#[track_caller]
fn enter(server: &Running, name: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET /gated?name={name} HTTP/1.1\r\nHost: test\r\n\r\n"));
    let entered = server.temp().join(format!("entered-{name}"));
    wait_for("the request to run", SOON, || entered.exists().then_some(()));
    client
}

fn open_gate(dir: &Path, name: &str) {
    fs::write(dir.join(format!("gate-{name}")), "").expect("the temp directory is writable");
}

/// Waits until a worker that is none of `before` is there and answers.
#[track_caller]
fn wait_for_replacement(server: &Running, before: &[i32]) -> i32 {
    wait_for("an answer of a new worker", ROLLED, || answering(server).filter(|pid| !before.contains(pid)))
}

/// Every failure belongs to a connection of a worker that was ended, at most one for each client and end. Whose connection it was
/// is not known when its first request is lost; most requests are not first ones, so that these are fewer than the clients.
#[track_caller]
fn assert_only_in_flight_lost(tally: &Tally, ended: &[i32]) {
    assert!(tally.ok > 0);
    let (known, first): (Vec<&Failure>, Vec<&Failure>) = tally.failures.iter().partition(|failure| failure.worker.is_some());
    for failure in known {
        assert!(failure.worker.is_some_and(|pid| ended.contains(&pid)), "lost without reason: {failure:?}");
    }
    assert!(first.len() <= CLIENTS && first.iter().all(|failure| failure.is_cut()), "lost without reason: {first:?}");
    for pid in ended {
        let lost = tally.failures.iter().filter(|failure| failure.worker == Some(*pid)).count();
        assert!(lost <= CLIENTS, "{lost} requests lost with worker {pid}, but {CLIENTS} clients have one each");
    }
    eprintln!("{} answered, {} lost with {} ended workers", tally.ok, tally.failures.len(), ended.len());
}

fn end_each_worker_under_load(signal: Signal) {
    let began = Instant::now();
    let server = unsteady().workers(WORKERS).expect_error(signal.as_str()).start();
    let boot = began.elapsed();
    let load = Plan { clients: CLIENTS, pause: PAUSE, ..Plan::new(server.address()) }.start();
    load.wait_for_more(500);
    let mut ended = Vec::new();
    for pid in server.workers() {
        let before = server.workers();
        signal_to(pid, signal);
        let ended_at = Instant::now();
        ended.push(pid);
        wait_for_replacement(&server, &before);
        let away = ended_at.elapsed();
        assert!(away < REPLACED_WITHIN + 4 * boot, "back only after {away:?} (a start takes {boot:?})");
        let record = server.log().wait(&[&pid.to_string(), signal.as_str()]);
        assert!(record.text.to_lowercase().contains("worker"), "{record:?}");
        load.wait_for_more(500);
    }
    assert!(server.log().find(&["the next try is in"]).is_none(), "a first failure is made good at once");
    assert_only_in_flight_lost(&load.stop(), &ended);
    assert_eq!(server.workers().len(), WORKERS);
    assert!(ended.iter().all(|pid| !server.workers().contains(pid)));
    server.stop();
}

#[test]
fn killing_each_worker_under_load_loses_only_what_it_ran() {
    end_each_worker_under_load(Signal::SIGKILL);
}

#[test]
fn a_segfault_of_each_worker_under_load_loses_only_what_it_ran() {
    end_each_worker_under_load(Signal::SIGSEGV);
}

#[test]
fn the_log_names_what_a_crashed_worker_served() {
    let crashes = [("/segfault?a=1", "SIGSEGV"), ("/abort?b=2", "SIGABRT"), ("/leave?code=7", "7"), ("/leave?code=0", "0")];
    let mut server = unsteady().start();
    for (target, how) in crashes {
        let before = server.workers();
        server.expect_error(target);
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert!(client.is_closed(), "no answer from a dead worker");
        let record = server.log().wait(&[target, &before[0].to_string()]);
        assert!(record.text.contains(how) && record.text.contains("GET"), "{record:?}");
        wait_for_replacement(&server, &before);
    }
    server.stop();
}

#[test]
fn the_log_names_what_a_killed_worker_served() {
    let server = unsteady().workers(2).expect_error("SIGKILL").start();
    let mut clients = [enter(&server, "one"), enter(&server, "two")];
    for pid in server.workers() {
        signal_to(pid, Signal::SIGKILL);
    }
    for name in ["one", "two"] {
        server.log().wait(&[&format!("/gated?name={name}"), "SIGKILL"]);
    }
    assert!(clients.iter_mut().all(|client| client.is_closed()));
    wait_for("two new workers", SOON, || (server.workers().len() == 2).then_some(()));
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn other_connections_survive_the_crash_of_a_worker() {
    let server = unsteady().workers(2).expect_error("SIGKILL").start();
    let mut by_worker: Vec<(i32, Client)> = Vec::new();
    wait_for("a connection to each worker", SOON, || {
        let mut client = server.connect();
        let pid = client.get("/").field(WORKER_FIELD)?.parse().ok()?;
        if !by_worker.iter().any(|(known, _)| *known == pid) {
            by_worker.push((pid, client));
        }
        (by_worker.len() == 2).then_some(())
    });
    signal_to(by_worker[0].0, Signal::SIGKILL);
    assert!(by_worker[0].1.is_closed());
    for _ in 0..100 {
        assert_eq!(by_worker[1].1.get("/").field(WORKER_FIELD), Some(by_worker[1].0.to_string().as_str()));
    }
    server.stop();
}

#[test]
fn a_worker_that_cannot_boot_again_is_retried_slowly_until_it_can() {
    /// How long the restarts are watched.
    const WATCHED: Duration = Duration::from_secs(4);
    /// Restarts per second in steady state.
    const MOST_PER_SECOND: u64 = 2;
    let server = unsteady().expect_error("SIGKILL").expect_error("broken after a good start").start();
    let boots = || fs::read_to_string(server.temp().join("boots")).expect("every boot is noted").lines().count() as u64;
    fs::write(server.temp().join("broken"), "").expect("the temp directory is writable");
    let before = boots();
    let began = Instant::now();
    server.molds().into_iter().for_each(|mold| signal_to(mold, Signal::SIGKILL));
    signal_to(server.workers()[0], Signal::SIGKILL);
    server.log().wait(&["RuntimeError: broken after a good start"]);
    std::thread::sleep(WATCHED.saturating_sub(began.elapsed()));
    let tried = wait_for("a second try", SOON, || Some(boots() - before).filter(|tried| *tried >= 2));
    // The first restart comes at once.
    let most = 1 + MOST_PER_SECOND * (began.elapsed().as_secs() + 1);
    assert!(tried <= most, "{tried} boots in {:?}", began.elapsed());
    assert!(procfs::alive(server.pid()), "the master goes on");

    fs::remove_file(server.temp().join("broken")).expect("it was written");
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200, "a connection that waited is answered by the repaired worker");
    server.stop();
}

#[test]
fn term_lets_running_requests_finish() {
    let mut server = unsteady().start();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let mut running = enter(&server, "slow");
    server.signal(Signal::SIGTERM);
    open_gate(server.temp(), "slow");
    let response = running.response();
    assert_eq!((response.status, response.text().as_str()), (200, "passed slow"));
    assert!(running.is_closed(), "nothing more is served on it");
    assert!(idle.is_closed(), "an idle connection is closed");
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
}

#[test]
fn term_answers_what_was_accepted_or_half_sent() {
    let mut server = unsteady().start();
    let mut half = server.connect();
    half.send("GET / HTTP/1.1\r\nHo");
    let mut upload = server.connect();
    upload.send("POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(upload.response().status, 100);
    let running = enter(&server, "slow");
    // Accepted by nobody yet: the only worker is busy.
    let mut queued: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut queued {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    server.signal(Signal::SIGTERM);
    open_gate(server.temp(), "slow");
    half.send("st: test\r\n\r\n");
    upload.send("hello");
    for client in [half, upload].iter_mut().chain(&mut queued) {
        let response = client.response();
        assert!(response.status == 200 && response.complete, "{response:?}");
    }
    drop(running);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
}

#[test]
fn a_drain_ends_at_the_graceful_timeout() {
    let mut server = unsteady().options(["--graceful-timeout", "1"]).start();
    let mut stalled = server.connect();
    stalled.send("GET /big?n=50000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(matches!(stalled.fill(), Ok(1..)));
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    assert!(began.elapsed() < QUICK, "a client that reads nothing held the server for {:?}", began.elapsed());
    assert!(!stalled.response().complete, "what was not sent is visibly missing");
}

#[test]
fn int_and_quit_are_quick() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = unsteady().workers(2).start();
        let mut idle = server.connect();
        assert_eq!(idle.get("/").status, 200);
        let mut stalled = server.connect();
        stalled.send("GET /big?n=50000000 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert!(matches!(stalled.fill(), Ok(1..)));
        let began = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait(STOP_LIMIT).code(), Some(0), "{signal}");
        assert!(began.elapsed() < QUICK, "{signal} took {:?}", began.elapsed());
        server.finish();
    }
}

#[test]
fn workers_leave_when_their_master_is_killed() {
    let mut server = unsteady().workers(3).start();
    let address = server.address().tcp();
    let mut running = enter(&server, "last");
    let workers = server.workers();
    server.signal(Signal::SIGKILL);
    server.wait(SOON);
    let began = Instant::now();
    wait_for("idle workers to leave", ORPHANS_LEAVE, || {
        (workers.iter().filter(|pid| procfs::alive(**pid)).count() <= 1).then_some(())
    });
    open_gate(server.temp(), "last");
    assert_eq!(running.response().text(), "passed last", "the running request is finished");
    server.wait_for_empty_group(ORPHANS_LEAVE);
    drop(running);
    TcpListener::bind(address).unwrap_or_else(|error| panic!("the port is not free after {:?}: {error}", began.elapsed()));
}

#[test]
fn a_terminal_interrupt_sent_to_the_whole_group_is_one_stop() {
    let mut server = unsteady().workers(2).start();
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(server.pid()), Signal::SIGINT).expect("the group is there");
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
    assert!(!server.log().text().contains("KeyboardInterrupt"), "{}", server.log().text());
}
