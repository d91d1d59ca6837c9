//! Sessions that are resumed: by every worker, over reloads and upgrades, and never where they would stand in for something that
//! has to be shown.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use serde_json::Value;

use common::client::{Address, Client, Response};
use common::load::WORKER_FIELD;
use common::server::{Running, Server};
use common::tls::{self, Authority, Manner, TLS12, TLS13, client_wish};
use common::{SOON, wait_for};

const WORKERS: usize = 4;

/// Connections that have to resume.
const CONNECTIONS: usize = 40;

/// Connections after which every worker has had one, on any machine.
const MANY: usize = 2000;

fn server() -> Server {
    Server::new("probe").tls().workers(WORKERS)
}

fn speaking(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    Manner { version: Some(version), ..Manner::default() }.config()
}

/// A connection with an answer, and how it began. Tickets of TLS 1.3 come with the answer.
fn connect(server: &Running, config: &Arc<ClientConfig>) -> io::Result<(Client, HandshakeKind, Response)> {
    let mut client = Client::try_connect_tls(server.address(), tls::localhost(), config.clone())?;
    client.try_send(b"GET /environ HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let response = client.try_response_to("GET")?;
    let kind = client.tls().conn.handshake_kind().expect("it is over");
    Ok((client, kind, response))
}

#[track_caller]
fn assert_resumes(server: &Running, config: &Arc<ClientConfig>, resumes: bool) -> Response {
    let (_, kind, response) = connect(server, config).expect("an answer");
    assert_eq!(kind == HandshakeKind::Resumed, resumes, "{kind:?}");
    assert_eq!(response.status, 200);
    response
}

#[test]
fn every_worker_resumes_what_another_one_began() {
    let server = server().start();
    for version in [&TLS12, &TLS13] {
        let config = speaking(version);
        assert_resumes(&server, &config, false);
        let (mut held, mut workers) = (Vec::new(), BTreeSet::new());
        while held.len() < CONNECTIONS || (workers.len() < WORKERS && held.len() < MANY) {
            let (client, kind, response) = connect(&server, &config).expect("an answer");
            assert_eq!(kind, HandshakeKind::Resumed, "connection {}", held.len());
            workers.insert(response.field(WORKER_FIELD).expect("it names itself").to_owned());
            held.push(client);
        }
        assert_eq!(workers.len(), WORKERS, "each had one of {} connections", held.len());
    }
    server.stop();
}

#[test]
fn handshakes_are_counted_and_so_are_those_that_resume() {
    const RESUMED: u64 = 5;
    let server = server().start();
    for version in [&TLS12, &TLS13] {
        let config = speaking(version);
        assert_resumes(&server, &config, false);
        (0..RESUMED).for_each(|_| drop(assert_resumes(&server, &config, true)));
    }
    // One that fails is none of them.
    Client::connect(&Address::Tcp(server.address().tcp())).send([0x16, 3, 1, 0xff, 0xff]);
    let door = |path: &str| Client::connect(&server.control()).get(path);
    let connections = wait_for("the failed one", SOON, || {
        let connections = door("/status.json").json()["connections"].take();
        (connections["failed_handshakes"] == 1).then_some(connections)
    });
    assert_eq!(connections["handshakes"], 2 + 2 * RESUMED, "{connections}");
    assert_eq!(connections["resumed_handshakes"], 2 * RESUMED, "{connections}");
    let page = door("/metrics").text();
    for line in
        ["tapster_tls_handshakes_total 12", "tapster_tls_handshakes_resumed_total 10", "tapster_tls_handshakes_failed_total 1"]
    {
        assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
    }
    server.stop();
}

#[test]
fn a_reload_and_an_upgrade_keep_sessions() {
    let server = server().start();
    let configs = [speaking(&TLS12), speaking(&TLS13)];
    configs.iter().for_each(|config| drop(assert_resumes(&server, config, false)));
    for signal in [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGHUP] {
        let before = server.workers();
        server.signal(signal);
        server.wait_for_end_of(&before);
        wait_for("all workers", SOON, || (server.workers().len() == WORKERS).then_some(()));
        for config in &configs {
            (0..8).for_each(|_| drop(assert_resumes(&server, config, true)));
        }
    }
    server.stop();
}

#[test]
fn a_worker_that_takes_the_place_of_another_resumes_too() {
    let server = server().workers(1).expect_error("SIGKILL").start();
    let configs = [speaking(&TLS12), speaking(&TLS13)];
    configs.iter().for_each(|config| drop(assert_resumes(&server, config, false)));
    let before = server.workers();
    common::server::signal_to(before[0], Signal::SIGKILL);
    wait_for("another worker", SOON, || (server.workers().len() == 1 && server.workers() != before).then_some(()));
    configs.iter().for_each(|config| drop(assert_resumes(&server, config, true)));
    server.stop();
}

#[test]
fn tickets_of_another_server_begin_anew() {
    let [one, other] = [server().start(), server().start()];
    for version in [&TLS12, &TLS13] {
        let config = speaking(version);
        assert_resumes(&one, &config, false);
        assert_resumes(&one, &config, true);
        assert_resumes(&other, &config, false);
        assert_resumes(&other, &config, true);
    }
    one.stop();
    other.stop();
}

/// A server whose client certificates are as this file says.
fn configured(text: &str) -> Running {
    let server = Server::new("probe").tls();
    let path = server.temp().join("t.toml");
    fs::write(&path, text).expect("the temp directory is writable");
    server.workers_by_default().options(["--config", &path.display().to_string()]).start()
}

#[track_caller]
fn reconfigure(server: &Running, text: &str) {
    fs::write(server.temp().join("t.toml"), text).expect("the temp directory is writable");
    let before = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for_end_of(&before);
}

/// A session says who its client is, or that it showed nothing: that was asked under another rule.
#[test]
fn a_ticket_does_not_stand_in_for_a_certificate() {
    let (first, second) = (Authority::new("First"), Authority::new("Second"));
    let [ours, theirs] = [&first, &second].map(|authority| authority.issue("client", client_wish("/CN=Client")));
    let rules = |authority: &Authority, wish: &str| {
        format!("workers = 1\nca_certs = {:?}\ncert_reqs = {wish:?}\n", authority.root().display().to_string())
    };
    for version in [&TLS12, &TLS13] {
        let server = configured("workers = 1\n");
        let manner = Manner { version: Some(version), ..Manner::default() };
        let nobody = manner.config();
        assert_resumes(&server, &nobody, false);
        assert_resumes(&server, &nobody, true);
        reconfigure(&server, &rules(&first, "required"));
        let answer = connect(&server, &nobody).map(|(_, kind, response)| (kind, response));
        assert!(answer.is_err(), "it has a ticket, but no certificate: {answer:?}");
        let known = Manner { certificate: Some(&ours), ..manner }.config();
        assert_resumes(&server, &known, false);
        let response = assert_resumes(&server, &known, true);
        assert_eq!(response.json()["SSL_CLIENT_VERIFY"], "SUCCESS");
        // Another authority: who was known is not.
        reconfigure(&server, &rules(&second, "optional"));
        let answer = connect(&server, &known).map(|(_, kind, response)| (kind, response.json()["SSL_CLIENT_VERIFY"].clone()));
        assert!(answer.is_err(), "its certificate is of an authority that is no longer ours: {answer:?}");
        let other = Manner { certificate: Some(&theirs), ..manner }.config();
        assert_eq!(assert_resumes(&server, &other, false).json()["SSL_CLIENT_VERIFY"], "SUCCESS");
        // Nobody is asked any more.
        reconfigure(&server, "workers = 1\n");
        let response = connect(&server, &other).expect("nothing has to be shown").2;
        assert_eq!(response.json()["SSL_CLIENT_CERT"], Value::Null);
        server.stop();
    }
}
