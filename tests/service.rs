//! The server as a service: in the background, under a pid file, as another user, with a title. The messages to a service manager
//! are in notify.rs.

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid, getsid};
use tempfile::TempDir;

use common::client::{Address, Client};
use common::server::{START_LIMIT, STOP_LIMIT, Server, binary, signal_to};
use common::tools::{Finished, run};
use common::{SOON, apps, place, procfs, user, wait_for};

/// Everything in a pipe whose writers are gone, or are about to be.
#[track_caller]
fn to_end(mut pipe: impl Read + Send + 'static) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        // An end that comes too late is read by nobody.
        let _ = pipe.read_to_string(&mut text).map(|_| sender.send(text));
    });
    receiver.recv_timeout(SOON).expect("the daemon has closed its caller's pipes")
}

/// A daemon's directory. Dropping it ends the daemon whose pid file is in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: place::fresh("test-") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command of a daemon of this application, with a unix socket, a log and a pid file here.
    fn command(&self, options: &[&str], app: &str) -> Command {
        let mut command = Command::new(binary());
        command.args(["--daemon", "--workers", "2", "--bind", &format!("unix:{}", self.path("socket").display())]);
        command.args(["--pid".as_ref(), self.path("pid").as_os_str()]).env("TAPSTER_ERROR_LOGFILE", self.path("log"));
        command.args(options).arg(app).current_dir(apps()).env("PYTHONDONTWRITEBYTECODE", "1");
        for name in ["VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "WEB_CONCURRENCY", "NOTIFY_SOCKET"] {
            command.env_remove(name);
        }
        command
    }

    /// Starts the daemon. Its caller's pipes must be closed when it has returned: a process that reads them waits for their end.
    #[track_caller]
    fn start(&self, options: &[&str], app: &str) -> Finished {
        let mut command = self.command(options, app);
        let mut caller = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (stdout, stderr) = (caller.stdout.take().expect("piped"), caller.stderr.take().expect("piped"));
        let status = wait_for("the return of the command", START_LIMIT, || caller.try_wait().expect("it is ours"));
        Finished { status, stdout: to_end(stdout), stderr: to_end(stderr) }
    }

    /// The master's pid, as the file says.
    fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.path("pid")).ok()?.strip_suffix('\n')?.parse().ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    #[track_caller]
    fn stop(&self) {
        let pid = self.pid().expect("there is a pid file");
        signal_to(pid, Signal::SIGTERM);
        wait_for("the end of the daemon", STOP_LIMIT, || (!procfs::alive(pid)).then_some(()));
        assert!(!self.path("pid").exists() && !self.path("socket").exists(), "its files leave with it");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = self.pid().filter(|pid| procfs::alive(*pid)) {
            eprintln!("log of the daemon:\n{}", self.log());
            let group = getpgid(Some(Pid::from_raw(pid)));
            // A failed test leaves it running, in a process group of its own.
            let _ = group.map(|group| killpg(group, Signal::SIGKILL));
        }
    }
}

#[test]
fn a_daemon_returns_when_its_workers_serve_and_lives_on_alone() {
    let place = Place::new();
    let finished = place.start(&[], "probe").succeeded();
    // No waiting: ready means ready.
    let socket = Address::Unix(place.path("socket"));
    let mut client = Client::connect(&socket);
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
    let pid = place.pid().expect("there is a pid file");
    let master = procfs::process(pid).expect("the master lives");
    let own = getsid(None).expect("we have a session");
    let session = getsid(Some(Pid::from_raw(pid))).expect("it has a session");
    assert!(session != own && session.as_raw() != pid, "in a session that it does not lead");
    assert_eq!(procfs::children(pid).len(), 2);
    assert_ne!(master.parent, std::process::id() as i32);
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).expect("it has a standard input"), Path::new("/dev/null"));
    let mode = fs::metadata(place.path("pid")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    place.stop();
}

#[test]
fn a_daemon_that_cannot_start_returns_its_exit_code_and_the_reason() {
    let place = Place::new();
    let finished = place.start(&[], "no_such_module:app");
    assert_eq!(finished.status.code(), Some(4), "{finished:?}");
    assert!(finished.stderr.contains("cannot load no_such_module:app") && place.log().contains("cannot load no_such_module:app"));
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound").to_string();
    let finished = place.start(&["--bind", &address], "probe");
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains(&format!("cannot listen on {address}")), "{finished:?}");
    let finished = place.start(&["--chdir", "/no/such/directory"], "probe");
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(!place.path("pid").exists() && !place.path("socket").exists());
}

#[test]
fn a_daemon_whose_caller_gives_up_leaves() {
    let place = Place::new();
    fs::write(place.path("sleeper.py"), "import time\ntime.sleep(3600)\n").expect("it is written");
    let dir = place.dir.path().display().to_string();
    let mut caller = place.command(&["--chdir", &dir], "sleeper:app").stderr(Stdio::null()).spawn().expect("it starts");
    let pid = wait_for("the pid file", SOON, || place.pid());
    wait_for("the workers", SOON, || (procfs::children(pid).len() == 2).then_some(()));
    caller.kill().expect("it runs");
    caller.wait().expect("it is ours");
    wait_for("the end of the daemon", SOON, || (!procfs::alive(pid)).then_some(()));
    assert!(place.log().contains("has left before it was ready"), "{}", place.log());
}

#[test]
fn a_daemon_without_a_place_for_its_log_says_so() {
    let place = Place::new();
    let finished = place.start(&["--error-logfile", "-"], "probe");
    assert!(finished.stderr.contains("the daemon is started without an error log"), "{finished:?}");
    finished.succeeded();
    place.stop();
}

#[test]
fn a_second_server_with_the_same_pid_file_is_refused_and_a_stale_file_is_not() {
    let place = Place::new();
    place.start(&[], "probe").succeeded();
    let pid = place.pid().expect("there is a pid file");
    let other = Place::new();
    let second = other.command(&[], "probe");
    let file = place.path("pid").display().to_string();
    let mut args: Vec<_> = second.get_args().map(ToOwned::to_owned).collect();
    let at = args.iter().position(|arg| arg == "--pid").expect("it is given") + 1;
    args[at] = file.into();
    let mut second = Command::new(binary());
    second.args(args).current_dir(apps());
    let finished = run(&mut second, START_LIMIT);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains(&format!("a server is running already, pid {pid}")), "{finished:?}");
    assert_eq!(place.pid(), Some(pid), "the file stays");

    let children = procfs::children(pid);
    signal_to(pid, Signal::SIGKILL);
    wait_for("the end of the workers", SOON, || children.iter().all(|pid| !procfs::alive(*pid)).then_some(()));
    assert_eq!(place.pid(), Some(pid), "nobody could remove it");
    place.start(&[], "probe").succeeded();
    assert_ne!(place.pid(), Some(pid));
    place.stop();
}

#[test]
fn titles_say_who_is_who() {
    let server = Server::new("probe").workers(2).options(["--name", "shop"]).start();
    let title =
        |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it lives").trim_end_matches('\0').to_owned();
    assert_eq!(title(server.pid()), "tapster: master [shop]");
    let mut titles: Vec<String> = server.workers().into_iter().map(title).collect();
    titles.sort();
    assert_eq!(titles, ["tapster: worker 0 [shop]", "tapster: worker 1 [shop]"]);
    assert_eq!(procfs::process(server.workers()[0]).expect("it lives").name, "tapster: worker");
    // What the application sees of its environment is what it was.
    let response = server.get("/");
    assert_eq!(response.status, 200);
    server.stop();
    let unnamed = Server::new("probe").start();
    assert_eq!(title(unnamed.pid()), "tapster: master [probe]");
    unnamed.stop();
}

/// Answers who it is, and tries to be root again.
const WHO: &str = r#"
import ctypes, json, os
STATUS = {line.split(":")[0]: line.split(":")[1].split() for line in open("/proc/self/status")}
def back():
    for attempt in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0]),
                    lambda: os.chown("/proc/self/environ", 0, 0)):
        try:
            attempt()
            return "a way back"
        except PermissionError:
            pass
    return "no way back"
def application(environ, start_response):
    seen = {key: STATUS[key] for key in ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapAmb")}
    seen.update(back=back(), home=os.environ.get("HOME"), user=os.environ.get("USER"), stderr=os.access("/dev/stderr", os.W_OK))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]
"#;

/// A free port that only root can bind, if there is one.
fn privileged_port() -> Option<u16> {
    (600..1024).rev().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

#[test]
fn workers_of_another_user_have_its_rights_and_no_others_behind_a_privileged_port() {
    let Some(other) = user::other() else { return };
    let Some(port) = privileged_port() else { return common::tools::skip("no privileged port is free") };
    let mut server =
        Server::source(WHO).options(["--user", user::NAME]).binds([format!("127.0.0.1:{port}"), "unix:{temp}/s".into()]);
    user::open_to_all(server.temp());
    let pid_file = server.temp().join("pid");
    server = server.options(["--pid", &pid_file.display().to_string()]);
    if let Some(home) = other.python_home() {
        server = server.env("PYTHONHOME", home.to_str().expect("UTF-8"));
    }
    let server = server.start();
    let seen: serde_json::Value = serde_json::from_slice(&server.get("/").body).expect("JSON");
    let (uid, gid) = (other.user.uid.to_string(), other.user.gid.to_string());
    let four = |id: &str| serde_json::json!([id, id, id, id]);
    assert_eq!((&seen["Uid"], &seen["Gid"]), (&four(&uid), &four(&gid)), "{seen}");
    assert!(seen["Groups"].as_array().expect("a list").contains(&gid.as_str().into()), "{seen}");
    assert!(!seen["Groups"].as_array().expect("a list").contains(&"0".into()), "{seen}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(seen[set], serde_json::json!(["0000000000000000"]), "{set}: {seen}");
    }
    assert_eq!(seen["back"], "no way back");
    assert_eq!((&seen["home"], &seen["user"]), (&other.user.dir.to_string_lossy().as_ref().into(), &user::NAME.into()), "{seen}");

    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the master lives");
    assert!(status.contains("Uid:\t0\t0\t0\t0"), "the master stays root");
    let socket = fs::metadata(server.temp().join("s")).expect("it is bound");
    assert!(socket.file_type().is_socket() && (socket.uid(), socket.gid()) == (other.user.uid.as_raw(), other.user.gid.as_raw()));
    assert!(!server.log().text().contains("runs as root"), "{}", server.log().text());

    // Nothing outlives the master, although the change of the user makes the kernel forget the parent-death signal.
    let workers = server.workers();
    signal_to(server.pid(), Signal::SIGKILL);
    wait_for("the end of the workers", SOON, || workers.iter().all(|pid| !procfs::alive(*pid)).then_some(()));
}

#[test]
fn an_application_that_runs_as_root_gets_one_warning() {
    if !nix::unistd::geteuid().is_root() {
        return common::tools::skip("only root runs as root");
    }
    let server = Server::new("probe").workers(2).start();
    let log = server.stop();
    let warnings = log.records().into_iter().filter(|record| record.text.contains("runs as root"));
    assert_eq!(warnings.map(|record| record.level).collect::<Vec<_>>(), ["WARNING"]);
    let server = Server::new("probe").options(["--user", "root"]).start();
    assert!(!server.stop().text().contains("runs as root"), "it was asked for");
}

#[test]
fn a_user_that_cannot_be_had_is_refused_at_the_start() {
    let refused = |options: [&str; 2], part: &str| {
        Server::new("probe").options(options).run_to_end().failed(2, &[part]);
    };
    refused(["--user", "no-such-user"], "--user no-such-user: there is no such user");
    refused(["--group", "no-such-group"], "--group no-such-group: there is no such group");
    refused(["--user", "123456789"], "name its group with --group");
}

#[test]
fn a_foreground_server_removes_its_pid_file_only_if_it_still_is_its_own() {
    for taken_over in [false, true] {
        let server = Server::new("probe");
        let path = server.temp().join("pid");
        let mut server = server.options(["-p", &path.display().to_string()]).start();
        assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("{}\n", server.pid()));
        if taken_over {
            fs::write(&path, "1\n").expect("it is ours");
        }
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
        assert_eq!(path.exists(), taken_over);
        server.finish();
    }
}

#[test]
fn the_socket_of_a_killed_daemon_is_free_for_a_new_start() {
    let place = Place::new();
    place.start(&[], "probe").succeeded();
    let pid = place.pid().expect("there is a pid file");
    let workers = procfs::children(pid);
    signal_to(pid, Signal::SIGKILL);
    wait_for("the end of the workers", SOON, || workers.iter().all(|pid| !procfs::alive(*pid)).then_some(()));
    assert!(UnixStream::connect(place.path("socket")).is_err(), "nobody listens");
    place.start(&[], "probe").succeeded();
    place.stop();
}
