//! Where request bodies and unread output are kept, when there is no more room for them: memory that is used up, temporary files
//! that have reached their limit, disks that are full. The requests in question are refused, and nobody else notices.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::client::{Client, Response};
use common::server::{Running, Server};
use common::tools::{self, tool};
use common::{SOON, wait_for};
use nix::sys::signal::Signal;

const KB: usize = 1024;

const MB: usize = 1024 * KB;

/// Says how long a body was, which it reads in the way that the path says. `/memory` limits the address space to 32 MiB more than
/// there is, takes all of it but less than 64 KiB and keeps it, `/back` gives it back; `/eat` asks for more than there can be,
/// `/tight?MIB` limits it to so much more than there is. `/slow` takes longer than the loop waits for a call, `/later` makes a stream of it.
const APP: &str = "
import resource
import time

kept = []
BLOCK = b'y' * 4000
LARGE = b'z' * (1 << 20)

def blocks():
    for _ in range(200):
        yield BLOCK

def limit(mib):
    pages = int(open('/proc/self/statm').read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (mib << 20), -1))

def later():
    time.sleep(.005)
    yield b'none'

def application(environ, start_response):
    path, body = environ['PATH_INFO'], environ['wsgi.input']
    answer = b'none'
    if path == '/blocks':
        start_response('200 OK', [])
        return blocks()
    if path == '/write':
        write = start_response('200 OK', [])
        write(LARGE)
        return [BLOCK]
    if path == '/memory':
        limit(32)
        for size in (1 << 24, 1 << 20, 1 << 16, 1 << 15):
            try:
                while True:
                    kept.append(bytearray(size))
            except MemoryError:
                pass
        del kept[-1]
        answer = b'taken'
    elif path == '/back':
        kept.clear()
    elif path == '/eat':
        kept.append(bytearray(1 << 50))
    elif path == '/tight':
        limit(int(environ['QUERY_STRING']))
    elif path == '/slow':
        time.sleep(.005)
    elif path == '/later':
        start_response('200 OK', [('Content-Length', '4')])
        return later()
    elif path == '/lines':
        answer = b'%d' % sum(len(line) for line in body)
    elif path == '/line':
        answer = b'%d' % len(body.readline())
    elif path == '/whole':
        answer = b'%d' % len(body.read())
    else:
        length = 0
        while True:
            piece = body.read(1000)
            if not piece:
                break
            length += len(piece)
        answer = b'%d' % length
    start_response('200 OK', [('Content-Length', str(len(answer)))])
    return [answer]
";

/// A request with a body of `size` bytes without a line end, its answer, which may come before all is sent.
#[track_caller]
fn upload(server: &Running, path: &str, size: usize, chunked: bool) -> Response {
    let mut client = server.connect();
    send_part(&mut client, path, size, size, chunked);
    client.response()
}

/// The head of a request with a body of `size` bytes, and so many of them. What is not taken is not sent.
fn send_part(client: &mut Client, path: &str, size: usize, part: usize, chunked: bool) {
    let framing = if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {size}") };
    client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n"));
    let body = vec![b'x'; part];
    let bytes = match chunked {
        true => [format!("{part:x}\r\n").as_bytes(), &body, if part == size { b"\r\n0\r\n\r\n" } else { b"" }].concat(),
        false => body,
    };
    client.send_while_taken(&bytes, SOON);
}

/// Waits until the workers have so many bytes, but for those that are gathered before they are written, in unlinked files of the
/// temporary directory.
#[track_caller]
fn wait_for_files(server: &Running, bytes: usize) {
    let of = |pid: i32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let temporary = |path: &PathBuf| {
            fs::read_link(path)
                .is_ok_and(|to| to.starts_with(std::env::temp_dir()) && to.to_string_lossy().ends_with(" (deleted)"))
        };
        files.filter(temporary).filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum::<u64>()
    };
    let all = || server.workers().into_iter().map(of).sum::<u64>() >= (bytes - 16 * KB) as u64;
    wait_for("bytes in temporary files", SOON, || all().then_some(()));
}

#[track_caller]
fn assert_unavailable(response: &Response) {
    assert_eq!((response.status, response.closes()), (503, true), "{response:?}");
    assert!(response.field("Retry-After").is_some_and(|value| value.parse::<u32>().is_ok()), "{response:?}");
}

#[test]
fn the_temporary_files_of_all_workers_together_have_a_limit() {
    let server = Server::source(APP)
        .workers(2)
        .options(["--body-buffer", "64k", "--limit-spool", "4M", "--limit-request-body", "3M"])
        .options(["--access-logfile", "-", "--access-logformat", "%(s)s %(U)s"])
        .expect_error("--limit-spool")
        .start();
    let mut open = server.connect();
    send_part(&mut open, "/open", 3 * MB, 3 * MB - 512 * KB, false);
    wait_for_files(&server, 3 * MB - 512 * KB);
    // One that has to wait for no byte, since there cannot be so much room, and one whose length nobody knows before.
    for chunked in [false, true] {
        assert_unavailable(&upload(&server, "/more", 2 * MB, chunked));
    }
    assert_eq!(upload(&server, "/small", 60 * KB, true).text(), (60 * KB).to_string(), "what stays in memory is served");
    let temp = std::env::temp_dir();
    assert!(server.log().find(&["/more", temp.to_str().unwrap(), "--limit-spool"]).is_some(), "{}", server.log().text());
    open.send(vec![b'x'; 512 * KB]);
    assert_eq!(open.response().text(), (3 * MB).to_string());
    // Its file goes with what the application has of the request.
    let stored = || Some(upload(&server, "/more", 3 * MB, true)).filter(|response| response.status == 200);
    assert_eq!(wait_for("room for a large body", SOON, stored).text(), (3 * MB).to_string());
    wait_for("the refusal in the access log", SOON, || server.stdout().contains("503 /more\n").then_some(()));
    server.stop();
}

#[test]
fn a_worker_that_dies_takes_its_files_along() {
    let mut server = Server::source(APP)
        .workers(2)
        .options(["--body-buffer", "64k", "--limit-spool", "2M"])
        .expect_error("--limit-spool")
        .start();
    let mut client = server.connect();
    send_part(&mut client, "/open", 2 * MB, 2 * MB - KB, false);
    wait_for_files(&server, 2 * MB - KB);
    assert_unavailable(&upload(&server, "/more", MB, false));
    for pid in server.workers() {
        common::server::signal_to(pid, Signal::SIGKILL);
    }
    server.expect_error("killed");
    wait_for("room for a body", SOON, || {
        let mut client = Client::try_connect(server.address()).ok()?;
        send_part(&mut client, "/more", 2 * MB, 2 * MB, true);
        client.try_response_to("POST").ok().filter(|response| response.text() == (2 * MB).to_string())
    });
    server.stop();
}

/// A client that does not read can make `write()` keep as much as a body.
#[test]
fn output_that_waits_in_a_file_counts_as_well() {
    let app = "
def application(environ, start_response):
    write = start_response('200 OK', [])
    try:
        for _ in range(1024):
            write(b'x' * 65536)
    finally:
        open('written', 'w').close()
    return []
";
    let server = Server::source(app).options(["--limit-spool", "4M"]).expect_error("--limit-spool").start();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_for("the end of the call", SOON, || server.temp().join("written").exists().then_some(()));
    assert!(!client.response().complete);
    server.stop();
}

#[test]
fn a_body_that_is_larger_than_any_file_may_be_is_answered_413() {
    let server =
        Server::source(APP).options(["--body-buffer", "64k", "--limit-spool", "1M", "--limit-request-body", "0"]).start();
    for chunked in [false, true] {
        let response = upload(&server, "/", 2 * MB, chunked);
        assert_eq!((response.status, response.closes()), (413, true), "{response:?}");
    }
    server.stop();
}

/// A disk of one MiB.
fn on_small_disk() -> Option<Server> {
    let unshare = tool("unshare")?;
    let unshare = unshare.to_str().expect("the path is UTF-8");
    let script = r#"mount -t tmpfs -o size=1m none "$TMPDIR" && exec "$@""#;
    let launcher = [unshare, "-rm", "/bin/sh", "-c", script, "sh"];
    let place = tempfile::tempdir().expect("the temp directory is writable");
    if !Command::new(launcher[0]).args(&launcher[1..]).arg("true").env("TMPDIR", place.path()).status().is_ok_and(|s| s.success())
    {
        tools::skip("a file system cannot be mounted in a namespace of its own");
        return None;
    }
    let server = Server::source(APP).launcher(launcher).options(["--body-buffer", "64k"]);
    let disk = server.temp().join("disk");
    fs::create_dir(&disk).expect("the temp directory is writable");
    Some(server.env("TMPDIR", disk.to_str().expect("the path is UTF-8")))
}

#[test]
fn a_full_disk_refuses_what_would_need_it_and_names_the_directory() {
    let Some(server) = on_small_disk() else { return };
    let disk = server.temp().join("disk").display().to_string();
    let server = server.expect_error("cannot spool the body of POST /big HTTP/1.1").start();
    let worker = server.workers();
    for chunked in [false, true] {
        assert_unavailable(&upload(&server, "/big", 2 * MB, chunked));
        assert_eq!(upload(&server, "/", 900 * KB, chunked).text(), (900 * KB).to_string(), "its file is gone");
    }
    assert!(server.log().find(&["/big", &disk, "TMPDIR"]).is_some(), "{}", server.log().text());
    assert_eq!(server.workers(), worker);
    server.stop();
}

#[test]
fn many_refusals_for_want_of_room_are_few_lines_in_the_log() {
    const UPLOADS: usize = 50;
    let server = Server::source(APP).options(["--body-buffer", "64k", "--limit-spool", "1M"]);
    let server = server.expect_error("--limit-spool").start();
    let mut open = server.connect();
    send_part(&mut open, "/open", MB, MB - KB, false);
    wait_for_files(&server, MB - KB);
    let began = std::time::Instant::now();
    for _ in 0..UPLOADS {
        assert_unavailable(&upload(&server, "/more", MB, false));
    }
    let most = began.elapsed().as_secs() as usize + 3;
    // Those after the last line are counted without a further refusal.
    let number = |line: &str, after: &str| -> Option<usize> { line.split_once(after)?.1.split(' ').next()?.parse().ok() };
    let counted = |line: &str| {
        let first = usize::from(line.contains("cannot spool the body"));
        first + number(line, "body of POST /more HTTP/1.1 (").unwrap_or(0) + number(line, "the bodies of ").unwrap_or(0)
    };
    let all = || server.log().text().lines().map(counted).sum::<usize>() == UPLOADS;
    wait_for("every refusal in a line", SOON, || all().then_some(()));
    let lines = server.log().text().matches("cannot spool").count();
    assert!((1..=most).contains(&lines), "{lines} lines for {UPLOADS} refusals");
    drop(open);
    server.stop();
}

/// One arena, or each thread would have memory of its own to allocate from that it does not use (mallopt(3)).
#[test]
fn memory_that_is_used_up_refuses_bodies_and_ends_no_worker() {
    let server = Server::source(APP).options(["--body-buffer", "1M"]).env("MALLOC_ARENA_MAX", "1");
    let server = server.expect_error("MemoryError").start();
    let workers = server.workers();
    // Before the memory is gone: a connection whose body is under way, and one that is kept.
    let mut kept = server.connect();
    assert_eq!(kept.get("/").text(), "0");
    let mut open = server.connect();
    send_part(&mut open, "/", 900 * KB, 10 * KB, false);
    assert_eq!(server.get("/memory").text(), "taken");
    for size in [70 * KB, 300 * KB, 900 * KB, 3 * MB] {
        for path in ["/", "/whole", "/line", "/lines"] {
            for chunked in [false, true] {
                let response = upload(&server, path, size, chunked);
                let right = response.status == 200 && response.text() == size.to_string();
                assert!(right || matches!(response.status, 500 | 503), "{path}, {size} bytes: {response:?}");
                assert_eq!(kept.get("/").text(), "0", "others are answered");
            }
        }
    }
    open.send_while_taken(&vec![b'x'; 890 * KB], SOON);
    let response = open.response();
    assert!(response.text() == (900 * KB).to_string() || matches!(response.status, 500 | 503), "{response:?}");
    assert_eq!(
        upload(&server, "/", 70 * KB, false).text(),
        (70 * KB).to_string(),
        "a body that is read in pieces is served from a file"
    );
    assert_eq!(kept.get("/back").text(), "none");
    assert_eq!(upload(&server, "/whole", 3 * MB, false).text(), (3 * MB).to_string());
    assert_eq!(server.workers(), workers, "nobody died");
    server.stop();
}

/// What follows a preface is no part of it: the preface is read, whole or in two pieces, and its request is answered.
#[test]
fn a_preface_needs_no_memory_for_the_request_after_it() {
    let server = Server::source(APP).options(["--proxy-protocol", "auto"]).env("MALLOC_ARENA_MAX", "1").start();
    let preface = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\xbb\0\x50";
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "x".repeat(6000));
    let mut kept = server.connect();
    kept.send(preface);
    assert_eq!(kept.get("/memory").text(), "taken");
    for cut in [0, 10, 20] {
        let mut client = server.connect();
        client.send(&preface[..cut]);
        // Another answer: the worker has read those bytes by then.
        assert_eq!(kept.get("/").text(), "0");
        client.send([&preface[cut..], request.as_bytes()].concat());
        assert_eq!(client.response().text(), "0", "cut after {cut} bytes");
    }
    server.stop();
}

/// Output of an application is copied where it is small or comes by `write()`. Its large block here is there before the memory is
/// gone.
#[test]
fn answers_without_memory_are_errors_of_their_own_request() {
    let server = Server::source(APP).options(["--access-logfile", "-"]).env("MALLOC_ARENA_MAX", "1");
    let server = server.expect_error("MemoryError").start();
    let workers = server.workers();
    let mut kept = server.connect();
    assert_eq!(kept.get("/memory").text(), "taken");
    let long = "x".repeat(7000);
    for _ in 0..20 {
        let response = server.get("/write");
        assert_eq!(response.status, 500, "there is no memory for the block: {response:?}");
        let streamed = server.get("/blocks");
        assert!(streamed.status == 500 || !streamed.complete || streamed.body.len() == 200 * 4000, "{streamed:?}");
        kept.send(format!("GET /{long} HTTP/1.1\r\nHost: test\r\nCookie: {long}\r\nX: {long}\r\n\r\n"));
        assert!(matches!(kept.response().status, 200 | 500));
        kept.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(20));
        (0..20).for_each(|_| assert_eq!(kept.response().text(), "0"));
    }
    assert_eq!(kept.get("/back").text(), "none");
    assert_eq!(server.get("/write").body.len(), (1 << 20) + 4000);
    assert_eq!(server.get("/blocks").body.len(), 200 * 4000);
    assert_eq!(server.workers(), workers, "nobody died");
    server.stop();
}

/// A request whose head has about 56 KB, with `end` before its empty line.
fn large(method: &str, path: &str, end: &str) -> String {
    let fields: String = (0..7).map(|number| format!("X-{number}: {}\r\n", "x".repeat(8000))).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}{end}\r\n")
}

/// Many connections whose heads do not fit into the memory that is left: they wait for a permit, for a thread, for the
/// interpreter or for their bodies, with the next request after them, or as streams.
#[track_caller]
fn heads_without_memory(threads: &str, mib: usize) {
    const CLIENTS: usize = 240;
    let server = Server::source(APP).options(["--threads", threads, "--keep-alive", "60", "--access-logfile", "-"]);
    let server = server.env("MALLOC_ARENA_MAX", "1").expect_error("MemoryError").start();
    let workers = server.workers();
    let mut kept = server.connect();
    // Others may get one, this one does.
    assert_eq!(server.get("/eat").status, 500);
    assert_eq!(kept.get(&format!("/tight?{mib}")).text(), "none");
    for round in 0..3 {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let request = match number % 6 {
                0 => large("GET", "/slow", "") + "GET / HTTP/1.1\r\nHost: test\r\nX: " + &"x".repeat(7000),
                1 => large("GET", "/none", "") + &large("GET", "/slow", ""),
                2 => large("POST", "/", "Content-Length: 9\r\n") + "four",
                3 => large("GET", "/later", ""),
                4 => large("GET", "/slow", "Connection: Upgrade\r\nUpgrade: echo\r\n") + &"early".repeat(1000),
                _ => large("GET", "/slow", ""),
            };
            client.send_while_taken(request.as_bytes(), SOON);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            if number % 6 == 2 {
                // A refused client may be cut before it has sent this.
                let _ = client.try_send(b" more");
            }
            let response =
                client.try_response_to("GET").unwrap_or_else(|error| panic!("client {number} of round {round}: {error}"));
            assert!(matches!(response.status, 200 | 500 | 503), "client {number} of round {round}: {response:?}");
        }
        drop(clients);
        assert_eq!(server.workers(), workers, "nobody died");
        wait_for("an answer to an ordinary request", SOON, || (server.get("/").status == 200).then_some(()));
    }
    assert_eq!(kept.get("/").text(), "0");
    server.stop();
}

#[test]
fn heads_without_memory_are_refused_or_served_where_they_are() {
    heads_without_memory("1", 6);
}

#[test]
fn heads_without_memory_go_to_no_other_thread() {
    heads_without_memory("8", 10);
}

/// A read-only root as containers have it: no place for a temporary file.
#[test]
fn without_a_temporary_directory_bodies_are_kept_in_memory_up_to_a_limit() {
    const LIMIT: usize = 64 * MB;
    let server = Server::source(APP).env("TMPDIR", "/proc/self").options(["--body-buffer", "64k"]).workers(2).start();
    server
        .log()
        .wait(&["WARNING the temporary directory /proc/self cannot be written", "67108864 bytes of all workers together"]);
    assert_eq!(server.log().text().matches("cannot be written").count(), 1, "one worker says it for all");
    assert_eq!(upload(&server, "/read", 8 * MB, false).text(), (8 * MB).to_string());
    assert_eq!(upload(&server, "/read", LIMIT + 1, false).status, 413);
    server.stop();
}
