//! Servers that a web server starts, with the listening socket as standard input: by hand, by lighttpd, mod_fcgid and spawn-fcgi.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::common::client::{Address, Client};
use crate::common::server::{START_LIMIT, STOP_LIMIT, binary};
use crate::common::{apps, procfs, tools, wait_for};
use crate::fastcgi;
use crate::front::{Front, block_of};
use crate::records::request;
use crate::through::{Cuts, Habits, Slash, assert_serves_through, assert_streams_through, assert_tells_of_clients_that_leave};

/// Says who it is, and what its standard streams are.
pub const STREAMS: &str = r#"
import os

print("printed")

def application(environ, start_response):
    print("printed", flush=True)
    streams = " ".join(os.readlink("/proc/self/fd/%d" % number) for number in range(3))
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [streams.encode()]
"#;

/// A server that was started with a listening socket as its standard input.
pub struct Spawned {
    child: Child,
    dir: tempfile::TempDir,
}

impl Spawned {
    /// Serves this application; `closed`: without standard output and error.
    pub fn start(socket: impl Into<OwnedFd>, source: &str, options: &[&str], closed: bool) -> Self {
        let dir = tempfile::tempdir().expect("the temp directory is writable");
        fs::write(dir.path().join("app.py"), source).expect("the temp directory is writable");
        let mut command = Command::new("/bin/sh");
        let script = if closed { r#"exec "$@" >&- 2>&-"# } else { r#"exec "$@""# };
        command.args(["-c", script, "sh"]).arg(binary()).args(options).args(["--error-logfile", "log", "app"]);
        Self::run(command, dir, socket)
    }

    pub fn run(mut command: Command, dir: tempfile::TempDir, socket: impl Into<OwnedFd>) -> Self {
        let variables = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TAPSTER_"));
        for (name, _) in variables {
            command.env_remove(name);
        }
        command.current_dir(dir.path()).process_group(0).env("PYTHONDONTWRITEBYTECODE", "1").env("RUNTIME_DIRECTORY", dir.path());
        let output = fs::File::create(dir.path().join("output")).expect("the temp directory is writable");
        command.stdout(output.try_clone().expect("a descriptor is free")).stderr(output).stdin(Stdio::from(socket.into()));
        Self { child: command.spawn().expect("the server can be started"), dir }
    }

    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        read("log") + &read("output")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it lives");
    }

    /// Its process, which leads a group.
    pub fn id(&self) -> i32 {
        self.child.id() as i32
    }

    /// It ends.
    #[track_caller]
    pub fn ends(mut self) {
        wait_for("the end of the server", STOP_LIMIT, || self.child.try_wait().expect("it is ours"));
    }

    /// It ends with this code.
    #[track_caller]
    pub fn ends_with(mut self, code: i32) -> String {
        let status = wait_for("the end of the server", STOP_LIMIT, || self.child.try_wait().expect("it is ours"));
        assert_eq!(status.code(), Some(code), "{}", self.log());
        self.log()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}\n---", self.log());
        }
    }
}

/// A unix socket that listens at this path, as a web server makes it.
pub fn listen(path: &Path) -> UnixListener {
    UnixListener::bind(path).expect("the temp directory is writable")
}

/// The worker that answers, and what it says.
#[track_caller]
pub fn ask(address: &Address) -> (i32, String) {
    let mut client = Client::connect(address);
    client.set_patience(START_LIMIT).expect("it is connected");
    client.send(request(1, 0, &[("REQUEST_URI", "/")], b""));
    let answer = fastcgi::answer(&mut client, 1);
    let worker = answer.field("x-worker").and_then(|worker| worker.parse().ok()).expect("a worker says who it is");
    (worker, answer.text())
}

#[test]
fn a_listening_socket_on_descriptor_0_is_noticed_and_gets_one_worker() {
    for closed in [false, true] {
        let place = tempfile::tempdir().expect("the temp directory is writable");
        let address = Address::Unix(place.path().join("s"));
        let server = Spawned::start(listen(&place.path().join("s")), STREAMS, &[], closed);
        let (worker, streams) = ask(&address);
        let nulls = streams.split(' ').filter(|stream| *stream == "/dev/null").count();
        assert_eq!(nulls, if closed { 3 } else { 1 }, "nothing of the server's is under these numbers: {streams}");
        assert_eq!(procfs::children(server.child.id() as i32), [worker], "one worker");
        server.signal(Signal::SIGHUP);
        let second =
            wait_for("a worker of the next generation", START_LIMIT, || Some(ask(&address).0).filter(|next| *next != worker));
        wait_for("the end of the first", STOP_LIMIT, || (procfs::children(server.child.id() as i32) == [second]).then_some(()));
        server.signal(Signal::SIGTERM);
        let log = server.ends_with(0);
        assert!(log.contains("standard input is a listening socket"), "{log}");
        assert!(place.path().join("s").exists(), "it is the web server's");
    }
}

#[test]
fn an_upgrade_keeps_the_socket_that_the_web_server_has_given() {
    for (closed, end) in [(false, Signal::SIGTERM), (true, Signal::SIGUSR1)] {
        let place = tempfile::tempdir().expect("the temp directory is writable");
        let address = Address::Unix(place.path().join("s"));
        let server = Spawned::start(listen(&place.path().join("s")), STREAMS, &[], closed);
        let (mut worker, streams) = ask(&address);
        // Once more, since the second begins with what the first has left.
        for upgrades in 1..=2 {
            server.signal(Signal::SIGUSR2);
            let next =
                wait_for("a worker of the next program", START_LIMIT, || Some(ask(&address).0).filter(|next| *next != worker));
            wait_for("the end of the one before", STOP_LIMIT, || {
                (procfs::children(server.child.id() as i32) == [next]).then_some(())
            });
            assert_eq!(ask(&address), (next, streams.clone()), "one worker, with the same streams");
            assert_eq!(server.log().matches("upgrade: this is tapster").count(), upgrades, "{}", server.log());
            worker = next;
        }
        server.signal(Signal::SIGHUP);
        wait_for("a worker of the next generation", START_LIMIT, || Some(ask(&address).0).filter(|next| *next != worker));
        wait_for("the end of the reload", START_LIMIT, || server.log().contains("reload done").then_some(()));
        // It is still the web server's, which ends it so.
        server.signal(end);
        let log = server.ends_with(0);
        assert!(!log.contains("ERROR") && !log.contains("CRITICAL"), "{log}");
        assert!(place.path().join("s").exists(), "it is the web server's");
    }
}

#[test]
fn two_servers_on_one_socket_take_turns_and_each_signal_ends_one_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGUSR1] {
        let place = tempfile::tempdir().expect("the temp directory is writable");
        let (address, socket) = (Address::Unix(place.path().join("s")), listen(&place.path().join("s")));
        let first = Spawned::start(socket.try_clone().expect("a descriptor is free"), STREAMS, &["--workers", "2"], true);
        ask(&address);
        let second = Spawned::start(socket, STREAMS, &[], false);
        wait_for("the second server", START_LIMIT, || second.log().contains("concurrent request").then_some(()));
        first.signal(signal);
        first.ends_with(0);
        for _ in 0..20 {
            let (worker, _) = ask(&address);
            assert_eq!(procfs::children(second.child.id() as i32), [worker]);
        }
        second.signal(signal);
        second.ends_with(0);
    }
}

#[test]
fn addresses_of_web_servers_come_by_their_variable_and_options_say_what_else_is_spoken() {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let launch = |options: &[&str], variable: &str, socket: TcpListener| {
        let mut command = Command::new(binary());
        command.args(options).arg("probe").arg("--chdir").arg(apps()).env("FCGI_WEB_SERVER_ADDRS", variable);
        Spawned::run(command, tempfile::tempdir().expect("the temp directory is writable"), socket)
    };
    let socket = bind();
    let address = Address::Tcp(socket.local_addr().expect("it is bound"));
    let server = launch(&[], "10.0.0.1,127.0.0.1", socket);
    assert!(ask(&address).0 > 0);
    server.signal(Signal::SIGTERM);
    server.ends_with(0);

    let socket = bind();
    let address = Address::Tcp(socket.local_addr().expect("it is bound"));
    let server = launch(&[], "10.0.0.1", socket);
    let mut stranger = Client::connect(&address);
    stranger.set_patience(START_LIMIT).expect("it is connected");
    let _ = stranger.try_send(&request(1, 0, &[], b""));
    assert!(stranger.is_closed());
    server.signal(Signal::SIGTERM);
    assert!(server.ends_with(0).contains("it is not in --gateway-allow-from"));

    for (options, uses) in
        [(&["--protocol", "scgi"][..], true), (&["--bind", "scgi:fd://0"], true), (&["--bind", "127.0.0.1:0"], false)]
    {
        let socket = bind();
        let address = Address::Tcp(socket.local_addr().expect("it is bound"));
        let server = launch(options, "", socket);
        if uses {
            let mut client = Client::connect(&address);
            client.set_patience(START_LIMIT).expect("it is connected");
            client.send(crate::scgi(&crate::with(&[])));
            assert_eq!(crate::parse(&client.rest()).text(), "hello\n", "{options:?}");
        } else {
            wait_for("the server", START_LIMIT, || server.log().contains("concurrent request").then_some(()));
            assert!(server.log().contains("is not used, because --bind is given"), "{}", server.log());
        }
        server.signal(Signal::SIGTERM);
        server.ends_with(0);
    }
}

#[test]
fn lighttpd_starts_it() {
    let Some(front) = Front::spawning("lighttpd spawned", &[("", "server.stream-response-body = 1\n")]) else { return };
    assert_serves_through(&front, Habits { merges: true, ..Habits::default() });
    assert_streams_through(&front);
    assert_tells_of_clients_that_leave(&front, false);
    front.stop();
}

#[test]
fn mod_fcgid_starts_it() {
    // Its answer to a broken answer is an error page behind it.
    let habits = Habits { slash: Slash::Kept, cuts: Cuts::WithLength, merges: true, ..Habits::default() };
    let more = [("", "FcgidIPCDir {temp}/ipc\nFcgidProcessTableFile {temp}/table\n")];
    let Some(front) = Front::spawning("apache fcgid", &more) else { return };
    assert_serves_through(&front, habits);
    assert_streams_through(&front);
    assert_tells_of_clients_that_leave(&front, false);
    front.stop();
}

#[test]
fn spawn_fcgi_starts_it() {
    let Some(_) = tools::tool("spawn-fcgi") else { return };
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let address = Address::Unix(dir.path().join("app.sock"));
    let words = block_of("spawn-fcgi").expect("the page has a block").replace("/run/", &format!("{}/", dir.path().display()));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec {}", words.trim_start_matches(".PP").trim())]);
    let server = Spawned::run(command, dir, fs::File::open("/dev/null").expect("it is there"));
    wait_for("the socket", START_LIMIT, || Client::try_connect(&address).is_ok().then_some(()));
    assert_eq!(ask(&address).1, "hello\n");
    server.signal(Signal::SIGTERM);
    server.ends_with(0);
}
