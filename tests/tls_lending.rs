//! TLS connections that change their worker: keys, facts and unread bytes go along, and no client notices.

mod common;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use rustls::SupportedProtocolVersion;

use common::client::Client;
use common::handoff::{ONE_THREAD, server, spread_by, wait_for_calls, worker_of};
use common::server::{Running, Server, at_once};
use common::tls::{self, Authority, Manner, TLS12, TLS13, client_wish};
use common::{SOON, wait_for};

fn connect(server: &Running, manner: Manner<'_>) -> Client {
    Client::try_connect_tls(server.address(), tls::localhost(), manner.config()).expect("a handshake")
}

/// A connection whose worker is in a call that ends when the gate opens, and another one of that worker.
fn busy_and_waiting(server: &Running, manner: Manner<'_>, gate: &str) -> ((Client, i32), Client) {
    let clients = spread_by(server, 2, || connect(server, manner));
    let busy = clients[0].1;
    let mut clients = clients.into_iter().filter(|(_, worker)| *worker == busy).map(|(client, _)| client);
    let (mut slow, waiting) = (clients.next().expect("one"), clients.next().expect("another one"));
    let idle = server.workers().into_iter().find(|worker| *worker != busy).expect("there are two");
    at_once(idle, || {
        slow.send(format!("GET /slow?gate={gate} HTTP/1.1\r\nHost: x\r\n\r\n"));
        wait_for_calls(server, busy, 1);
    });
    ((slow, busy), waiting)
}

fn of_version(version: &'static SupportedProtocolVersion) -> Manner<'static> {
    Manner { version: Some(version), ..Manner::default() }
}

#[test]
fn a_waiting_request_goes_to_an_idle_worker_with_what_is_known_of_its_client() {
    let authority = Authority::new("Clients");
    let certificate = authority.issue("client", client_wish("/O=Example/CN=alice"));
    let roots = authority.root().display().to_string();
    for version in [&TLS12, &TLS13] {
        let server = server(2, ONE_THREAD).tls().options(["--ca-certs", &roots, "--cert-reqs", "required"]).start();
        let manner = Manner { certificate: Some(&certificate), ..of_version(version) };
        let ((mut slow, busy), mut waiting) = busy_and_waiting(&server, manner, "gate");
        let facts = facts_of(&server, manner);
        assert!(facts.contains("SUCCESS") && facts.contains("alice"), "{facts}");
        waiting.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloPOST /b HTTP/1.1\r\nHost: x\r\n");
        waiting.send("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        for expected in ["hello|/a", "abcde|/b"] {
            let response = waiting.response();
            assert_eq!(response.text(), expected);
            assert_ne!(worker_of(&response), busy);
            assert_eq!(response.field("x-tls"), Some(facts.as_str()));
        }
        server.open_gate("gate");
        assert_eq!(worker_of(&slow.response()), busy);
        for mut client in [slow, waiting] {
            client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert_eq!(client.response().status, 200);
            assert!(client.ends_in_order(), "the end is announced");
        }
        server.stop();
    }
}

/// What the application is told of a connection.
fn facts_of(server: &Running, manner: Manner<'_>) -> String {
    connect(server, manner).get("/").field("x-tls").expect("the application names it").to_owned()
}

#[test]
fn halves_of_records_and_of_heads_are_put_together_elsewhere() {
    for version in [&TLS12, &TLS13] {
        let server = server(2, &[]).tls().start();
        let mut clients: Vec<(Client, Vec<u8>)> = (0..24)
            .map(|index| {
                let mut client = connect(&server, of_version(version));
                assert_eq!(client.get("/").status, 200);
                let stream = client.tls();
                let mut records = Vec::new();
                stream.conn.writer().write_all(b"GET /first HTTP/1.1\r\nHo").expect("room");
                stream.conn.write_tls(&mut records).expect("memory");
                stream.conn.writer().write_all(b"st: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n").expect("room");
                stream.conn.write_tls(&mut records).expect("memory");
                // At each place of both records.
                let rest = records.split_off(records.len() * index / 24);
                stream.sock.write_all(&records).expect("room");
                (client, rest)
            })
            .collect();
        let before = server.workers();
        server.signal(Signal::SIGHUP);
        server.wait_for_end_of(&before);
        for (index, (client, rest)) in clients.iter_mut().enumerate() {
            client.tls().sock.write_all(rest).expect("the connection is there");
            for expected in ["|/first", "|/second"] {
                let response = client.response();
                assert_eq!(response.text(), expected, "client {index}");
                assert!(!before.contains(&worker_of(&response)));
            }
        }
        server.stop();
    }
}

#[test]
fn new_keys_of_a_client_end_a_connection_that_has_moved_after_what_came_before_them() {
    let server = server(2, &[]).tls().start();
    let mut moved = connect(&server, of_version(&TLS13));
    assert_eq!(moved.get("/").status, 200);
    let before = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for_end_of(&before);
    moved.send("GET /before HTTP/1.1\r\nHost: x\r\n\r\n");
    moved.tls().conn.refresh_traffic_keys().expect("TLS 1.3");
    moved.send("GET /after HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(moved.response().text(), "|/before");
    assert!(moved.ends_in_order(), "nothing of the second request is known here");
    let mut stays = connect(&server, of_version(&TLS13));
    stays.tls().conn.refresh_traffic_keys().expect("TLS 1.3");
    assert_eq!(stays.get("/after").text(), "|/after");
    server.stop();
}

/// A server whose rules for clients are in a file, and that file.
fn with_rules_in_file(options: &[&str]) -> (Running, PathBuf) {
    let configured = server(2, options).tls();
    let log = configured.temp().join("access.log").display().to_string();
    let configured = configured.options(["--access-logfile", &log, "--access-logformat", "%(s)s %(U)s"]);
    let file = configured.temp().join("t.toml");
    fs::write(&file, "").expect("the temp directory is writable");
    (configured.options(["--config", &file.display().to_string()]).start(), file)
}

/// Rules by which clients have to show a certificate of this authority.
fn demanding(authority: &Authority) -> String {
    format!("ca_certs = {:?}\ncert_reqs = \"required\"\n", authority.root().display().to_string())
}

#[test]
fn a_whole_request_of_a_client_that_was_let_in_by_other_rules_is_answered_503() {
    let authority = Authority::new("Clients");
    let (server, file) = with_rules_in_file(ONE_THREAD);
    let clients = spread_by(&server, 3, || connect(&server, of_version(&TLS13)));
    let workers = server.workers();
    let (mut busy, mut waiting) = (Vec::new(), Vec::new());
    for (client, worker) in clients {
        match busy.iter().filter(|(_, other)| *other == worker).count() {
            0 => busy.push((client, worker)),
            _ => waiting.push(client),
        }
    }
    for (client, worker) in &mut busy {
        client.send("GET /slow?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for_calls(&server, *worker, 1);
    }
    for client in &mut waiting {
        client.send("POST /waits HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    }
    fs::write(&file, demanding(&authority)).expect("the temp directory is writable");
    server.signal(Signal::SIGHUP);
    for client in &mut waiting {
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (503, Some("close")), "{response:?}");
        assert!(response.field("retry-after").is_some(), "{response:?}");
        assert!(client.ends_in_order(), "the end is announced");
    }
    server.open_gate("gate");
    for (client, worker) in &mut busy {
        assert_eq!(worker_of(&client.response()), *worker, "it had begun by the rules that held then");
    }
    server.wait_for_end_of(&workers);
    wait_for("a line of each", SOON, || {
        let log = fs::read_to_string(server.temp().join("access.log")).expect("there is an access log");
        (log.lines().filter(|line| *line == "503 /waits").count() == waiting.len()).then_some(())
    });
    let log = server.stop().text();
    let lines = log.lines().filter(|line| line.contains("from before the rules for TLS have changed")).count();
    assert!((1..=4).contains(&lines), "one or two of each new worker for {} connections: {lines}", waiting.len() + busy.len());
}

#[test]
fn a_client_that_was_let_in_by_other_rules_does_not_stay() {
    let authority = Authority::new("Clients");
    let certificate = authority.issue("client", client_wish("/CN=alice"));
    let rules = demanding(&authority);
    let (server, file) = with_rules_in_file(&[]);
    let mut unknown = connect(&server, of_version(&TLS13));
    assert_eq!(unknown.get("/").status, 200);
    let reload = |text: &str| {
        fs::write(&file, text).expect("the temp directory is writable");
        let before = server.workers();
        server.signal(Signal::SIGHUP);
        server.wait_for_end_of(&before);
    };
    reload(&rules);
    assert!(unknown.ends_in_order(), "it has shown no certificate");
    server.log().wait(&["from before the rules for TLS have changed"]);
    let manner = Manner { certificate: Some(&certificate), ..of_version(&TLS13) };
    let mut known = connect(&server, manner);
    assert_eq!(known.get("/").status, 200);
    reload(&rules);
    assert_eq!(known.get("/").status, 200, "nothing has changed for it");
    server.stop();
}

#[test]
fn a_handshake_that_a_reload_meets_leaves_the_time_of_a_request() {
    let server = Server::new("probe").tls().workers(1).options(["--keep-alive", "60", "--log-level", "debug"]).start();
    let before = server.workers();
    let mut socket = std::net::TcpStream::connect(server.address().tcp()).expect("it listens");
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    let mut connection = rustls::ClientConnection::new(tls::anyone(), tls::localhost()).expect("it can begin");
    connection.write_tls(&mut socket).expect("it listens");
    // The server's part has come, and the worker is told to leave before the client's.
    assert!(connection.read_tls(&mut socket).is_ok_and(|count| count > 0));
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.log().wait(&["is told to leave (Retire)"]);
    wait_for("the new worker", SOON, || server.workers().iter().any(|pid| !before.contains(pid)).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(200));
    connection.process_new_packets().expect("it is a handshake");
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.flush().expect("it listens");
    std::thread::sleep(std::time::Duration::from_millis(600));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("it listens");
    let mut head = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    server.stop();
}
