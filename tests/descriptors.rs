//! Applications that close, replace or shut down descriptors of the server, or leave it none: it finds out, says so, and serves on.

mod common;

use std::time::Duration;

use nix::sys::signal::Signal;

use common::client::Client;
use common::deploy::wait_for_records;
use common::server::{Running, Server};
use common::{SOON, procfs, wait_for};

const WORKERS: usize = 2;

/// Longest wait until a worker that is idle has been asked for a sign of life: a quarter of --timeout.
const TIMEOUT: &str = "4s";

fn server() -> Server {
    let server = Server::new("descriptors:app").workers(WORKERS);
    let (log, victim) = (server.temp().join("access.log"), server.temp().join("victim"));
    let server = server.env("VICTIM", victim.display().to_string());
    server.options(["--timeout", TIMEOUT, "--access-logfile", &log.display().to_string()])
}

/// Has one worker do it; returns its process id. The answer may be lost with the worker.
#[track_caller]
fn act(server: &Running, how: &str, what: &str) -> i32 {
    act_for(&mut server.connect(), how, what)
}

/// The same for a client that stays: its connection keeps its descriptor.
#[track_caller]
fn act_for(client: &mut Client, how: &str, what: &str) -> i32 {
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let worker = client.response().field("x-worker").and_then(|pid| pid.parse().ok()).expect("the application names it");
    client.send(format!("GET /act?how={how}&what={what} HTTP/1.1\r\nHost: x\r\n\r\n"));
    if let Ok(response) = client.try_response_to("GET") {
        assert_ne!(response.text(), "0", "there is nothing to {how}");
    }
    worker
}

/// Asks from time to time, as clients do, until all workers are there, and `old` is not; nobody spins then.
#[track_caller]
fn wait_for_others(server: &Running, old: &[i32]) {
    wait_for("other workers", SOON, || {
        let _ = Client::try_connect(server.address()).and_then(|mut client| {
            client.try_send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            client.try_response_to("GET")
        });
        std::thread::sleep(Duration::from_millis(20));
        let now = server.workers();
        (now.len() == WORKERS && old.iter().all(|pid| !now.contains(pid))).then_some(())
    });
    for _ in 0..2 * WORKERS {
        assert_eq!(server.get("/").text(), "ok");
    }
    assert_idle(server);
}

/// Fails when the workers compute although nobody asks.
#[track_caller]
fn assert_idle(server: &Running) {
    let used = || server.workers().into_iter().map(procfs::cpu_time).sum::<Duration>();
    let before = used();
    std::thread::sleep(Duration::from_millis(500));
    let spent = used().saturating_sub(before);
    assert!(spent < Duration::from_millis(200), "idle workers used {spent:?}");
}

#[test]
fn a_tcp_socket_that_was_shut_down_listens_again_and_no_worker_is_lost() {
    let server = server().expect_error("was shut down").start();
    let workers = server.workers();
    for nth in 1..=2 {
        let mut kept = server.connect();
        kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(kept.response().status, 200);
        act(&server, "shutdown", "listener");
        wait_for_records(&server, "it listens again", nth);
        kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(kept.response().text(), "ok");
        for _ in 0..4 * WORKERS {
            assert_eq!(server.get("/").text(), "ok");
        }
        assert_idle(&server);
    }
    assert_eq!(server.workers(), workers);
    server.stop();
}

#[test]
fn a_unix_socket_that_was_shut_down_is_replaced_and_the_workers_are_too() {
    let server = server().binds(["unix:{temp}/s"]).options(["--umask", "117"]).expect_error("was shut down").start();
    let workers = server.workers();
    act(&server, "shutdown", "listener");
    server.log().wait(&["was shut down", "another socket listens there"]);
    wait_for_others(&server, &workers);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(server.temp().join("s")).expect("the file is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    server.signal(Signal::SIGHUP);
    wait_for_records(&server, "reload done", 1);
    assert_eq!(server.get("/").text(), "ok");
    let socket = server.temp().join("s");
    assert!(socket.exists());
    server.stop();
}

#[test]
fn a_unix_socket_that_was_inherited_and_shut_down_ends_the_server_with_the_reason() {
    let server = server();
    let script = format!(
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('{}'); s.listen(); os.dup2(s.fileno(), 9); \
         os.execv(sys.argv[1], sys.argv[1:])",
        server.temp().join("s").display()
    );
    let python = common::venv::base_python().display().to_string();
    let server = server.binds(["fd://9"]).launcher([python.as_str(), "-c", &script]);
    let mut server = server.expect_error("it was inherited").start();
    act(&server, "shutdown", "listener");
    assert_eq!(server.wait(SOON).code(), Some(1));
    server.finish();
}

/// A worker does it to itself, is replaced, and the log has all of `words`.
#[track_caller]
fn replaced(how: &str, what: &str, words: &[&str]) {
    let server = server().expect_error(words[0]).expect_error("exited with code 1").start();
    let worker = act(&server, how, what);
    wait_for_others(&server, &[worker]);
    server.log().wait(words);
    server.stop();
}

/// The log's words about it.
const OTHERS: &str = "the application has closed or replaced a descriptor of the server";

#[test]
fn a_worker_without_its_listening_socket_is_replaced() {
    for how in ["close", "replace"] {
        replaced(how, "listener", &[OTHERS, "fails: "]);
    }
}

#[test]
fn a_worker_without_its_poll_is_replaced() {
    for how in ["close", "replace"] {
        replaced(how, "eventpoll", &[OTHERS]);
    }
}

#[test]
fn a_worker_whose_threads_cannot_be_woken_is_replaced() {
    for what in ["timerfd", "eventfd"] {
        replaced("close", what, &[OTHERS]);
    }
}

#[test]
fn a_worker_without_its_queue_is_replaced() {
    for how in ["close", "replace"] {
        replaced(how, "queue", &[OTHERS, "fails: "]);
    }
}

#[test]
fn a_worker_without_its_signal_pipes_is_replaced() {
    for how in ["close", "replace"] {
        replaced(how, "pipe", &[OTHERS]);
    }
}

#[test]
fn a_worker_without_its_channel_is_replaced() {
    for how in ["close", "replace", "shutdown"] {
        let mut server = server().start();
        let worker = act(&server, how, "channel");
        wait_for_others(&server, &[worker]);
        // The first process that notices it, master or worker, logs it.
        let found =
            [&["has lost its channel"], &["the channel to the master"]].into_iter().any(|part| server.log().find(part).is_some());
        assert!(found || server.log().find(&["exited with code 0"]).is_some(), "{}", server.log().text());
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(SOON).code(), Some(0));
    }
}

#[test]
fn no_log_line_goes_to_what_has_taken_the_place_of_a_log_for_long() {
    let server = server().expect_error(OTHERS).expect_error("exited with code 1").start();
    let worker = act(&server, "replace", "log");
    wait_for_others(&server, &[worker]);
    server.log().wait(&["fails: ", "a log", OTHERS]);
    let victim = || std::fs::metadata(server.temp().join("victim")).map_or(0, |meta| meta.len());
    let before = victim();
    for _ in 0..20 {
        assert_eq!(server.get("/").text(), "ok");
    }
    assert_eq!(victim(), before);
    server.stop();
}

/// The log's words about a worker whose application leaves it no descriptor.
const STARVED: &str = "has no descriptor left for connections";

/// A limit of open files that a test can reach in no time.
const FEW_FILES: usize = 256;

#[test]
fn a_worker_whose_application_leaves_it_no_descriptor_is_replaced_and_no_client_waits_for_that() {
    for how in ["take", "lower"] {
        let server = server().open_files(FEW_FILES).expect_error("Too many open files").start();
        let worker = act(&server, how, "all");
        wait_for("a worker in its place", SOON, || {
            // One at a time, with nobody else whose connection would wake the other worker.
            assert_eq!(server.get("/").text(), "ok", "{how}");
            (!server.workers().contains(&worker) && server.workers().len() == WORKERS).then_some(())
        });
        let log = server.stop();
        assert_eq!(log.text().matches(STARVED).count(), 1, "{how}");
    }
}

#[test]
fn a_worker_whose_spare_descriptor_is_gone_leaves_in_order() {
    for how in ["close", "replace"] {
        let server = server().start();
        let old = server.workers();
        act(&server, how, "spare");
        server.signal(Signal::SIGHUP);
        server.wait_for_end_of(&old);
        assert_eq!(server.get("/").text(), "ok", "{how}");
        server.stop();
    }
}

#[test]
fn a_request_is_not_lost_when_the_worker_that_takes_it_has_no_descriptor() {
    let server = server().options(["--threads", "1"]).open_files(FEW_FILES).expect_error("Too many open files").start();
    let mut first = server.connect();
    let starved = act_for(&mut first, "take", "all");
    let of_the_other = || {
        wait_for("a connection of the other worker", SOON, || {
            let mut client = server.connect();
            (client.get("/").field("x-worker")?.parse::<i32>().ok()? != starved).then_some(client)
        })
    };
    let (mut busy, mut waits) = (of_the_other(), of_the_other());
    busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    waits.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(waits.response().text(), "ok");
    std::fs::write(server.temp().join("victim.gate"), "").expect("the directory is writable");
    assert_eq!(busy.response().text(), "ok");
    server.stop();
}
