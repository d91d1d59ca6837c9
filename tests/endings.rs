//! The end of a connection after its last answer: it leaves together with the answer, but never keeps one back or loses one.

mod common;
#[path = "gateways/wire.rs"]
mod wire;

use std::process::Command;
use std::time::{Duration, Instant};

use common::client::Client;
use common::server::{Running, Server, at_once};
use common::{SOON, procfs, tools, venv, wait_for};
use nix::sys::signal::Signal;

/// Time for the script that counts segments.
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);

/// How long TCP keeps back at least the bytes that are to fill a segment, in milliseconds (tcp(7), TCP_CORK).
const CORKED_MS: u128 = 200;

/// Time for what must happen while a call waits for its gate: less than it does wait.
const MEANWHILE: Duration = Duration::from_secs(10);

/// Sends each of the other arguments, in hexadecimal, to ADDRESS PORT once, one after the other, and prints how many TCP segments
/// came until the end.
const COUNT_SEGMENTS: &str = "
import socket, struct, sys
# Offset of tcpi_segs_in in struct tcp_info.
SEGMENTS_IN = 140
for request in sys.argv[3:]:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as client:
        client.sendall(bytes.fromhex(request))
        while client.recv(65536):
            pass
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        print(struct.unpack_from('I', info, SEGMENTS_IN)[0])
";

fn server() -> Server {
    let server = Server::new("endings:application");
    let temp = server.temp().display().to_string();
    server.env("ENDINGS_DIR", temp)
}

fn wait_for_note(server: &Running, note: &str) {
    wait_for("the call", SOON, || server.temp().join(note).exists().then_some(()));
}

/// A client that has sent this request and nothing after it.
fn last_request(server: &Running, path: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
    client
}

/// Numbers of segments of 20 connections with this request, from the lowest: a machine that stands still may divide some.
fn segments(server: &Running, request: &[u8]) -> Vec<u32> {
    let request: String = request.iter().map(|byte| format!("{byte:02x}")).collect();
    let address = server.address().tcp();
    let mut script = Command::new(venv::base_python());
    script
        .args(["-c", COUNT_SEGMENTS])
        .arg(address.ip().to_string())
        .arg(address.port().to_string())
        .args([request.as_str(); 20]);
    let counts = tools::run(&mut script, SCRIPT_LIMIT).succeeded().stdout.clone();
    let mut counts: Vec<u32> = counts.lines().map(|line| line.parse().expect("the script prints numbers")).collect();
    assert_eq!(counts.len(), 20);
    counts.sort_unstable();
    counts
}

#[test]
fn the_last_answer_and_the_end_are_one_segment() {
    // The name of a request is kept with a copy of its head.
    for options in [&[][..], &["--request-id"]] {
        let server = server().options(options).start();
        // SYN and ACK, at most one more ACK, the answer with FIN.
        for head in ["GET / HTTP/1.0", "GET / HTTP/1.1\r\nHost: test\r\nConnection: close"] {
            // Only what a call answers within a millisecond leaves with the end.
            let counts = segments(&server, format!("{head}\r\n\r\n").as_bytes());
            assert!(counts[2] <= 3, "segments with {options:?}: {counts:?}");
        }
        // With a body before it the answer leaves first.
        let counts = segments(&server, b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(counts[10], 4, "segments with {options:?}: {counts:?}");
        server.stop();
    }
}

#[test]
fn the_answer_to_a_gateway_leaves_with_the_end_also_behind_a_body() {
    let post = wire::with(&[("CONTENT_LENGTH", "4"), ("REQUEST_METHOD", "POST")]);
    for (protocol, encode) in [("scgi", wire::scgi as fn(&[(&str, &str)]) -> Vec<u8>), ("uwsgi", wire::uwsgi)] {
        let server = server().binds([format!("{protocol}:127.0.0.1:0")]).start();
        for request in [encode(&wire::PLAIN), [encode(&post), b"body".to_vec()].concat()] {
            let counts = segments(&server, &request);
            assert!(counts[2] <= 3, "segments: {protocol} {counts:?}");
        }
        server.stop();
    }
}

#[test]
fn a_child_of_the_application_does_not_delay_answers() {
    let server = server().start();
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "hello\n");
    }
    // The child has the descriptors of all of them, so their close does not end them.
    server.get("/fork");
    let took = |client: &mut Client| {
        let began = Instant::now();
        client.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(client.response().text(), "hello\n");
        began.elapsed().as_millis()
    };
    let least = clients.iter_mut().map(took).min().expect("there are some");
    server.open_gate("gate");
    server.get("/reap");
    assert!(least < CORKED_MS, "{least} ms");
    server.stop();
}

#[test]
fn a_client_that_sends_on_against_its_word_has_its_answer() {
    let server = server().start();
    let mut client = last_request(&server, "/gated");
    wait_for_note(&server, "entered");
    client.send("\r\n");
    server.open_gate("gate");
    assert_eq!(client.response().text(), "hello\n");
    server.stop();
}

#[test]
fn the_descriptors_of_ended_connections_are_closed_also_before_a_slow_call() {
    let server = server().workers(1).start();
    let worker = server.workers()[0];
    let ask = |path: &str, client: &mut Client| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
    };
    let mut slow = server.connect();
    slow.get("/");
    let with_slow = procfs::open_files(worker);
    let closed = |less: usize| (procfs::open_files(worker) <= with_slow - less).then_some(());
    for is_behind in [false, true] {
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        for client in &mut clients {
            // The poll knows of it when it is asked again, and brings what comes then in this order.
            client.get("/");
            client.get("/");
        }
        // All of them wait, so that they are served and ended in one iteration.
        at_once(worker, || {
            clients.iter_mut().for_each(|client| ask("/", client));
            if is_behind {
                ask("/behind", &mut slow);
            }
        });
        for client in &mut clients {
            assert_eq!(client.response().text(), "hello\n");
        }
        if is_behind {
            wait_for_note(&server, "behind");
        }
        wait_for("the end of all but one", MEANWHILE, || closed(0));
    }
    server.open_gate("end");
    assert_eq!(slow.response().text(), "hello\n");
    wait_for("the end of all", SOON, || closed(1));
    server.stop();
}

#[test]
fn ended_connections_take_no_descriptor_from_the_application() {
    // A few more than an idle worker has, and fewer than it may accept at a wake.
    const FILES: usize = 36;
    const TRIES: usize = 5;
    // Where a call is interrupted for longer than a tick, connections that wait for it take the descriptors; that shows nothing.
    let logged = ["--access-logfile", "-", "--access-logformat", "%(Q)s"];
    let is_served = |_| {
        let mut server = server().workers(1).options(logged).open_files(FILES).start();
        let worker = server.workers()[0];
        let mut clients = Vec::new();
        at_once(worker, || clients.extend((0..40).map(|_| last_request(&server, "/look"))));
        let served = clients.iter_mut().map(Client::response).filter(|response| response.text() == "hello\n").count();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(SOON).code(), Some(0));
        let waits = server.stdout();
        let waited = waits.lines().filter(|line| *line != "0").count();
        eprintln!("{served} of {} served, {waited} after a wait; log: {}", clients.len(), server.log().text());
        assert!(served == clients.len() || waited > 0, "the application had no descriptor");
        served == clients.len()
    };
    if !(0..TRIES).any(is_served) {
        eprintln!("this machine is too slow to tell");
    }
}

#[test]
fn a_cut_answer_takes_none_with_it_that_is_on_its_way() {
    // More than a read takes: some of it is unread at the end.
    const UNREAD: usize = 300_000;
    let server = server().options(["--access-logfile", "-"]).expect_error("on purpose").start();
    let mut client = server.connect();
    client.shrink_receive_buffer(16 * 1024);
    let behind = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {UNREAD}\r\n\r\n{}", "u".repeat(UNREAD));
    client.send_while_taken(
        format!("GET /large HTTP/1.1\r\nHost: test\r\n\r\nGET /broken HTTP/1.1\r\nHost: test\r\n\r\n{behind}").as_bytes(),
        MEANWHILE / 10,
    );
    wait_for("the end of both", SOON, || server.stdout().contains("GET /broken").then_some(()));
    let large = client.response();
    assert_eq!((large.body.len(), large.complete), (65_536, true));
    let broken = client.response();
    assert_eq!((broken.text().as_str(), broken.complete), ("begun", false));
    drop(client);
    server.stop();
}

#[test]
fn an_answer_arrives_whose_client_sends_on_because_nothing_told_it_not_to() {
    let server = server().options(["--access-logfile", "-"]).start();
    let mut client = server.connect();
    client.shrink_receive_buffer(16 * 1024);
    client.send("GET /closing HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_for("the end", SOON, || server.stdout().contains("GET /closing").then_some(()));
    // The worker has nothing else to do, so it has ended the connection.
    server.get("/look");
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let closing = client.response();
    assert_eq!((closing.body.len(), closing.complete), (65_536, true));
    assert!(client.is_closed());
    server.stop();
}
