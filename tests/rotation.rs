//! Logs that move while the server runs: rotated under load, reopened by a server that has given up its rights, sent to the
//! system log, filled with the output of the application. What the lines say is in logs.rs.

mod common;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use common::load::Plan;
use common::server::{Running, STOP_LIMIT, Server};
use common::{SOON, user, wait_for};

const ROTATIONS: usize = 20;

/// Requests answered between two rotations.
const BETWEEN: u64 = 200;

/// Pause of each load client: a few hundred requests a second.
const PAUSE: Duration = Duration::from_millis(2);

/// Moves the log away and has it reopened; returns when the new file is there.
#[track_caller]
fn rotate(server: &Running, log: &Path, number: usize) {
    fs::rename(log, log.with_extension(format!("log.{number}"))).expect("there is a log to move");
    server.signal(Signal::SIGUSR1);
    wait_for("the new log file", SOON, || log.exists().then_some(()));
}

/// The lines of the log and of everything that was moved away.
fn all_lines(dir: &Path) -> Vec<String> {
    let logs = fs::read_dir(dir).expect("the directory is there").map(|entry| entry.expect("it can be read").path());
    let texts = logs.map(|path| fs::read_to_string(path).expect("logs are text"));
    texts
        .flat_map(|text| {
            assert!(text.is_empty() || text.ends_with('\n'), "a torn last line: {text:?}");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// Rotates a server's access log under load; every request has exactly one line then.
#[track_caller]
fn rotate_under_load(server: Server, dir: &Path) {
    let log = dir.join("access.log");
    let name = log.display().to_string();
    let format = "begin %(m)s %(U)s %(s)s %(B)s end";
    let server = server.workers(4).options(["--access-logfile", &name, "--access-logformat", format]).start();
    let plan = Plan { clients: 4, pause: PAUSE, ..Plan::new(server.address()) };
    let (kept, closed) = (plan.clone().start(), Plan { keep_alive: false, ..plan }.start());
    for number in 0..ROTATIONS {
        kept.wait_for_more(BETWEEN);
        rotate(&server, &log, number);
    }
    closed.wait_for_more(1);
    let (kept, closed) = (kept.stop(), closed.stop());
    kept.assert_flawless();
    closed.assert_flawless();
    let mut server = server;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
    let lines = all_lines(dir);
    assert_eq!(lines.len() as u64, kept.ok + closed.ok, "one line for each request");
    let shapes: HashSet<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(shapes, HashSet::from(["begin GET / 200 6 end"]), "no torn line");
    let filled = fs::read_dir(dir)
        .expect("it is there")
        .filter(|log| log.as_ref().is_ok_and(|log| log.metadata().is_ok_and(|m| m.len() > 0)));
    assert!(filled.count() > ROTATIONS / 2, "the lines are spread over the files");
    eprintln!("{} requests, {} lines in {ROTATIONS} rotations", kept.ok + closed.ok, lines.len());
}

#[test]
fn twenty_rotations_under_load_lose_and_tear_no_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    rotate_under_load(Server::new("probe"), dir.path());
}

#[test]
fn workers_without_rights_get_logs_that_they_could_not_open() {
    let Some(other) = user::other() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("it is ours");
    let mut server = Server::new("probe").options(["--user", user::NAME]);
    if let Some(home) = other.python_home() {
        server = server.env("PYTHONHOME", home.to_str().expect("UTF-8"));
    }
    rotate_under_load(server, dir.path());
    let owner = fs::metadata(dir.path().join("access.log")).expect("it is there").uid();
    assert_eq!(owner, 0, "the master opens it");
}

#[test]
fn the_error_log_is_reopened_by_master_and_workers() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("error.log");
    let server = Server::new("cases").options(["--error-logfile", &log.display().to_string()]).start();
    rotate(&server, &log, 1);
    let text = || fs::read_to_string(&log).unwrap_or_default();
    // Written when every worker has been sent the new file, which it takes before a connection that comes later.
    wait_for("the end of the rotation", SOON, || text().contains("logs opened anew").then_some(()));
    server.get("/raises");
    wait_for("the records of both", SOON, || (text().contains("ValueError") && text().contains("[master]")).then_some(()));
    assert!(!fs::read_to_string(dir.path().join("error.log.1")).expect("it was moved").contains("ValueError"));
    server.stop();
}

#[test]
fn a_log_that_cannot_be_reopened_is_still_written() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).expect("it is made");
    let log = logs.join("access.log");
    let server = Server::new("probe")
        .options(["--access-logfile", &log.display().to_string(), "--access-logformat", "%(U)s"])
        .expect_error("its old file is written on")
        .start();
    fs::rename(&logs, dir.path().join("moved")).expect("it is ours");
    server.signal(Signal::SIGUSR1);
    server.log().wait(&["cannot open the access log", "no such file or directory; its old file is written on"]);
    server.get("/after");
    let moved = dir.path().join("moved/access.log");
    wait_for("the line in the old file", SOON, || (fs::read_to_string(&moved).ok()? == "/after\n").then_some(()));
    server.stop();
}

/// The next datagram of the system log.
#[track_caller]
fn next(socket: &UnixDatagram) -> String {
    let mut buffer = vec![0; 64 * 1024];
    socket.set_read_timeout(Some(SOON)).expect("it is a socket");
    let len = socket.recv(&mut buffer).expect("a record arrives");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// Reads records until one has `part`.
#[track_caller]
fn record_with(socket: &UnixDatagram, part: &str) -> String {
    loop {
        let record = next(socket);
        if record.contains(part) {
            return record;
        }
    }
}

#[test]
fn the_system_log_gets_one_datagram_for_each_record_of_both_logs() {
    let server = Server::new("cases");
    let path = server.temp().join("syslog");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let option = format!("--log-syslog={}", path.display());
    let server = server.options([option.as_str(), "--access-logfile", "-", "--access-logformat", "%(m)s %(U)s"]).start();
    let ready = record_with(&socket, "concurrent request");
    let words: Vec<&str> = ready.split(' ').collect();
    assert_eq!((words[0], words[3], words[5], words[6]), ("<30>1", "tapster", "error", "-"), "facility daemon, info: {ready}");
    assert_eq!(words[4], server.pid().to_string(), "{ready}");
    assert!(ready.contains(" - [master] tapster "), "{ready}");
    server.get("/raises");
    let raised = record_with(&socket, "ValueError");
    assert!(
        raised.starts_with("<27>1 ") && raised.contains("[worker 0]") && raised.contains("\n  "),
        "a traceback is one record: {raised}"
    );
    let line = record_with(&socket, " access ");
    assert!(line.starts_with("<30>1 ") && line.ends_with(" access - GET /raises"), "{line}");
    assert_eq!(server.log().text(), "", "nothing is left for standard error");

    // A system log that is restarted has another socket of the same name.
    drop(socket);
    fs::remove_file(&path).expect("it is ours");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    server.get("/hello");
    record_with(&socket, "GET /hello");
    server.stop();
}

#[test]
fn a_system_log_that_is_not_there_is_one_clear_line() {
    let ended = Server::new("probe").options(["--log-syslog=/no/such/socket"]).run_to_end();
    ended.failed(1, &["cannot open the error log at the system log /no/such/socket: no such file or directory"]);
}

/// Prints in every way that an application and its programs can.
const PRINTS: &str = r#"
import os, subprocess, sys
print("at import")
def application(environ, start_response):
    print("one line")
    print("to standard error", file=sys.stderr)
    os.write(1, b"raw, 2026-11-21T10:00:00.000+00:00 [1] [master] ERROR forged\n")
    subprocess.run(["echo", "from a program"])
    os.write(2, b"without an end")
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
"#;

#[test]
fn captured_output_becomes_records_of_its_worker() {
    let server = Server::source(PRINTS).workers(1).options(["--capture-output", "--log-level", "error"]).start();
    let worker = server.workers()[0];
    // The process that has loaded the application.
    let loader = server.molds().first().map_or(format!("[{worker}] [worker 0]"), |mold| format!("[{mold}] [mold]"));
    server.get("/");
    let own = format!("[{worker}] [worker 0]");
    for (who, text) in [(&loader, "at import"), (&own, "one line"), (&own, "to standard error"), (&own, "from a program")] {
        let record = server.log().wait(&[text]);
        assert!(record.text.ends_with(&format!(" {who} INFO {text}")), "{record:?}");
    }
    let forged = server.log().wait(&["forged"]);
    assert!(forged.text.contains(&format!("[{worker}] [worker 0] INFO raw, 2026")), "{forged:?}");
    let log = server.stop();
    assert!(log.find(&["[worker 0] INFO without an end"]).is_some(), "{}", log.text());
}

#[test]
fn the_last_words_of_a_crash_are_captured() {
    let source = "import ctypes\ndef application(environ, start_response):\n    print('last words')\n    ctypes.string_at(0)\n";
    let server = Server::source(source).options(["--capture-output"]).expect_error("was killed by SIGSEGV").start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    server.log().wait(&["was killed by SIGSEGV"]);
    let records = server.log().records();
    let at = |part: &str| {
        records.iter().position(|record| record.text.contains(part)).unwrap_or_else(|| panic!("{part}: {records:#?}"))
    };
    assert!(at("[worker 0] INFO last words") < at("was killed by SIGSEGV"));
    server.log().wait(&["was killed by SIGSEGV", "Fatal Python error: Segmentation fault", "in string_at"]);
    server.stop();
}

#[test]
fn a_log_of_root_where_others_may_put_links_is_warned_of() {
    let Some(other) = user::other() else { return };
    for (mode, warned) in [(0o755, false), (0o777, true)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("it is ours");
        let log = dir.path().join("access.log").display().to_string();
        let mut server = Server::new("probe").options(["--user", user::NAME, "--access-logfile", &log]);
        if let Some(home) = other.python_home() {
            server = server.env("PYTHONHOME", home.to_str().expect("UTF-8"));
        }
        let text = server.start().stop().text();
        assert_eq!(text.contains("access.log: others may write to its directory"), warned, "{mode:o}: {text}");
    }
}
