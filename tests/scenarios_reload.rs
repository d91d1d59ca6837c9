//! Deploys under load: new code, broken code, broken configuration. Not one request may fail. Its rules are tested in
//! `src/master/supervisor/tests`.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::deploy::{self, WORKERS, load, reload, set, wait_for_records};
use common::server::Running;
use common::wait_for;

/// Longest time without any answer. Half a second is promised and some 70 ms are usual; the rest is for a busy machine that boots
/// workers beside the load.
const GAP: Duration = Duration::from_secs(1);

/// Reloads in a row.
const RELOADS: usize = 20;

/// Reloads for the `nth` time and waits until nobody but the new workers is left, and no new worker may get the order to leave
/// before the reload is done.
#[track_caller]
fn replace_all(server: &Running, nth: usize) {
    let before = server.workers();
    reload(server, "reload done", nth);
    server.wait_for_end_of(&before);
}

#[test]
fn twenty_reloads_under_load_lose_nothing() {
    let server = deploy::server().start();
    let load = load(&server);
    for version in 1..=RELOADS {
        set(&server, "version", &version.to_string());
        replace_all(&server, version);
        assert_eq!(server.get("/").text(), version.to_string(), "only the new version is left");
    }
    load.assert_flawless(GAP);
    assert_eq!(server.workers().len(), WORKERS);
    server.stop();
}

#[test]
fn a_version_that_does_not_boot_changes_nothing() {
    /// Time for a boot: three times that of the slow version, of which three boot at once beside the load.
    const BOOT_TIMEOUT: &str = "9s";
    let failing = [
        ("raise", "RuntimeError: this version is broken"),
        ("exit", "exited with code 7"),
        ("segfault", "SIGSEGV"),
        ("hang", "in <module>"),
    ];
    let mut server = deploy::server().options(["--boot-timeout", BOOT_TIMEOUT, "--reload-surge", "4"]).start();
    server.expect_error("reload failed, generation 1 keeps serving");
    let before = server.workers();
    let load = load(&server);
    set(&server, "version", "1");
    for (index, (mode, report)) in failing.into_iter().enumerate() {
        server.expect_error(report);
        set(&server, "mode", mode);
        reload(&server, "reload failed, generation 1 keeps serving", index + 1);
        server.log().wait(&[report]);
        assert_eq!(server.get("/").text(), "0", "{mode}: the old version serves");
    }
    assert_eq!(server.workers(), before, "by the same workers");
    set(&server, "mode", "slow");
    replace_all(&server, 1);
    assert_eq!(server.get("/").text(), "1");
    load.assert_flawless(GAP);
    server.stop();
}

/// A server whose options are in a file that starts with this content.
fn configured(content: &str) -> Running {
    let server = deploy::server();
    let path = server.temp().join("t.toml");
    fs::write(&path, content).expect("the temp directory is writable");
    server.workers_by_default().options(["--config", &path.display().to_string()]).start()
}

#[test]
fn the_configuration_is_read_again_and_a_wrong_one_changes_nothing() {
    let mut server = configured("workers = 2\n");
    set(&server, "t.toml", "workers = 0\n");
    server.expect_error("reload failed, generation 1 keeps serving: workers = 0 (file");
    reload(&server, "reload failed", 1);
    set(&server, "t.toml", "workers = 3\nbacklog = 7\nerror_logfile = \"none/such/directory\"\n");
    server.expect_error("reload failed, generation 1 keeps serving: cannot open the error log");
    reload(&server, "reload failed", 2);
    assert_eq!(server.workers().len(), 2);
    set(&server, "t.toml", "workers = 3\nbacklog = 7\nlimit_request_body = 10\n");
    replace_all(&server, 1);
    assert_eq!(server.workers().len(), 3);
    server.log().wait(&["WARNING", "only a restart", "--backlog"]);
    let refused = server.exchange("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n12345678901");
    assert_eq!(refused.status, 413, "the new limit holds");
    server.stop();
}

#[test]
fn a_log_that_changes_its_place_is_written_there() {
    let server = configured("workers = 1\n");
    let path = server.temp().join("access.log");
    set(&server, "t.toml", &format!("workers = 1\naccess_logfile = {:?}\n", path.display().to_string()));
    replace_all(&server, 1);
    assert_eq!(server.get("/").status, 200);
    wait_for("a line in the new log", common::SOON, || fs::read_to_string(&path).ok().filter(|text| text.contains("GET / ")));
    server.stop();
}

#[test]
fn a_reload_during_a_reload_is_not_lost() {
    let server = deploy::server().start();
    let load = load(&server);
    for _ in 0..3 {
        server.signal(Signal::SIGHUP);
        let sent = server.log().records().len();
        wait_for("the signal's record", common::SOON, || (server.log().records().len() > sent).then_some(()));
    }
    wait_for_records(&server, "reload done", 2);
    load.assert_flawless(GAP);
    server.stop();
}

#[test]
fn a_version_that_fails_its_warm_up_does_not_serve() {
    let server = deploy::server().options(["--warmup", "GET /healthz"]).start();
    server.stop();
    let refused = deploy::server().options(["--warmup", "GET /sick"]).run_to_end();
    refused.failed(3, &["--warmup GET /sick: the application answered 503"]);
}

#[test]
fn a_stop_in_the_middle_of_a_reload_is_obeyed() {
    let mut server = deploy::server().start();
    set(&server, "mode", "hang");
    let before = deploy::boots(&server);
    reload(&server, "reload: generation 2 is being loaded", 1);
    wait_for("the canary", common::SOON, || (deploy::boots(&server) > before).then_some(()));
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(common::SOON).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    server.finish();
}
