//! prometheus_client with several processes: a live gauge is a sum over the workers that live.

mod common;

use std::fs;

use nix::sys::signal::Signal;

use common::server::{Running, Server, signal_to};
use common::{SOON, wait_for};

const WORKERS: usize = 2;

/// Each worker adds one to the gauge when it loads the application; the application answers with the sum.
const APP: &str = "from prometheus_client import CollectorRegistry, Gauge, generate_latest\n\
                   from prometheus_client.multiprocess import MultiProcessCollector\n\
                   Gauge('alive', 'Workers that live', multiprocess_mode='livesum').set(1)\n\
                   def application(environ, start_response):\n    \
                   registry = CollectorRegistry()\n    \
                   MultiProcessCollector(registry)\n    \
                   start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
                   return [generate_latest(registry)]\n";

#[track_caller]
fn alive(server: &Running) -> String {
    let text = server.get("/").text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("alive "));
    line.unwrap_or_else(|| panic!("no gauge in {text:?}")).to_owned()
}

#[test]
fn gauges_of_dead_workers_are_forgotten() {
    let server = Server::source(APP).frameworks().workers(WORKERS);
    let metrics = server.temp().join("metrics");
    fs::create_dir(&metrics).expect("writable");
    let variable = format!("PROMETHEUS_MULTIPROC_DIR={}", metrics.to_str().expect("UTF-8"));
    let mut server = server.options(["--env", &variable]).expect_error("SIGKILL").start();
    assert_eq!(alive(&server), "2.0");
    let killed = server.workers()[0];
    signal_to(killed, Signal::SIGKILL);
    wait_for("another worker", SOON, || {
        let workers = server.workers();
        (workers.len() == WORKERS && !workers.contains(&killed)).then_some(())
    });
    server.log().wait(&["SIGKILL"]);
    wait_for("the sum over those that live", SOON, || (alive(&server) == "2.0").then_some(()));
    let before = server.workers();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload done"]);
    server.wait_for_end_of(&before);
    assert_eq!(alive(&server), "2.0");
    server.expect_error("SIGKILL");
    server.stop();
}
