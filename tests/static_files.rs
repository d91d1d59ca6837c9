//! Static files over the real server: the table of cases with their sections, links, files that change while they are
//! sent, busy applications, shortages, and the clients of others.

#[path = "static_files/cases.rs"]
mod cases;
mod common;
#[path = "static_files/tree.rs"]
mod tree;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use cases::{CASES, CODED, Case};
use common::client::{Address, Client, Response};
use common::server::{Running, Server};
use common::{SOON, apps, procfs, tools, user, venv, wait_for};

/// Time for one run of another program.
const CLIENT_LIMIT: Duration = Duration::from_secs(120);

const APP: &str = r#"
import os
import threading
import time

held = []
gate = threading.Event()

def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/sleep':
        open(os.environ['HERE'] + '/asleep', 'a').write('x')
        while not os.path.exists(os.environ['HERE'] + '/wake'):
            time.sleep(0.01)
    elif path == '/hoard':
        try:
            while True:
                held.append(os.open('/dev/null', os.O_RDONLY))
        except OSError:
            pass
    elif path == '/free':
        while held:
            os.close(held.pop())
    start_response('200 OK', [('X-App', '1'), ('Content-Type', 'text/plain')])
    return [path.encode('latin-1')]
"#;

/// A server with the tree in its directory, mapped at `/static`.
fn server() -> Server {
    let server = Server::source(APP);
    tree::make(server.temp());
    let here = server.temp().display().to_string();
    server.env("HERE", here).options(["--static-map", "/static=static"])
}

fn root(server: &Running) -> PathBuf {
    server.temp().join("static")
}

fn expand(text: &str) -> String {
    text.replace('@', &tree::tag(13, "")).replace('~', tree::DATE)
}

fn parts(text: &str) -> impl Iterator<Item = String> {
    text.split('|').filter(|part| !part.is_empty()).map(expand)
}

#[track_caller]
fn check(case: &Case, client: &mut Client) -> Response {
    let Case { section, request, fields, status, has, lacks, body } = case;
    let (method, target) = request.split_once(' ').unwrap_or(("GET", request));
    let lines: String = parts(fields).map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n"));
    let response = client.response_to(method);
    let about = format!("section {section}: {request} with {fields:?}\n{response:?}");
    assert_eq!(response.status, *status, "{about}");
    assert!(response.complete, "{about}");
    for line in parts(has) {
        let (name, value) = line.split_once(": ").expect("a field has a colon");
        assert_eq!(response.all(name), [value], "{name} of {about}");
    }
    for name in parts(lacks) {
        assert_eq!(response.field(&name), None, "{name} of {about}");
    }
    if let Some(body) = body {
        assert_eq!(response.body, body.as_bytes(), "{about}");
    }
    response
}

#[track_caller]
fn check_all(cases: &[Case], server: &Running) {
    // On one connection: each answer ends where it says.
    let mut client = server.connect();
    for case in cases {
        let response = check(case, &mut client);
        assert!(!response.closes(), "{}", case.request);
    }
    for case in cases {
        check(case, &mut server.connect());
    }
}

#[test]
fn every_case_of_the_table() {
    let options = ["--static-map", "/=root", "--static-index", "index.html", "--mime-type", "ply=model/ply"];
    let server = server().options(options).start();
    assert!(CASES.len() + CODED.len() >= 120, "{} cases", CASES.len() + CODED.len());
    check_all(CASES, &server);
    server.stop();
}

#[test]
fn every_case_of_the_table_of_codings() {
    let server = server().options(["--static-precompressed"]).start();
    check_all(CODED, &server);
    server.stop();
}

#[test]
fn names_and_queries_are_immutable_as_the_options_say() {
    let options =
        ["--static-immutable", r"^docs/", "--static-expires", "90s", "--static-versioned", "--static-index", "index.html"];
    let server = server().options(options).start();
    for (target, expected) in [
        ("/static/a.txt", "max-age=90"),
        ("/static/a.txt?v=", "max-age=90"),
        ("/static/a.txt?w=1", "max-age=90"),
        ("/static/a.txt?v=1", "max-age=31536000, immutable"),
        ("/static/base.0123456789ab.css", "max-age=90"),
        ("/static/docs/", "max-age=31536000, immutable"),
        ("/static/docs/deep/page.html", "max-age=31536000, immutable"),
    ] {
        assert_eq!(server.get(target).all("cache-control"), [expected], "{target}");
    }
    for target in ["/static/none?v=1", "/static/docs?v=1"] {
        assert_eq!(server.get(target).field("cache-control"), None, "{target}");
    }
    server.stop();
    let server = self::server().options(["--static-expires", "none", "--static-immutable", "none"]).start();
    assert_eq!(server.get("/static/base.0123456789ab.css").field("cache-control"), None);
    server.stop();
}

/// What is read of `/static/NAME`; `None`: it is not found.
fn text(server: &Running, name: &str) -> Option<String> {
    let response = server.get(&format!("/static/{name}"));
    assert!(matches!(response.status, 200 | 404), "{response:?}");
    (response.status == 200).then(|| response.text())
}

#[test]
fn links_are_followed_as_the_option_says() {
    let hello = Some("hello, world!".to_owned());
    for (policy, inside, outside, absolute) in
        [("follow", true, true, true), ("beneath", true, false, false), ("deny", false, false, false)]
    {
        let server = server().options(["--static-symlinks", policy]).start();
        assert_eq!(text(&server, "a.txt"), hello);
        assert_eq!(text(&server, "link.txt"), hello.clone().filter(|_| inside), "{policy}");
        assert_eq!(text(&server, "linked/deep/page.html"), Some("<p>page".into()).filter(|_| inside), "{policy}");
        assert_eq!(text(&server, "out.txt"), Some("outside".into()).filter(|_| outside), "{policy}");
        assert_eq!(text(&server, "absolute.txt"), hello.clone().filter(|_| absolute), "{policy}");
        assert_eq!(text(&server, "loop"), None, "{policy}");
        server.stop();
    }
}

/// Executes a program whose openat2 fails as in containers of old: seccomp answers EPERM (1).
const WITHOUT_OPENAT2: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def op(code, jt, jf, k):
    return struct.pack('HBBI', code, jt, jf, k)
SYSCALL, OPENAT2, ALLOW, FAIL = 0, 437, 0x7fff0000, 0x00050000 | 1
code = (op(0x20, 0, 0, SYSCALL) + op(0x15, 0, 1, OPENAT2) + op(0x06, 0, 0, FAIL) + op(0x06, 0, 0, ALLOW))
buffer = ctypes.create_string_buffer(code, len(code))
program = struct.pack('HxxxxxxP', len(code) // 8, ctypes.addressof(buffer))
holder = ctypes.create_string_buffer(program, len(program))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(holder)), 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn without_openat2_links_are_followed_or_refused_all_the_same() {
    let python = venv::base_python().display().to_string();
    for policy in ["follow", "beneath", "deny"] {
        let server = server().options(["--static-symlinks", policy]).launcher([&python, "-c", WITHOUT_OPENAT2]).start();
        let follows = policy == "follow";
        assert_eq!(text(&server, "a.txt").as_deref(), Some("hello, world!"), "{policy}");
        assert_eq!(text(&server, "docs/deep/page.html").as_deref(), Some("<p>page"), "{policy}");
        assert_eq!(text(&server, "link.txt").is_some(), follows, "{policy}");
        assert_eq!(text(&server, "linked/index.html").is_some(), follows, "{policy}");
        assert_eq!(text(&server, "out.txt").is_some(), follows, "{policy}");
        assert_eq!(text(&server, "pipe"), None, "{policy}");
        let says = server.log().find(&["openat2", "no link is followed"]).is_some();
        assert_eq!(says, policy == "beneath", "{policy}");
        server.stop();
    }
}

#[test]
fn bodies_of_all_sizes_are_whole_and_parts_are_parts() {
    let server = server().start();
    let large = tree::large();
    let mut client = server.connect();
    for (name, len) in [("mid.bin", 16 * 1024), ("over.bin", 16 * 1024 + 1), ("large.bin", tree::LARGE)] {
        let response = client.get(&format!("/static/{name}"));
        assert!(response.body == large[..len], "{name}: {response:?}");
        for (first, last) in [(0, 0), (1, 16_384), (1, 16_385), (len - 1, len - 1), (5, len - 1), (len / 2, len / 2 + 4095)] {
            let last = last.min(len - 1);
            let lines = format!("Host: test\r\nRange: bytes={first}-{last}\r\n");
            client.send(format!("GET /static/{name} HTTP/1.1\r\n{lines}\r\n"));
            let response = client.response();
            assert_eq!(response.status, 206);
            assert_eq!(response.field("content-range"), Some(format!("bytes {first}-{last}/{len}").as_str()));
            assert!(response.body == large[first..=last], "{name} {first}-{last}");
        }
    }
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = server().start();
    let large = tree::large();
    for round in 0..20 {
        let mut client = server.connect();
        let targets =
            ["/a", "/static/a.txt", "/static/large.bin", "/b", "/static/none", "/static/over.bin", "/static/a.txt", "/c"];
        let ask = |target: &&str| format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        client.send(targets.iter().map(ask).collect::<String>());
        for target in targets {
            let response = client.response();
            match target {
                "/static/a.txt" => assert_eq!(response.text(), "hello, world!"),
                "/static/large.bin" => assert!(response.body == large, "round {round}"),
                "/static/over.bin" => assert!(response.body == large[..16 * 1024 + 1], "round {round}"),
                "/static/none" => assert_eq!(response.status, 404),
                path => assert_eq!(response.text(), path),
            }
        }
    }
    server.stop();
}

#[test]
fn the_connection_ends_as_the_client_wants() {
    let server = server().start();
    for (target, len) in [("/static/a.txt", 13), ("/static/large.bin", tree::LARGE), ("/static/none", 36)] {
        for (line, fields, closes) in [
            ("HTTP/1.1", "Host: t\r\n", false),
            ("HTTP/1.1", "Host: t\r\nConnection: close\r\n", true),
            ("HTTP/1.0", "", true),
            ("HTTP/1.0", "Connection: keep-alive\r\n", false),
        ] {
            let mut client = server.connect();
            client.send(format!("GET {target} {line}\r\n{fields}\r\n"));
            let response = client.response();
            assert!(response.complete && response.body.len() == len, "{target} {line} {fields}: {response:?}");
            assert_eq!(response.closes(), closes, "{target} {line} {fields}");
            if closes {
                assert!(client.is_closed(), "{target} {line} {fields}");
            } else {
                assert_eq!(client.get("/x").text(), "/x", "{target} {line} {fields}");
            }
        }
    }
    server.stop();
}

#[test]
fn a_body_that_no_file_needs_is_not_awaited() {
    let server = server().start();
    for (head, status) in [
        ("POST /static/a.txt HTTP/1.1\r\nHost: t\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n", 405),
        ("POST /static/a.txt HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n", 405),
        ("PUT /static/none HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc", 405),
        (
            "GET /static/a.txt HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabcGET /static/a.txt HTTP/1.1\r\nHost: t\r\n\r\n",
            200,
        ),
        ("GET /static/large.bin HTTP/1.1\r\nHost: t\r\nContent-Length: 30\r\n\r\n", 200),
        ("OPTIONS /static/a.txt HTTP/1.1\r\nHost: t\r\nContent-Length: 30\r\n\r\n", 204),
    ] {
        let mut client = server.connect();
        client.send(head);
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (status, Some("close")), "{head}");
        assert!(client.is_closed(), "{head}: nothing after the body can be trusted to be a request");
    }
    // The body is thrown away, so that the answer is not lost in a reset.
    let mut client = server.connect();
    client.send("POST /static/a.txt HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000\r\n\r\n");
    client.send_while_taken(&vec![b'x'; 3_000_000], SOON);
    assert_eq!(client.response().status, 405);
    server.stop();
}

#[test]
fn files_are_sent_while_every_thread_is_busy() {
    for (workers, threads) in [(1, 1), (1, 3), (2, 2)] {
        let server = server().workers(workers).options(["--threads", &threads.to_string(), "--timeout", "0"]).start();
        let sleepers: Vec<Client> = (0..workers * threads)
            .map(|count| {
                let mut client = server.connect();
                client.send("GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n");
                let asleep = server.temp().join("asleep");
                wait_for("a call", SOON, || fs::read(&asleep).is_ok_and(|text| text.len() > count).then_some(()));
                client
            })
            .collect();
        let mut kept = server.connect();
        for _ in 0..20 {
            assert_eq!(server.get("/static/a.txt").text(), "hello, world!", "{workers} x {threads}");
            assert_eq!(kept.get("/static/large.bin").body.len(), tree::LARGE);
        }
        // One for the application waits, and files do not wait behind it on other connections.
        let mut waiting = server.connect();
        waiting.send("GET /later HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(server.get("/static/a.txt").status, 200);
        server.open_gate("wake");
        for mut sleeper in sleepers {
            assert_eq!(sleeper.response().text(), "/sleep");
        }
        assert_eq!(waiting.response().text(), "/later");
        server.stop();
    }
}

#[test]
fn files_beyond_four_gibibytes_have_their_lengths_and_parts() {
    const SIZE: u64 = (5 << 30) + 7;
    let server = server().start();
    let file = File::create(root(&server).join("huge.bin")).unwrap();
    file.set_len(SIZE).unwrap();
    file.write_all_at(b"beyond", (4 << 30) + 10).unwrap();
    file.write_all_at(b"the end", SIZE - 7).unwrap();
    let mut client = server.connect();
    client.send("HEAD /static/huge.bin HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.response_to("HEAD").field("content-length"), Some("5368709127"));
    for (range, body, content) in [
        ("4294967306-4294967311", "beyond", "bytes 4294967306-4294967311/5368709127"),
        ("-7", "the end", "bytes 5368709120-5368709126/5368709127"),
        ("5368709120-", "the end", "bytes 5368709120-5368709126/5368709127"),
    ] {
        client.send(format!("GET /static/huge.bin HTTP/1.1\r\nHost: t\r\nRange: bytes={range}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.text().as_str(), response.field("content-range")), (body, Some(content)));
    }
    // Across the border, by the kernel.
    client.send("GET /static/huge.bin HTTP/1.1\r\nHost: t\r\nRange: bytes=4294900000-4295000000\r\n\r\n");
    let response = client.response();
    assert_eq!(response.body.len(), 100_001);
    assert_eq!(&response.body[67_306..67_312], b"beyond");
    // Beyond it.
    client.send("GET /static/huge.bin HTTP/1.1\r\nHost: t\r\nRange: bytes=4294967301-4295067400\r\n\r\n");
    let response = client.response();
    assert_eq!((response.body.len(), &response.body[5..11]), (100_100, &b"beyond"[..]));
    server.stop();
}

/// A client that has asked for this file and reads nothing yet, when the server can send no more.
fn stalled(server: &Running, name: &str, version: &str) -> Client {
    let mut client = server.connect();
    client.shrink_receive_buffer(64 * 1024);
    client.send(format!("GET /static/{name} {version}\r\nHost: t\r\nConnection: close\r\n\r\n"));
    // The head has come, so the server has begun, and when it sleeps the socket is full.
    assert!(client.fill().expect("bytes come") > 0);
    let sleeps = |pid: &i32| procfs::process(*pid).is_some_and(|process| process.state == 'S');
    wait_for("a full socket", SOON, || server.workers().iter().all(sleeps).then_some(()));
    client
}

/// A file that no socket takes whole.
fn vast(server: &Running) -> (PathBuf, Vec<u8>) {
    let content: Vec<u8> = tree::large().into_iter().cycle().take(16 * 1024 * 1024).collect();
    let path = root(server).join("vast.bin");
    fs::write(&path, &content).unwrap();
    (path, content)
}

#[test]
fn a_file_that_shrinks_or_changes_while_it_is_sent_is_cut() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for what in ["shrinks", "is emptied", "is written anew", "gives way to a longer one"] {
            let server = server().start();
            let (path, content) = vast(&server);
            let mut client = stalled(&server, "vast.bin", version);
            match what {
                // Whole pages: the bytes that are on their way stay.
                "shrinks" => File::options().write(true).open(&path).unwrap().set_len(12 * 1024 * 1024).unwrap(),
                "is emptied" => drop(File::create(&path).unwrap()),
                // As cp(1) does it: more bytes than before, and others.
                "gives way to a longer one" => fs::write(&path, vec![b'x'; content.len() + 1000]).unwrap(),
                _ => File::options().write(true).open(&path).unwrap().write_all_at(b"x", 15 * 1024 * 1024).unwrap(),
            }
            let mut bytes = client.rest();
            let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("the head was sent") + 4;
            bytes.drain(..head);
            assert!(bytes.len() < content.len(), "{what}: the answer is cut");
            assert!(bytes == content[..bytes.len()], "{what}: no byte is another one");
            server.log().wait(&["the file that answers GET /static/vast.bin", "the answer is cut"]);
            server.stop();
        }
    }
}

#[test]
fn a_file_that_grows_or_vanishes_while_it_is_sent_is_whole() {
    let server = server().start();
    for what in ["grows", "vanishes", "is replaced"] {
        let (path, content) = vast(&server);
        let mut client = stalled(&server, "vast.bin", "HTTP/1.1");
        match what {
            "grows" => OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap(),
            "vanishes" => fs::remove_file(&path).unwrap(),
            _ => {
                fs::write(path.with_extension("new"), b"another").unwrap();
                fs::rename(path.with_extension("new"), &path).unwrap();
            }
        }
        let response = client.response();
        assert!(response.complete && response.body == content, "{what}: {response:?}");
    }
    assert_eq!(server.get("/static/vast.bin").text(), "another");
    server.stop();
}

#[test]
fn a_slow_reader_keeps_nobody_from_his_files() {
    let server = server().options(["--write-timeout", "1s", "--access-logfile", "-"]).start();
    let (_, content) = vast(&server);
    let stalled: Vec<Client> = (0..10).map(|_| stalled(&server, "vast.bin", "HTTP/1.1")).collect();
    for _ in 0..20 {
        assert_eq!(server.get("/static/a.txt").status, 200);
        assert_eq!(server.get("/x").text(), "/x");
    }
    // Who takes no byte for so long is cut, and the log says how much was sent.
    let lines = || server.stdout().lines().filter(|line| line.contains("vast.bin")).map(str::to_owned).collect::<Vec<_>>();
    let lines = wait_for("ten lines of the log", SOON, || Some(lines()).filter(|lines| lines.len() == 10));
    for line in lines {
        let sent: usize = line.split(' ').nth(9).and_then(|sent| sent.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        assert!(line.contains("\" 200 ") && sent > 0 && sent < content.len(), "{line}");
    }
    for mut client in stalled {
        assert!(client.rest().len() < content.len());
    }
    server.stop();
}

/// Content of the version `n` of a file: its number, over and over.
fn version(n: u64, size: usize) -> Vec<u8> {
    let line = format!("{n:015}\n");
    line.as_bytes().iter().copied().cycle().take(size).collect()
}

#[test]
fn a_tree_that_changes_under_load_gives_no_wrong_byte() {
    const SIZES: [usize; 4] = [48, 4096, 16 * 1024, 1024 * 1024];
    let server = server().workers(2).start();
    let dir = root(&server);
    let name = |size: usize| format!("v{size}.bin");
    for size in SIZES {
        fs::write(dir.join(name(size)), version(0, size)).unwrap();
    }
    let (stop, answers, cut, missing) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let address = server.address().clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            for n in 1.. {
                // On a busy machine until every kind of answer was there.
                let is_seen = missing.load(Relaxed) > 0 && answers.load(Relaxed) > 200;
                if began.elapsed() > if is_seen { Duration::from_secs(4) } else { 2 * SOON } {
                    break;
                }
                for size in SIZES {
                    let path = dir.join(name(size));
                    let fresh = dir.join(format!("fresh-{size}"));
                    match n % 5 {
                        0 => drop(fs::remove_file(&path)),
                        // An emptied file: what was announced is cut, never filled.
                        1 => drop(File::create(&path)),
                        _ => {
                            fs::write(&fresh, version(n, size)).unwrap();
                            fs::rename(&fresh, &path).unwrap();
                        }
                    }
                }
            }
            stop.store(true, Relaxed);
        });
        for seed in 0..4 {
            let (stop, answers, cut, missing, address) = (&stop, &answers, &cut, &missing, &address);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for turn in seed.. {
                    if stop.load(Relaxed) {
                        break;
                    }
                    let size = SIZES[turn % SIZES.len()];
                    client.send(format!("GET /static/v{size}.bin HTTP/1.1\r\nHost: t\r\n\r\n"));
                    let Ok(response) = client.try_response_to("GET") else {
                        cut.fetch_add(1, Relaxed);
                        client = Client::connect(address);
                        continue;
                    };
                    match response.status {
                        200 if response.body.is_empty() => {}
                        200 => {
                            let number = response.text().get(..15).and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
                            let whole = version(number, size);
                            assert!(whole.starts_with(&response.body), "a wrong byte in version {number} of {size}");
                            if response.complete {
                                assert_eq!(response.body.len(), size);
                                let tag = response.field("etag").expect("a file has a tag");
                                assert!(tag.ends_with(&format!("-{size:x}\"")), "{tag} of {size} bytes");
                            }
                        }
                        404 => drop(missing.fetch_add(1, Relaxed)),
                        status => panic!("{status}"),
                    }
                    answers.fetch_add(1, Relaxed);
                    if !response.complete {
                        cut.fetch_add(1, Relaxed);
                        client = Client::connect(address);
                    }
                }
            });
        }
    });
    let (answers, missing) = (answers.load(Relaxed), missing.load(Relaxed));
    assert!(answers > 200 && missing > 0, "{answers} answers, {missing} not found, {} cut", cut.load(Relaxed));
    server.stop();
}

#[test]
fn without_a_descriptor_the_answer_is_503() {
    let server = server().open_files(256).expect_error("no descriptor is left for a static file");
    let server = server.expect_error("cannot accept").start();
    let mut client = server.connect();
    assert_eq!(client.get("/hoard").text(), "/hoard");
    let response = client.get("/static/a.txt");
    assert_eq!((response.status, response.field("retry-after")), (503, Some("5")), "{response:?}");
    assert!(!response.closes());
    // A connection that cannot be accepted waits, and nothing of it is lost.
    let mut waiting = server.connect();
    waiting.send("GET /static/a.txt HTTP/1.1\r\nHost: t\r\n\r\n");
    server.log().wait(&["ERROR", "cannot accept"]);
    assert_eq!(client.get("/free").text(), "/free");
    assert_eq!(client.get("/static/a.txt").text(), "hello, world!");
    assert_eq!(waiting.response().text(), "hello, world!");
    server.stop();
}

#[test]
fn a_file_that_the_workers_may_not_read_is_not_found_and_the_log_says_why() {
    let Some(other) = user::other() else { return };
    let server = server();
    user::open_to_all(server.temp());
    let server = server.options(["--user", user::NAME]);
    let server = match other.python_home() {
        Some(home) => server.env("PYTHONHOME", home.display().to_string()),
        None => server,
    };
    let server = server.start();
    let path = root(&server).join("closed.txt");
    fs::write(&path, "closed").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(server.get("/static/closed.txt").status, 404);
    server.log().wait(&["WARNING", "may not read it: closed.txt"]);
    server.stop();
}

#[test]
fn answers_are_logged_and_counted_as_others() {
    let server = server().options(["--access-logfile", "-", "--access-logformat", "%(r)s %(s)s %(b)s %({etag}o)s %({x}i)s"]);
    let door = server.temp().join("door");
    let server = server.options(["--status-bind", &format!("unix:{}", door.display())]).start();
    let mut client = server.connect();
    let tag = tree::tag(13, "");
    let requests = [
        ("GET /static/a.txt", String::new(), format!("200 13 {tag} -")),
        ("GET /static/a.txt", format!("If-None-Match: {tag}\r\nX: y\r\n"), format!("304 - {tag} y")),
        ("HEAD /static/a.txt", String::new(), format!("200 - {tag} -")),
        ("GET /static/none", String::new(), "404 36 - -".into()),
        ("GET /static/a.txt", "Range: bytes=0-1\r\n".into(), format!("206 2 {tag} -")),
        ("GET /static/large.bin", "X: z\r\n".into(), format!("200 {} {} z", tree::LARGE, tree::tag(tree::LARGE, ""))),
        ("DELETE /static/a.txt", String::new(), "405 47 - -".into()),
    ];
    let mut expected = Vec::new();
    for (request, fields, line) in requests {
        client.send(format!("{request} HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
        client.response_to(request.split(' ').next().unwrap_or_default());
        // Quotes are escaped in the log.
        expected.push(format!("{request} HTTP/1.1 {}", line.replace('"', "\\x22")));
    }
    let lines = wait_for("the lines", SOON, || {
        let lines: Vec<String> = server.stdout().lines().map(str::to_owned).collect();
        (lines.len() >= expected.len()).then_some(lines)
    });
    assert_eq!(lines, expected);
    let mut operator = Client::connect(&Address::Unix(door));
    operator.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let metrics = operator.response().text();
    for (status, count) in [(200, 3), (206, 1), (304, 1), (404, 1), (405, 1)] {
        let found = metrics.lines().any(|line| line.contains(&status.to_string()) && line.ends_with(&format!(" {count}")));
        assert!(found, "{count} answers with {status} in\n{metrics}");
    }
    server.stop();
}

#[test]
fn a_reload_takes_new_maps_and_refuses_missing_directories() {
    let server = Server::source(APP);
    tree::make(server.temp());
    let file = server.temp().join("t.toml");
    fs::write(&file, "static_map = [\"/static=static\"]\n").unwrap();
    let options = ["--config", file.to_str().unwrap()];
    let mut server = server.options(options).start();
    assert_eq!(server.get("/static/a.txt").text(), "hello, world!");
    assert_eq!(server.get("/other/a.txt").text(), "/other/a.txt");
    fs::write(&file, "static_map = [\"/other=static\"]\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["generation 2", "ready"]);
    wait_for("the new maps", SOON, || (server.get("/other/a.txt").text() == "hello, world!").then_some(()));
    wait_for("the end of the old ones", SOON, || (server.get("/static/a.txt").text() == "/static/a.txt").then_some(()));
    server.expect_error("its directory cannot be used");
    fs::write(&file, "static_map = [\"/other=nowhere\"]\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["static_map = /other=nowhere", "line 1", "no such file or directory"]);
    assert_eq!(server.get("/other/a.txt").text(), "hello, world!");
    server.stop();
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_is_bound() {
    let refused = |options: &[&str], parts: &[&str]| {
        let server = Server::source(APP);
        fs::write(server.temp().join("file"), "").unwrap();
        for check in [&[][..], &["--check-config"]] {
            let server = Server::source(APP);
            fs::write(server.temp().join("file"), "").unwrap();
            server.options(options).options(check).run_to_end().failed(2, parts);
        }
    };
    refused(&["--static-map", "/s=nowhere"], &["--static-map /s=nowhere (command line)", "no such file or directory"]);
    refused(&["--static-map", "/s=file"], &["--static-map /s=file", "names a file"]);
    refused(&["--static-map", "s=/"], &["must begin with a slash"]);
    refused(&["--static-map", "/s=/,/s=/tmp"], &["no such file or directory"]);
    refused(&["--static-map", "/s=/", "--static-map", "/s/=/tmp"], &["names /s for the second time"]);
    refused(&["--static-immutable", "("], &["is no regular expression"]);
    refused(&["--static-symlinks", "never"], &["must be follow, beneath or deny"]);
    refused(&["--mime-type", "js"], &["must be an extension, = and a media type"]);
    refused(&["--static-index", "a/b"], &["without a slash"]);
    refused(&["--static-expires", "forever"], &["must be a duration"]);
    let server = Server::source(APP);
    fs::create_dir(server.temp().join("here")).unwrap();
    let ended = server.options(["--static-map", "/s=here", "--check-config"]).run_to_end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_relative_directory_starts_at_chdir_and_another_one_in_its_place_is_seen() {
    let server = Server::source(APP);
    let site = server.temp().join("site");
    fs::create_dir(&site).unwrap();
    tree::make(&site);
    let server = server.options(["--chdir", "site", "--pythonpath", "..", "--static-map", "/static=static"]).start();
    assert_eq!(server.get("/static/a.txt").text(), "hello, world!");
    fs::rename(site.join("static"), site.join("old")).unwrap();
    fs::create_dir(site.join("static")).unwrap();
    fs::write(site.join("static/a.txt"), "another").unwrap();
    wait_for("the new directory", SOON, || (server.get("/static/a.txt").text() == "another").then_some(()));
    // A link in its place is a deployment as well.
    fs::remove_dir_all(site.join("static")).unwrap();
    symlink("old", site.join("static")).unwrap();
    wait_for("the old directory", SOON, || (server.get("/static/a.txt").text() == "hello, world!").then_some(()));
    server.stop();
}

#[test]
fn workers_that_leave_send_what_they_have_begun() {
    let server = server().workers(2).start();
    let (_, content) = vast(&server);
    let mut clients: Vec<Client> = (0..4).map(|_| stalled(&server, "vast.bin", "HTTP/1.1")).collect();
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["generation 2"]);
    for client in &mut clients {
        let response = client.response();
        assert!(response.complete && response.body == content, "{response:?}");
    }
    server.wait_for_end_of(&old);
    assert_eq!(server.get("/static/a.txt").text(), "hello, world!");
    server.stop();
}

#[test]
fn curl_resumes_compares_and_follows() {
    if tools::tool("curl").is_none() {
        return;
    }
    let server = server().options(["--static-index", "index.html"]).start();
    let (dir, large) = (server.temp().to_owned(), tree::large());
    let curl = |options: &[&str], path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]).args(options).arg(server.url(path));
        tools::run(curl.current_dir(&dir), CLIENT_LIMIT).succeeded().stdout
    };
    let code = ["--output", "got", "--write-out", "%{http_code} %{size_download} %{num_redirects}"];
    let with = |more: &[&'static str]| -> Vec<&str> { code.iter().chain(more).copied().collect() };
    let got = || fs::read(dir.join("got")).unwrap();
    assert_eq!(curl(&code, "/static/large.bin"), "200 700000 0");
    assert!(got() == large);
    // A download that was broken off goes on.
    fs::write(dir.join("got"), &large[..123_457]).unwrap();
    assert_eq!(curl(&with(&["--continue-at", "-"]), "/static/large.bin"), format!("206 {} 0", tree::LARGE - 123_457));
    assert!(got() == large);
    assert_eq!(curl(&with(&["--range", "0-0"]), "/static/large.bin"), "206 1 0");
    assert_eq!(curl(&with(&["--range", "0-9,20-29"]), "/static/large.bin"), "200 700000 0");
    assert_eq!(curl(&with(&["--etag-save", "tag"]), "/static/a.txt"), "200 13 0");
    assert_eq!(curl(&with(&["--etag-compare", "tag"]), "/static/a.txt"), "304 0 0");
    assert_eq!(curl(&with(&["--time-cond", tree::DATE]), "/static/a.txt"), "304 0 0");
    assert_eq!(curl(&with(&["--location"]), "/static/docs?a=1"), "200 7 1");
    assert_eq!(curl(&with(&["--head"]), "/static/large.bin"), "200 0 0");
    assert_eq!(curl(&with(&["--path-as-is"]), "/static/../outside.txt"), "404 36 0");
    assert_eq!(curl(&with(&["--upload-file", "tag"]), "/static/a.txt"), "405 47 0");
    server.stop();
}

/// Collects the files of the Django project with hashed names into a directory, as links into the packages if `link`.
fn collect(dir: &Path, link: bool) {
    let code = format!(
        "import django\nfrom django.conf import settings\nimport djangoproj.settings as base\n\
         settings.configure(**{{name: getattr(base, name) for name in dir(base) if name.isupper()}} | dict(\n    \
         STATIC_ROOT={:?}, INSTALLED_APPS=base.INSTALLED_APPS + ['django.contrib.staticfiles'],\n    \
         STORAGES={{'staticfiles': {{'BACKEND': 'django.contrib.staticfiles.storage.{}'}}}}))\n\
         django.setup()\nfrom django.core.management import call_command\n\
         call_command('collectstatic', interactive=False, verbosity=0, link={})\n",
        dir.display().to_string(),
        if link { "StaticFilesStorage" } else { "ManifestStaticFilesStorage" },
        if link { "True" } else { "False" },
    );
    let mut command = Command::new(venv::python());
    command.args(["-c", &code]).current_dir(apps()).env("DJANGO_DIR", dir).env("PYTHONDONTWRITEBYTECODE", "1");
    tools::run(&mut command, CLIENT_LIMIT).succeeded();
}

/// The files below a directory by their names in it, links among them.
fn files_below(dir: &Path, within: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir.join(within)).unwrap() {
        let name = format!("{within}{}", entry.unwrap().file_name().to_str().unwrap());
        if dir.join(&name).is_dir() {
            files_below(dir, &format!("{name}/"), found);
        } else {
            found.push(name);
        }
    }
}

#[test]
fn the_collected_files_of_django_are_all_there() {
    for link in [false, true] {
        let server = Server::source(APP);
        let root = server.temp().join("collected");
        fs::create_dir(&root).unwrap();
        collect(&root, link);
        let map = format!("/static={}", root.display());
        let server = server.options(["--static-map", &map]).start();
        let (mut names, mut immutable, mut links) = (Vec::new(), 0, 0);
        files_below(&root, "", &mut names);
        let mut client = server.connect();
        for name in &names {
            let response = client.get(&format!("/static/{name}"));
            assert!(response.status == 200 && response.body == fs::read(root.join(name)).unwrap(), "{name}: {response:?}");
            immutable += usize::from(response.field("cache-control").is_some_and(|cache| cache.contains("immutable")));
            links += usize::from(fs::symlink_metadata(root.join(name)).unwrap().is_symlink());
        }
        let kinds: HashSet<_> = names.iter().filter_map(|name| name.rsplit_once('.')).map(|(_, kind)| kind).collect();
        assert!(names.len() > 100 && kinds.contains("css") && kinds.contains("svg"), "{} files, {kinds:?}", names.len());
        if link {
            assert!(links > 100 && immutable == 0, "{links} links, {immutable} immutable");
        } else {
            assert!(immutable > 100, "{immutable} of {} are hashed", names.len());
        }
        server.stop();
    }
}

#[test]
fn a_server_of_another_file_for_each_thread_serves_all_of_them_at_once() {
    let server = server().options(["--threads", "4"]).workers(2).start();
    let large = Arc::new(tree::large());
    let address = server.address().clone();
    let handles: Vec<_> = (0..8)
        .map(|seed| {
            let (address, large) = (address.clone(), large.clone());
            thread::spawn(move || {
                let mut client = Client::connect(&address);
                for turn in 0..30 {
                    match (seed + turn) % 4 {
                        0 => assert!(client.get("/static/large.bin").body == *large),
                        1 => assert_eq!(client.get("/static/a.txt").text(), "hello, world!"),
                        2 => assert_eq!(client.get("/app").text(), "/app"),
                        _ => assert_eq!(client.get("/static/none").status, 404),
                    }
                }
            })
        })
        .collect();
    for handle in handles {
        handle.join().expect("no assertion fails");
    }
    server.stop();
}
