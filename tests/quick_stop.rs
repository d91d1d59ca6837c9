//! A quick stop (INT, QUIT): what runs is finished, nothing else is begun, and what has come is answered 503 and logged.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::client::Client;
use common::server::{Running, Server};
use common::{SOON, wait_for};

/// A server whose access log has status and path.
fn server(app: &str, variable: &str, options: &[&str]) -> Server {
    let server = Server::new(app).options(["--log-level", "debug", "--access-logformat", "%(s)s %(U)s"]).options(options);
    let temp = server.temp().display().to_string();
    let log = server.temp().join("access.log").display().to_string();
    server.options(["--access-logfile", &log]).env(variable, temp).env("TAPSTER_KEEP_ALIVE", "60")
}

/// The lines of the access log of a server that has ended, sorted.
fn access(server: &Running) -> Vec<String> {
    let text = fs::read_to_string(server.temp().join("access.log")).expect("there is an access log");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn calls(server: &Running, name: &str) -> usize {
    fs::read_to_string(server.temp().join(name)).map_or(0, |text| text.lines().count())
}

/// Orders the stop and waits until every worker knows of it: then nobody listens any more.
#[track_caller]
fn stop(server: &Running, signal: Signal) {
    server.signal(signal);
    wait_for("closed listeners", SOON, || Client::try_connect(server.address()).is_err().then_some(()));
}

#[track_caller]
fn assert_refused(client: &mut Client, what: &str) {
    let response = client.response();
    assert!(response.status == 503 && response.closes() && response.complete, "{what}: {response:?}");
    assert_eq!(response.field("retry-after"), Some("5"), "{what}");
    assert!(client.is_closed(), "{what}");
}

#[test]
fn nothing_is_begun_after_it_and_what_has_come_is_answered_503() {
    for threads in ["1", "2", "4"] {
        let mut server = server("threaded:application", "THREADS_DIR", &["--threads", threads]).start();
        let mut kept = server.connect();
        assert_eq!(kept.get("/name").status, 200);
        let mut idle = server.connect();
        assert_eq!(idle.get("/name").status, 200);
        let (mut half, mut body, mut more) = (server.connect(), server.connect(), server.connect());
        half.send("GET /half HTT");
        body.send("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe");
        assert_eq!(kept.get("/name").status, 200, "the others were read before");
        more.send("GET /gated?id=1 HTTP/1.1\r\nHost: x\r\n\r\nGET /gated?id=2 HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for("a call", SOON, || (calls(&server, "inside") == 1).then_some(()));
        stop(&server, Signal::SIGQUIT);
        kept.send("GET /gated?id=3 HTTP/1.1\r\nHost: x\r\n\r\n");
        for (client, what) in [(&mut kept, "kept"), (&mut half, "half a head"), (&mut body, "half a body")] {
            assert_refused(client, what);
        }
        server.open_gate("gate");
        assert_eq!(more.response().status, 200, "it ran");
        assert_refused(&mut more, "pipelined");
        assert!(idle.is_closed());
        assert_eq!(server.wait(SOON).code(), Some(0));
        assert_eq!(calls(&server, "inside"), 1, "nothing else is begun");
        let expected = ["200 /gated", "200 /name", "200 /name", "200 /name", "503 -", "503 /body", "503 /gated", "503 /gated"];
        assert_eq!(access(&server), expected, "{threads} threads");
        server.log().wait(&["WARNING", "a quick stop", "4 requests that had not begun got 503"]);
        server.finish();
    }
}

#[test]
fn what_waits_between_the_workers_is_answered_503() {
    for threads in [1, 2] {
        let mut server = server("handoff", "HANDOFF_DIR", &["--threads", &threads.to_string()]).workers(2).start();
        let workers = server.workers();
        let mut clients: Vec<(Client, String)> = Vec::new();
        let count =
            |clients: &[(Client, String)], pid: i32| clients.iter().filter(|(_, worker)| *worker == pid.to_string()).count();
        wait_for("connections to every worker", SOON, || {
            let mut client = server.connect();
            let worker = client.get("/").field("x-worker").expect("the application names its worker").to_owned();
            clients.push((client, worker));
            workers.iter().all(|pid| count(&clients, *pid) >= threads + 5).then_some(())
        });
        let served = clients.len();
        let mut slow = Vec::new();
        for pid in &workers {
            for _ in 0..threads {
                let index = clients.iter().position(|(_, worker)| *worker == pid.to_string()).expect("there are enough");
                let (mut client, _) = clients.remove(index);
                client.send("GET /slow?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
                slow.push(client);
            }
            wait_for("calls", SOON, || (calls(&server, &format!("inside-{pid}")) == threads).then_some(()));
        }
        clients.truncate(10);
        for (client, _) in &mut clients {
            client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        wait_for("some in the queue", SOON, || (server.log().text().matches("handed a request").count() >= 4).then_some(()));
        stop(&server, Signal::SIGINT);
        server.open_gate("gate");
        for client in &mut slow {
            assert_eq!(client.response().status, 200, "it ran");
        }
        for (client, _) in &mut clients {
            assert_refused(client, "waiting");
        }
        assert_eq!(server.wait(SOON).code(), Some(0));
        let lines = access(&server);
        let of = |line: &str| lines.iter().filter(|found| *found == line).count();
        assert_eq!((of("200 /"), of("200 /slow"), of("503 /waits")), (served, 2 * threads, 10), "{lines:?}");
        assert_eq!(lines.len(), served + 2 * threads + 10);
        server.finish();
    }
}

#[test]
fn an_answer_that_has_begun_is_finished() {
    const SIZE: usize = 16 * 1024 * 1024;
    for threads in ["1", "2"] {
        let mut server = server("streams", "STREAMS_DIR", &["--threads", threads]).start();
        let mut client = server.connect();
        client.shrink_receive_buffer(16 * 1024);
        client.send(format!("GET /blocks?size={SIZE} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let _head = client.line().expect("the answer begins");
        stop(&server, Signal::SIGINT);
        let rest = client.rest();
        let body = rest.len() - common::client::find(&rest, b"\r\n\r\n").expect("a head") - 4;
        assert_eq!(body, SIZE, "{threads} threads");
        assert_eq!(server.wait(SOON).code(), Some(0));
        assert_eq!(access(&server), ["200 /blocks"]);
        server.finish();
    }
}

/// A server with a stream that lasts, and the client that has its first bytes.
fn streaming(options: &[&str], request: &str) -> (Running, Client) {
    let server = server("streams", "STREAMS_DIR", options).start();
    server.open_gate("gate");
    let mut client = server.connect();
    client.shrink_receive_buffer(16 * 1024);
    client.send(format!("GET {request}\r\nHost: x\r\n\r\n"));
    assert!(client.line().expect("the answer begins").contains("200"));
    (server, client)
}

/// The server ends without killing a worker, whose access log has the stream.
#[track_caller]
fn assert_leaves(mut server: Running, signal: Signal, line: &str) {
    let began = Instant::now();
    server.signal(signal);
    assert_eq!(server.wait(SOON).code(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(!server.log().text().contains("SIGKILL"), "{}", server.log().text());
    assert_eq!(access(&server), [line], "{signal}");
    server.finish();
}

const LASTING: &str = "/events?count=100000&interval=0.001";

#[test]
fn a_stream_that_does_not_end_is_closed_and_logged_before_the_workers_are_killed() {
    for (threads, signal) in [("1", Signal::SIGQUIT), ("2", Signal::SIGQUIT), ("2", Signal::SIGTERM)] {
        let options = ["--threads", threads, "--graceful-timeout", "500ms"];
        let (server, client) = streaming(&options, &format!("{LASTING} HTTP/1.1"));
        let reader = std::thread::spawn(move || {
            let mut client = client;
            client.rest()
        });
        assert_leaves(server, signal, "200 /events");
        let rest = reader.join().expect("the client does not panic");
        assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "the client sees that it is cut");
    }
}

#[test]
fn a_client_that_does_not_read_is_not_waited_for() {
    let (server, client) = streaming(&[], "/blocks?size=100000000 HTTP/1.1");
    assert_leaves(server, Signal::SIGQUIT, "200 /blocks");
    drop(client);
}

#[test]
fn an_answer_whose_end_is_that_of_its_connection_is_cut_by_a_reset() {
    let (server, mut client) = streaming(&[], &format!("{LASTING} HTTP/1.0"));
    let reader = std::thread::spawn(move || {
        loop {
            match client.fill() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(error.kind()),
            }
        }
    });
    assert_leaves(server, Signal::SIGQUIT, "200 /events");
    let end = reader.join().expect("the client does not panic");
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
}
