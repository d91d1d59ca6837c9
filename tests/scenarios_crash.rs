//! Crash loops, worn workers and orphans.

mod common;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::deploy::{self, WORKERS, load, set};
use common::server::signal_to;
use common::{SOON, procfs, venv, wait_for};

/// Longest time without any answer. Half a second is promised and less than 100 ms are usual; the rest is for a busy machine that
/// boots workers beside the load.
const GAP: Duration = Duration::from_secs(1);

/// How long a crash loop is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// Restarts a second.
const MOST_PER_SECOND: usize = 2;

/// Boots within that time at least, unless the machine is too busy for them.
const LEAST: usize = 3;

/// Longest pause between two tries within the time of the test, which is 8 s on a busy machine, and boots there.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// Time for the replacement of [`MANY`] workers; how soon they have served enough is the machine's.
const MANY_WITHIN: Duration = Duration::from_secs(60);

/// Enough replacements for each place to have had some.
const MANY: usize = 15;

#[test]
fn an_application_that_crashes_at_boot_after_a_good_start_is_tried_slowly_until_it_is_repaired() {
    let server = deploy::server().expect_error("SIGKILL").expect_error("SIGSEGV").start();
    set(&server, "mode", "segfault");
    let before = deploy::boots(&server);
    let began = Instant::now();
    for pid in server.molds().into_iter().chain(server.workers()) {
        signal_to(pid, Signal::SIGKILL);
    }
    thread::sleep(WATCHED);
    // On a busy machine a boot takes longer than the pauses.
    let tried = wait_for("boots", SOON, || Some(deploy::boots(&server) - before).filter(|tried| *tried >= LEAST));
    // One second more than was counted, because the first and the last are not whole.
    let most = MOST_PER_SECOND * (began.elapsed().as_secs() as usize + 2);
    assert!(tried <= most, "{tried} boots in {:?}", began.elapsed());
    server.log().wait(&["WARNING", "degraded", "of 4 workers serve"]);
    set(&server, "mode", "");
    wait_for("the repaired application", BACK_WITHIN, || {
        (server.workers().len() == WORKERS && server.log().find(&["recovered: 4 workers"]).is_some()).then_some(())
    });
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn workers_are_recycled_under_load_without_a_loss_and_with_all_places_filled() {
    let server = deploy::server().options(["--max-requests", "50", "--log-level", "debug"]).start();
    let load = load(&server);
    load.wait_for_more(1500);
    let worn = || server.log().records().iter().filter(|record| record.text.contains("has served --max-requests")).count();
    let replaced = wait_for("many replaced workers", MANY_WITHIN, || Some(worn()).filter(|count| *count >= MANY));
    load.assert_flawless(GAP);
    eprintln!("{replaced} workers were replaced");
    assert_eq!(server.log().fewest_ready(WORKERS, "is told to leave"), WORKERS);
    server.stop();
}

#[test]
fn the_jitter_spreads_the_replacements() {
    let server = deploy::server().options(["--max-requests", "50", "--max-requests-jitter", "1000000000000"]).start();
    let load = load(&server);
    load.wait_for_more(400);
    load.assert_flawless(GAP);
    assert!(server.log().find(&["has served --max-requests"]).is_none(), "a share of a million million is not used up so soon");
    server.stop();
}

#[test]
fn a_worker_that_takes_too_much_memory_is_replaced() {
    let server = deploy::server().workers(1).options(["--max-worker-rss", "150M"]).start();
    let before = server.workers();
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/grow").status, 200);
    server.log().wait(&["--max-worker-rss", &before[0].to_string()]);
    wait_for("the replacement", SOON, || (server.workers().len() == 1 && server.workers() != before).then_some(()));
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn workers_are_replaced_at_their_age_without_a_loss() {
    let server = deploy::server().options(["--max-worker-age", "2s"]).start();
    let before = server.workers();
    let load = load(&server);
    wait_for("four new workers", SOON, || server.workers().iter().all(|pid| !before.contains(pid)).then_some(()));
    load.assert_flawless(GAP);
    server.stop();
}

#[test]
fn orphans_are_taken_and_are_no_news() {
    /// Makes itself the process that inherits orphans, and becomes the server.
    const SUBREAPER: &str =
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])";
    /// Leaves a child, which ends at once.
    const APP: &str = "import subprocess
def app(environ, start_response):
    subprocess.run(['/bin/sh', '-c', '(sleep 0.1; exit 3) & exit 0'])
    start_response('200 OK', [('Content-Length', '0')])
    return []
";
    let python = venv::base_python().display().to_string();
    assert!(Command::new(&python).arg("--version").output().is_ok(), "{python} is needed by the server itself");
    let server = common::server::Server::source(APP).launcher([python.as_str(), "-c", SUBREAPER]).start();
    let workers = server.workers();
    for _ in 0..5 {
        assert_eq!(server.get("/").status, 200);
    }
    let zombies = || procfs::all().iter().filter(|p| p.parent == server.pid() && p.state == 'Z').count();
    let orphans = || server.workers().len() > workers.len();
    wait_for("the orphans' end", SOON, || (!orphans() && zombies() == 0).then_some(()));
    assert_eq!(server.workers(), workers);
    let log = server.stop();
    let news: Vec<_> =
        log.records().into_iter().filter(|record| record.text.contains("exited") || record.text.contains("killed")).collect();
    assert!(news.is_empty(), "{news:#?}");
}
