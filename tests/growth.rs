//! Costs that must not grow: memory with the number of requests, the time of a request with the number of idle connections, the
//! time of a byte with the size of its body.

mod common;

use std::time::Duration;

use common::client::{Address, Client};
use common::procfs;
use common::server::{Running, Server};

/// Rounds of the mixed load: a debug build serves them in some seconds.
const ROUNDS: usize = 450;

/// Rounds after which everything that is kept for good is there: caches, buffers, free lists of the allocators.
const WARM: usize = 100;

/// Memory that may come on top in one half of the other rounds, in bytes: pages that the allocators of two languages touch late.
/// A leak of 20 bytes for a request is above, in both halves; what comes once, such as an arena of a thread or a huge page, may
/// be more and is in one of them.
const GROWTH_MAX: u64 = 512 * 1024;

/// Requests of one pipelined batch.
const BATCH: usize = 300;

/// Idle connections beside the traffic; as many as the limit of open files allows, and at least a tenth of it.
const IDLE: usize = 5_000;

/// Descriptors that the test needs besides.
const OTHER_FILES: usize = 200;

/// Requests whose time is taken.
const TIMED: usize = 2_000;

/// A figure may be so many times another that should be equal: times on a busy machine vary. A loop over all connections in each
/// iteration would be tenfold.
const SAME: f64 = 2.0;

/// Each comparison is made so many times; the machine may have other work in one of them.
const TRIES: usize = 5;

/// One round: pipelined requests, answers of other kinds, an upload, and clients that leave or talk nonsense.
fn round(address: &Address, number: usize) {
    let mut client = Client::connect(address);
    let request = format!("GET /environ?round={number} HTTP/1.1\r\nHost: test\r\nCookie: id={number}\r\n\r\n");
    client.send(request.repeat(BATCH));
    for _ in 0..BATCH {
        assert_eq!(client.response().status, 200);
    }
    client.send("GET /missing HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response();
    let body = "x".repeat(10_000);
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(client.response().status, 200);
    for beginning in ["GET / HTT", "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\nabc", "NONSENSE\r\n\r\n"] {
        Client::connect(address).send(beginning);
    }
    // Leaves without its answer.
    Client::connect(address).send("GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3));
}

#[test]
fn memory_does_not_grow_with_the_number_of_requests() {
    let server = Server::new("probe").options(["--log-level", "error"]).start();
    let worker = server.workers()[0];
    let middle = WARM.midpoint(ROUNDS);
    let sizes = [0..WARM, WARM..middle, middle..ROUNDS].map(|rounds| {
        rounds.for_each(|number| round(server.address(), number));
        procfs::resident(worker)
    });
    eprintln!("{:?} KiB after {:?} rounds of {} requests", sizes.map(|size| size / 1024), [WARM, middle, ROUNDS], BATCH + 2);
    let [first, second] = [sizes[1].saturating_sub(sizes[0]), sizes[2].saturating_sub(sizes[1])];
    assert!(first.min(second) <= GROWTH_MAX, "it grew by {first} and {second} bytes");
    server.stop();
}

/// CPU time of the first worker for `count` requests one after the other.
fn cost(server: &Running, count: usize) -> Duration {
    let worker = server.workers()[0];
    let mut client = server.connect();
    let before = procfs::cpu_time(worker);
    for _ in 0..count {
        assert_eq!(client.get("/").status, 200);
    }
    procfs::cpu_time(worker) - before
}

/// Compares two costs, several times when need be.
#[track_caller]
fn assert_same(what: &str, mut ratio: impl FnMut() -> f64) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        seen.push(ratio());
        eprintln!("{what}: {:.2}", seen[seen.len() - 1]);
        if seen[seen.len() - 1] < SAME {
            return;
        }
    }
    panic!("{what}: {seen:.2?}, not once below {SAME}");
}

#[test]
fn a_request_costs_the_same_beside_idle_connections() {
    let most = common::raise_open_files();
    let count = IDLE.min((most as usize).saturating_sub(OTHER_FILES));
    assert!(count >= IDLE / 10, "too few open files are allowed here: {most} (ulimit -Hn)");
    let quiet = Server::new("hello").start();
    let crowded = Server::new("hello").options(["--keep-alive", "600"]).start();
    let idle: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = crowded.connect();
            assert_eq!(client.get("/").status, 200);
            client
        })
        .collect();
    assert_same("cost beside idle connections to cost without", || {
        let alone = cost(&quiet, TIMED);
        cost(&crowded, TIMED).as_secs_f64() / alone.as_secs_f64()
    });
    assert!(procfs::open_files(crowded.workers()[0]) > count, "they were open all the time");
    drop(idle);
    quiet.stop();
    crowded.stop();
}

#[test]
fn the_cost_of_a_body_grows_with_its_size_and_not_faster() {
    let server = Server::new("probe").start();
    let worker = server.workers()[0];
    let upload = |size: usize, times: usize| {
        let body = vec![b'x'; size];
        let before = procfs::cpu_time(worker);
        for _ in 0..times {
            let mut client = server.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"));
            client.send(&body);
            assert_eq!(client.response().status, 200);
        }
        (procfs::cpu_time(worker) - before).as_secs_f64() / (size * times) as f64
    };
    upload(1 << 20, 4);
    assert_same("cost of a byte in 16 MiB to one in 1 MiB", || {
        let small = upload(1 << 20, 16);
        upload(16 << 20, 1) / small
    });
    server.stop();
}

/// A request line or a field of this size is within the highest limits, in bytes.
const LONG_LINE: usize = 1_000_000;

/// Bytes that follow one by one.
const TRICKLED: usize = 200;

#[test]
fn the_cost_of_a_byte_does_not_grow_with_the_part_of_the_head_before_it() {
    let limits = ["--limit-request-line", "0", "--limit-request-field_size", "0", "--limit-request-head", "0"];
    let server = Server::new("hello").options(limits).options(["--header-timeout", "600", "--keep-alive", "600"]).start();
    let worker = server.workers()[0];
    let field = format!("X: {}\r\n", "x".repeat(LONG_LINE));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}X: ", field.repeat(count));
    let mut witness = server.connect();
    let mut trickle = |start: &str| {
        let mut client = server.connect();
        client.send(start);
        // Each answer shows that the worker has read the bytes before.
        for _ in 0..50 {
            witness.get("/");
        }
        let before = procfs::cpu_time(worker);
        for _ in 0..TRICKLED {
            client.send("x");
            witness.get("/");
        }
        (procfs::cpu_time(worker) - before).as_secs_f64()
    };
    trickle("GET /");
    for (what, long) in [("fields", fields(14)), ("line", format!("GET /{}", "x".repeat(LONG_LINE)))] {
        assert_same(&format!("cost of a byte behind long {what} to one behind a short one"), || {
            let short = trickle("GET /");
            trickle(&long) / short
        });
    }
    server.stop();
}
