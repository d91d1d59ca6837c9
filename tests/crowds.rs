//! Many clients that are idle, slow or stalled: normal traffic beside them is untouched, and they cost little memory.

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::client::{Address, Client};
use common::crowd::{self, assert_untouched, memory, most_connections};
use common::load::{Load, Plan};
use common::procfs;
use common::server::{Running, Server};

/// Idle keep-alive connections.
const IDLE: usize = 10_000;

/// User-space memory of the workers for one idle connection, in bytes: its state, but no buffer.
const IDLE_COST: u64 = 2048;

/// Clients that send a head byte by byte.
const TRICKLED_HEADS: usize = 500;

/// Clients that send a body byte by byte.
const TRICKLED_BODIES: usize = 300;

/// Clients that ask for a large answer and do not read it.
const STALLED: usize = 60;

/// The large answer, in bytes.
const LARGE: usize = 50 * 1024 * 1024;

/// Memory for one stalled reader, in bytes: a bounded output, not the answer.
const STALLED_COST: u64 = 512 * 1024;

/// Bytes that each slow client sends one by one.
const ROUNDS: usize = 30;

/// Requests of the normal traffic between two rounds.
const BETWEEN: u64 = 50;

/// Requests of the normal traffic beside a crowd that does nothing.
const BESIDE: u64 = 3_000;

/// Pause of each normal client, so that the normal traffic is not the load.
const PAUSE: Duration = Duration::from_micros(500);

/// Two workers, and timeouts that no client of a crowd reaches.
fn server() -> Server {
    Server::new("probe").workers(2).options(["--keep-alive", "300", "--header-timeout", "300"])
}

fn traffic(server: &Running) -> Load {
    let load = Plan { pause: PAUSE, starved: server.workers(), ..Plan::new(server.address()) }.start();
    load.wait_for_more(BETWEEN);
    load
}

/// A connection that has had an answer. Over TLS its handshake waits to be accepted as well.
#[track_caller]
fn ask(address: &Address) -> Client {
    let mut client = Client::connect(address);
    assert_eq!(client.get("/").status, 200);
    client
}

#[test]
fn idle_connections_cost_nothing_but_their_state() {
    let _alone = crowd::alone();
    let count = most_connections(IDLE);
    let server = server().start();
    traffic(&server).stop().assert_flawless();
    let before = memory(&server);
    let mut idle: Vec<Client> = (0..count).map(|_| ask(server.address())).collect();
    let load = traffic(&server);
    load.wait_for_more(BESIDE);
    assert_untouched(&load.stop());
    let each = memory(&server).saturating_sub(before) / count as u64;
    eprintln!("{count} idle connections, {each} bytes each in the workers");
    assert!(each <= IDLE_COST, "{each} bytes for each idle connection");
    for client in idle.iter_mut().step_by(count / 200) {
        assert_eq!(client.get("/").status, 200, "an idle connection is still served");
    }
    drop(idle);
    server.stop();
}

#[test]
fn trickled_heads_leave_normal_traffic_untouched() {
    let _alone = crowd::alone();
    most_connections(TRICKLED_HEADS);
    let server = server().start();
    let load = traffic(&server);
    let mut slow: Vec<Client> = (0..TRICKLED_HEADS).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nX-Slow: ");
    }
    for _ in 0..ROUNDS {
        for client in &mut slow {
            client.send("x");
        }
        load.wait_for_more(BETWEEN);
    }
    for client in &mut slow {
        client.send("\r\n\r\n");
    }
    for client in &mut slow {
        assert_eq!(client.response().status, 200, "a slow client is served as well");
    }
    assert_untouched(&load.stop());
    server.stop();
}

#[test]
fn trickled_bodies_leave_normal_traffic_untouched() {
    let _alone = crowd::alone();
    most_connections(TRICKLED_BODIES);
    let server = server().start();
    let load = traffic(&server);
    let mut slow: Vec<Client> = (0..TRICKLED_BODIES).map(|_| server.connect()).collect();
    for (n, client) in slow.iter_mut().enumerate() {
        let framing = if n % 2 == 0 { format!("Content-Length: {ROUNDS}") } else { "Transfer-Encoding: chunked".to_owned() };
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n"));
    }
    for _ in 0..ROUNDS {
        for (n, client) in slow.iter_mut().enumerate() {
            client.send(if n % 2 == 0 { "x" } else { "1\r\nx\r\n" });
        }
        load.wait_for_more(BETWEEN);
    }
    for client in slow.iter_mut().skip(1).step_by(2) {
        client.send("0\r\n\r\n");
    }
    for client in &mut slow {
        let response = client.response();
        assert_eq!((response.status, response.body.len()), (200, ROUNDS), "{response:?}");
    }
    assert_untouched(&load.stop());
    server.stop();
}

#[test]
fn stalled_readers_leave_normal_traffic_untouched_and_cost_bounded_memory() {
    let _alone = crowd::alone();
    most_connections(STALLED);
    let server = server().start();
    let load = traffic(&server);
    let before = memory(&server);
    let mut stalled: Vec<Client> = (0..STALLED).map(|_| server.connect()).collect();
    for (n, client) in stalled.iter_mut().enumerate() {
        client.send(format!("GET /big?n={LARGE}&length={} HTTP/1.1\r\nHost: test\r\n\r\n", n % 2));
    }
    for client in &mut stalled {
        assert!(matches!(client.fill(), Ok(1..)), "every answer has begun");
    }
    load.wait_for_more(BESIDE);
    assert_untouched(&load.stop());
    let each = memory(&server).saturating_sub(before) / STALLED as u64;
    eprintln!("{STALLED} stalled readers, {each} bytes each in the workers");
    assert!(each <= STALLED_COST, "{each} bytes for each stalled reader");
    for client in stalled.iter_mut().take(4) {
        let response = client.response();
        assert!(response.complete && response.body.len() == LARGE, "a stalled reader that goes on gets everything: {response:?}");
    }
    drop(stalled);
    server.stop();
}

#[test]
fn more_clients_than_descriptors_are_served_when_others_leave() {
    /// Descriptors that the server may have.
    const FILES: usize = 100;
    /// Processor time that waiting for a descriptor may cost in all, in milliseconds.
    const WAITING_COST: u64 = 300;
    let _alone = crowd::alone();
    let server = Server::new("probe").open_files(FILES).options(["--keep-alive", "300"]);
    let server = server.expect_error("open files").start();
    let served: Vec<Client> = (0..FILES / 2).map(|_| ask(server.address())).collect();
    // Each keeps its connection until it is taken out of the channel.
    let (sender, answered) = mpsc::channel();
    for _ in 0..FILES * 3 / 2 {
        let (address, sender) = (server.address().clone(), sender.clone());
        thread::spawn(move || sender.send(ask(&address)));
    }
    drop(sender);
    server.log().wait(&["open files"]);
    let worker = server.workers()[0];
    let before = procfs::cpu_millis(worker);
    thread::sleep(Duration::from_secs(1));
    let cost = procfs::cpu_millis(worker) - before;
    assert!(cost < WAITING_COST, "{cost} ms of a second spent on waiting for a descriptor");
    drop(served);
    assert_eq!(answered.into_iter().count(), FILES * 3 / 2, "who waited in the accept queue is served");
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn a_worker_takes_no_more_connections_than_allowed() {
    const ALLOWED: usize = 10;
    let _alone = crowd::alone();
    let allowed = ALLOWED.to_string();
    let server = Server::new("probe").options(["--worker-connections", &allowed, "--keep-alive", "300"]).start();
    let mut clients: Vec<Client> = (0..ALLOWED).map(|_| ask(server.address())).collect();
    let address = server.address().clone();
    let waiting = thread::spawn(move || ask(&address));
    thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished(), "one more than allowed waits in the accept queue");
    drop(clients.pop());
    waiting.join().expect("it is served when another has left");
    server.stop();
}
