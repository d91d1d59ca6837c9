//! The PROXY protocol at the start of connections: by hand, and from a real haproxy and nginx.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use common::client::{Address, Client, Response};
use common::relay::{HAPROXY, NGINX, Relay, TIMES};
use common::server::{Running, Server};
use common::{SOON, tls, tools, wait_for};

/// A client of nobody here.
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 40123 80\r\n";

/// The same client as version 2 names it.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\xbb\0\x50";

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: front\r\n\r\n";

/// The server of the tests; its application says whom it sees.
fn server(options: &[&str]) -> Server {
    let server = Server::new("handoff").workers(2).options(["--keep-alive", "60"]).options(options);
    let temp = server.temp().display().to_string();
    server.env("HANDOFF_DIR", temp)
}

/// With an access log; its file.
fn logging(server: Server) -> (Server, PathBuf) {
    let path = server.temp().join("access");
    (server.options(["--access-logfile", &path.display().to_string()]), path)
}

/// Address and port of the client as the application sees them.
#[track_caller]
fn seen(response: &Response) -> (String, String) {
    assert_eq!(response.status, 200, "{response:?}");
    let names = response.field("x-names").expect("the application names both ends");
    // Those of a unix socket are empty, and so gone with the blanks at the end of a field.
    let mut names = names.split(' ').skip(2).map(str::to_owned);
    (names.next().unwrap_or_default(), names.next().unwrap_or_default())
}

fn named() -> (String, String) {
    ("192.0.2.7".to_owned(), "40123".to_owned())
}

/// A connection that begins with these bytes.
fn begun(server: &Running, bytes: impl AsRef<[u8]>) -> Client {
    let mut client = server.connect();
    client.send(bytes);
    client
}

#[track_caller]
fn assert_named(mut client: Client) {
    for _ in 0..3 {
        assert_eq!(seen(&client.get("/")), named(), "one preface holds for all requests");
    }
}

/// The server closes without a word.
#[track_caller]
fn assert_closed(mut client: Client, what: &str) {
    assert!(client.is_closed(), "{what}: {:?}", client.leftover().escape_ascii().to_string());
}

#[test]
fn a_preface_names_the_client_for_the_application_and_both_logs() {
    // Without a value, before another option.
    let (server, path) = logging(server(&["--proxy-protocol", "--access-logformat", "%(h)s %(r)s"]));
    let server = server.start();
    assert_named(begun(&server, LINE));
    assert_named(begun(&server, BINARY));
    // In pieces, and together with what follows it.
    let mut slow = server.connect();
    for byte in BINARY.iter().chain(REQUEST.as_bytes()) {
        slow.send([*byte]);
    }
    assert_eq!(seen(&slow.response()), named());
    let mut pipelined = begun(&server, [LINE, REQUEST, REQUEST].concat());
    assert_eq!((seen(&pipelined.response()), seen(&pipelined.response())), (named(), named()));
    let mut six = begun(&server, "PROXY TCP6 2001:db8::9 ::1 1 2\r\n");
    assert_eq!(seen(&six.get("/")), ("2001:db8::9".to_owned(), "1".to_owned()));
    let lines = wait_for("ten lines of the access log", SOON, || {
        let log = fs::read_to_string(&path).unwrap_or_default();
        (log.lines().count() == 10).then_some(log)
    });
    let of = |client: &str| lines.lines().filter(|line| *line == format!("{client} GET / HTTP/1.1")).count();
    assert_eq!((of("192.0.2.7"), of("2001:db8::9")), (9, 1), "{lines}");
    server.stop();
}

#[test]
fn a_preface_that_names_nobody_leaves_the_peer() {
    let server = server(&["--proxy-protocol", "auto"]).start();
    for preface in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN 1.2.3.4 5.6.7.8 9 10\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = begun(&server, preface);
        assert_eq!(seen(&client.get("/")), ("127.0.0.1".to_owned(), client.port().to_string()));
    }
    server.stop();
}

#[test]
fn without_the_option_a_preface_is_a_bad_request() {
    let server = server(&[]).start();
    for preface in [LINE.as_bytes(), BINARY] {
        assert_eq!(begun(&server, preface).response().status, 400);
    }
    server.stop();
}

#[test]
fn what_does_not_begin_with_a_preface_is_closed_without_an_answer_and_the_log_is_not_flooded() {
    let (server, path) = logging(server(&["--proxy-protocol", "v1"]).workers(1));
    let server = server.start();
    let broken = ["PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", "PROXY nonsense\r\n", "\n", REQUEST];
    for first in broken.iter().map(|text| text.as_bytes()).chain([BINARY]) {
        for _ in 0..10 {
            assert_closed(begun(&server, first), &first.escape_ascii().to_string());
        }
    }
    // A client that leaves within the preface.
    let mut client = begun(&server, &LINE[..20]);
    client.finish_sending();
    assert_closed(client, "half of one");
    assert_named(begun(&server, LINE));
    let access = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(access.lines().filter(|line| !line.contains("192.0.2.7")).count(), 0, "{access}");
    let log = server.stop();
    let lines: Vec<_> =
        log.records().into_iter().filter(|record| record.text.contains("closed a connection of 127.0.0.1")).collect();
    assert!(!lines.is_empty() && lines.len() <= 3, "{lines:?}");
    assert!(
        lines[0].level == "WARNING" && lines[0].text.ends_with("the PROXY protocol preface has a malformed address"),
        "{lines:?}"
    );
}

#[test]
fn a_second_preface_is_a_bad_request() {
    let server = server(&["--proxy-protocol", "auto"]).start();
    let mut client = begun(&server, LINE);
    assert_eq!(seen(&client.get("/")), named());
    client.send(LINE);
    assert_eq!(client.response().status, 400);
    server.stop();
}

#[test]
fn only_peers_that_are_allowed_may_connect() {
    let socket = "unix:{temp}/app.sock";
    let server = server(&["--proxy-protocol", "--proxy-allow-from", "10.0.0.0/8"]).binds(["127.0.0.1:0", socket]).start();
    assert_closed(begun(&server, LINE), "not allowed");
    let record = server.log().wait(&["closed a connection of 127.0.0.1", "not in --proxy-allow-from"]);
    assert_eq!(record.level, "WARNING");
    let mut local = Client::connect(&server.addresses()[1]);
    local.send(LINE);
    assert_named(local);
    let mut local = Client::connect(&server.addresses()[1]);
    local.send("PROXY UNKNOWN\r\n");
    assert_eq!(seen(&local.get("/")), (String::new(), String::new()));
    server.stop();
    let server = self::server(&["--proxy-protocol", "--proxy-allow-from", "*"]).start();
    assert_named(begun(&server, LINE));
    server.stop();
}

#[test]
fn forwarding_headers_are_believed_of_the_proxy_and_not_of_its_client() {
    let scheme = |options: &[&str]| {
        let server = Server::new("probe").options(["--proxy-protocol", "auto"]).options(options).start();
        let mut client = begun(&server, LINE);
        client.send("GET /environ HTTP/1.1\r\nHost: front\r\nX-Forwarded-Proto: https\r\n\r\n");
        let seen = client.response().json();
        assert_eq!(seen["REMOTE_ADDR"], "192.0.2.7");
        let scheme = seen["wsgi.url_scheme"].as_str().expect("a text").to_owned();
        server.stop();
        scheme
    };
    assert_eq!(scheme(&[]), "https", "the proxy is on this host");
    assert_eq!(scheme(&["--forwarded-allow-ips", "192.0.2.7"]), "http", "what a preface names proves nothing");
}

#[test]
fn a_preface_has_the_time_of_a_head() {
    let server = server(&["--proxy-protocol", "--header-timeout", "1"]).start();
    assert_closed(begun(&server, &LINE[..20]), "half of one");
    server.log().wait(&["closed a connection of 127.0.0.1", "the PROXY protocol preface did not come in time"]);
    // Nothing at all is no word in the log.
    assert_closed(server.connect(), "nothing");
    let log = server.stop();
    assert_eq!(log.text().matches("closed a connection").count(), 1, "{}", log.text());
}

#[test]
fn every_connection_that_is_closed_is_counted_in_the_log() {
    let server = server(&["--proxy-protocol", "auto"]).workers(1).start();
    for _ in 0..4 {
        assert_closed(begun(&server, REQUEST), "no preface");
    }
    server.log().wait(&["closed a connection of 127.0.0.1: the PROXY protocol preface"]);
    let log = server.stop();
    assert!(log.find(&["WARNING", "closed 3 connections more since the last record"]).is_some(), "{}", log.text());
}

#[test]
fn a_reload_hands_over_connections_whose_preface_is_not_complete() {
    let options = ["--proxy-protocol", "--header-timeout", "60", "--defer-accept", "0"];
    let server = server(&options).binds(["127.0.0.1:0", "unix:{temp}/s"]).start();
    let mut clients: Vec<(Client, &[u8])> = Vec::new();
    for address in server.addresses() {
        for preface in [LINE.as_bytes(), BINARY] {
            for begun in [0, 1, preface.len() - 1] {
                let mut client = Client::connect(address);
                client.send(&preface[..begun]);
                clients.push((client, &preface[begun..]));
            }
        }
        // Those above were accepted before.
        for pid in server.workers() {
            wait_for("an answer of each worker", SOON, || {
                let mut client = Client::connect(address);
                client.send(LINE);
                (client.get("/").field("x-worker") == Some(&pid.to_string())).then_some(())
            });
        }
    }
    let before = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for_end_of(&before);
    for (client, rest) in &mut clients {
        client.send(*rest);
        assert_eq!(seen(&client.get("/")), named());
    }
    server.stop();
}

#[test]
fn a_connection_that_changes_its_worker_keeps_its_client() {
    let server =
        server(&["--proxy-protocol", "--threads", "1", "--log-level", "debug"]).binds(["127.0.0.1:0", "unix:{temp}/s"]).start();
    let mut clients: Vec<(Client, (String, String))> = Vec::new();
    for address in server.addresses() {
        for (preface, expected) in [(LINE.as_bytes(), Some(named())), (BINARY, Some(named())), (b"PROXY UNKNOWN\r\n", None)] {
            let mut client = Client::connect(address);
            client.send(preface);
            let peer = match address {
                Address::Tcp(_) | Address::Tls(_) => ("127.0.0.1".to_owned(), client.port().to_string()),
                Address::Unix(_) => Default::default(),
            };
            let expected = expected.unwrap_or(peer);
            assert_eq!(seen(&client.get("/")), expected);
            clients.push((client, expected));
        }
    }
    // Idle, from a worker that leaves: a reload, then an upgrade.
    for signal in [Signal::SIGHUP, Signal::SIGUSR2] {
        let before = server.workers();
        server.signal(signal);
        server.wait_for_end_of(&before);
        for (client, expected) in &mut clients {
            let response = client.get("/");
            assert_eq!(&seen(&response), expected);
            assert!(!before.iter().any(|pid| response.field("x-worker") == Some(&pid.to_string())));
        }
    }
    // With a request, from a worker that is busy: all must not be with the other one.
    clients.retain(|(_, expected)| *expected == named());
    let mut worker_of = |index: usize| clients[index].0.get("/").field("x-worker").map(str::to_owned);
    let first = worker_of(0);
    let shared = (1..4).find(|&index| worker_of(index) == first).map_or(1, |_| 0);
    let (mut slow, _) = clients.remove(shared);
    slow.send("GET /?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("a request that was handed over", SOON, || {
        for (client, expected) in &mut clients {
            assert_eq!(&seen(&client.get("/")), expected);
        }
        server.log().find(&["handed a request of 192.0.2.7"]).map(drop)
    });
    server.open_gate("gate");
    assert_eq!(seen(&slow.response()), named());
    server.stop();
}

/// haproxy, which sends its checks too.
fn haproxy(server: &Running, send: &str) -> Option<Relay> {
    let upstream = match server.address() {
        Address::Tcp(address) | Address::Tls(address) => address.to_string(),
        Address::Unix(path) => format!("unix@{}", path.display()),
    };
    Relay::start("haproxy", &HAPROXY, |address, _| {
        format!(
            "defaults\n mode http\n {TIMES}\n\
             frontend f\n bind {address}\n default_backend b\n\
             backend b\n http-reuse never\n option httpchk GET /check\n server s {upstream} {send} check inter 200ms\n"
        )
    })
}

/// nginx as a proxy of TCP.
fn nginx(server: &Running) -> Option<Relay> {
    let upstream = match server.address() {
        Address::Tcp(address) | Address::Tls(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    Relay::start("nginx", &NGINX, |address, dir| {
        format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; master_process off; pid {dir}/pid;\n\
             error_log {dir}/error.log;\nevents {{}}\nstream {{ server {{ listen {address}; proxy_pass {upstream}; proxy_protocol on; }} }}\n"
        )
    })
}

/// Requests of several clients, each known by its own port.
#[track_caller]
fn assert_names_clients(relay: &Relay) {
    for _ in 0..5 {
        let mut client = Client::connect(relay.address());
        for _ in 0..5 {
            let response = wait_for("the proxy to find the server up", SOON, || {
                let response = client.get("/");
                (response.status != 503).then_some(response)
            });
            let (address, port) = seen(&response);
            // The kernel takes the address of the interface that the target is on, as a rule.
            assert!(address.starts_with("127."), "{address}");
            assert_eq!(port, client.port().to_string());
        }
    }
}

const BINDS: [&str; 2] = ["127.0.0.1:0", "unix:{temp}/app.sock"];

#[test]
fn haproxy_names_its_clients_in_both_versions() {
    let sends = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,ssl"];
    for (bind, send, mode) in [(0, 0, "v1"), (0, 1, "v2"), (0, 2, "auto"), (1, 0, "auto"), (1, 1, "auto")] {
        let server = server(&["--proxy-protocol", mode]).binds([BINDS[bind]]).start();
        let Some(front) = haproxy(&server, sends[send]) else { return };
        assert_names_clients(&front);
        drop(front);
        let log = server.stop();
        assert_eq!(log.text().matches("closed a connection").count(), 0, "{}", log.text());
    }
}

#[test]
fn nginx_names_its_clients() {
    if !Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists() {
        return tools::skip("nginx's stream module (libnginx-mod-stream) is not installed");
    }
    for bind in BINDS {
        let server = server(&["--proxy-protocol", "v1"]).binds([bind]).start();
        let Some(front) = nginx(&server) else { return };
        assert_names_clients(&front);
        drop(front);
        server.stop();
    }
}

#[test]
fn a_preface_goes_before_the_handshake() {
    let server = server(&["--proxy-protocol"]).tls().start();
    for preface in [LINE.as_bytes(), BINARY] {
        let socket = std::net::TcpStream::connect(server.address().tcp()).expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        (&socket).write_all(preface).expect("it listens");
        let mut client = Client::shake_hands(socket, tls::localhost(), tls::anyone()).expect("a handshake");
        for _ in 0..3 {
            assert_eq!(seen(&client.get("/")), named());
        }
        // In one piece with the hello.
        let mut connection = rustls::ClientConnection::new(tls::anyone(), tls::localhost()).expect("it can begin");
        let mut piece = preface.to_vec();
        connection.write_tls(&mut piece).expect("a vector takes everything");
        let mut socket = std::net::TcpStream::connect(server.address().tcp()).expect("it listens");
        socket.write_all(&piece).expect("it listens");
        let mut stream = rustls::StreamOwned::new(connection, socket);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it listens");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer and its end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    server.stop();
}

#[test]
fn haproxy_names_its_clients_in_front_of_tls() {
    let server = server(&["--proxy-protocol", "v2"]).tls().start();
    let upstream = server.address().tcp();
    let front = Relay::start("haproxy", &HAPROXY, |address, _| {
        format!(
            "defaults\n mode tcp\n {TIMES}\n\
             frontend f\n bind {address}\n default_backend b\nbackend b\n server s {upstream} send-proxy-v2\n"
        )
    });
    let Some(front) = front else { return };
    let address = Address::Tls(front.address().tcp());
    for _ in 0..5 {
        let mut client = Client::connect(&address);
        for _ in 0..5 {
            let (host, port) = seen(&client.get("/"));
            assert!(host.starts_with("127."), "{host}");
            assert_eq!(port, client.port().to_string());
        }
    }
    drop(front);
    server.stop();
}
