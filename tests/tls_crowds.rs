//! Many TLS clients that are idle, slow or wrong: normal traffic beside them is untouched, and they cost little.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use common::client::{Address, Client};
use common::crowd::{self, assert_untouched, memory, most_connections};
use common::load::{Load, Plan};
use common::server::{Running, Server};
use common::tls::{self, Manner};
use common::{SOON, procfs, wait_for};

/// Handshakes that go on for the whole test.
const SLOW: usize = 1000;

/// Idle connections whose memory is looked at.
const IDLE: usize = 2000;

/// Memory of the workers for an idle connection, in bytes.
const IDLE_COST: u64 = 8 * 1024;

/// Pause of each normal client, so that the normal traffic is not the load.
const PAUSE: Duration = Duration::from_millis(2);

/// Rounds in which each slow client sends a byte.
const ROUNDS: usize = 20;

/// Answers of the normal traffic between two rounds.
const BETWEEN: u64 = 20;

fn server() -> Server {
    Server::new("probe").tls().workers(2).options(["--keep-alive", "300"])
}

/// Kept connections and new ones, which shake hands.
struct Traffic(Load, Load);

impl Traffic {
    fn start(server: &Running) -> Self {
        let plan = Plan { pause: PAUSE, clients: 4, starved: server.workers(), ..Plan::new(server.address()) };
        let traffic = Self(plan.clone().start(), Plan { keep_alive: false, ..plan }.start());
        traffic.goes_on();
        traffic
    }

    fn goes_on(&self) {
        self.0.wait_for_more(BETWEEN);
        self.1.wait_for_more(BETWEEN);
    }

    #[track_caller]
    fn assert_untouched(self) {
        for tally in [self.0.stop(), self.1.stop()] {
            assert_untouched(&tally);
        }
    }
}

/// The beginning of a handshake: the client, and the bytes that it would send.
fn hello() -> (ClientConnection, Vec<u8>) {
    let mut connection = ClientConnection::new(Manner::default().forgetful(), tls::localhost()).expect("it can begin");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("a vector takes everything");
    (connection, bytes)
}

#[test]
fn slow_handshakes_leave_normal_traffic_untouched_and_are_finished() {
    let _alone = crowd::alone();
    let count = most_connections(SLOW);
    let server = server().options(["--header-timeout", "300"]).start();
    let traffic = Traffic::start(&server);
    let mut slow: Vec<(TcpStream, ClientConnection, Vec<u8>)> = (0..count)
        .map(|_| {
            let socket = TcpStream::connect(server.address().tcp()).expect("it listens");
            socket.set_nodelay(true).and(socket.set_read_timeout(Some(SOON))).expect("a socket");
            let (connection, bytes) = hello();
            (socket, connection, bytes)
        })
        .collect();
    for round in 0..ROUNDS {
        for (socket, _, bytes) in &mut slow {
            socket.write_all(&bytes[round..=round]).expect("it waits for more");
        }
        traffic.goes_on();
    }
    traffic.assert_untouched();
    for (mut socket, connection, bytes) in slow.into_iter().step_by(20) {
        socket.write_all(&bytes[ROUNDS..]).expect("it waits for more");
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").and_then(|()| stream.flush()).expect("it listens");
        let mut head = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut head).expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200", "a slow client is served as well");
    }
    server.stop();
}

#[test]
fn unfinished_handshakes_share_the_memory_of_unfinished_requests() {
    /// Such long hellos are begun: four records, of which the last one never comes whole.
    const PART: usize = 60_000;
    /// Some more than there is room for, which is 64 MiB.
    const CLIENTS: usize = 1300;
    /// More memory than that, in bytes: states of connections, and what the allocator keeps.
    const MEMORY: u64 = 100 * 1024 * 1024;
    let _alone = crowd::alone();
    if most_connections(CLIENTS) < CLIENTS {
        return;
    }
    let server = server().workers(1).options(["--header-timeout", "300"]).start();
    assert_eq!(server.get("/").status, 200);
    let (before, plain) = (memory(&server), Address::Tcp(server.address().tcp()));
    let record = [&[0x16, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    let mut bytes = record.repeat(PART.div_ceil(record.len()));
    bytes.truncate(PART);
    // A hello of so many bytes.
    bytes[5..9].copy_from_slice(&[1, 0, 0xf0, 0]);
    let begin = |_| {
        let mut client = Client::connect(&plain);
        // One that is refused is closed while it sends.
        let _ = client.try_send(&bytes);
        client
    };
    let crowd: Vec<Client> = (0..CLIENTS).map(begin).collect();
    server.log().wait(&["WARNING", "the memory for unfinished requests is used up", "the end of a TLS handshake"]);
    assert_eq!(server.get("/").status, 200);
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < MEMORY, "{grown} bytes more");
    let figures = || Client::connect(&server.control()).get("/status.json").json();
    let failed = || figures()["connections"]["failed_handshakes"].as_u64().expect("a number");
    let refused = failed();
    assert!((1..CLIENTS as u64 / 2).contains(&refused), "{refused} were refused");
    // What they have had is given back.
    drop(crowd);
    wait_for("the end of the others", SOON, || (failed() >= CLIENTS as u64).then_some(()));
    drop(begin(0));
    wait_for("the end of one more", SOON, || (failed() > CLIENTS as u64).then_some(()));
    let again: Vec<Client> = (0..CLIENTS / 2).map(begin).collect();
    assert_eq!(server.get("/").status, 200);
    assert_eq!(failed(), CLIENTS as u64 + 1, "half of them have room");
    drop(again);
    server.stop();
}

#[test]
fn a_handshake_has_the_time_of_a_head() {
    let server = Server::new("probe").tls().options(["--header-timeout", "1", "--keep-alive", "300"]).start();
    let plain = Address::Tcp(server.address().tcp());
    let (_, bytes) = hello();
    let begun: [&[u8]; 4] = [&bytes[..1], &bytes[..5], &bytes[..bytes.len() - 1], &bytes];
    // Also the last, who gets the server's part and says nothing more.
    let mut clients: Vec<Client> = begun
        .into_iter()
        .map(|part| {
            let mut client = Client::connect(&plain);
            client.send(part);
            client
        })
        .collect();
    let asked = Instant::now();
    for client in &mut clients {
        let said = client.rest();
        assert!(!said.starts_with(b"HTTP"), "{}", said.escape_ascii());
    }
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    // Bytes that trickle in are no new time.
    let mut client = Client::connect(&plain);
    let (began, mut sent) = (Instant::now(), 0);
    while sent < bytes.len() && began.elapsed() < Duration::from_secs(10) && client.try_send(&bytes[sent..=sent]).is_ok() {
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{sent} bytes in {:?}", began.elapsed());
    server.stop();
}

#[test]
fn idle_connections_cost_little() {
    let _alone = crowd::alone();
    let count = most_connections(IDLE);
    let server = server().start();
    Traffic::start(&server).assert_untouched();
    let before = memory(&server);
    let mut idle: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = server.connect();
            assert_eq!(client.get("/").status, 200);
            client
        })
        .collect();
    let each = memory(&server).saturating_sub(before) / count as u64;
    eprintln!("{count} idle connections, {each} bytes each in the workers");
    assert!(each <= IDLE_COST, "{each} bytes for each idle connection");
    for client in idle.iter_mut().step_by(count / 100) {
        assert_eq!(client.get("/").status, 200, "an idle connection is still served");
    }
    // What a large request took is given back.
    let body = vec![b'x'; 500_000];
    for client in idle.iter_mut().take(200) {
        client.send(format!("POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        assert_eq!(client.response().status, 200);
        client.send("GET /big?n=500000 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.response().body.len(), 500_000);
    }
    let grown = memory(&server).saturating_sub(before) / count as u64;
    eprintln!("after large requests on some: {grown} bytes each");
    assert!(grown <= IDLE_COST + 4096, "{grown} bytes");
    drop(idle);
    server.stop();
}

#[test]
fn readers_that_stall_cost_a_buffer_each() {
    /// Clients that ask and do not read.
    const STALLED: usize = 30;
    /// The answer, in bytes.
    const LARGE: usize = 50 * 1024 * 1024;
    /// Memory for each, in bytes: output that waits, and its records.
    const EACH: u64 = 768 * 1024;
    let _alone = crowd::alone();
    let server = server().start();
    let traffic = Traffic::start(&server);
    let before = memory(&server);
    let mut stalled: Vec<Client> = (0..STALLED).map(|_| server.connect()).collect();
    for (n, client) in stalled.iter_mut().enumerate() {
        client.send(format!("GET /big?n={LARGE}&length={} HTTP/1.1\r\nHost: test\r\n\r\n", n % 2));
    }
    for client in &mut stalled {
        assert!(matches!(client.fill(), Ok(1..)), "every answer has begun");
    }
    (0..10).for_each(|_| traffic.goes_on());
    traffic.assert_untouched();
    let each = memory(&server).saturating_sub(before) / STALLED as u64;
    eprintln!("{STALLED} stalled readers, {each} bytes each in the workers");
    assert!(each <= EACH, "{each} bytes for each stalled reader");
    for client in stalled.iter_mut().take(2) {
        let response = client.response();
        assert!(response.complete && response.body.len() == LARGE, "one that goes on gets everything");
    }
    drop(stalled);
    server.stop();
}

#[test]
fn clients_that_fail_are_counted_and_fill_no_log() {
    /// Failed handshakes.
    const FAILED: usize = 500;
    let server = server().start();
    let traffic = Traffic::start(&server);
    let plain = Address::Tcp(server.address().tcp());
    let (_, bytes) = hello();
    for n in 0..FAILED {
        let mut client = Client::connect(&plain);
        let _ = client.try_send(if n % 2 == 0 { &[0x16, 3, 1, 0xff, 0xff] } else { &bytes[..bytes.len() / 2] });
        client.reset();
    }
    traffic.assert_untouched();
    let worker = server.workers();
    let log = server.stop();
    assert!(log.records().len() < 100, "{} records", log.records().len());
    assert_eq!(worker.len(), 2);
}

#[test]
fn nobody_spins_over_a_connection_that_waits() {
    let server = server().workers(1).options(["--header-timeout", "300"]).start();
    let worker = server.workers()[0];
    let plain = Address::Tcp(server.address().tcp());
    let (_, bytes) = hello();
    let mut held = Vec::new();
    // Half a hello, a hello without an end, an idle connection, half a record, a reader that stalls.
    for part in [&bytes[..10], &bytes] {
        let mut client = Client::connect(&plain);
        client.send(part);
        held.push(client);
    }
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let mut half = server.connect();
    half.tls().sock.write_all(b"\x17\x03\x03\x00\x50half").expect("it listens");
    let mut stalled = server.connect();
    stalled.send("GET /big?n=50000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(matches!(stalled.fill(), Ok(1..)));
    // One that has ended its direction and waits for its answer.
    let mut ended = server.connect();
    ended.send("GET /sleep?ms=100 HTTP/1.1\r\nHost: test\r\n\r\n");
    ended.finish_sending();
    assert_eq!(ended.response().status, 200);
    wait_for("the worker to be still", SOON, || {
        let before = procfs::cpu_millis(worker);
        std::thread::sleep(Duration::from_secs(1));
        (procfs::cpu_millis(worker) - before < 50).then_some(())
    });
    // The only ones whose requests have begun and are not answered.
    drop((stalled, half));
    server.stop();
}
