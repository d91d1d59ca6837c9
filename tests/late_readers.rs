//! Logs that nobody reads, and a configuration that takes long: they hold up neither the master nor the workers.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::server::{Running, STOP_LIMIT, Server};
use common::{SOON, wait_for};

/// An application that fills its own log: as many lines as the query asks for.
const TALKATIVE: &str = "\
import os
def application(environ, start_response):
    for number in range(int(environ['QUERY_STRING'] or 0)):
        environ['wsgi.errors'].write('line %d of a talkative application %s\\n' % (number, 'x' * 900))
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";

/// Lines of the application that no pipe and no backlog holds.
const TOO_MUCH: usize = 4_000;

/// A server whose standard error is a blocking pipe, as that of a shell's pipeline, and that pipe's path.
fn piped(options: &[&str]) -> (Server, PathBuf) {
    let server = Server::source(TALKATIVE).options(options).workers(2);
    let path = server.temp().join("log-pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a named pipe");
    let script = format!("exec \"$@\" 2<>{}", path.display());
    (server.launcher(["/bin/sh", "-c", &script, "sh"]), path)
}

/// Fills the pipe and all that is kept for it.
fn fill(server: &Running) {
    for _ in 0..2 {
        assert_eq!(server.get(&format!("/?{TOO_MUCH}")).text(), "ok");
    }
}

/// Reads the pipe on a thread of its own until a line has all of `parts`; returns what was read.
#[track_caller]
fn read_until(path: &PathBuf, parts: &[&str]) -> Vec<String> {
    let pipe = OpenOptions::new().read(true).write(true).open(path).expect("it is there");
    let mut lines = Vec::new();
    let began = Instant::now();
    for line in BufReader::new(pipe).split(b'\n') {
        let line = String::from_utf8_lossy(&line.expect("it can be read")).into_owned();
        let found = parts.iter().all(|part| line.contains(part));
        lines.push(line);
        if found {
            break;
        }
        assert!(began.elapsed() < SOON, "{:?}", lines.last());
    }
    lines
}

#[test]
fn a_full_standard_error_costs_lines_and_neither_requests_nor_signals() {
    let (server, path) = piped(&[]);
    let mut server = server.start();
    fill(&server);
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(server.get("/?1").text(), "ok");
    }
    let victim = server.workers()[0];
    kill(Pid::from_raw(victim), Signal::SIGKILL).expect("it lives");
    wait_for("a successor", SOON, || {
        let workers = server.workers();
        (workers.len() == 2 && !workers.contains(&victim)).then_some(())
    });
    assert!(began.elapsed() < SOON);
    // Now somebody reads, and learns what was lost, although nothing else is written.
    let lines = read_until(&path, &[" lines lost here: "]);
    let lost: usize = lines
        .last()
        .and_then(|line| line.split(" WARNING ").nth(1)?.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{:?}", lines.last()));
    assert!(lost > 1_000, "{lost}");
    assert!(lines.iter().all(|line| line.starts_with("20")), "whole lines");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
}

#[test]
fn a_server_whose_log_nobody_reads_stops_when_it_is_asked_to() {
    let (server, _path) = piped(&["--access-logfile", "/dev/stderr", "--capture-output"]);
    let mut server = server.start();
    fill(&server);
    for signal in [Signal::SIGHUP, Signal::SIGTTIN, Signal::SIGUSR1] {
        server.signal(signal);
    }
    assert_eq!(server.get("/?1").text(), "ok");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
}

#[test]
fn an_access_log_that_nobody_reads_says_soon_what_was_lost_when_somebody_does() {
    let server = Server::source(TALKATIVE);
    let path = server.temp().join("access");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a named pipe");
    let agent = "x".repeat(4_000);
    // Nobody has the pipe open: the server opens it all the same.
    let server = server.options(["--access-logfile", path.to_str().expect("UTF-8")]).start();
    let mut client = server.connect();
    for _ in 0..400 {
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: {agent}\r\n\r\n"));
        assert_eq!(client.response().text(), "ok");
    }
    let lines = read_until(&path, &[" lines lost here: "]);
    assert!((200..400).contains(&lines.len()), "{}", lines.len());
    server.stop();
}

#[test]
fn a_service_manager_that_does_not_read_holds_nobody_up() {
    let server = Server::new("hello").workers(1);
    let path = server.temp().join("notify");
    let reader = UnixDatagram::bind(&path).expect("a socket");
    let mut server = server.env("NOTIFY_SOCKET", path.to_str().expect("UTF-8")).env("WATCHDOG_USEC", "4000").start();
    // The watchdog's signs of life fill the socket's queue.
    reader.set_nonblocking(true).expect("it can be");
    let full = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").map_or(10, |text| text.trim().parse().unwrap_or(10));
    std::thread::sleep(Duration::from_millis(4 * full));
    let began = Instant::now();
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload done"]);
    server.wait_for_end_of(&old);
    assert!(began.elapsed() < SOON);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    let mut messages = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count) = reader.recv(&mut buffer) {
        messages.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
    }
    assert!(messages.iter().any(|message| message.starts_with("READY=1")), "{messages:?}");
}

/// A server with a gunicorn file that takes as long as the test likes when it is read again.
fn slow_to_read() -> (Server, PathBuf) {
    let server = Server::source(TALKATIVE);
    let gate = server.temp().join("gate");
    let file = format!(
        "import os, time\n\
         if os.path.exists('slow'):\n    \
         open('begun', 'w').close()\n    \
         while not os.path.exists({gate:?}): time.sleep(0.01)\n\
         workers = 2\n"
    );
    fs::write(server.temp().join("gunicorn.conf.py"), file).expect("the directory is writable");
    (server.workers_by_default(), gate)
}

#[track_caller]
fn begin_to_read(server: &Running) {
    File::create(server.temp().join("slow")).expect("the directory is writable");
    server.signal(Signal::SIGHUP);
    wait_for("the file to be executed", SOON, || server.temp().join("begun").exists().then_some(()));
}

#[test]
fn workers_are_replaced_while_a_gunicorn_file_is_executed() {
    let (server, gate) = slow_to_read();
    let mut server = server.start();
    begin_to_read(&server);
    let old = server.workers();
    let victim = *server.workers().iter().find(|pid| is_worker(**pid)).expect("a worker");
    kill(Pid::from_raw(victim), Signal::SIGKILL).expect("it lives");
    server.expect_error("was killed by SIGKILL");
    wait_for("a successor", SOON, || {
        let workers: Vec<i32> = server.workers().into_iter().filter(|pid| is_worker(*pid)).collect();
        (workers.len() == 2 && !workers.contains(&victim)).then_some(())
    });
    assert_eq!(server.get("/").text(), "ok");
    File::create(gate).expect("the directory is writable");
    server.log().wait(&["reload done"]);
    server.wait_for_end_of(&old);
    server.stop();
}

#[test]
fn a_server_stops_while_a_gunicorn_file_is_executed() {
    let (server, _gate) = slow_to_read();
    let server = server.start();
    begin_to_read(&server);
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(8), "it has waited for the file");
}

/// Whether a child of the master is a worker: the one that reads has the title of the master.
fn is_worker(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|title| title.contains("worker"))
}
