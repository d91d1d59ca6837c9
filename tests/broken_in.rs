//! A worker that somebody has broken into, which runs as another user: whatever it does to what it shares with the master, the
//! master obeys signals, stays small and replaces it (tests/apps/broken_in.py).

mod common;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::server::{Running, STOP_LIMIT, Server};
use common::{SOON, procfs, user, wait_for};

/// Most resident memory that the master may have had, in bytes. Of a debug build 20 MB are pages of the program and its relocations.
const MASTER_MAX: u64 = 26 << 20;

/// The log's words about a worker that misuses its channel.
const BREACH: &str = "sends the master what no worker sends";

/// How long the master may take for a signal: a second, with room for a machine that is busy with other tests.
const OBEYS: Duration = Duration::from_secs(5);

/// A server with two workers that run as www-data; `None` where that cannot be.
fn server(options: &[&str]) -> Option<Server> {
    let other = user::other()?;
    let mut server = Server::new("broken_in").workers(2).options(["--user", user::NAME]).options(options);
    user::open_to_all(server.temp());
    if let Some(home) = other.python_home() {
        server = server.env("PYTHONHOME", home.to_str().expect("UTF-8"));
    }
    Some(server)
}

/// Has a worker do this; whether and how it answers is up to it.
fn attack(server: &Running, path: &str) {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
    // Until it ends, in whatever way.
    while client.fill().is_ok_and(|count| count > 0) {}
}

/// The master has not grown, and takes signals.
#[track_caller]
fn is_well(server: &Running, what: &str) {
    let peak = procfs::peak_memory(server.pid());
    assert!(peak < MASTER_MAX, "{what}: the master had {} MB", peak >> 20);
    let count = |server: &Running| server.log().text().matches("logs opened anew").count();
    let (before, began) = (count(server), Instant::now());
    server.signal(Signal::SIGUSR1);
    wait_for("the master to obey", SOON, || (count(server) > before).then_some(()));
    assert!(began.elapsed() < OBEYS, "{what}: the master took {:?} for a signal", began.elapsed());
}

#[test]
fn a_worker_that_misuses_its_channel_is_killed_and_replaced() {
    for path in ["/texts", "/dismissals", "/garbage", "/empty", "/long", "/rights"] {
        let Some(server) = server(&[]) else { return };
        let server = server.expect_error(BREACH).start();
        let before = server.workers();
        attack(&server, path);
        is_well(&server, path);
        server.log().wait(&[BREACH]);
        let new = |_: ()| server.workers().iter().filter(|pid| !before.contains(pid)).count();
        wait_for("another worker", SOON, || (server.workers().len() == 2 && new(()) == 1).then_some(()));
        assert_eq!(server.get("/").status, 200);
        let log = server.stop();
        assert_eq!(log.text().matches(BREACH).count(), 1, "{path}: one line");
        assert!(!log.text().contains("\n2026-01-01"), "{path}: a forged record");
    }
}

#[test]
fn what_a_worker_writes_into_shared_memory_ends_neither_the_master_nor_its_upgrade() {
    let died = "was killed by SIGKILL";
    let Some(server) = server(&["--timeout", "30"]) else { return };
    let server = server.expect_error(died).start();
    let before = procfs::resident(server.pid());
    for path in ["/grow", "/scribble"] {
        attack(&server, path);
        is_well(&server, path);
    }
    // Its own slot is read at its death.
    attack(&server, "/lines");
    server.log().wait(&[died]);
    is_well(&server, "/lines");
    assert!(procfs::resident(server.pid()) < before + MASTER_MAX, "nothing is left of what a worker has filled");
    attack(&server, "/seal");
    let shared = shared_memory(server.pid());
    assert!(shared < MASTER_MAX, "{} MB of shared memory stay", shared >> 20);
    for round in 0..2 {
        server.signal(Signal::SIGUSR2);
        let done = |text: String| text.matches("reload done").count() > round;
        wait_for("the upgrade", SOON, || done(server.log().text()).then_some(()));
        assert_eq!(server.get("/").status, 200);
    }
    let log = server.stop();
    assert!(!log.text().contains("\n2026-01-01"), "a forged record");
    assert!(!log.text().contains('\x1b'), "bytes that steer a terminal");
}

/// Bytes of the files in memory that this process has open.
fn shared_memory(pid: i32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
    let names = entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|name| name.starts_with("/memfd:")));
    names.filter_map(|entry| std::fs::metadata(entry.path()).ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Time for an upgrade whose old workers do not leave by themselves: the worker that was broken into may have made a listening
/// socket blocking for all of them, and those that wait in accept(2) then are ended after the default --graceful-timeout (30 s).
const UPGRADE_LIMIT: Duration = Duration::from_secs(90);

#[test]
fn an_upgrade_of_a_server_whose_listening_sockets_a_worker_has_ended_does_not_end_it() {
    for path in ["/listeners", "/connected_listeners"] {
        let Some(server) = server(&[]) else { return };
        let server = server.start();
        attack(&server, path);
        server.signal(Signal::SIGUSR2);
        // The sockets do not matter in this test; here they may be sound again by then, or not.
        let ended = ["upgrade failed", "reload done", "reload failed"];
        let text = || server.log().text();
        wait_for("the end of the upgrade", UPGRADE_LIMIT, || ended.iter().any(|end| text().contains(end)).then_some(()));
        is_well(&server, path);
        assert!(procfs::alive(server.pid()));
    }
}

#[test]
fn listening_sockets_that_a_worker_connects_to_somebody_listen_again() {
    use std::io::{Read, Write};
    let Some(server) = server(&["--timeout", "4"]) else { return };
    let mut server = server.start();
    attack(&server, "/connected_listeners_often");
    let place = server.address().to_string().trim_start_matches("http://").to_owned();
    let answer = || {
        let mut stream = std::net::TcpStream::connect(&place).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.starts_with("HTTP/1.1 200").then_some(())
    };
    wait_for("an answer", 3 * SOON, answer);
    is_well(&server, "/connected_listeners_often");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
}

#[test]
fn a_system_log_that_a_worker_turns_elsewhere_is_still_the_masters() {
    use std::os::unix::net::UnixDatagram;
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    user::open_to_all(dir.path());
    let path = dir.path().join("syslog");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("it is ours");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let Some(server) = server(&[&format!("--log-syslog={}", path.display())]) else { return };
    let mut server = server.start();
    attack(&server, "/syslog");
    server.signal(Signal::SIGTTIN);
    let mut text = String::new();
    while !text.contains("workers wanted from now on") {
        let mut record = [0; 8192];
        let count = socket.recv(&mut record).expect("a record of the master");
        text.push_str(&String::from_utf8_lossy(&record[..count]));
    }
    // A worker may wait for ever now, and is killed in the end.
    server.signal(Signal::SIGQUIT);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
}

#[test]
fn a_pipe_that_workers_fill_and_nobody_reads_does_not_keep_the_master_from_its_end() {
    use std::os::unix::fs::OpenOptionsExt;
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("it is made");
    let _reader = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("it opens");
    let Some(server) = server(&[]) else { return };
    let script = format!("exec \"$@\" 2>{}", path.display());
    let mut server = server.launcher(["/bin/sh", "-c", &script, "sh"]).start();
    attack(&server, "/pipes");
    for signal in [Signal::SIGTTIN, Signal::SIGQUIT] {
        server.signal(signal);
    }
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
}

#[test]
fn a_log_file_stays_in_order_when_a_worker_clears_its_flags() {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let path = dir.path().join("error.log");
    let Some(server) = server(&["--error-logfile", path.to_str().expect("UTF-8")]) else { return };
    let server = server.start();
    let text = || std::fs::read_to_string(&path).expect("the log is there");
    let before = text();
    attack(&server, "/files");
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU] {
        server.signal(signal);
    }
    wait_for("the master to obey", SOON, || (text().matches("workers wanted").count() == 2).then_some(()));
    assert!(text().starts_with(&before), "what was there stays: {}", text());
    server.stop();
}

#[test]
fn a_worker_that_closes_and_spoils_everything_it_has_is_replaced() {
    let Some(server) = server(&["--timeout", "5"]) else { return };
    let mut server = server.start();
    let before = server.workers();
    attack(&server, "/everything");
    let replaced = || server.workers().iter().any(|pid| !before.contains(pid)).then_some(());
    wait_for("another worker", 2 * SOON, replaced);
    let peak = procfs::peak_memory(server.pid());
    assert!(peak < MASTER_MAX, "the master had {} MB", peak >> 20);
    // The log may be anything now, and the listening sockets be gone; the master is none of it.
    server.signal(Signal::SIGQUIT);
    assert!(server.wait(STOP_LIMIT).code().is_some(), "it ends by itself");
}

/// The debugger of a process (proc_pid_status(5)), to be killed at the end of the test.
struct Tracer(i32);

impl Tracer {
    fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let tracer = text.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok())?;
        (tracer != 0).then_some(Self(tracer))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

#[test]
fn dead_workers_that_a_debugger_holds_are_replaced_and_do_not_keep_the_server_from_its_end() {
    let Some(server) = server(&["--graceful-timeout", "1"]) else { return };
    let mut server = server.expect_error("does not end").start();
    let mut tracers = Vec::new();
    for _ in 0..2 {
        let before = server.workers();
        attack(&server, "/traced");
        let dead = wait_for("a dead worker", SOON, || before.iter().copied().find(|pid| !procfs::alive(*pid)));
        tracers.push(wait_for("its debugger", SOON, || Tracer::of(dead)));
        let new = || server.workers().iter().filter(|pid| !before.contains(pid)).count();
        wait_for("another worker", SOON, || (server.workers().len() == 2 && new() >= 1).then_some(()));
        assert_eq!(server.get("/").status, 200);
    }
    server.log().wait(&["does not end"]);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    drop(tracers);
    server.finish();
}

#[test]
fn workers_that_leave_as_soon_as_they_are_ready_are_replaced_after_growing_pauses() {
    let Some(server) = server(&["--log-level", "debug"]) else { return };
    let mark = server.temp().join("mark");
    std::fs::set_permissions(server.temp(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("it is ours");
    let mut server = server.env("LEAVES_AT_ONCE", mark.to_str().expect("UTF-8")).start();
    let forks = |server: &Running| server.log().text().matches(" forked (pid").count();
    attack(&server, "/leaves_at_once");
    wait_for("pauses", SOON, || server.log().find(&["failed again"]));
    // One worker that is the server's own, and those of the others that have not ended yet.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert!(server.workers().len() <= 4, "{} workers", server.workers().len());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(forks(&server) < 12, "{} workers were forked", forks(&server));
    is_well(&server, "/leaves_at_once");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
}

#[test]
fn a_queue_full_of_nonsense_or_shut_down_ends_no_other_worker_and_fills_no_log() {
    for path in ["/queue_garbage", "/queue_same", "/cut_queue"] {
        let Some(server) = server(&[]) else { return };
        let server = server.start();
        let before = server.workers();
        attack(&server, path);
        is_well(&server, path);
        let lines = server.log().text().matches("ERROR").count();
        assert!(lines <= 8, "{path}: {lines} errors");
        assert_eq!(server.workers(), before, "{path}: nobody was ended");
        let ticks = |server: &Running| server.workers().iter().map(|pid| procfs::cpu_millis(*pid)).sum::<u64>();
        let spent = ticks(&server);
        std::thread::sleep(Duration::from_secs(1));
        assert!(ticks(&server) - spent < 500, "{path}: the workers spin");
        for _ in 0..8 {
            assert_eq!(server.get("/").status, 200);
        }
        server.signal(Signal::SIGHUP);
        server.log().wait(&["reload done"]);
        let mut server = server;
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(STOP_LIMIT).code(), Some(0), "{path}");
    }
}

#[test]
fn sessions_of_tls_that_a_worker_makes_up_end_no_other_worker_and_fill_no_log() {
    for is_encrypted in [true, false] {
        let Some(server) = server(&[]) else { return };
        let mut server = if is_encrypted { server.tls().start() } else { server.start() };
        let before = server.workers();
        attack(&server, "/queue_sessions");
        is_well(&server, "/queue_sessions");
        for _ in 0..8 {
            assert_eq!(server.get("/").status, 200);
        }
        assert_eq!(server.workers(), before, "nobody was ended");
        let text = server.log().text();
        assert!(text.matches("ERROR").count() <= 8 && !text.contains("panicked"), "{text}");
        let ticks = |server: &Running| server.workers().iter().map(|pid| procfs::cpu_millis(*pid)).sum::<u64>();
        let spent = ticks(&server);
        std::thread::sleep(Duration::from_secs(1));
        assert!(ticks(&server) - spent < 500, "the workers spin");
        server.signal(Signal::SIGHUP);
        server.log().wait(&["reload done"]);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    }
}

#[test]
fn processes_that_a_worker_makes_its_brothers_do_not_stay_as_zombies() {
    let Some(server) = server(&[]) else { return };
    let server = server.start();
    attack(&server, "/brothers");
    let zombies = || procfs::all().iter().filter(|process| process.parent == server.pid() && process.is_gone()).count();
    wait_for("the last of them to be waited for", SOON, || (zombies() == 0).then_some(()));
    is_well(&server, "/brothers");
    server.stop();
}

#[test]
fn orphans_made_without_end_do_not_keep_a_server_that_inherits_them_from_its_signals() {
    let Some(server) = server(&[]) else { return };
    let inherit = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])";
    let server = server.launcher([env!("BUILD_PYTHON_EXECUTABLE"), "-c", inherit]).start();
    std::thread::scope(|scope| {
        scope.spawn(|| attack(&server, "/orphans"));
        is_well(&server, "/orphans");
    });
    let zombies = || procfs::all().iter().filter(|process| process.parent == server.pid() && process.is_gone()).count();
    wait_for("the last orphan to be waited for", SOON, || (zombies() == 0).then_some(()));
    server.stop();
}
