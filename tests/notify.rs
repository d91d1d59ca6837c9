//! The messages to a service manager, read from a real NOTIFY_SOCKET, and the sockets that it passes.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use common::client::{Address, Client};
use common::server::{START_LIMIT, STOP_LIMIT, Server, at_once, binary, signal_to};
use common::tools::tool;
use common::{SOON, apps, procfs, wait_for};

/// A message that the master repeats while its workers boot, between any two other messages if the machine is slow.
const MORE_TIME: &str = "EXTEND_TIMEOUT_USEC=15000000";

/// More than [`MORE_TIME`] is sent within [`START_LIMIT`].
const ASKED_AT_MOST: usize = 20;

/// A service manager's end.
struct Manager {
    socket: UnixDatagram,
    place: String,
    _dir: TempDir,
}

impl Manager {
    /// With a path.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, place: path.display().to_string(), _dir: dir }
    }

    /// With a name in the abstract namespace.
    fn abstract_name() -> Self {
        let name = format!("tapster-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Self { socket, place: format!("@{name}"), _dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// The next message within `limit`.
    fn next_within(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).expect("it is a socket");
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(len) => Some(String::from_utf8_lossy(&buffer[..len]).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("cannot read the socket: {error}"),
        }
    }

    /// The next message but those about the time of the boot.
    #[track_caller]
    fn next(&self) -> String {
        let mut messages = std::iter::from_fn(|| self.next_within(START_LIMIT)).take(ASKED_AT_MOST);
        messages.find(|message| message != MORE_TIME).expect("a message")
    }

    /// Everything that waits, but what is about the time of the boot.
    fn rest(&self) -> Vec<String> {
        let messages = std::iter::from_fn(|| self.next_within(Duration::from_millis(1)));
        messages.filter(|message| message != MORE_TIME).collect()
    }
}

const STOPPING: &str = "STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000\nSTATUS=stopping";

#[test]
fn start_and_stop_are_reported_in_this_order_and_nothing_else() {
    for manager in [Manager::new(), Manager::abstract_name()] {
        let server = Server::new("probe").workers(2).env("NOTIFY_SOCKET", &manager.place).start();
        let url = server.url("");
        server.stop();
        let expected =
            ["STATUS=starting 2 workers".into(), format!("READY=1\nSTATUS=serving with 2 workers on {url}"), STOPPING.into()];
        assert_eq!(manager.rest(), expected);
    }
}

#[test]
fn reloads_are_reported_whether_they_succeed_or_not() {
    let manager = Manager::new();
    let server = Server::source("from probe import application\n").options(["--pythonpath", apps().to_str().expect("UTF-8")]);
    let app = server.temp().join("app.py");
    let server = server.workers(2).env("NOTIFY_SOCKET", &manager.place).expect_error("reload failed").expect_error("cannot boot");
    let server = server.start();
    let serving = format!("READY=1\nSTATUS=serving with 2 workers on {}", server.url(""));
    manager.next();
    assert_eq!(manager.next(), serving);
    let reloading = |generation: u64| {
        let before = monotonic_micros();
        server.signal(Signal::SIGHUP);
        let message = manager.next();
        let (time, status) =
            message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.split_once('\n')).expect(&message);
        assert!((before..=monotonic_micros()).contains(&time.parse().expect("a number")), "{message}");
        assert_eq!(status, format!("STATUS=loading generation {generation}"));
        manager.next()
    };
    assert_eq!(reloading(2), format!("{serving}, generation 2"));
    fs::write(&app, "raise SystemExit(1)\n").expect("it is written");
    assert_eq!(reloading(3), "READY=1\nSTATUS=reload failed, generation 2 keeps serving");
    server.stop();
    assert_eq!(manager.rest(), [STOPPING]);
}

#[test]
fn an_upgrade_is_reported_as_a_reload_by_the_same_process() {
    let manager = Manager::new();
    let server = Server::new("probe").workers(2).env("NOTIFY_SOCKET", &manager.place).start();
    let serving = format!("READY=1\nSTATUS=serving with 2 workers on {}", server.url(""));
    manager.next();
    assert_eq!(manager.next(), serving);
    for generation in [2, 3] {
        server.signal(Signal::SIGUSR2);
        let message = manager.next();
        assert!(message.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{message}");
        assert_eq!(manager.next(), format!("{serving}, generation {generation}"));
    }
    server.stop();
    assert_eq!(manager.rest(), [STOPPING]);
}

/// The clock of MONOTONIC_USEC.
fn monotonic_micros() -> u64 {
    tapster::sys::time::monotonic() / 1_000
}

#[test]
fn a_server_that_cannot_start_is_never_ready() {
    let manager = Manager::new();
    Server::new("no_such_module").env("NOTIFY_SOCKET", &manager.place).run_to_end();
    assert_eq!(manager.rest(), ["STATUS=starting 1 worker", STOPPING]);
}

#[test]
fn a_slow_boot_asks_for_more_time_until_it_is_ready() {
    let manager = Manager::new();
    let source = "import os, time\nwhile not os.path.exists('gate'): time.sleep(0.01)\nfrom probe import application\n";
    let server = Server::source(source).options(["--pythonpath", apps().to_str().expect("UTF-8")]);
    let gate = server.temp().join("gate");
    let began = Instant::now();
    let server = server.env("NOTIFY_SOCKET", &manager.place).start_without_waiting();
    assert_eq!(manager.next(), "STATUS=starting 1 worker");
    assert_eq!(manager.next_within(START_LIMIT).as_deref(), Some(MORE_TIME));
    assert!(began.elapsed() > Duration::from_secs(3), "a quick boot needs no more time");
    fs::write(gate, "").expect("it is written");
    assert!(manager.next().starts_with("READY=1\nSTATUS=serving with 1 worker on http://127.0.0.1:"));
    server.stop();
    assert_eq!(manager.rest(), [STOPPING]);
}

#[test]
fn the_watchdog_is_fed_while_the_loop_turns_and_a_worker_is_ready() {
    const USEC: u64 = 400_000;
    const INTERVAL: Duration = Duration::from_micros(USEC);
    let manager = Manager::new();
    let server = Server::source("from probe import application\n").options(["--pythonpath", apps().to_str().expect("UTF-8")]);
    let app = server.temp().join("app.py");
    let server = server.env("NOTIFY_SOCKET", &manager.place).env("WATCHDOG_USEC", USEC.to_string());
    let mut server = server.expect_error("was killed by SIGKILL").expect_error("cannot boot").start();
    manager.next();
    manager.next();
    let began = Instant::now();
    manager.rest();
    let fed: Vec<Instant> = (0..6)
        .map(|_| {
            assert_eq!(manager.next_within(SOON).as_deref(), Some("WATCHDOG=1"));
            Instant::now()
        })
        .collect();
    // The first may have been due before, and be sent late. Each of the others was due half an interval after the one before was.
    assert!(began.elapsed() >= INTERVAL * 2, "at half the interval, not more often");
    // A busy machine makes some of them late, not all.
    let gaps: Vec<Duration> = fed.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().any(|gap| *gap < INTERVAL), "well within the interval: {gaps:?}");

    // The loop stands still.
    at_once(server.pid(), || {
        manager.rest();
        assert_eq!(manager.next_within(INTERVAL), None);
    });
    assert_eq!(manager.next_within(SOON).as_deref(), Some("WATCHDOG=1"));

    // Nobody serves, although the master keeps trying.
    fs::write(&app, "raise SystemExit(1)\n").expect("it is written");
    signal_to(server.workers()[0], Signal::SIGKILL);
    server.log().wait(&["degraded"]);
    wait_for("the status", SOON, || {
        manager.rest().iter().any(|message| message.starts_with("STATUS=degraded: 0 of 1")).then_some(())
    });
    assert_eq!(manager.next_within(INTERVAL), None);
    fs::write(&app, "from probe import application\n").expect("it is written");
    assert_eq!(manager.next_within(SOON).as_deref(), Some("STATUS=recovered: 1 worker in service"));
    assert_eq!(manager.next_within(SOON).as_deref(), Some("WATCHDOG=1"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
}

#[test]
fn a_watchdog_for_another_process_is_not_fed() {
    let manager = Manager::new();
    let server =
        Server::new("probe").env("NOTIFY_SOCKET", &manager.place).env("WATCHDOG_USEC", "50000").env("WATCHDOG_PID", "1").start();
    manager.next();
    manager.next();
    assert_eq!(manager.next_within(Duration::from_millis(200)), None);
    server.stop();
}

const ENVIRONMENT: &str = r#"
import json, os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
    fds = [os.get_inheritable(int(fd)) for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and os.path.exists("/proc/self/fd/" + fd)]
    return [json.dumps({"seen": [name for name in names if name in os.environ], "leaked": any(fds)}).encode()]
"#;

#[test]
fn the_application_sees_nothing_of_the_service_manager() {
    let manager = Manager::new();
    let server = Server::source(ENVIRONMENT).env("NOTIFY_SOCKET", &manager.place).env("WATCHDOG_USEC", "9000000");
    let server = server.env("LISTEN_PID", "1").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "x").start();
    // The server need not close descriptors that the test itself has inherited.
    let body = String::from_utf8_lossy(&server.get("/").body).into_owned();
    assert!(body.starts_with(r#"{"seen": [], "#), "{body}");
    server.stop();
}

#[test]
fn a_service_manager_that_is_not_there_harms_nothing() {
    for place in ["/nonexistent/notify", "@tapster-nobody", "relative"] {
        let server = Server::new("probe").env("NOTIFY_SOCKET", place).start();
        assert_eq!(server.get("/").status, 200);
        let log = server.stop();
        assert_eq!(log.find(&["the service manager cannot be told"]).is_some(), place == "relative", "{}", log.text());
    }
}

/// A server started by Debian's systemd-socket-activate.
struct Activated {
    child: Child,
    log: PathBuf,
}

impl Activated {
    fn start(tool: &Path, dir: &Path, listen: &[&str], options: &[&str]) -> Self {
        let log = dir.join("log");
        let mut command = Command::new(tool);
        for address in listen {
            command.arg(format!("--listen={address}"));
        }
        command.args(["--setenv=PYTHONDONTWRITEBYTECODE=1", "--fdname=web"]).arg(binary()).args(["--workers", "2"]).args(options);
        command.arg("app").current_dir(dir).env_remove("PYTHONHOME").env_remove("NOTIFY_SOCKET");
        let stderr = fs::File::create(&log).expect("the directory is writable");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("it starts");
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    fn stop(&mut self) {
        signal_to(self.child.id() as i32, Signal::SIGTERM);
        let status = wait_for("the end of the server", STOP_LIMIT, || self.child.try_wait().expect("it is ours"));
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        eprintln!("{}", self.log());
        let workers = procfs::children(self.child.id() as i32);
        // It has ended already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        wait_for("the end of the workers", SOON, || workers.iter().all(|pid| !procfs::alive(*pid)).then_some(()));
    }
}

#[track_caller]
fn ask(address: &Address) -> String {
    let mut client = wait_for("somebody who listens", SOON, || Client::try_connect(address).ok());
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    String::from_utf8_lossy(&client.response().body).into_owned()
}

#[test]
fn passed_sockets_are_served_and_belong_to_who_made_them() {
    let Some(tool) = tool("systemd-socket-activate") else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("app.py"), ENVIRONMENT).expect("it is written");
    let path = dir.path().join("socket");
    // An address of its own: its port is free until systemd-socket-activate binds it, and others take ports of 127.0.0.1
    // meanwhile.
    let free = std::net::TcpListener::bind("127.0.0.2:0").and_then(|listener| listener.local_addr());
    let tcp = free.expect("a free port").to_string();
    let mut server = Activated::start(&tool, dir.path(), &[&path.display().to_string(), &tcp], &[]);
    let expected = r#"{"seen": [], "leaked": false}"#;
    assert_eq!(ask(&Address::Unix(path.clone())), expected);
    assert_eq!(ask(&Address::parse(&format!("http://{tcp}")).expect("an address")), expected);
    let addresses = format!("unix:{}, http://{tcp}", path.display());
    wait_for("both addresses in the log", SOON, || server.log().contains(&addresses).then_some(()));
    server.stop();
    assert!(path.exists(), "the socket is not ours to remove");
}

#[test]
fn an_address_on_the_command_line_beats_passed_sockets() {
    let Some(tool) = tool("systemd-socket-activate") else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("app.py"), ENVIRONMENT).expect("it is written");
    let (passed, own) = (dir.path().join("passed"), dir.path().join("own"));
    let bind = format!("unix:{}", own.display());
    let mut server = Activated::start(&tool, dir.path(), &[&passed.display().to_string()], &["--bind", &bind]);
    // The first connection wakes systemd-socket-activate.
    let waker = wait_for("somebody who listens", SOON, || Client::try_connect(&Address::Unix(passed.clone())).ok());
    assert_eq!(ask(&Address::Unix(own.clone())), r#"{"seen": [], "leaked": false}"#);
    drop(waker);
    server.stop();
    assert!(passed.exists() && !own.exists());
    assert!(
        server.log().contains("sockets of the service manager (web) are not used, because --bind is given"),
        "{}",
        server.log()
    );
}
