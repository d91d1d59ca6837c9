//! What goes through TLS connections: large bodies both ways at once, records of all sizes, new keys, many requests at once, files.

mod common;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ClientConnection, StreamOwned};

use common::client::Client;
use common::server::{Running, Server, at_once};
use common::tls::{self, Manner, TLS12, TLS13};
use common::{SOON, procfs, tools, wait_for};

/// A body that does not fit anywhere, in bytes.
const HUGE: usize = 100 * 1024 * 1024;

/// Time for two of them, on a busy machine and with a debug build.
const HUGE_LIMIT: Duration = Duration::from_secs(240);

/// Memory that a worker may take for them, in bytes: buffers, not bodies.
const HUGE_MEMORY: u64 = 24 * 1024 * 1024;

/// The most that a record carries, in bytes (RFC 8446 section 5.1).
const RECORD: usize = 16 * 1024;

/// Clients of both versions, each connected when it is its turn.
fn both(server: &Running) -> impl Iterator<Item = Client> {
    [&TLS12, &TLS13].into_iter().map(|version| {
        let config = Manner { version: Some(version), ..Manner::default() }.config();
        Client::try_connect_tls(server.address(), tls::localhost(), config).expect("a handshake")
    })
}

/// What is sent: `made(at)` is its byte at a place.
fn made(at: usize) -> u8 {
    (at % 251) as u8
}

/// Sends `bytes` and reads at the same time, up to the end of the connection, which is to be in order; `look` is called now and then.
#[track_caller]
fn duplex(stream: &mut StreamOwned<ClientConnection, TcpStream>, bytes: &[u8], mut look: impl FnMut()) -> Vec<u8> {
    let (mut sent, mut received, began) = (0, Vec::new(), Instant::now());
    let again = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
    stream.sock.set_nonblocking(true).expect("a socket");
    for turn in 0_u64.. {
        assert!(began.elapsed() < HUGE_LIMIT, "{sent} of {} bytes were sent", bytes.len());
        if turn.is_multiple_of(256) {
            look();
        }
        if sent < bytes.len() && !stream.conn.wants_write() {
            sent += stream.conn.writer().write(&bytes[sent..bytes.len().min(sent + 4 * RECORD)]).expect("it takes some");
        }
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, stream.conn.wants_write());
        let mut fds = [PollFd::new(stream.sock.as_fd(), events)];
        assert_ne!(
            poll(&mut fds, PollTimeout::from(20_000u16)),
            Ok(0),
            "nothing moves; {sent} of {} bytes were sent",
            bytes.len()
        );
        let ready = fds[0].revents().unwrap_or(PollFlags::empty());
        if ready.contains(PollFlags::POLLOUT) {
            stream.conn.write_tls(&mut stream.sock).map_or_else(again, drop);
        }
        if !(ready - PollFlags::POLLOUT).is_empty() {
            stream.conn.read_tls(&mut stream.sock).map_or_else(again, drop);
            stream.conn.process_new_packets().expect("TLS");
            match stream.conn.reader().read_to_end(&mut received) {
                Ok(_) => break,
                Err(error) => again(error),
            }
        }
    }
    received
}

#[test]
fn a_hundred_megabytes_go_both_ways_at_once() {
    let server = Server::new("probe").tls().options(["--limit-request-body", "0", "--threads", "2"]).start();
    let worker = server.workers()[0];
    for mut client in both(&server) {
        let before = procfs::memory(worker);
        let mut all =
            format!("GET /big?n={HUGE} HTTP/1.1\r\nHost: test\r\n\r\nPOST /digest HTTP/1.1\r\nHost: test\r\n").into_bytes();
        all.extend_from_slice(format!("Connection: close\r\nContent-Length: {HUGE}\r\n\r\n").as_bytes());
        all.extend((0..HUGE).map(made));
        let mut most = 0;
        let received = duplex(client.tls(), &all, || most = most.max(procfs::memory(worker)));
        assert!(received.starts_with(b"HTTP/1.1 200"));
        let last = String::from_utf8_lossy(&received[HUGE..]);
        assert!(last.ends_with(&format!("{HUGE} {}", expected_digest())), "{}", &last[last.len().saturating_sub(300)..]);
        let grown = most.saturating_sub(before);
        eprintln!("{grown} bytes more in the worker");
        assert!(grown < HUGE_MEMORY, "{grown} bytes");
    }
    server.stop();
}

/// The digest of [`made`], by another program.
fn expected_digest() -> String {
    let code = format!(
        "import hashlib; b = bytes(i % 251 for i in range(251)); n = {HUGE}; print(hashlib.sha256((b * (n // 251 + 1))[:n]).hexdigest())"
    );
    let mut python = Command::new(common::venv::base_python());
    tools::run(python.args(["-c", &code]), Duration::from_secs(60)).succeeded().stdout.trim().to_owned()
}

#[test]
fn a_slow_reader_gets_everything_and_holds_nobody_up() {
    /// The answer, in bytes.
    const SIZE: usize = 8 * 1024 * 1024;
    let server = Server::new("probe").tls().options(["--threads", "1"]).start();
    for mut slow in both(&server) {
        // Room for several records: with less the kernel sends a few kB five times a second, and the end of the answer lies in
        // its send buffer for longer than a connection may be idle.
        slow.shrink_receive_buffer(64 * 1024);
        slow.send(format!("GET /big?n={SIZE} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let mut others = server.connect();
        for _ in 0..50 {
            assert!(matches!(slow.fill(), Ok(1..)));
            assert_eq!(others.get("/").status, 200, "one thread serves others meanwhile");
        }
        let response = slow.response();
        assert!(response.complete && response.body == vec![0; SIZE]);
        assert_eq!(slow.get("/").status, 200);
    }
    server.stop();
}

/// Whether no byte is on its way over the connection of this client's port (proc_net_tcp: both ends have a line with their queues).
fn is_drained(port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel has it");
    let port = format!(":{port:04X}");
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut ours = lines.filter(|words| words[1].ends_with(&port) || words[2].ends_with(&port));
    ours.all(|words| words[4] == "00000000:00000000")
}

/// The socket of a reader that keeps pace is never full: only the server itself can end its turn.
#[test]
fn a_huge_block_for_a_quick_reader_lets_others_proceed() {
    /// The block, in bytes: seconds of work.
    const SIZE: usize = 400 * 1024 * 1024;
    /// Bytes that may leave before another request is looked at: a few turns of 1 MiB.
    const MOST: u64 = 8 * 1024 * 1024;
    /// Looks at that.
    const ROUNDS: usize = 20;
    // How many bytes the worker has sent on a connection: tcpi_bytes_sent (linux/tcp.h).
    let app = format!(
        r#"
import os, socket, struct

def sent(number):
    with socket.socket(fileno=os.dup(number)) as one:
        return struct.unpack_from("Q", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 200)[0]

def all_sent():
    for name in os.listdir("/proc/self/fd"):
        try:
            yield sent(int(name)), int(name)
        except (OSError, struct.error):
            pass

BUSIEST = []

def application(environ, start_response):
    if environ["PATH_INFO"] == "/sent":
        # At once: the loop may go on meanwhile.
        answer = b"%d" % sent(BUSIEST[0])
    elif environ["PATH_INFO"] == "/busiest":
        BUSIEST[:] = [max(all_sent())[1]]
        answer = b"found"
    else:
        answer = bytes({SIZE})
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"#
    );
    let server = Server::source(&app).tls().options(["--threads", "1", "--keep-alive", "60"]).start();
    let worker = server.workers()[0];
    let (mut quick, mut other) = (server.connect(), server.connect());
    let port = quick.port();
    quick.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    let received = AtomicU64::new(0);
    thread::scope(|threads| {
        let (socket, received) = (&quick.tls().sock, &received);
        // It does not look at what the records carry, which would take longer than making them.
        threads.spawn(move || {
            let (mut socket, mut room) = (socket, vec![0; 1024 * 1024]);
            while let Ok(more @ 1..) = socket.read(&mut room) {
                received.fetch_add(more as u64, Relaxed);
            }
        });
        wait_for("the block to begin", SOON, || (received.load(Relaxed) > 0).then_some(()));
        assert_eq!(other.get("/busiest").text(), "found");
        for _ in 0..ROUNDS {
            let mut before = 0;
            at_once(worker, || {
                other.send("GET /sent HTTP/1.1\r\nHost: test\r\n\r\n");
                wait_for("what is on its way", SOON, || {
                    let last = std::mem::replace(&mut before, received.load(Relaxed));
                    (last == before && is_drained(port)).then_some(())
                });
            });
            let sent: u64 = other.response().text().parse().expect("a number");
            assert!(sent - before <= MOST, "{} bytes were sent before another request was served", sent - before);
            if sent > SIZE as u64 {
                break;
            }
        }
        socket.shutdown(Shutdown::Both).expect("it is open");
    });
    server.stop();
}

/// Answers of many sizes, one of which ends where the kernel takes no more: the last records of it wait for the reader.
#[test]
fn a_reader_that_begins_late_gets_the_end_too() {
    /// The application's blocks, in bytes.
    const BLOCK: usize = 64 * 1024;
    let server = Server::new("probe").tls().options(["--threads", "1"]).start();
    let mut others = server.connect();
    // The kernel takes about 40 of them on loopback.
    for blocks in 16..=80 {
        let mut late = server.connect();
        late.shrink_receive_buffer(64 * 1024);
        late.send(format!("GET /big?n={} HTTP/1.1\r\nHost: test\r\n\r\n", blocks * BLOCK));
        // One thread: it has done what it can for the one before.
        for _ in 0..3 {
            assert_eq!(others.get("/").status, 200);
        }
        let response = late.response();
        assert!(response.complete && response.body.len() == blocks * BLOCK, "{blocks} blocks: {} bytes", response.body.len());
        assert_eq!(late.get("/").status, 200);
    }
    server.stop();
}

#[test]
fn records_of_every_size_carry_requests() {
    let server = Server::new("probe").tls().start();
    let body: Vec<u8> = (0..3 * RECORD + 1).map(made).collect();
    let head = format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    for size in [1, 2, 7, 100, RECORD - 1, RECORD] {
        for mut client in both(&server) {
            let stream = client.tls();
            // A byte in a record of its own costs 22 to 37: only as many as are worth it.
            let small: &[u8] = if size < 100 { &body[..1000] } else { &body };
            let head = if size < 100 { head.replace(&body.len().to_string(), "1000") } else { head.clone() };
            for record in [head.as_bytes(), small].concat().chunks(size) {
                stream.conn.writer().write_all(record).expect("there is room");
                // Several records a segment, but none held back for long.
                let mut buffered = Vec::new();
                while stream.conn.wants_write() {
                    stream.conn.write_tls(&mut buffered).expect("a vector takes everything");
                }
                stream.sock.write_all(&buffered).expect("it listens");
            }
            let response = client.response();
            assert_eq!((response.status, &response.body[..]), (200, small), "records of {size}");
            assert_eq!(client.get("/").status, 200);
        }
    }
    server.stop();
}

#[test]
fn many_requests_in_a_record_and_one_over_many_are_answered_in_order() {
    /// Requests at once.
    const COUNT: usize = 200;
    let server = Server::new("probe").tls().options(["--threads", "4"]).start();
    let one = |n: usize| format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{n}", n.to_string().len());
    let all: String = (0..COUNT).map(one).collect();
    for mut client in both(&server) {
        client.send(&all);
        for n in 0..COUNT {
            assert_eq!(client.response().text(), n.to_string());
        }
        let mut pieces = all.as_bytes().chunks(37);
        for n in 0..COUNT {
            // Behind the answers that have come, as far as one is whole.
            pieces.by_ref().take(3).for_each(|piece| client.send(piece));
            assert_eq!(client.response().text(), n.to_string());
        }
    }
    server.stop();
}

#[test]
fn a_body_is_asked_for_once_its_head_is_there() {
    let server = Server::new("probe").tls().start();
    for mut client in both(&server) {
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.response().status, 100);
        client.send("hello");
        assert_eq!(client.response().text(), "hello");
    }
    server.stop();
}

#[test]
fn a_flushed_block_is_there_at_once() {
    let server = Server::new("probe").tls().start();
    for mut client in both(&server) {
        client.send("GET /drip?n=5 HTTP/1.1\r\nHost: test\r\n\r\n");
        let (began, mut times) = (Instant::now(), Vec::new());
        while !client.leftover().ends_with(b"0\r\n\r\n") {
            assert!(matches!(client.fill(), Ok(1..)));
            times.push(began.elapsed());
        }
        // Five bytes, 200 ms after each other: the first does not wait for the last.
        assert!(times.len() >= 5 && times[0] + Duration::from_millis(600) < times[times.len() - 1], "{times:?}");
    }
    server.stop();
}

#[test]
fn new_keys_are_taken_between_requests_and_within_a_body() {
    /// New keys in a row; each is asked for and answered.
    const TIMES: usize = 50;
    let server = Server::new("probe").tls().start();
    let config = Manner { version: Some(&TLS13), ..Manner::default() }.config();
    let mut client = Client::try_connect_tls(server.address(), tls::localhost(), config).expect("a handshake");
    for n in 0..TIMES {
        client.tls().conn.refresh_traffic_keys().expect("TLS 1.3");
        if n % 2 == 0 {
            assert_eq!(client.get("/").status, 200);
        } else {
            client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello");
            client.tls().conn.refresh_traffic_keys().expect("TLS 1.3");
            client.send("hello");
            assert_eq!(client.response().text(), "hellohello");
        }
    }
    // While an answer is on its way.
    client.send("GET /big?n=5000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    client.tls().conn.refresh_traffic_keys().expect("TLS 1.3");
    client.tls().flush().expect("it listens");
    let response = client.response();
    assert!(response.complete && response.body == vec![0; 5_000_000]);
    server.stop();
}

/// Many new keys that nobody wants have no answer each in memory.
#[test]
fn a_client_that_only_asks_for_new_keys_gains_nothing() {
    /// Requests for new keys, unread.
    const TIMES: usize = 20_000;
    let server = Server::new("probe").tls().start();
    let worker = server.workers()[0];
    assert_eq!(server.get("/").status, 200);
    let before = procfs::memory(worker);
    let config = Manner { version: Some(&TLS13), ..Manner::default() }.config();
    let mut client = Client::try_connect_tls(server.address(), tls::localhost(), config).expect("a handshake");
    client.set_patience(Duration::from_secs(1)).expect("a socket");
    for _ in 0..TIMES {
        let stream = client.tls();
        stream.conn.refresh_traffic_keys().expect("TLS 1.3");
        if stream.conn.write_tls(&mut stream.sock).is_err() {
            break;
        }
    }
    let grown = procfs::memory(worker).saturating_sub(before);
    assert!(grown < 1024 * 1024, "{grown} bytes");
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.workers(), [worker]);
    server.stop();
}

/// What `openssl s_client` does at a letter of its own: `K` new keys for both, `k` for itself, `R` a renegotiation.
#[test]
fn openssl_changes_its_keys_and_may_not_renegotiate() {
    let server = Server::new("probe").tls().start();
    for (version, letter, goes_on) in [("-tls1_3", "K", true), ("-tls1_3", "k", true), ("-tls1_2", "R", false)] {
        let mut command = Command::new("openssl");
        command.args(["s_client", version, "-connect", &server.address().tcp().to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut input = child.stdin.take().expect("it is piped");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        input.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
        assert!(lines.any(|line| line == "hello"), "{version} before {letter}");
        input.write_all(format!("{letter}\n").as_bytes()).expect("it reads");
        std::thread::sleep(Duration::from_millis(300));
        let asked = input.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        if goes_on {
            asked.expect("it reads");
            assert!(lines.any(|line| line == "hello"), "{version} after {letter}");
        }
        drop(input);
        wait_for("openssl's end", SOON, || child.try_wait().expect("it is ours"));
        assert_eq!(server.get("/").status, 200);
    }
    server.stop();
}

#[test]
fn files_are_the_same_bytes() {
    let sizes = [0, 1, RECORD - 1, RECORD, RECORD + 1, 64 * 1024, 300_001, 5_000_000];
    let server = Server::new("probe").tls();
    let dir = server.temp().join("files");
    fs::create_dir(&dir).expect("the temp directory is writable");
    for size in sizes {
        fs::write(dir.join(format!("{size}.bin")), (0..size).map(made).collect::<Vec<u8>>()).expect("it is writable");
    }
    let server = server.options(["--static-map", &format!("/static={}", dir.display())]).start();
    for mut client in both(&server) {
        for size in sizes {
            let response = client.get(&format!("/static/{size}.bin"));
            assert_eq!((response.status, response.complete, response.body.len()), (200, true, size));
            assert!(response.body.iter().enumerate().all(|(at, byte)| *byte == made(at)), "{size} bytes");
        }
        client.send("GET /static/5000000.bin HTTP/1.1\r\nHost: test\r\nRange: bytes=1000001-3000000\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, response.body.len()), (206, 2_000_000));
        assert!(response.body.iter().enumerate().all(|(at, byte)| *byte == made(at + 1_000_001)));
        assert_eq!(client.get("/").status, 200);
    }
    server.stop();
}
