//! How an application's body travels: streaming, write(), files, close(), and answers that break in their middle.

mod common;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use common::client::{Client, Response};
use common::server::{Running, Server, at_once};
use common::{SOON, procfs, wait_for};
use tapster::sys::time::monotonic;

/// Size of the file that is sent by file_wrapper, in bytes: far more than all socket buffers.
const FILE_SIZE: usize = 50 * 1024 * 1024;

/// Memory that sending the file may cost a worker, in bytes: much less than the file.
const FILE_MEMORY: u64 = 16 * 1024 * 1024;

fn cases() -> Server {
    let server = Server::new("cases:application");
    let temp = server.temp().display().to_string();
    server.env("CASES_DIR", temp)
}

fn with_file(server: Server, size: usize) -> Server {
    let file = fs::File::create(server.temp().join("large")).expect("the temp directory is writable");
    let mut file = BufWriter::new(file);
    for start in (0..size).step_by(8) {
        file.write_all(&(start as u64).to_be_bytes()[..(size - start).min(8)]).expect("the temp directory is writable");
    }
    file.flush().expect("the temp directory is writable");
    server
}

/// How often close() was called.
fn closed(dir: &Path) -> usize {
    fs::read_to_string(dir.join("closed")).map_or(0, |text| text.lines().count())
}

#[track_caller]
fn wait_until_closed(server: &Running, count: usize) {
    wait_for("close() of the iterable", SOON, || (closed(server.temp()) >= count).then_some(()));
}

/// Stops the server; close() was called `count` times up to the very end.
#[track_caller]
fn stop_with_closes(server: Running, count: usize) {
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let mut server = server;
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.finish();
    assert_eq!(closed(server.temp()), count, "close() is called exactly once for each answer");
}

#[test]
fn the_first_block_arrives_before_the_second_is_produced() {
    for path in ["/gated", "/gated-write"] {
        let server = cases().start();
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        while common::client::find(client.leftover(), b"first").is_none() {
            assert!(matches!(client.fill(), Ok(1..)), "{path}: the first block is held back");
        }
        assert!(common::client::find(client.leftover(), b"second").is_none());
        fs::write(server.temp().join("gate"), "open").expect("the temp directory is writable");
        let response = client.response();
        assert!(response.complete && response.text().starts_with("firstsecond"), "{response:?}");
        server.stop();
    }
}

#[test]
fn write_sends_in_order_before_the_iterable() {
    let server = cases().start();
    let mut client = server.connect();
    fs::write(server.temp().join("gate"), "open").expect("the temp directory is writable");
    assert_eq!(client.get("/gated-write").text(), "firstsecondthird");
    let with_length = client.get("/write-with-length");
    assert_eq!((with_length.text().as_str(), with_length.field("content-length")), ("abcdefghi", Some("9")));
    let large = client.get("/large-write");
    assert!(large.complete && large.body.len() == 10_000_000, "{large:?}");
    server.stop();
}

#[test]
fn close_is_called_once_on_every_path() {
    let server = with_file(cases(), 100_000).expect_error("broken in the middle").expect_error("close() raised").start();
    let mut client = server.connect();
    assert_eq!(client.get("/closing").text(), "onetwo");
    assert_eq!(client.get("/closing-list").text(), "one");
    client.send("HEAD /closing HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response_to("HEAD");
    assert_eq!(client.get("/file-closes").body.len(), 100_000);
    assert_eq!(client.get("/file-like").body.len(), 100_000);
    assert_eq!(client.get("/closing-raises").text(), "one", "an error in close() comes too late to change the answer");
    assert!(!server.get("/closing-broken").complete);
    wait_until_closed(&server, 7);
    stop_with_closes(server, 7);
}

#[test]
fn close_is_called_when_the_client_leaves_in_the_middle() {
    let server = cases().start();
    let mut count = 0;
    for path in ["/endless", "/slow-endless"] {
        for reset in [false, true] {
            let mut client = server.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
            assert!(matches!(client.fill(), Ok(1..)));
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            count += 1;
            wait_until_closed(&server, count);
        }
    }
    assert_eq!(server.get("/pid").status, 200);
    stop_with_closes(server, count);
}

#[test]
fn a_reader_that_stalls_stops_only_its_own_stream() {
    let server = cases().start();
    let mut stalled = server.connect();
    stalled.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(matches!(stalled.fill(), Ok(1..)));
    for _ in 0..20 {
        assert_eq!(server.get("/pid").status, 200);
    }
    // A stalled stream asks the application for nothing: the worker rests, and its memory does not grow.
    let worker = server.workers()[0];
    let (memory, cpu) = (procfs::memory(worker), procfs::cpu_millis(worker));
    for _ in 0..200 {
        assert_eq!(server.get("/pid").status, 200);
    }
    let grown = procfs::memory(worker).saturating_sub(memory);
    assert!(grown < FILE_MEMORY, "{grown} bytes more beside a stalled reader");
    assert!(procfs::cpu_millis(worker) - cpu < 2_000, "the worker spins");
    drop(stalled);
    wait_until_closed(&server, 1);
    stop_with_closes(server, 1);
}

#[test]
fn a_write_timeout_ends_a_reader_that_stalls() {
    let server = cases().options(["--write-timeout", "1"]).start();
    let mut stalled = server.connect();
    stalled.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until_closed(&server, 1);
    drop(stalled);
    stop_with_closes(server, 1);
}

#[test]
fn a_file_is_sent_whole_from_its_offset() {
    let server = with_file(cases(), FILE_SIZE).start();
    let worker = server.workers()[0];
    assert_eq!(server.get("/pid").status, 200);
    let memory = procfs::memory(worker);
    let whole = fs::read(server.temp().join("large")).expect("the file was written");
    let mut client = server.connect();
    let response = client.get("/file");
    assert!(response.complete && response.body == whole, "{response:?}");
    let length = format!("/file?length={FILE_SIZE}");
    let response = client.get(&length);
    assert_eq!(response.field("content-length"), Some(FILE_SIZE.to_string().as_str()));
    assert!(response.complete && response.body == whole);

    for (offset, length) in [(0, 10), (1_000_003, 5_000_000), (FILE_SIZE - 5, 5), (FILE_SIZE, 0)] {
        let response = client.get(&format!("/file?offset={offset}&length={length}"));
        assert!(response.complete && response.body == whole[offset..offset + length], "{offset} {length} {response:?}");
    }
    let tail = client.get(&format!("/file?offset={}", FILE_SIZE - 100_000));
    assert!(tail.complete && tail.body == whole[FILE_SIZE - 100_000..], "{tail:?}");
    let grown = procfs::memory(worker).saturating_sub(memory);
    assert!(grown < FILE_MEMORY, "sending files cost {grown} bytes");
    client.send(format!("HEAD {length} HTTP/1.1\r\nHost: test\r\n\r\nGET /pid HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert_eq!(client.response_to("HEAD").field("content-length"), Some(FILE_SIZE.to_string().as_str()));
    assert_eq!(client.response().status, 200);
    client.send("GET /file HTTP/1.0\r\n\r\n");
    assert!(client.response().body == whole, "to an HTTP/1.0 client");
    server.stop();
}

#[test]
fn a_file_shorter_than_its_length_is_visibly_cut() {
    let server = with_file(cases(), 1000).expect_error("Content-Length").start();
    let response = server.get("/file?length=2000");
    assert!(!response.complete && response.body.len() == 1000, "{response:?}");
    server.stop();
}

#[test]
fn any_object_with_read_can_be_wrapped() {
    let server = cases().start();
    let mut client = server.connect();
    assert_eq!(client.get("/file-like").body, b"0123456789".repeat(10_000));
    assert_eq!(client.get("/file-minimal").text(), "block block block ");
    assert_eq!(client.get("/file-wrapped").text(), "01234-6789");
    server.stop();
}

#[test]
fn an_error_in_the_middle_leaves_the_answer_visibly_cut() {
    let server = cases().expect_error("broken in the middle").start();
    for path in ["/breaks-chunked", "/breaks-length"] {
        let mut client = server.connect();
        let response = client.get(path);
        assert_eq!((response.status, response.text().as_str(), response.complete), (200, "one", false), "{path}: {response:?}");
        assert!(client.is_closed(), "{path}");
    }
    let with_1_0 = |path: &str| -> Response { server.exchange(format!("GET {path} HTTP/1.0\r\n\r\n")) };
    let response = with_1_0("/breaks-chunked");
    assert!(!response.complete, "a body that ends with the connection ends with a reset: {response:?}");
    assert!(!with_1_0("/breaks-length").complete);
    let record = server.log().wait(&["broken in the middle"]);
    assert!(record.text.contains("/breaks-") && record.text.contains("Traceback"), "{record:#?}");
    server.stop();
}

#[test]
fn a_wrong_length_is_cut_or_closed_and_logged() {
    let mut server = cases().start();
    let mut client = server.connect();
    let long = client.get("/too-long");
    assert_eq!((long.text().as_str(), long.field("content-length")), ("four", Some("4")), "{long:?}");
    if !long.closes() {
        assert_eq!(client.get("/pid").status, 200, "the excess does not become an answer");
    }
    let short = server.get("/too-short");
    assert!(!short.complete && short.text() == "short", "{short:?}");
    for path in ["/too-long", "/too-short"] {
        server.expect_error(path);
        let record = server.log().wait(&[path]);
        assert!(record.text.contains("Content-Length"), "{record:#?}");
    }
    server.stop();
}

#[test]
fn answers_of_two_blocks_do_not_wait_for_delayed_acknowledgements() {
    /// Each would take 40 ms if the second block waited for an acknowledgement of the first.
    const REQUESTS: usize = 50;
    let server = Server::new("probe:application").start();
    let mut client = server.connect();
    client.get("/no-length");
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let began = std::time::Instant::now();
        assert_eq!(client.get("/no-length").text(), "one two three");
        times.push(began.elapsed());
    }
    times.sort();
    let median = times[REQUESTS / 2];
    assert!(median.as_millis() < 20, "{median:?} for most answers");
    server.stop();
}

#[test]
fn quick_answers_wait_for_each_other_but_not_for_all() {
    const CLIENTS: usize = 150;
    /// Clients that do not run for a moment see their first answer late; not each time.
    const ROUNDS: usize = 5;
    // Answers with the time at which the call begins, which takes 300 us.
    let app = "
import time

def application(environ, start_response):
    begin = time.monotonic_ns()
    while time.monotonic_ns() < begin + 300_000:
        pass
    start_response('200 OK', [])
    return [b'%d' % begin]
";
    let server = Server::source(app).workers(1).start();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| drop(client.get("/")));
    let mut round = || {
        at_once(server.workers()[0], || {
            clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n"));
        });
        let answers: Vec<(u64, u64)> =
            clients.iter_mut().map(|client| (client.response().text().parse().expect("a number"), monotonic())).collect();
        let (_, first) = answers[0];
        answers.iter().filter(|(begin, _)| *begin < first).count()
    };
    let begun = (0..ROUNDS).map(|_| round()).min().expect("there are rounds");
    // A few that were served before, and those of the three milliseconds that answers wait.
    assert!(begun < CLIENTS / 2, "{begun} calls had begun when the first answer came");
    server.stop();
}
