//! Connections that the application takes over: WebSockets of flask-sock and Flask-SocketIO with real clients, other protocols by
//! hand, and what has to stay an ordinary answer.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::client::{Address, Client};
use common::load::WORKER_FIELD;
use common::server::{Running, STOP_LIMIT, Server};
use common::{SOON, apps, procfs, tls, tools, venv, wait_for};
use nix::sys::signal::Signal;

/// Time for one run of a client script.
const CLIENT_LIMIT: Duration = Duration::from_secs(60);

/// The head of a request for a protocol that the test application speaks without a library.
const UPGRADE: &str = "HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n";

/// A WebSocket handshake; RFC 6455 section 1.3 has the key and its answer.
const HANDSHAKE: &str = "HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A masked text frame with `hi`, the mask being zeros, and the server's answer to it.
const HI: &[u8] = b"\x81\x82\0\0\0\0hi";
const HI_BACK: &[u8] = b"\x81\x02hi";

fn sockets(threads: usize) -> Server {
    let server = Server::new("sockets").frameworks().options(["--threads", &threads.to_string(), "--access-logfile", "-"]);
    let temp = server.temp().display().to_string();
    server.env("SOCKETS_DIR", temp)
}

fn client(address: &Address, scenario: &str) -> Command {
    let mut client = Command::new(venv::python());
    client.arg(apps().join("clients/websocket_client.py")).arg(address.to_string()).arg(scenario);
    tls::trust(&mut client, address);
    client
}

#[track_caller]
fn run_client(address: &Address, scenario: &str) {
    tools::run(&mut client(address, scenario), CLIENT_LIMIT).succeeded();
}

/// A client that holds its WebSocket until the server ends it, or it is killed.
struct Holder(Child);

impl Holder {
    fn start(server: &Running) -> Self {
        let mut child = client(server.address(), "hold").stdout(Stdio::piped()).spawn().expect("a client can be started");
        let mut line = String::new();
        let out = child.stdout.take().expect("stdout is piped");
        BufReader::new(out).read_line(&mut line).expect("a pipe can be read");
        assert_eq!(line, "standing\n");
        Self(child)
    }

    fn ends(&mut self) {
        let status = wait_for("the client's end", SOON, || self.0.try_wait().expect("the child is ours"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the application has noted so many of these.
#[track_caller]
fn wait_for_notes(server: &Running, name: &str, wanted: &str, count: usize) {
    let path = server.temp().join(name);
    wait_for(&format!("{count} x {wanted} in {name}"), SOON, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        (text.lines().filter(|line| *line == wanted).count() >= count).then_some(())
    });
}

/// Waits for an access-log line with all of these parts.
#[track_caller]
fn wait_for_line(server: &Running, parts: &[&str]) -> String {
    wait_for(&format!("{parts:?} in the access log"), SOON, || {
        server.stdout().lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    })
}

/// Sends a handshake, and these bytes together with it.
fn shake_hands(server: &Running, path: &str, early: &[u8]) -> Client {
    shake_hands_on(server.connect(), path, early)
}

/// As [`shake_hands`], on a connection that is there.
fn shake_hands_on(mut client: Client, path: &str, early: &[u8]) -> Client {
    client.send([format!("GET {path} {HANDSHAKE}").as_bytes(), early].concat());
    assert_eq!(client.response().status, 101);
    client
}

/// The server has got the order to stop: it ends well.
#[track_caller]
fn stopped(mut server: Running) {
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
}

#[test]
fn a_websocket_echoes_messages_of_all_kinds() {
    for threads in [2, 8] {
        let server = sockets(threads).start();
        for _ in 0..3 {
            run_client(server.address(), "echo");
        }
        wait_for_notes(&server, "ended", "echo", 3);
        assert!(wait_for_line(&server, &["GET /echo"]).contains(" 101 "));
        assert_eq!(server.get("/").status, 200);
        server.stop();
    }
}

#[test]
fn a_websocket_over_a_unix_socket_is_no_other() {
    let server = sockets(4).binds(["unix:{temp}/app.sock"]).start();
    run_client(server.address(), "echo");
    run_client(server.address(), "bye");
    server.stop();
}

#[test]
fn a_websocket_that_the_application_ends_ends_in_order() {
    let server = sockets(2).start();
    run_client(server.address(), "bye");
    wait_for_notes(&server, "ended", "bye", 4);
    // A client that says nothing more is not waited for; its thread is free long before.
    let mut silent = shake_hands(&server, "/bye", b"");
    silent.take(b"\x81\x03bye".len());
    for _ in 0..4 {
        assert_eq!(server.get("/").status, 200);
    }
    let began = Instant::now();
    silent.rest();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    server.stop();
}

#[test]
fn flask_socketio_upgrades_and_speaks() {
    let server = Server::new("socketio_app").frameworks().options(["--threads", "8"]).start();
    run_client(server.address(), "socketio");
    server.stop();
}

#[test]
fn the_thread_of_a_client_that_is_killed_is_free() {
    let server = sockets(2).start();
    for round in 1..=4 {
        let mut holders = [Holder::start(&server), Holder::start(&server)];
        for holder in &mut holders {
            holder.0.kill().expect("the child is ours");
        }
        wait_for_notes(&server, "ended", "echo", 2 * round);
        assert_eq!(server.get("/").status, 200);
    }
    let worker = server.workers()[0];
    let files = procfs::open_files(worker);
    for _ in 0..20 {
        drop(shake_hands(&server, "/echo", HI));
    }
    wait_for_notes(&server, "ended", "echo", 28);
    wait_for("descriptors to be closed", SOON, || (procfs::open_files(worker) <= files).then_some(()));
    server.stop();
}

#[test]
fn standing_websockets_take_a_thread_each_and_it_is_said_once() {
    let server = sockets(2).start();
    let mut first = shake_hands(&server, "/echo", b"");
    assert!(server.get("/").text().starts_with("hello "));
    let second = shake_hands(&server, "/echo", b"");
    let mut waiting = [server.connect(), server.connect()];
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    server.log().wait(&["all 2 threads of this worker are held by upgraded connections", "raise --threads"]);
    drop(second);
    for client in &mut waiting {
        assert_eq!(client.response().status, 200);
    }
    first.send(HI);
    assert_eq!(first.take(HI_BACK.len()), HI_BACK);
    drop(first);
    wait_for_notes(&server, "ended", "echo", 2);
    let log = server.stop();
    let told = log.records().iter().filter(|record| format!("{record:?}").contains("are held by upgraded")).count();
    assert_eq!(told, 1);
}

#[test]
fn a_websocket_has_no_deadline() {
    let server = sockets(2).options(["--timeout", "3"]).start();
    let worker = server.workers()[0];
    let mut client = shake_hands(&server, "/echo", b"");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        client.send(HI);
        let frame = client.take(HI_BACK.len());
        assert_eq!(frame, HI_BACK);
        assert_eq!(server.get("/").status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.workers(), [worker]);
    drop(client);
    server.stop();
}

#[test]
fn a_standing_websocket_costs_no_processor_time() {
    let server = sockets(4).start();
    let worker = server.workers()[0];
    let mut clients: Vec<Client> = (0..3).map(|_| shake_hands(&server, "/echo", HI)).collect();
    for client in &mut clients {
        assert_eq!(client.take(HI_BACK.len()), HI_BACK);
    }
    let before = procfs::cpu_millis(worker);
    std::thread::sleep(Duration::from_secs(2));
    let used = procfs::cpu_millis(worker) - before;
    assert!(used < 200, "{used} ms of 2 s");
    drop(clients);
    server.stop();
}

#[test]
fn bytes_after_the_head_are_not_lost() {
    let server = sockets(4).start();
    let mut early = shake_hands(&server, "/echo", HI);
    assert_eq!(early.take(HI_BACK.len()), HI_BACK);
    for _ in 0..3 {
        early.send(HI);
        assert_eq!(early.take(HI_BACK.len()), HI_BACK);
    }
    drop(early);
    wait_for_notes(&server, "ended", "echo", 1);

    // More than what was early, in both directions, and the application's last words before its end.
    let mut lines = server.connect();
    lines.send(format!("GET /raw/lines {UPGRADE}abc\nde"));
    assert_eq!(lines.response().status, 101);
    assert_eq!(lines.line().as_deref(), Some("cba"));
    lines.send("f\n\n");
    assert_eq!(lines.line().as_deref(), Some("fed"));
    assert!(lines.rest().is_empty());

    let mut select = server.connect();
    select.send(format!("GET /raw/select {UPGRADE}early"));
    assert_eq!(select.response().status, 101);
    assert_eq!(String::from_utf8_lossy(&select.rest()), "Trueearly", "and no answer behind it");

    for early in ["", "early"] {
        let mut twice = server.connect();
        twice.send(format!("GET /raw/dup {UPGRADE}{early}"));
        assert_eq!(twice.response().status, 101);
        twice.send(&"early"[early.len()..]);
        assert_eq!(String::from_utf8_lossy(&twice.rest()), "early, and that is all");
    }
    server.stop();
}

#[test]
fn another_protocol_needs_no_library() {
    let server = sockets(2).start();
    // On a connection that has served requests before, and whose head comes in pieces: the loop knows it.
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    let (one, other) = UPGRADE.split_at(20);
    client.send(format!("GET /raw/lines {one}"));
    assert_eq!(server.get("/").status, 200);
    client.send(other);
    assert_eq!(client.response().status, 101);
    for word in ["hello", "world"] {
        client.send(format!("{word}\n"));
        assert_eq!(client.line().unwrap(), word.chars().rev().collect::<String>());
    }
    client.send("\n");
    assert!(client.rest().is_empty());
    wait_for_notes(&server, "ended", "lines", 1);
    assert!(wait_for_line(&server, &["GET /raw/lines"]).contains(" 101 "));
    server.stop();
}

#[test]
fn an_application_that_does_not_use_the_socket_answers_as_always() {
    let mut server = sockets(4).start();
    server.expect_error("a fault before the handshake");
    let mut client = server.connect();
    let mut ask = |target: &str, more: &str| {
        client.send(format!("GET {target} {UPGRADE}{more}"));
        client.response()
    };
    assert_eq!(ask("/raw/offered", "").text(), "True");
    assert_eq!(ask("/raw/ask", "").text(), "True");
    let refusal = ask("/raw/refuse", "");
    assert_eq!((refusal.status, refusal.closes()), (426, false));
    assert_eq!((refusal.field("upgrade"), refusal.field("connection")), (Some("lines"), Some("upgrade")));
    assert_eq!(ask("/", "").status, 200);
    assert_eq!(ask("/raw/keep", "").text(), "kept");
    assert_eq!(ask("/raw/kept", "").text(), "OSError", "an object that was kept is no way to later connections");
    assert_eq!(ask("/raw/offered", "GET /raw/offered HTTP/1.1\r\nHost: test\r\n\r\n").text(), "True");
    assert_eq!(client.response().text(), "False", "pipelined behind it, and an ordinary request");
    client.send(format!("GET /raw/ask {UPGRADE}GET /raw/offered HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert_eq!(client.response().text(), "True", "one end of a pair knows the client too");
    assert_eq!(client.response().text(), "False");
    client.send(format!("GET /raw/fail {UPGRADE}"));
    assert_eq!(client.response().status, 500);
    // flask-sock has routes for WebSockets only.
    let mut plain = server.connect();
    plain.send("GET /echo HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(plain.response().status, 400);
    assert_eq!(plain.get("/raw/offered").text(), "False");
    // Requests that cannot be taken over.
    for request in [
        format!("POST /raw/offered {}", UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nab")),
        format!("GET /raw/offered {}", UPGRADE.replace("HTTP/1.1", "HTTP/1.0")),
        "GET /raw/offered HTTP/1.1\r\nHost: test\r\nUpgrade: lines\r\n\r\n".to_owned(),
    ] {
        assert_eq!(server.exchange(request).text(), "False");
    }
    server.stop();
}

#[test]
fn a_fault_after_the_handshake_ends_the_connection_and_is_logged() {
    let mut server = sockets(2).start();
    server.expect_error("a fault behind the handshake");
    server.expect_error("Exception on /fault");
    let mut client = shake_hands(&server, "/fault", b"");
    assert_eq!(client.rest(), b"\x81\x03now", "no answer of HTTP goes into the new protocol");
    server.log().wait(&["LookupError: a fault behind the handshake"]);
    server.stop();
}

#[test]
fn with_one_thread_there_is_a_clean_answer() {
    let mut server = sockets(1).start();
    server.expect_error("Cannot obtain socket from WSGI environment");
    let mut client = server.connect();
    client.send(format!("GET /raw/offered {UPGRADE}"));
    assert_eq!(client.response().text(), "False");
    client.send(format!("GET /echo {HANDSHAKE}"));
    assert_eq!(client.response().status, 500);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn at_a_graceful_stop_a_websocket_has_the_graceful_timeout() {
    let server = sockets(4).options(["--graceful-timeout", "5"]).start();
    let mut holder = Holder::start(&server);
    let mut client = shake_hands(&server, "/echo", b"");
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    // It still serves.
    while began.elapsed() < Duration::from_secs(1) {
        client.send(HI);
        assert_eq!(client.take(HI_BACK.len()), HI_BACK);
        std::thread::sleep(Duration::from_millis(50));
    }
    client.rest();
    holder.ends();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(4900), "{took:?}");
    wait_for_notes(&server, "ended", "echo", 2);
    stopped(server);
}

#[test]
fn a_stop_with_a_websocket_that_ends_in_time_is_clean() {
    let server = sockets(4).start();
    let client = shake_hands(&server, "/echo", b"");
    server.signal(Signal::SIGTERM);
    server.log().wait(&["stopping"]);
    drop(client);
    wait_for_notes(&server, "ended", "echo", 1);
    stopped(server);
}

#[test]
fn a_quick_stop_ends_websockets_at_once() {
    let server = sockets(4).start();
    let mut holder = Holder::start(&server);
    let began = Instant::now();
    server.signal(Signal::SIGQUIT);
    holder.ends();
    wait_for_notes(&server, "ended", "echo", 1);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    stopped(server);
}

#[test]
fn a_reload_lets_websockets_end_by_themselves_for_the_graceful_timeout() {
    let server = sockets(4).options(["--graceful-timeout", "5"]).start();
    let old = server.workers()[0];
    let mut client = shake_hands(&server, "/echo", b"");
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload done"]);
    client.send(HI);
    assert_eq!(client.take(HI_BACK.len()), HI_BACK);
    // The old worker may have it still to read that it leaves.
    let connection = wait_for("a connection to the new worker", SOON, || {
        let mut client = server.connect();
        (client.get("/").field(WORKER_FIELD) != Some(&old.to_string())).then_some(client)
    });
    let mut other = shake_hands_on(connection, "/echo", HI);
    assert_eq!(other.take(HI_BACK.len()), HI_BACK);
    client.rest();
    wait_for_notes(&server, "ended", "echo", 1);
    wait_for("the old worker's end", SOON, || (!procfs::alive(old)).then_some(()));
    other.send(HI);
    assert_eq!(other.take(HI_BACK.len()), HI_BACK);
    drop(other);
    server.stop();
}
