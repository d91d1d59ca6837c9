//! Metrics for statsd: a real receiver gets what clients did, over reloads, upgrades, and times when nobody receives.

mod common;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use common::client::{Address, Client};
use common::server::{Running, Server, signal_to};
use common::{SOON, wait_for};

/// Sums of what was received: counters by name, and how many times each distribution stands for.
#[derive(Debug, Default)]
struct Sums {
    counters: BTreeMap<String, f64>,
    gauges: BTreeMap<String, f64>,
    /// Count and sum in milliseconds.
    times: BTreeMap<String, (f64, f64)>,
}

impl Sums {
    fn take(&mut self, datagram: &[u8], prefix: &str, tags: &str) {
        assert!(datagram.len() <= 1432, "{} bytes", datagram.len());
        for line in std::str::from_utf8(datagram).expect("plain text").lines() {
            let line = line.strip_prefix(prefix).unwrap_or_else(|| panic!("{line} begins with {prefix}"));
            let line = line.strip_suffix(tags).unwrap_or_else(|| panic!("{line} ends with {tags}"));
            let (name, rest) = line.split_once(':').unwrap_or_else(|| panic!("{line} has a value"));
            let mut parts = rest.split('|');
            let value: f64 = parts.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{line} has a number"));
            let kind = parts.next();
            let rate: f64 = parts.next().map_or(1.0, |text| text.trim_start_matches('@').parse().expect("a rate"));
            match kind {
                Some("c") => *self.counters.entry(name.to_owned()).or_default() += value / rate,
                Some("g" | "h") => _ = self.gauges.insert(name.to_owned(), value),
                Some("ms") => {
                    let (count, sum) = self.times.entry(name.to_owned()).or_default();
                    (*count, *sum) = (*count + 1.0 / rate, *sum + value / rate);
                }
                other => panic!("{line} is of kind {other:?}"),
            }
        }
    }

    fn counter(&self, name: &str) -> f64 {
        self.counters.get(name).copied().unwrap_or(0.0).round()
    }
}

fn receive_all(socket: &UdpSocket, prefix: &str, tags: &str) -> Sums {
    socket.set_nonblocking(true).expect("a socket");
    let (mut sums, mut buffer) = (Sums::default(), [0; 65536]);
    while let Ok(count) = socket.recv(&mut buffer) {
        sums.take(&buffer[..count], prefix, tags);
    }
    sums
}

fn ask(server: &Running, target: &str, status: u16) {
    assert_eq!(server.get(target).status, status, "{target}");
}

const APP: &str = "\
import time\n\n\n\
def application(environ, start_response):\n    \
    path = environ['PATH_INFO']\n    \
    if path == '/fail':\n        raise RuntimeError('as asked')\n    \
    if path == '/sleep':\n        time.sleep(0.05)\n    \
    start_response('404 Not Found' if path == '/none' else '200 OK', [('Content-Length', '2')])\n    \
    return [b'ok']\n";

#[test]
fn what_clients_did_arrives_once_over_a_reload_and_an_upgrade() {
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let host = receiver.local_addr().expect("an address").to_string();
    let server = Server::source(APP).workers(2).expect_error("RuntimeError: as asked").expect_error("was killed by SIGKILL");
    let options = ["--statsd-host", &host, "--statsd-prefix", "shop", "--dogstatsd-tags", "env:test", "--enable-backlog-metric"];
    let server = server.options(options).start();
    let round = || {
        for _ in 0..20 {
            ask(&server, "/", 200);
        }
        for _ in 0..5 {
            ask(&server, "/sleep", 200);
        }
        ask(&server, "/none", 404);
        ask(&server, "/fail", 500);
    };
    round();
    server.signal(Signal::SIGHUP);
    server.log().wait(&["reload done"]);
    round();
    server.signal(Signal::SIGUSR2);
    server.log().wait(&["upgrade: this is tapster"]);
    round();
    server.log().wait(&["reload done: all workers are of generation 3"]);
    signal_to(server.workers()[0], Signal::SIGKILL);
    server.log().wait(&["was killed by SIGKILL"]);
    server.stop();
    let sums = receive_all(&receiver, "shop.", "|#env:test");
    assert_eq!(sums.counter("gunicorn.requests"), 81.0, "{sums:#?}");
    assert_eq!(sums.counter("gunicorn.request.status.200"), 75.0, "{sums:#?}");
    assert_eq!(sums.counter("gunicorn.request.status.404"), 3.0, "{sums:#?}");
    assert_eq!(sums.counter("gunicorn.request.status.500"), 3.0, "{sums:#?}");
    assert_eq!(sums.counter("gunicorn.log.exception"), 3.0, "{sums:#?}");
    assert_eq!(sums.counter("tapster.worker.exits.reload"), 2.0, "{sums:#?}");
    // Of the workers one for each exception, and of the master one for the worker that is killed.
    assert_eq!((sums.counter("gunicorn.log.error"), sums.counter("gunicorn.log.critical")), (4.0, 0.0), "{sums:#?}");
    let (count, sum) = sums.times["gunicorn.request.duration"];
    assert_eq!(count.round(), 81.0, "{sums:#?}");
    assert!(sum > 15.0 * 50.0 * 0.95, "15 requests of 50 ms: {sum}");
    assert!(sums.gauges.contains_key("gunicorn.workers") && sums.gauges.contains_key("gunicorn.backlog"), "{sums:#?}");
}

#[test]
fn what_a_worker_answers_before_the_master_knows_that_it_is_ready_is_sent() {
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let host = receiver.local_addr().expect("an address").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let (gate, socket) = (directory.path().join("gate"), directory.path().join("socket"));
    mkfifo(&gate, Mode::S_IRWXU).expect("a directory of ours");
    let server = Server::source(&format!("open({:?}).read()\n{APP}", gate.display().to_string()));
    let options = ["--statsd-host", &host];
    let mut server = server.binds([format!("unix:{}", socket.display())]).options(options).start_without_waiting();
    wait_for("the worker that loads", SOON, || (!server.workers().is_empty()).then_some(()));
    server.signal(Signal::SIGSTOP);
    std::fs::write(&gate, "").expect("the worker reads it");
    let mut client = Client::connect(&Address::Unix(socket));
    assert_eq!(client.get("/").status, 200);
    server.signal(Signal::SIGCONT);
    server.wait_for_ready();
    server.stop();
    assert_eq!(receive_all(&receiver, "", "").counter("gunicorn.requests"), 1.0);
}

#[test]
fn a_receiver_that_comes_later_gets_what_was_counted_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("statsd");
    let server = Server::source(APP).options(["--statsd-host", &format!("unix://{}", path.display())]).start();
    server.log().wait(&["metrics cannot be sent to unix://", "sent together later"]);
    for _ in 0..30 {
        ask(&server, "/", 200);
    }
    // The next program tries at once, and what could not be sent stays to be sent.
    server.signal(Signal::SIGUSR2);
    let failures = || server.log().records().iter().filter(|record| record.text.contains("metrics cannot be sent")).count();
    wait_for("the second failure", SOON, || (failures() == 2).then_some(()));
    let receiver = UnixDatagram::bind(&path).expect("a socket");
    receiver.set_read_timeout(Some(3 * SOON)).expect("a socket");
    // Every 10 s, without anything else that would wake the master.
    let (mut sums, mut buffer) = (Sums::default(), [0; 65536]);
    let began = std::time::Instant::now();
    while sums.counter("gunicorn.requests") < 30.0 {
        assert!(began.elapsed() < SOON, "what was counted before does not come: {sums:#?}");
        let count = receiver.recv(&mut buffer).expect("a datagram comes in time");
        sums.take(&buffer[..count], "", "");
    }
    server.log().wait(&["metrics are sent to unix://", "again"]);
    assert_eq!(sums.gauges["gunicorn.workers"], 1.0);
    ask(&server, "/", 200);
    server.stop();
    receiver.set_nonblocking(true).expect("a socket");
    while let Ok(count) = receiver.recv(&mut buffer) {
        sums.take(&buffer[..count], "", "");
    }
    assert_eq!(sums.counter("gunicorn.requests"), 31.0, "{sums:#?}");
}

#[test]
fn a_receiver_that_does_not_read_holds_nobody_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("statsd");
    let receiver = UnixDatagram::bind(&path).expect("a socket");
    // Full.
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a socket");
    while filler.send_to(b"x:1|c", &path).is_ok() {}
    let server = Server::source(APP).options(["--statsd-host", &format!("unix://{}", path.display())]).start();
    server.log().wait(&["metrics cannot be sent to unix://"]);
    ask(&server, "/", 200);
    // It is tried again before an upgrade.
    server.signal(Signal::SIGUSR2);
    server.log().wait(&["reload done"]);
    receiver.set_nonblocking(true).expect("a socket");
    let receive = || {
        let (mut sums, mut buffer) = (Sums::default(), [0; 65536]);
        while let Ok(count) = receiver.recv(&mut buffer) {
            sums.take(&buffer[..count], "", "");
        }
        sums
    };
    receive();
    server.stop();
    assert_eq!(receive().counter("gunicorn.requests"), 1.0, "what found no room goes with what follows");
    while filler.send_to(b"x:1|c", &path).is_ok() {}
    let server = Server::source(APP).options(["--statsd-host", &format!("unix://{}", path.display())]).start();
    let began = std::time::Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "a stop waits for nobody");
}

#[test]
fn what_cannot_be_a_receiver_is_refused_before_the_start() {
    for (options, why) in [
        (vec!["--statsd-host", "no-such-host.invalid"], "the name cannot be resolved"),
        (vec!["--statsd-host", "host:0"], "must be HOST:PORT or unix://PATH"),
        (vec!["--statsd-host", "127.0.0.1:1", "--statsd-prefix", "a|b"], "has a meaning there"),
        (vec!["--statsd-host", "127.0.0.1:1", "--dogstatsd-tags", "a b"], "has a meaning there"),
    ] {
        Server::source(APP).options(&options).run_to_end().failed(2, &[why]);
    }
    // At a reload the old generation serves on.
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tapster.toml");
    std::fs::write(&file, "statsd-host = '127.0.0.1:1'\n").expect("the directory is writable");
    let server = Server::source(APP).options(["--config", &file.display().to_string()]);
    let server = server.expect_error("no-such-host.invalid").start();
    std::fs::write(&file, "statsd-host = 'no-such-host.invalid'\n").expect("the directory is writable");
    server.signal(Signal::SIGHUP);
    server.log().wait(&["no-such-host.invalid", "the name cannot be resolved"]);
    ask(&server, "/", 200);
    wait_for("one worker", SOON, || (server.workers().len() == 1).then_some(()));
    server.stop();
}
