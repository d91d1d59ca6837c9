//! Access log and error log of a running server: formats, forgery, one line for each request.

mod common;

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use common::client::Client;
use common::load::Plan;
use common::server::{Running, STOP_LIMIT, Server};
use common::{SOON, wait_for};

/// Requests of the test under load.
const REQUESTS: u64 = 20_000;

/// A server of the probe with an access log in its directory, in this format.
fn logged(format: Option<&str>) -> Server {
    let server = Server::new("probe");
    let file = server.temp().join("access.log").display().to_string();
    let server = server.options(["--access-logfile", &file]);
    match format {
        Some(format) => server.options(["--access-logformat", format]),
        None => server,
    }
}

/// Waits until the access log has `count` lines; a batch is written when the worker has nothing else to do.
#[track_caller]
fn lines(server: &Running, count: usize) -> Vec<String> {
    let path = server.temp().join("access.log");
    wait_for(&format!("{count} access lines"), SOON, || {
        let text = fs::read_to_string(&path).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (text.ends_with('\n') && lines.len() >= count).then_some(lines)
    })
}

/// One line for one request, in this format.
#[track_caller]
fn assert_line(format: &str, request: &str, line: &str) {
    let server = logged(Some(format)).start();
    server.exchange(request);
    assert_eq!(lines(&server, 1), [line], "{format}");
    server.stop();
}

#[test]
fn the_default_format_is_the_combined_one() {
    let server = logged(None).start();
    server.exchange("GET /path?q=1 HTTP/1.1\r\nHost: test\r\nReferer: http://from/\r\nUser-Agent: agent/1\r\n\r\n");
    let line = lines(&server, 1).remove(0);
    let rest = line.strip_prefix("127.0.0.1 - - [").unwrap_or_else(|| panic!("{line}"));
    let (time, rest) = rest.split_once("] ").unwrap_or_else(|| panic!("{line}"));
    assert_eq!((time.len(), &time[2..3], &time[11..12]), ("21/Nov/2026:10:00:00 +0000".len(), "/", ":"), "{line}");
    assert!(rest.starts_with("\"GET /path?q=1 HTTP/1.1\" 200 "), "{line}");
    assert!(rest.ends_with(" \"http://from/\" \"agent/1\""), "{line}");
    server.stop();
}

#[test]
fn atoms_mean_what_they_mean_in_gunicorn() {
    let request = "POST /echo?a=b HTTP/1.1\r\nHost: test\r\nX-Id: id 7\r\nUser-Agent: me\r\nContent-Length: 3\r\n\r\nabc";
    assert_line("%(h)s|%(l)s|%(u)s|%(r)s|%(s)s|%(b)s|%(B)s", request, "127.0.0.1|-|-|POST /echo?a=b HTTP/1.1|200|3|3");
    assert_line("%(m)s|%(U)s|%(q)s|%(H)s|%(f)s|%(a)s", request, "POST|/echo|a=b|HTTP/1.1|-|me");
    assert_line("%({x-id}i)s|%({none}i)s|%({content-type}o)s|%({none}o)s", request, "id 7|-|text/plain|-");
    assert_line("%({REQUEST_METHOD}e)s|%({none}e)s|100%%", request, "POST|-|100%");
    assert_line("%(b)s|%(B)s", "GET /no-content HTTP/1.1\r\nHost: test\r\n\r\n", "-|0");

    let server = logged(Some("%(p)s %(D)s %(M)s %(T)s %(L)s")).start();
    server.exchange("GET /sleep?ms=30 HTTP/1.1\r\nHost: test\r\n\r\n");
    let line = lines(&server, 1).remove(0);
    let words: Vec<&str> = line.split(' ').collect();
    let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("{line}"));
    assert_eq!(words[0].trim_matches(['<', '>']), server.workers()[0].to_string(), "{line}");
    assert!((30_000..SOON.as_micros() as u64).contains(&number(words[1])), "microseconds: {line}");
    assert!((30..SOON.as_millis() as u64).contains(&number(words[2])), "milliseconds: {line}");
    assert!(number(words[3]) < SOON.as_secs(), "seconds: {line}");
    assert!(words[4].parse::<f64>().is_ok_and(|seconds| seconds >= 0.03), "decimal seconds: {line}");
    server.stop();
}

#[test]
fn an_unknown_atom_is_an_error_before_the_start() {
    let ended = logged(Some("%(h)s %(zz)s")).run_to_end();
    ended.failed(2, &["zz"]);
}

#[test]
fn a_header_cannot_forge_a_line() {
    let forged = b"GET /\" HTTP/1.1\r\nHost: test\r\nUser-Agent: x\" 200 \\ \xc3\xa9\xff \t| y\r\n\r\n";
    let server = logged(None).start();
    server.exchange(forged);
    let line = lines(&server, 1).remove(0);
    // Quotes inside a quoted value are escaped, so that the columns stay where they are.
    let bare = line.replace("\\\\", "").replace("\\\"", "").replace("\\x22", "");
    assert_eq!(bare.matches('"').count(), 6, "{line:?}");
    server.stop();
}

#[test]
fn json_lines_are_json_whatever_the_header() {
    let server = logged(Some("json")).start();
    server.exchange(
        b"GET /echo?\"q\" HTTP/1.1\r\nHost: test\r\nUser-Agent: x\", \"status\": 999, \"y\": \"\\ \xff\xc3\xa9\r\n\r\n",
    );
    server.get("/sleep?ms=5");
    for line in lines(&server, 2) {
        let record: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let object = record.as_object().unwrap_or_else(|| panic!("no object: {line}"));
        assert!(object.values().any(|value| *value == 200), "the status is a number: {line}");
        assert!(!object.values().any(|value| *value == 999), "{line}");
        assert!(object.values().any(|value| *value == "GET"), "{line}");
        assert!(object.values().any(|value| *value == "127.0.0.1"), "{line}");
    }
    server.stop();
}

#[test]
fn refused_requests_have_a_line_with_status_and_size_of_their_answer() {
    let server = logged(Some("%(s)s %(B)s")).options(["--limit-request-body", "10", "--header-timeout", "1"]).start();
    let refused = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n", 413),
        ("HEAD / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n", 413),
        ("GET / HTTP/1.1\r\nHost: te", 408),
    ];
    for (count, (request, status)) in (1..).zip(refused) {
        let mut client = server.connect();
        client.send(request);
        let method = request.split(' ').next().expect("a request has a method");
        let answer = client.response_to(method);
        assert_eq!((answer.status, answer.body.is_empty()), (status, method == "HEAD"), "{answer:?}");
        assert_eq!(lines(&server, count)[count - 1], format!("{status} {}", answer.body.len()));
    }
    server.stop();
}

#[test]
fn pipelined_and_cut_answers_have_a_line_each() {
    let server = logged(Some("%(s)s %(U)s %(B)s")).start();
    let mut client = server.connect();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: test\r\n\r\nHEAD / HTTP/1.1\r\nHost: test\r\n\r\nGET /no-length HTTP/1.1\r\nHost: test\r\n\r\n",
    );
    client.response();
    client.response_to("HEAD");
    client.response();
    let found = lines(&server, 3);
    assert!(found[0].starts_with("200 /1 ") && found[1] == "200 / 0" && found[2] == "200 /no-length 13", "{found:?}");
    let mut gone = server.connect();
    gone.send("GET /big?n=50000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(matches!(gone.fill(), Ok(1..)));
    drop(gone);
    let cut = lines(&server, 4).remove(3);
    let sent: u64 = cut.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{cut}"));
    assert!(cut.contains(" /big ") && sent < 50_000_000, "what was not sent is not counted: {cut}");
    server.stop();
}

#[test]
fn the_access_log_can_go_to_standard_output() {
    let server = Server::new("probe").options(["--access-logfile", "-", "--access-logformat", "%(s)s %(U)s"]).start();
    server.get("/x");
    wait_for("the line on standard output", SOON, || (server.stdout() == "200 /x\n").then_some(()));
    server.stop();
}

#[test]
fn an_answer_is_logged_while_the_next_call_of_the_same_iteration_lasts() {
    let app = "
import os, time
def app(environ, s):
    limit = time.monotonic() + 60
    while environ['PATH_INFO'] == '/gate' and not os.path.exists(os.environ['GATE']) and time.monotonic() < limit:
        time.sleep(.01)
    s('200 OK', [('Content-Length', '0')])
    return []
";
    for threads in ["1", "2", "8"] {
        let server = Server::source(app).options(["--threads", threads, "--access-logfile", "-"]);
        let gate = server.temp().join("gate").display().to_string();
        let server = server.options(["--access-logformat", "%(U)s %(s)s"]).env("GATE", gate).start();
        let mut client = server.connect();
        client.send(["/a", "/b", "/gate"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).concat());
        let lines = ["/a 200\n/b 200\n", "/a 200\n/b 200\n/gate 200\n"];
        wait_for("the lines of both answers", SOON, || (server.stdout() == lines[0]).then_some(()));
        server.open_gate("gate");
        wait_for("the last line", SOON, || (server.stdout() == lines[1]).then_some(()));
        server.stop();
    }
}

#[test]
fn the_time_of_a_line_is_that_of_the_request() {
    let app = "
import os, time
def app(environ, s):
    s('200 OK', [])
    return {'/call': call, '/stream': stream, '/wait': list}[environ['PATH_INFO']]()
def gate():
    limit = time.monotonic() + 60
    while not os.path.exists(os.environ['GATE']) and time.monotonic() < limit:
        time.sleep(.01)
def call():
    gate()
    return []
def stream():
    yield b'first'
    gate()
    yield b'second'
";
    let second_of = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later").as_secs();
    // With one thread the second request waits for the first.
    for (format, threads, second) in [("%(t)s %(U)s", "1", "/wait"), ("%(t)s %(U)s", "3", "/stream"), ("json", "1", "/wait")] {
        let server = Server::source(app).options(["--threads", threads, "--access-logfile", "-", "--access-logformat", format]);
        let gate = server.temp().join("gate").display().to_string();
        let server = server.env("TZ", "UTC").env("GATE", gate).start();
        let ask = |path: &'static str| {
            let mut client = server.connect();
            let sent = second_of();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            (path, sent, client)
        };
        let asked = [ask("/call"), ask(second)];
        let figures = || Client::connect(&server.control()).get("/status.json").json();
        wait_for("both requests", SOON, || {
            let figures = figures();
            let count = figures["capacity"]["threads_busy"].as_u64()? + figures["queue"]["waiting"].as_u64()?;
            (count == 2).then_some(())
        });
        let known = second_of();
        // The time of the answers is another one.
        std::thread::sleep(Duration::from_millis(1200));
        server.open_gate("gate");
        for (path, sent, mut client) in asked {
            assert_eq!(client.response().status, 200);
            let line = wait_for("its line", SOON, || server.stdout().lines().find(|line| line.contains(path)).map(str::to_owned));
            let is_at = |second: u64| line.contains(&format!(":{:02}:{:02}", second / 60 % 60, second % 60));
            assert!((sent..=known).any(is_at), "{path}, sent at {}:{}: {line}", sent / 60 % 60, sent % 60);
        }
        server.stop();
    }
}

#[test]
fn without_the_option_there_is_no_access_log() {
    let server = Server::new("probe").start();
    server.get("/nobody-logs-this");
    assert_eq!(server.stdout(), "");
    let log = server.stop();
    assert!(!log.text().contains("nobody-logs-this"), "{}", log.text());
}

#[test]
fn four_workers_under_load_write_one_whole_line_for_each_request() {
    let server = logged(Some("begin %(m)s %(U)s %(s)s %(B)s %({user-agent}i)s end")).workers(4).start();
    let plan = Plan { clients: 8, ..Plan::new(server.address()) };
    let (kept, closed) = (plan.clone().start(), Plan { keep_alive: false, ..plan }.start());
    kept.wait_for_more(REQUESTS * 3 / 4);
    closed.wait_for_more(REQUESTS / 4);
    let (kept, closed) = (kept.stop(), closed.stop());
    kept.assert_flawless();
    closed.assert_flawless();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let mut server = server;
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
    let text = fs::read_to_string(server.temp().join("access.log")).expect("the log is there");
    assert_eq!(text.lines().count() as u64, kept.ok + closed.ok, "one line for each request");
    let shapes: HashSet<&str> = text.lines().collect();
    assert_eq!(shapes, HashSet::from(["begin GET / 200 6 - end"]), "no torn line");
    assert_eq!(closed.by_worker.len(), 4, "every worker took part");
}

#[test]
fn error_records_have_time_pid_writer_and_level() {
    let server = Server::new("cases").workers(2).expect_error("raised before").start();
    server.get("/raises");
    let (master, workers) = (server.pid(), server.workers());
    let records = server.stop().records();
    assert!(records.len() > 2, "{records:#?}");
    assert!(records.iter().all(|record| !record.level.is_empty()), "no text outside of records: {records:#?}");
    for record in &records {
        let mut words = record.text.split(' ');
        let time = words.next().unwrap_or("");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape.replace('-', "+"), "0000+00+00T00:00:00.000+00:00", "ISO 8601 with milliseconds and offset: {record:?}");
        let pid: i32 =
            words.next().and_then(|word| word.trim_matches(['[', ']']).parse().ok()).unwrap_or_else(|| panic!("{record:?}"));
        let rest = words.collect::<Vec<_>>().join(" ");
        let writer = &rest[..rest.find(']').unwrap_or(0)];
        match writer {
            "[master" => assert_eq!(pid, master, "{record:?}"),
            _ => assert!(writer.starts_with("[worker ") && workers.contains(&pid), "{record:?}"),
        }
    }
}

#[test]
fn the_error_log_can_go_to_a_file_and_below_its_level_nothing_is_written() {
    let server = Server::new("cases");
    let file = server.temp().join("error.log");
    let name = file.display().to_string();
    let server = server.options(["--error-logfile", &name, "--log-level", "warning"]).start();
    server.get("/raises");
    wait_for("the error in the file", SOON, || fs::read_to_string(&file).ok()?.contains("ValueError").then_some(()));
    let text = fs::read_to_string(&file).expect("it is there");
    assert!(!text.contains(" INFO "), "{text}");
    server.stop();
}

#[test]
fn a_log_that_cannot_be_opened_is_one_clear_line() {
    for option in ["--access-logfile", "--error-logfile"] {
        let ended = Server::new("probe").options([option, "/no/such/directory/x.log"]).run_to_end();
        ended.failed(1, &["/no/such/directory/x.log"]);
    }
}

#[test]
fn lines_are_written_soon_without_more_traffic() {
    /// A batch may wait for the end of a round of the loop, not for the next request. Wide, for a busy machine.
    const AT_MOST: Duration = Duration::from_secs(10);
    let server = logged(Some("%(U)s")).options(["--keep-alive", "60"]).start();
    // It stays open, for its end would be an event for the loop too.
    let mut client = server.connect();
    client.get("/only");
    let path = server.temp().join("access.log");
    wait_for("the line", AT_MOST, || (fs::read_to_string(&path).ok()? == "/only\n").then_some(()));
    server.stop();
}
