//! Reload, crash and stop of a server behind nginx by FastCGI and behind Apache by AJP, which keep their connections: not one request
//! may fail.

mod common;
#[path = "gateways/front.rs"]
mod front;

use std::time::Duration;

use nix::sys::signal::Signal;

use common::client::Client;
use common::deploy::{self, LATE, WORKERS, reload, set};
use common::load::{Load, Plan};
use common::server::{Running, signal_to};
use common::{SOON, wait_for};
use front::Front;

/// Reloads in a row.
const RELOADS: usize = 5;

/// Pause of each client between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// Within this time a front has passed on what it has got.
const PASSED_ON: Duration = Duration::from_millis(200);

/// The fronts, as the manual page has them.
const FRONTS: [&str; 2] = ["nginx fastcgi", "apache ajp"];

/// A server of the application `deploy`, and a front before it; `None`: that is not installed.
fn behind(front: &str, more: &[(&str, &str)]) -> Option<(Running, Front)> {
    let (_, protocol) = front.split_once(' ').expect("front and protocol");
    let server = deploy::server().binds([format!("{protocol}:127.0.0.1:0")]).options(["--keep-alive", "75"]).start();
    let front = Front::start(front, server.address(), more)?;
    Some((server, front))
}

/// Eight clients.
fn load(front: &Front) -> Load {
    let load = Plan { pause: PAUSE, ..Plan::new(front.address()) }.start();
    load.wait_for_more(200);
    load
}

/// Stops it: nothing failed.
#[track_caller]
fn assert_flawless(load: Load) {
    let tally = load.stop();
    tally.assert_flawless();
    eprintln!("{} answered, slowest {:?}", tally.ok, tally.slowest);
    assert!(tally.slowest < LATE, "late: {:?}", tally.slowest);
}

#[test]
fn reloads_lose_nothing_on_kept_connections() {
    for front in FRONTS {
        reload_behind(front);
    }
}

fn reload_behind(front: &str) {
    let Some((server, front)) = behind(front, &[]) else { return };
    let load = load(&front);
    for version in 1..=RELOADS {
        let before = server.workers();
        set(&server, "version", &version.to_string());
        reload(&server, "reload done", version);
        server.wait_for_end_of(&before);
        assert_eq!(front.connect().get("/").text(), version.to_string(), "only the new version is left");
    }
    load.wait_for_more(200);
    assert_flawless(load);
    drop(front);
    server.stop();
}

#[test]
fn a_crash_loses_nothing_but_what_the_worker_was_serving() {
    for front in FRONTS {
        crash_behind(front);
    }
}

fn crash_behind(front: &str) {
    // Apache sends no request twice; it asks before.
    let Some((mut server, front)) = behind(front, &[("ttl=60", "ttl=60 ping=5")]) else { return };
    server.expect_error("SIGKILL");
    // The front keeps connections to the workers then.
    assert_flawless(load(&front));
    for pid in server.workers() {
        signal_to(pid, Signal::SIGKILL);
        for _ in 0..20 {
            let answer = front.connect().get("/");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    wait_for("the replacements", SOON, || (server.workers().len() == WORKERS).then_some(()));
    assert_flawless(load(&front));
    drop(front);
    server.stop();
}

/// What the server says of itself.
#[track_caller]
fn figures(server: &Running) -> serde_json::Value {
    let mut client = Client::connect(&server.control());
    client.send("GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.response().json()
}

#[test]
fn a_stop_answers_what_has_come() {
    for front in FRONTS {
        stop_behind(front);
    }
}

fn stop_behind(front: &str) {
    let Some((mut server, front)) = behind(front, &[]) else { return };
    assert_flawless(load(&front));
    let ask = |target: &'static str| {
        let front = &front;
        move |_| {
            let mut client = front.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            client
        }
    };
    let mut clients: Vec<Client> = (0..6).map(ask("/sleep")).collect();
    // Apache has 16 threads.
    clients.extend((0..10).map(ask("/")));
    // Every worker is in the application for a second, or as many calls as there are with more threads. Where others wait, nobody can
    // say: the front has passed them on.
    wait_for("calls of the application", SOON, || {
        let busy = figures(&server).pointer("/capacity/threads_busy").and_then(serde_json::Value::as_u64);
        busy.is_some_and(|busy| busy >= WORKERS as u64).then_some(())
    });
    std::thread::sleep(PASSED_ON);
    server.signal(Signal::SIGTERM);
    for (index, client) in clients.iter_mut().enumerate() {
        let answer = client.try_response_to("GET").unwrap_or_else(|error| panic!("request {index}: {error}"));
        assert!(answer.status == 200 && answer.complete, "request {index}: {answer:?}");
    }
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.finish();
}
