//! Tornado applications by `tapster.tornado.WSGIAdapter`: the same answers as by Tornado's own server, blocks as they are flushed,
//! ends that are told.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::client::{Client, find};
use common::server::{Running, Server};
use common::{SOON, apps, tools, venv, wait_for};
use nix::fcntl::{Flock, FlockArg};

/// Time for one run of the client, which asks two servers.
const CLIENT_LIMIT: Duration = Duration::from_secs(120);

fn tornado(threads: usize) -> (Running, PathBuf) {
    let server = Server::new("tornadoapp:application").frameworks().options(["--threads", &threads.to_string()]);
    let notes = server.temp().join("notes");
    let server = server.env("TORNADO_NOTES", notes.display().to_string());
    (server.start(), notes)
}

#[track_caller]
fn wait_for_note(notes: &Path, text: &str) {
    wait_for(text, SOON, || fs::read_to_string(notes).ok().filter(|found| found.lines().any(|line| line == text)));
}

#[test]
fn answers_are_those_of_tornados_own_server() {
    for threads in [1, 4] {
        let (server, notes) = tornado(threads);
        let mut client = Command::new(venv::python());
        client.arg(apps().join("clients/tornado_client.py")).arg(server.address().to_string());
        client.env("PYTHONPATH", apps()).env("PYTHONDONTWRITEBYTECODE", "1");
        tools::run(&mut client, CLIENT_LIMIT).succeeded();
        for note in ["finished GET 200", "finished DELETE 405", "done behind the answer"] {
            wait_for_note(&notes, note);
        }
        server.log().wait(&["GET /behind", "still ran", "nothing runs between requests"]);
        assert!(!fs::read_to_string(&notes).expect("the notes are there").contains("never"));
        server.stop();
    }
}

#[test]
fn flushed_blocks_arrive_before_the_next_is_made_and_a_client_that_leaves_is_told_of() {
    let (server, notes) = tornado(2);
    let mut client = server.connect();
    client.send("GET /stream?count=100000&pause=0.01 HTTP/1.1\r\nHost: test\r\n\r\n");
    let began = Instant::now();
    while find(client.leftover(), b"2\n").is_none() {
        assert!(client.fill().is_ok_and(|count| count > 0), "the stream goes on");
    }
    assert!(began.elapsed() < SOON, "before its end, which is 1,000 s later");
    // The other thread is free meanwhile.
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    drop(client);
    wait_for_note(&notes, "the client has left");
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    server.stop();
}

#[test]
fn nothing_of_a_call_is_left_on_the_loop_of_its_thread() {
    let (mut server, notes) = tornado(1);
    server.expect_error("is not a token");
    let own = server.get("/tasks").text();
    assert_eq!(server.get("/no-head").status, 500);
    wait_for_note(&notes, "the flush has ended");
    assert_eq!(server.get("/tasks").text(), own);
    let body = vec![b'x'; 300_000];
    let early = server.exchange([b"PUT /enough HTTP/1.1\r\nHost: test\r\nContent-Length: 300000\r\n\r\n", &body[..]].concat());
    assert_eq!((early.status, early.text().as_str()), (200, "enough"));
    assert_eq!(server.get("/chain").text(), "answered");
    wait_for_note(&notes, "the chain goes on");
    server.log().wait(&["GET /chain", "link still ran"]);
    assert!(!server.log().text().contains("PUT /enough"), "{}", server.log().text());
    assert_eq!(server.get("/tasks").text(), own);
    server.stop();
}

#[test]
fn a_handler_that_ends_without_an_answer_is_an_error_and_one_that_stops_the_loop_goes_on() {
    let (mut server, _) = tornado(1);
    server.expect_error("no ordinary exception");
    server.expect_error("no ordinary exception");
    assert_eq!(server.get("/stopping").text(), "one two three");
    assert_eq!((server.get("/gone/at-once").status, server.get("/gone/detached").status), (500, 501));
    let mut client = server.connect();
    client.send("GET /gone/late HTTP/1.1\r\nHost: test\r\n\r\n");
    let cut = client.rest();
    assert!(find(&cut, b"begun").is_some() && !cut.ends_with(b"0\r\n\r\n"), "{:?}", cut.escape_ascii().to_string());
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    server.stop();
}

#[test]
fn an_answer_whose_handler_fails_after_a_flush_is_cut() {
    let (mut server, _) = tornado(2);
    let rest = |target: &str| {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.try_response_to("GET").expect("it has a head")
    };
    let failing = ["/fail/late", "/fail/late-more", "/fail/late-http", "/fail/late-length"];
    for target in failing {
        let cut = rest(target);
        assert_eq!((cut.status, cut.complete), (200, false), "{target}: {cut:?}");
        assert!(cut.text().starts_with("begun"), "{target}: {cut:?}");
    }
    for target in ["/fail/late-caught", "/fail/late-finish"] {
        let whole = server.get(target);
        assert_eq!((whole.status, whole.complete), (200, true), "{target}: {whole:?}");
    }
    server.log().wait(&["RuntimeError: failed: late-more"]);
    for _ in failing {
        server.expect_error("a handler has failed behind its first flush");
    }
    server.stop();
}

#[test]
fn what_wsgi_cannot_carry_is_said() {
    let (server, _) = tornado(1);
    let asked = "GET /socket HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = server.exchange(asked);
    assert_eq!(answer.status, 501);
    assert!(answer.text().contains("need Tornado's own HTTP server"), "{}", answer.text());
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    server.stop();
}

#[test]
fn a_request_that_takes_too_long_is_answered_and_the_thread_serves_on() {
    let options = ["--timeout", "1", "--timeout-grace", "5"];
    let server = Server::new("tornadoapp:application").frameworks().options(options).expect_error("GET /sleep").start();
    assert_eq!(server.get("/sleep").status, 504);
    assert_eq!(server.get("/hello/you").text(), "hello you /hello/you []");
    server.stop();
}

#[test]
fn the_example_of_the_manual_serves() {
    let source = common::manual::example("# story.py, by: tapster \\-\\-threads 4 story");
    let server = Server::source(&source).frameworks().start();
    assert_eq!(server.get("/story/7").text(), "this is story 7");
    assert_eq!(server.get("/other").text(), "Hello world!\n");
    server.stop();
    let server = Server::source(&source).frameworks().command_line(["app:simple_app", "--bind", "127.0.0.1:0", "--threads", "4"]);
    let server = server.start();
    assert_eq!(server.get("/other").text(), "Hello world!\n");
    server.stop();
}

/// Releases of Tornado that make WSGI applications themselves.
const OLD: [&str; 2] = ["4.5.3", "5.1.1"];

/// Time for building and installing one of them.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

/// A directory of modules with this release.
fn old_tornado(release: &str) -> PathBuf {
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let dir = base.join(format!("tornado-{release}-{}", venv::version()));
    fs::create_dir_all(&base).expect("the target directory is writable");
    let lock = fs::File::create(dir.with_extension("lock")).expect("the target directory is writable");
    let _held = Flock::lock(lock, FlockArg::LockExclusive).expect("the lock file can be locked");
    // Written last, so that an interrupted installation is repeated.
    let installed = dir.join("installed");
    if !installed.exists() {
        let _ = fs::remove_dir_all(&dir);
        let mut pip = Command::new(venv::python());
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]).arg(&dir);
        tools::run(pip.arg(format!("tornado=={release}")), INSTALL_LIMIT).succeeded();
        fs::write(&installed, "").expect("the directory is writable");
    }
    dir
}

#[test]
fn wsgi_applications_of_tornado_4_and_5_run_as_they_are() {
    for (release, name) in OLD.into_iter().flat_map(|release| [(release, "adapted"), (release, "application")]) {
        let modules = old_tornado(release).display().to_string();
        let server = Server::new(&format!("tornado_old:{name}")).options(["--threads", "4", "--pythonpath", &modules]);
        let mut server = server.env("ANY_THREAD", if release.starts_with('5') { "1" } else { "" }).start();
        for _ in 0..2 {
            server.expect_error("this was to happen");
            server.expect_error("request did not finish synchronously");
        }
        let says = |target: &str, text: &str| assert_eq!(server.get(target).text(), text, "{release} {name}: {target}");
        says("/hello/b%C3%A4r?x=1&x=%20", "hello b\u{e4}r /hello/b%C3%A4r?x=1&x=%20 ['1', '']");
        says("/pieces", "0\n1\n2\n");
        let body = "--cut\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nvalue\r\n--cut\r\n\
                    Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n12345\r\n--cut--\r\n";
        let posted = server.exchange(format!(
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=cut\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let wanted = serde_json::json!({"arguments": ["text"], "files": {"file": [["a", 5]]}, "version": release});
        assert_eq!(posted.json(), wanted, "{release} {name}");
        let cookies = server.get("/cookies");
        assert_eq!((cookies.status, cookies.field("location")), (302, Some("/?x=1")));
        assert_eq!(cookies.field("set-cookie"), Some("one=1; Path=/"), "{release} {name}");
        let file = server.get("/files/hello.py");
        assert_eq!((file.status, file.body), (200, fs::read(apps().join("hello.py")).expect("it is there")));
        let etag = server.get("/").field("etag").map(str::to_owned).expect("Tornado makes one");
        let again = server.exchange(format!("GET / HTTP/1.1\r\nHost: test\r\nIf-None-Match: {etag}\r\n\r\n"));
        assert_eq!((again.status, again.body.len()), (304, 0), "{release} {name}");
        let statuses = ["/fail/http", "/fail/once", "/later", "/nowhere"].map(|target| server.get(target).status);
        assert_eq!(statuses, [418, 500, 500, 404], "{release} {name}");
        // On each of the threads.
        let ask = |_| {
            let mut client = server.connect();
            client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
            client
        };
        let clients: Vec<Client> = (0..4).map(ask).collect();
        let mut threads: Vec<String> = clients
            .into_iter()
            .map(|mut client| {
                let answer = client.response();
                assert_eq!(answer.status, 200, "{release} {name}: {answer:?}");
                answer.text()
            })
            .collect();
        threads.sort();
        threads.dedup();
        assert_eq!(threads.len(), 4, "{release} {name}: {threads:?}");
        server.stop();
    }
}
