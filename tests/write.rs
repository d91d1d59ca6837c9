//! `write()` called by the iterable that the application returned, over real sockets: order, time, memory, the log's figures.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::client::find;
use common::server::{Running, Server};
use common::{SOON, procfs, tools, wait_for};

/// `--threads`: one, where the main thread alone calls, and several.
const THREADS: [&str; 2] = ["1", "8"];

/// A body whose every byte is known by its place: parts of these sizes are written or yielded alternately, with pauses that cost
/// the loop. WRITE_DIR holds the gates.
const APP: &str = "
import os, time
DIR = os.environ['WRITE_DIR']
UNIT = b''.join(b'%08d' % n for n in range(400_000))
SIZES = [1, 0, 7, 1_000, 16_384, 16_385, 3, 65_536, 0, 90_000, 262_144, 5, 262_145, 2, 0, 300_000, 11]
def app(environ, s):
    query = environ['QUERY_STRING']
    return {'/mix': mix, '/gates': gates, '/flood': flood}[environ['PATH_INFO']](s, query)
def wait(name):
    limit = time.monotonic() + 60
    while not os.path.exists(os.path.join(DIR, name)) and time.monotonic() < limit:
        time.sleep(.01)
def mix(s, query):
    turn, at, w = int(query), 0, s('200 OK', [])
    for size in SIZES * 3:
        part = UNIT[at:at + size]
        at += size
        turn += 1
        if turn % 5 == 0:
            time.sleep(.004)
        if turn % 3:
            w(part)
        else:
            yield part
    if turn % 2:
        w(b'end')
    else:
        yield b'end'
def gates(s, query):
    w = s('200 OK', [])
    w(b'first ')
    w(b'second ')
    wait('one')
    w(b'third ')
    w(b'fourth ')
    wait('two')
    yield b'fifth'
def flood(s, query):
    w = s('200 OK', [])
    for n in range(int(query)):
        w(b'%08d' % n * 8_192)
    open(os.path.join(DIR, 'flooded'), 'w').close()
    yield b'end'
";

fn server(threads: &str) -> Server {
    // A unix socket has little room, so that a client that reads late makes the server keep what it writes.
    let server = Server::source(APP).options(["--threads", threads]).binds(["unix:{temp}/socket"]);
    let dir = server.temp().display().to_string();
    server.env("WRITE_DIR", dir)
}

/// Bytes of `/mix` before its end: three times the sum of `SIZES`.
const MIXED: usize = 3 * 1_013_623;

/// The body of `/mix`.
fn mixed() -> Vec<u8> {
    let mut body: Vec<u8> = (0..400_000).flat_map(|n| format!("{n:08}").into_bytes()).collect();
    body.truncate(MIXED);
    body.extend_from_slice(b"end");
    body
}

#[test]
fn every_byte_is_at_its_place_for_quick_and_slow_clients() {
    let body = mixed();
    for threads in THREADS {
        let server = server(threads).options(["--access-logfile", "-", "--access-logformat", "%(U)s?%(q)s %(s)s %(B)s"]).start();
        let mut lines = Vec::new();
        for turn in 0..2 {
            for version in ["1.1", "1.0"] {
                // Two at a time, of which one reads late.
                let mut clients = [server.connect(), server.connect()];
                for client in &mut clients {
                    client.send(format!("GET /mix?{turn} HTTP/{version}\r\nHost: test\r\n\r\n"));
                    lines.push(format!("/mix?{turn} 200 {}", body.len()));
                }
                for client in &mut clients {
                    let response = client.response();
                    assert!(response.complete && response.status == 200, "{response:?}");
                    let differs = response.body.iter().zip(&body).position(|(got, want)| got != want);
                    assert_eq!((differs, response.body.len()), (None, body.len()), "--threads {threads}, turn {turn}");
                }
            }
        }
        let stdout = wait_for("all lines of the access log", SOON, || {
            let stdout = server.stdout();
            (stdout.lines().count() == lines.len()).then_some(stdout)
        });
        assert!(stdout.lines().all(|line| lines.iter().any(|wanted| wanted == line)), "{stdout}");
        server.stop();
    }
}

/// `write()` and blocks in several orders; no body begins with anything but what could pass for a head.
const HEADS: &str = "
def app(environ, s):
    path, fields = environ['PATH_INFO'], [('X-Mark', 'right')]
    false = b'HTTP/1.1 200 OK\\r\\nX-Mark: wrong\\r\\n\\r\\nbody'
    if path == '/hints':
        environ['wsgi.early_hints']([('X-Mark', 'hint')])
    if path == '/excess':
        s('200 OK', fields + [('Content-Length', '5')])(b'7 bytes')
        return [b'3 more']
    write = s('200 OK', fields)
    def generator():
        write(false)
        yield false
    if path == '/generator':
        return generator()
    write(false)
    return iter([false, false]) if path == '/stream' else [false]
";

#[test]
fn the_log_has_fields_of_the_head_that_write_has_sent() {
    let paths = ["/list", "/stream", "/generator", "/hints"];
    for threads in THREADS {
        let format = "%(U)s %({x-mark}o)s %({content-type}o)s";
        let server = Server::source(HEADS);
        let server = server.options(["--threads", threads, "--access-logfile", "-", "--access-logformat", format]).start();
        let mut client = server.connect();
        // Those that come together are rendered one after the other.
        client.send(paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).concat());
        let wanted = paths.map(|path| format!("{path} right -\n")).concat();
        for _ in paths {
            assert!(client.response().complete);
        }
        wait_for("the lines of the access log", SOON, || (server.stdout().lines().count() == paths.len()).then_some(()));
        assert_eq!(server.stdout(), wanted, "--threads {threads}");
        server.stop();
    }
}

#[test]
fn an_excess_of_write_and_a_block_is_logged_once() {
    let server = Server::source(HEADS).expect_error("more than its Content-Length").start();
    let response = server.get("/excess");
    assert_eq!(response.text(), "7 byt");
    let log = server.stop();
    let text = log.text();
    let records: Vec<_> = text.lines().filter(|line| line.contains("more than its Content-Length")).collect();
    assert!(records.len() == 1 && records[0].contains("at least 8 bytes more"), "{records:#?}");
}

#[test]
fn what_is_written_arrives_while_the_iterable_works_on() {
    for threads in THREADS {
        let server = server(threads).start();
        let mut client = server.connect();
        client.send("GET /gates HTTP/1.1\r\nHost: test\r\n\r\n");
        for (seen, unseen, gate) in [("second ", "third", "one"), ("fourth ", "fifth", "two")] {
            while find(client.leftover(), seen.as_bytes()).is_none() {
                assert!(matches!(client.fill(), Ok(1..)), "{seen:?} is held back with --threads {threads}");
            }
            assert!(find(client.leftover(), unseen.as_bytes()).is_none());
            server.open_gate(gate);
        }
        let response = client.response();
        assert!(response.complete, "{response:?}");
        assert_eq!(response.text(), "first second third fourth fifth");
        server.stop();
    }
}

/// Size of one part of `/flood`, in bytes.
const PART: usize = 8 * 8_192;

#[test]
fn a_client_that_reads_late_costs_no_memory_and_no_time() {
    let parts = 600;
    for threads in THREADS {
        let server = server(threads).start();
        let worker = server.workers()[0];
        let before = procfs::peak_memory(worker);
        let mut client = server.connect();
        client.send(format!("GET /flood?{parts} HTTP/1.1\r\nHost: test\r\n\r\n"));
        wait_for("the application to write all without its client", SOON, || {
            server.temp().join("flooded").exists().then_some(())
        });
        let more = procfs::peak_memory(worker) - before;
        assert!(more < 24 * 1024 * 1024, "{more} bytes for an answer of {} that waits in a file", parts * PART);
        let response = client.response();
        assert!(response.complete && response.body.len() == parts * PART + 3, "{response:?}");
        for (number, part) in response.body[..parts * PART].chunks(PART).enumerate() {
            assert!(part.chunks(8).all(|unit| unit == format!("{number:08}").as_bytes()), "part {number}");
        }
        server.stop();
    }
}

/// Files of the repository that is cloned.
const FILES: usize = 20;

/// A repository with a commit of several files.
fn repository(git: &std::path::Path, server: &Server) -> std::path::PathBuf {
    let dir = server.temp().join("repository");
    fs::create_dir(&dir).expect("the temp directory is writable");
    for number in 0..FILES {
        let text: String = (0..1_000).map(|line| format!("{} {}\n", line * 7_919 % (number + 11), line * number)).collect();
        fs::write(dir.join(format!("file{number}")), text).expect("the temp directory is writable");
    }
    let identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    for words in [&["init", "-q"][..], &["add", "."], &["commit", "-q", "-m", "first"]] {
        let mut command = Command::new(git);
        tools::run(command.args(identity).args(words).current_dir(&dir).env("HOME", &dir), Duration::from_secs(60)).succeeded();
    }
    dir
}

#[track_caller]
fn clone(git: &std::path::Path, server: &Running, options: &[&str], name: &str) -> std::path::PathBuf {
    let copy = server.temp().join(name);
    let mut command = Command::new(git);
    command.args(options).args(["clone", "-q"]).arg(server.url("/")).arg(&copy);
    command.env("HOME", server.temp()).env("GIT_TERMINAL_PROMPT", "0").env("NO_PROXY", "*").env("no_proxy", "*");
    tools::run(&mut command, Duration::from_secs(120)).succeeded();
    copy
}

#[test]
fn dulwich_serves_a_clone() {
    let Some(git) = tools::tool("git") else { return };
    for threads in THREADS {
        let app = "
import os
from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain
app = make_wsgi_chain(DictBackend({'/': Repo(os.environ['REPOSITORY'])}))
";
        let server = Server::source(app).frameworks().options(["--threads", threads]);
        let original = repository(&git, &server);
        let server = server.env("REPOSITORY", original.display().to_string()).start();
        for (name, options) in [("new", &[][..]), ("old", &["-c", "protocol.version=0"])] {
            let copy = clone(&git, &server, options, name);
            for number in 0..FILES {
                let file = format!("file{number}");
                assert!(fs::read(copy.join(&file)).ok() == fs::read(original.join(&file)).ok(), "{file}");
            }
        }
        server.stop();
    }
}
