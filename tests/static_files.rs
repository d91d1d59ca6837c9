//! Static files over the real server: the table of cases with their sections, links, bodies of all sizes. In modules: files that change
//! while they are sent, busy workers, what operators do, and the programs of others.

#[path = "static_files/beside.rs"]
mod beside;
#[path = "static_files/cases.rs"]
mod cases;
#[path = "static_files/changes.rs"]
mod changes;
mod common;
#[path = "static_files/operation.rs"]
mod operation;
#[path = "static_files/programs.rs"]
mod programs;
#[path = "static_files/tree.rs"]
mod tree;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use cases::{CASES, CODED, Case};
use common::client::{Client, Response};
use common::server::{Running, Server};
use common::{SOON, venv};

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
