//! Load by ab and wrk: not one failed, refused or wrong answer. The figures are printed; what they should be is the business of
//! scripts/bench.

mod common;

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use common::server::{Running, Server};
use common::tools;

/// Requests of one `ab` run.
const REQUESTS: usize = 20_000;

/// Parallel clients of `ab`.
const CLIENTS: usize = 25;

/// Connections of `wrk`.
const CONNECTIONS: usize = 64;

/// How long `wrk` runs.
const WRK_SECONDS: u64 = 5;

/// Time for one run on a slow machine and with a debug build.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// One load at a time: two would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

/// The number after a label of ab's report; 0 when the label is missing, as ab leaves out what did not happen.
#[track_caller]
fn figure(report: &str, label: &str) -> usize {
    let line = report.lines().find(|line| line.starts_with(label));
    line.and_then(|line| line[label.len()..].split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn ab(server: &Running, options: &[&str]) -> Option<String> {
    let (requests, clients) = (REQUESTS.to_string(), CLIENTS.to_string());
    let mut ab = Command::new(tools::tool("ab")?);
    ab.args(["-q", "-n", &requests, "-c", &clients]).args(options).arg(server.url("/"));
    let report = tools::run(&mut ab, RUN_LIMIT).succeeded().stdout;
    assert_eq!(figure(&report, "Complete requests:"), REQUESTS, "{report}");
    assert_eq!(figure(&report, "Failed requests:"), 0, "{report}");
    assert_eq!(figure(&report, "Non-2xx responses:"), 0, "{report}");
    let rate = report.lines().find(|line| line.starts_with("Requests per second:")).unwrap_or_default();
    eprintln!("ab {options:?}: {rate}");
    Some(report)
}

fn for_each_size(test: impl Fn(&Running)) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for workers in [1, 4] {
        // A client that does not run for a while keeps its connections.
        let server = Server::new("hello").workers(workers).options(["--keep-alive", "60"]).start();
        test(&server);
        server.stop();
    }
}

#[test]
fn ab_sees_no_failure_without_keep_alive() {
    for_each_size(|server| {
        if let Some(report) = ab(server, &[]) {
            assert_eq!(figure(&report, "Keep-Alive requests:"), 0, "{report}");
        }
    });
}

#[test]
fn ab_keeps_every_connection_alive() {
    for_each_size(|server| {
        if let Some(report) = ab(server, &["-k"]) {
            assert_eq!(figure(&report, "Keep-Alive requests:"), REQUESTS, "{report}");
        }
    });
}

#[test]
fn ab_posts_without_a_failure() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let server = Server::new("probe").workers(2).start();
    let body = server.temp().join("body");
    std::fs::write(&body, vec![b'x'; 20_000]).expect("the temp directory is writable");
    let body = body.display().to_string();
    ab(&server, &["-k", "-p", &body, "-T", "text/plain"]);
    server.stop();
}

#[test]
fn wrk_sees_no_error() {
    for_each_size(|server| {
        let Some(wrk) = tools::tool("wrk") else { return };
        let (connections, duration) = (format!("-c{CONNECTIONS}"), format!("-d{WRK_SECONDS}s"));
        let mut command = Command::new(wrk);
        // An answer that comes later counts as an error; by default after two seconds, which a busy machine may take.
        command.args(["-t2", &connections, &duration, "--timeout", "20s", "--latency"]).arg(server.url("/"));
        let report = tools::run(&mut command, RUN_LIMIT).succeeded().stdout;
        assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
        let line = report.lines().find(|line| line.starts_with("Requests/sec:")).unwrap_or_else(|| panic!("{report}"));
        eprintln!("wrk: {line}");
    });
}
