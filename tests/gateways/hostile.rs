//! Spawned servers behind a front that means them harm, or that starts them with as little as can be: half records, nonsense,
//! answers that it does not read, signals that are blocked, an environment that is empty.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::client::{Address, Client};
use crate::common::server::{START_LIMIT, STOP_LIMIT, binary};
use crate::common::{SOON, procfs, raise_open_files, venv, wait_for};
use crate::records::{begin, record, request};
use crate::spawned::{STREAMS, Spawned, ask, listen};

/// Records of a front that asks and wants nothing of the application.
const GET_VALUES: u8 = 9;
const UNKNOWN: u8 = 77;

/// Inputs that are made up, each other than the ones before.
const INPUTS: u64 = 3_000;

/// Connections that send and do not read.
const DEAF: usize = 20;

/// Connections with something that waits, more than there is memory for.
const WAITING: usize = 1_500;

/// Bytes that each of them has to send, far more than sockets keep.
const FLOOD: usize = 4_000_000;

/// A server on a unix socket in a directory of its own.
fn start(options: &[&str]) -> (Spawned, Address, tempfile::TempDir) {
    let place = tempfile::tempdir().expect("the temp directory is writable");
    let path = place.path().join("s");
    let server = Spawned::start(listen(&path), STREAMS, options, false);
    (server, Address::Unix(path), place)
}

/// Ends it; nothing of its own has gone wrong.
#[track_caller]
fn stop(server: Spawned) {
    server.signal(Signal::SIGTERM);
    let log = server.ends_with(0);
    assert!(!log.contains("panic") && !log.contains("ERROR") && !log.contains("CRITICAL"), "{log}");
}

#[test]
fn a_front_may_start_it_with_an_empty_environment_and_signals_that_are_blocked_or_ignored() {
    let place = tempfile::tempdir().expect("the temp directory is writable");
    let path = place.path().join("s");
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    std::fs::write(dir.path().join("app.py"), STREAMS).expect("the temp directory is writable");
    // Signals 1 to 31 are blocked, and those by which a master lives are ignored besides.
    let launcher = "import os, signal, sys\n\
                    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1):\n\
                    \x20   signal.signal(number, signal.SIG_IGN)\n\
                    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\n\
                    os.execve(sys.argv[1], sys.argv[1:], {})";
    let mut command = Command::new(venv::base_python());
    command.args(["-c", launcher]).arg(binary()).args(["--error-logfile", "log", "app"]);
    let server = Spawned::run(command, dir, listen(&path));
    let address = Address::Unix(path);
    let (worker, _) = ask(&address);
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it lives");
    wait_for("another worker", START_LIMIT, || Some(ask(&address).0).filter(|next| *next != worker));
    server.signal(Signal::SIGTERM);
    server.ends_with(0);
}

#[test]
fn nothing_is_left_of_a_server_whose_front_has_killed_it() {
    let (server, address, _place) = start(&["--workers", "2"]);
    ask(&address);
    let group = server.id();
    assert!(procfs::group(group).len() > 1, "a master and its workers");
    server.signal(Signal::SIGKILL);
    wait_for("the end of the workers", STOP_LIMIT, || {
        procfs::group(group).iter().all(|process| process.pid == group || process.is_gone()).then_some(())
    });
}

#[test]
fn requests_that_stop_anywhere_end_and_disturb_nobody() {
    let (server, address, _place) = start(&["--header-timeout", "1", "--body-timeout", "1", "--keep-alive", "1"]);
    let (worker, _) = ask(&address);
    let whole = request(1, 1, &[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")], b"hello");
    let begun: Vec<Client> = (1..whole.len())
        .map(|cut| {
            let mut client = Client::connect(&address);
            client.send(&whole[..cut]);
            client
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(ask(&address).0, worker);
    }
    for (cut, mut client) in begun.into_iter().enumerate() {
        client.set_patience(SOON).expect("it is connected");
        // Answered that it is late where it has begun, and closed.
        let left = client.rest();
        assert!(
            left.is_empty() || left.windows(11).any(|part| part == b"Status: 408"),
            "{cut}: {:?}",
            left.escape_ascii().to_string()
        );
        assert_eq!(left.is_empty(), cut + 1 < begin(1, 1, 1).len(), "cut after {}", cut + 1);
    }
    assert_eq!(ask(&address).0, worker);
    stop(server);
}

#[test]
fn nonsense_in_records_ends_each_connection_and_no_worker() {
    let (server, address, _place) = start(&[]);
    let (worker, _) = ask(&address);
    let pieces = [
        request(1, 1, &[("REQUEST_URI", "/")], b""),
        request(3, 0, &[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")], b"hello"),
        begin(1, 1, 0),
        begin(1, 2, 1),
        begin(2, 3, 0),
        record(2, 1, b""),
        record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS"),
        record(4, 1, b"\xff\xff\xff\xff\x7f\xff\xff\xff"),
        record(5, 1, b"0123456789"),
        record(8, 1, b"data"),
        record(11, 0, b"12345678"),
        record(0, 0, b""),
        record(255, 0xFFFF, b""),
        record(1, 1, b"short"),
    ];
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |bound: usize| {
        // Xorshift: the same inputs each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for number in 0..INPUTS {
        let mut bytes: Vec<u8> = (0..=next(5)).flat_map(|_| pieces[next(pieces.len())].clone()).collect();
        for _ in 0..next(4) {
            let place = next(bytes.len());
            bytes[place] = next(256) as u8;
        }
        bytes.truncate(1 + next(bytes.len()));
        let mut client = Client::connect(&address);
        client.set_patience(SOON).expect("it is connected");
        let _ = client.try_send(&bytes);
        client.finish_sending();
        let end = loop {
            match client.fill() {
                Ok(1..) => {}
                end => break end,
            }
        };
        let hangs = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!hangs, "input {number} has no end: {:?}", bytes.escape_ascii().to_string());
    }
    assert_eq!(ask(&address).0, worker, "the worker lives");
    stop(server);
}

#[test]
fn replies_that_nobody_reads_take_no_memory() {
    let (server, address, _place) = start(&[]);
    let (worker, _) = ask(&address);
    let refused: Vec<u8> = (1..100).flat_map(|id| begin(id, 2, 1)).collect();
    let floods = [record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS"), record(UNKNOWN, 0, b""), refused];
    let before = procfs::resident(worker);
    let mut deaf = Vec::new();
    for flood in floods {
        let bytes: Vec<u8> = flood.iter().copied().cycle().take(FLOOD - FLOOD % flood.len()).collect();
        for _ in 0..DEAF / 4 {
            let mut client = Client::connect(&address);
            let sent = client.send_while_taken(&bytes, Duration::from_millis(300));
            assert!(sent < bytes.len(), "the server reads on though its answers are not taken");
            deaf.push(client);
        }
    }
    assert_eq!(ask(&address).0, worker);
    let grown = procfs::resident(worker).saturating_sub(before);
    assert!(grown < 8 << 20, "it has grown by {grown} bytes");
    let open = procfs::open_files(worker);
    let count = deaf.len();
    drop(deaf);
    procfs::wait_for_open_files(worker, open + 1 - count);
    stop(server);
}

#[test]
fn what_waits_on_all_connections_has_one_bound() {
    raise_open_files();
    let (server, address, _place) = start(&["--header-timeout", "60"]);
    let (worker, _) = ask(&address);
    // One that does not go on, and behind it another with nearly all that may wait on a connection.
    let other: Vec<u8> = [begin(3, 1, 1), record(4, 3, &[b'x'; 30_000]), record(4, 3, &[b'x'; 30_000])].concat();
    let before = procfs::resident(worker);
    let mut waiting: Vec<Client> = (0..WAITING)
        .map(|_| {
            let mut client = Client::connect(&address);
            client.send([&begin(1, 1, 1)[..], &other].concat());
            client
        })
        .collect();
    assert_eq!(ask(&address).0, worker);
    let last = waiting.last_mut().expect("there are some");
    last.set_patience(SOON).expect("it is connected");
    assert_eq!(last.take(16), [1, 3, 0, 3, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], "it is refused, as what cannot wait");
    let grown = procfs::resident(worker).saturating_sub(before);
    assert!(grown < 100 << 20, "{WAITING} connections have {grown} bytes");
    let open = procfs::open_files(worker);
    drop(waiting);
    procfs::wait_for_open_files(worker, open + 1 - WAITING);
    // What they had is there again.
    let mut client = Client::connect(&address);
    client.send([&begin(1, 1, 1)[..], &other, &record(2, 3, b"")].concat());
    assert_eq!(client.take(16), [1, 3, 0, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "it has waited until it was aborted");
    drop(client);
    stop(server);
}

#[test]
fn a_server_that_ends_while_it_starts_leaves_nothing() {
    for millis in [0, 20, 60, 120] {
        let (server, _address, _place) = start(&[]);
        std::thread::sleep(Duration::from_millis(millis));
        let group = server.id();
        server.signal(Signal::SIGTERM);
        server.ends();
        assert!(procfs::group(group).is_empty(), "after {millis} ms");
    }
}

#[test]
fn addresses_of_web_servers_that_are_none_are_refused_with_words() {
    for (value, words) in [("localhost", "\"localhost\" is not an IP address"), ("127.0.0.1,", "an address is missing")] {
        let dir = tempfile::tempdir().expect("the temp directory is writable");
        let mut command = Command::new(binary());
        command.arg("app").env("FCGI_WEB_SERVER_ADDRS", value).stdout(Stdio::null());
        let place = tempfile::tempdir().expect("the temp directory is writable");
        let server = Spawned::run(command, dir, listen(&place.path().join("s")));
        let log = server.ends_with(2);
        assert!(log.contains("FCGI_WEB_SERVER_ADDRS") && log.contains(words), "{log}");
    }
}
