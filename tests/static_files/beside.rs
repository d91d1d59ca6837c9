//! Files beside other work of their worker: calls that last, other files, descriptors that are used up, and its end.

use std::fs;
use std::sync::Arc;
use std::thread;

use nix::sys::signal::Signal;

use crate::changes::{stalled, vast};
use crate::common::client::Client;
use crate::common::{SOON, wait_for};
use crate::{server, tree};

#[test]
fn files_are_sent_while_every_thread_is_busy() {
    for (workers, threads) in [(1, 1), (1, 3), (2, 2)] {
        let server = server().workers(workers).options(["--threads", &threads.to_string(), "--timeout", "0"]).start();
        let sleepers: Vec<Client> = (0..workers * threads)
            .map(|count| {
                let mut client = server.connect();
                client.send("GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n");
                let asleep = server.temp().join("asleep");
                wait_for("a call", SOON, || fs::read(&asleep).is_ok_and(|text| text.len() > count).then_some(()));
                client
            })
            .collect();
        let mut kept = server.connect();
        for _ in 0..20 {
            assert_eq!(server.get("/static/a.txt").text(), "hello, world!", "{workers} x {threads}");
            assert_eq!(kept.get("/static/large.bin").body.len(), tree::LARGE);
        }
        // One for the application waits, and files do not wait behind it on other connections.
        let mut waiting = server.connect();
        waiting.send("GET /later HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(server.get("/static/a.txt").status, 200);
        server.open_gate("wake");
        for mut sleeper in sleepers {
            assert_eq!(sleeper.response().text(), "/sleep");
        }
        assert_eq!(waiting.response().text(), "/later");
        server.stop();
    }
}

#[test]
fn a_server_of_another_file_for_each_thread_serves_all_of_them_at_once() {
    let server = server().options(["--threads", "4"]).workers(2).start();
    let large = Arc::new(tree::large());
    let address = server.address().clone();
    let handles: Vec<_> = (0..8)
        .map(|seed| {
            let (address, large) = (address.clone(), large.clone());
            thread::spawn(move || {
                let mut client = Client::connect(&address);
                for turn in 0..30 {
                    match (seed + turn) % 4 {
                        0 => assert!(client.get("/static/large.bin").body == *large),
                        1 => assert_eq!(client.get("/static/a.txt").text(), "hello, world!"),
                        2 => assert_eq!(client.get("/app").text(), "/app"),
                        _ => assert_eq!(client.get("/static/none").status, 404),
                    }
                }
            })
        })
        .collect();
    for handle in handles {
        handle.join().expect("no assertion fails");
    }
    server.stop();
}

/// A limit of open files that a test can reach in no time.
const FEW_FILES: usize = 256;

#[test]
fn without_a_descriptor_the_answer_is_503() {
    let server = server().workers(1).open_files(FEW_FILES).expect_error("no descriptor is left for a static file");
    let server = server.expect_error("cannot accept").start();
    // So many connections that the descriptors may be missing because of them: the worker is not replaced.
    let crowd: Vec<Client> = (0..FEW_FILES / 3).map(|_| server.connect()).collect();
    let mut client = server.connect();
    assert_eq!(client.get("/hoard").text(), "/hoard");
    // This one is accepted by the spare descriptor.
    let mut last = server.connect();
    assert_eq!(last.get("/last").text(), "/last");
    let response = client.get("/static/a.txt");
    assert_eq!((response.status, response.field("retry-after")), (503, Some("5")), "{response:?}");
    assert!(!response.closes());
    // A connection that cannot be accepted waits, and nothing of it is lost.
    let mut waiting = server.connect();
    waiting.send("GET /static/a.txt HTTP/1.1\r\nHost: t\r\n\r\n");
    server.log().wait(&["ERROR", "cannot accept"]);
    assert_eq!(client.get("/free").text(), "/free");
    assert_eq!(client.get("/static/a.txt").text(), "hello, world!");
    assert_eq!(waiting.response().text(), "hello, world!");
    drop(crowd);
    server.stop();
}

#[test]
fn workers_that_leave_send_what_they_have_begun() {
    let server = server().workers(2).start();
    let (_, content) = vast(&server);
    let mut clients: Vec<Client> = (0..4).map(|_| stalled(&server, "vast.bin", "HTTP/1.1")).collect();
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["generation 2"]);
    for client in &mut clients {
        let response = client.response();
        assert!(response.complete && response.body == content, "{response:?}");
    }
    server.wait_for_end_of(&old);
    assert_eq!(server.get("/static/a.txt").text(), "hello, world!");
    server.stop();
}
