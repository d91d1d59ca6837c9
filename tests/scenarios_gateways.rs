//! Reload, crash and stop of a FastCGI server behind nginx, which keeps its connections: not one request may fail.

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

/// A server of the application `deploy`, and nginx in front of it as the manual page has it; `None`: nginx is not installed.
fn behind_nginx() -> Option<(Running, Front)> {
    let server = deploy::server().binds(["fastcgi:127.0.0.1:0"]).options(["--keep-alive", "75"]).start();
    let front = Front::start("nginx fastcgi", server.address(), &[])?;
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
    let Some((server, front)) = behind_nginx() else { return };
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
    let Some((mut server, front)) = behind_nginx() else { return };
    server.expect_error("SIGKILL");
    // nginx keeps connections to the workers then.
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

#[test]
fn a_stop_answers_what_has_come() {
    let Some((mut server, front)) = behind_nginx() else { return };
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
    clients.extend((0..20).map(ask("/")));
    // Each has reached the server.
    wait_for("requests in the application", SOON, || {
        clients
            .iter_mut()
            .skip(6)
            .all(|client| !client.leftover().is_empty() || client.fill().is_ok_and(|count| count > 0))
            .then_some(())
    });
    server.signal(Signal::SIGTERM);
    for (index, client) in clients.iter_mut().enumerate() {
        let answer = client.try_response_to("GET").unwrap_or_else(|error| panic!("request {index}: {error}"));
        assert!(answer.status == 200 && answer.complete, "request {index}: {answer:?}");
    }
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.finish();
}
