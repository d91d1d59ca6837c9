//! Certificates that change while the server runs, and servers that change under TLS load. Not one request may fail.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use common::client::Client;
use common::deploy::{self, WORKERS, load, reload};
use common::server::{Running, Server};
use common::tls::{self, Authority, Certificate, EXPIRED, Manner, Wish, server_wish};
use common::{SOON, wait_for};

/// Longest time without any answer, on a busy machine that boots workers beside the load.
const GAP: Duration = Duration::from_secs(2);

/// Changes of the certificate in a row.
const CHANGES: usize = 5;

/// How often files are looked at where a test waits for it.
const LOOK: &str = "2s";

/// The pair in the server's directory.
fn place(dir: &Path) -> Certificate {
    Certificate { chain: dir.join("server.pem"), key: dir.join("server.key") }
}

fn put(from: &Certificate, to: &Certificate) {
    for (from, to) in [(&from.chain, &to.chain), (&from.key, &to.key)] {
        let new = to.with_extension("new");
        fs::copy(from, &new).and_then(|_| fs::rename(&new, to)).expect("the temp directory is writable");
    }
}

/// `deploy` with its pair in its directory, begun with this one.
fn server(first: &Certificate) -> Server {
    let server = deploy::server();
    let place = place(server.temp());
    put(first, &place);
    server.certificate(&place)
}

/// The certificate that a client without a session is shown.
#[track_caller]
fn shown(server: &Running) -> Vec<u8> {
    let config = Manner::default().forgetful();
    let mut client = Client::try_connect_tls(server.address(), tls::localhost(), config).expect("a handshake");
    client.tls().conn.peer_certificates().expect("one")[0].to_vec()
}

fn bytes(of: &Certificate) -> Vec<u8> {
    tls::certificates(&of.chain)[0].to_vec()
}

#[track_caller]
fn assert_shown(server: &Running, expected: &Certificate) {
    // Each worker has it.
    for _ in 0..4 * WORKERS {
        assert!(shown(server) == bytes(expected), "not {}", expected.chain.display());
    }
}

#[test]
fn a_renewed_certificate_is_taken_under_load_and_a_bad_one_is_not() {
    let authority = Authority::new("Renewal");
    let issue = |name: &str| authority.issue(name, server_wish("DNS:localhost"));
    let first = issue("first");
    let mut server = server(&first).start();
    assert_shown(&server, &first);
    let place = place(server.temp());
    let load = load(&server);
    let mut last = first;
    for change in 1..=CHANGES {
        last = issue(&format!("renewed{change}"));
        put(&last, &place);
        let before = server.workers();
        reload(&server, "reload done", change);
        server.wait_for_end_of(&before);
        assert_shown(&server, &last);
        load.wait_for_more(20);
    }
    // The key of another one, nothing, no certificate.
    let other = issue("other");
    server.expect_error("reload failed, generation");
    for (index, bad) in ["key", "empty", "garbage", "gone"].into_iter().enumerate() {
        match bad {
            "key" => drop(fs::copy(&other.key, &place.key).expect("it is writable")),
            "empty" => fs::write(&place.chain, "").expect("it is writable"),
            "garbage" => {
                fs::write(&place.chain, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("it is writable")
            }
            _ => fs::remove_file(&place.chain).expect("it is there"),
        }
        reload(&server, "reload failed, generation", index + 1);
        assert_shown(&server, &last);
    }
    put(&other, &place);
    reload(&server, "reload done", CHANGES + 1);
    wait_for("the new certificate", SOON, || (shown(&server) == bytes(&other)).then_some(()));
    load.assert_flawless(GAP);
    server.stop();
}

#[test]
fn files_that_change_are_noticed_without_a_signal() {
    let authority = Authority::new("Renewal");
    let issue = |name: &str| authority.issue(name, server_wish("DNS:localhost"));
    let (first, second) = (issue("first"), issue("second"));
    let server = server(&first).options(["--tls-watch", LOOK]).start();
    let place = place(server.temp());
    let mut kept = server.connect();
    assert_eq!(kept.get("/").status, 200);
    let load = load(&server);
    put(&second, &place);
    wait_for("the new certificate", SOON, || (shown(&server) == bytes(&second)).then_some(()));
    wait_for("it in every worker", SOON, || (0..4 * WORKERS).all(|_| shown(&server) == bytes(&second)).then_some(()));
    load.assert_flawless(GAP);
    server.stop();
}

#[test]
fn a_new_program_has_the_certificate_of_its_day() {
    let authority = Authority::new("Renewal");
    let issue = |name: &str| authority.issue(name, server_wish("DNS:localhost"));
    let (first, second) = (issue("first"), issue("second"));
    let server = server(&first).start();
    let load = load(&server);
    put(&second, &place(server.temp()));
    let before = server.workers();
    server.signal(Signal::SIGUSR2);
    server.wait_for_end_of(&before);
    assert_shown(&server, &second);
    load.wait_for_more(50);
    load.assert_flawless(GAP);
    server.stop();
}

#[test]
fn an_expired_certificate_is_refused_or_warned_of_at_the_start() {
    let authority = Authority::new("Renewal");
    let expired = authority.issue("expired", Wish { valid: EXPIRED, ..server_wish("DNS:localhost") });
    let mut started = Server::new("probe").certificate(&expired).start_without_waiting();
    if started.becomes_ready() {
        started.log().wait(&["WARNING", "expired"]);
    } else {
        assert!(started.log().text().contains("expired"), "{}", started.log().text());
        started.wait(SOON);
    }
}
