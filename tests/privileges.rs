//! Workers of another user, beside a master that is root: the things of root that they must not keep, and the things of their own
//! that they need.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::client::{Address, Client};
use common::server::{START_LIMIT, STOP_LIMIT, Server, binary};
use common::{SOON, place, procfs, user, venv, wait_for};

/// The worker could not boot.
const EXIT_BOOT: i32 = 3;

/// A server of this application whose workers become `www-data`, or who `options` say.
fn server(other: &user::Other, source: &str) -> Server {
    let server = Server::source(source);
    user::open_to_all(server.temp());
    match other.python_home() {
        Some(home) => server.env("PYTHONHOME", home.to_str().expect("UTF-8")),
        None => server,
    }
}

/// Variables of a login of root, as su, ssh and libpam-tmpdir set them; `APP_CACHE` is the operator's.
const LOGIN: [(&str, &str); 10] = [
    ("HOME", "/root"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/bash"),
    ("MAIL", "/var/mail/root"),
    ("XDG_RUNTIME_DIR", "/run/user/0"),
    ("XDG_CONFIG_HOME", "/root/.config"),
    ("XDG_CACHE_HOME", "/var/cache/shop"),
    ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus"),
    ("TMPDIR", "/tmp/user/0"),
];

const ENVIRONMENT: &str = r#"
import json, os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({**os.environ, "~": os.path.expanduser("~")}).encode()]
"#;

/// What the application sees of [`LOGIN`], and the log of the server.
#[track_caller]
fn environment(other: &user::Other, options: &[&str]) -> (serde_json::Value, String) {
    let mut server = server(other, ENVIRONMENT).options(options);
    for (name, value) in LOGIN {
        server = server.env(name, value);
    }
    let server = server.start();
    let seen = serde_json::from_slice(&server.get("/").body).expect("JSON");
    (seen, server.stop().text())
}

/// Names that the application must not see.
#[track_caller]
fn assert_gone(seen: &serde_json::Value, names: &[&str]) {
    for name in names {
        assert!(seen.get(name).is_none(), "{name} is root's: {seen}");
    }
}

#[test]
fn a_virtual_environment_that_the_user_cannot_enter_is_named_with_the_directory_that_is_closed() {
    let Some(other) = user::other() else { return };
    for option in [None, Some("--check-config")] {
        let server = server(&other, ENVIRONMENT);
        let closed = server.temp().join("closed");
        venv::bare(&venv::base_python(), &closed.join("venv"));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let environment = closed.join("venv");
        let options = ["--user", user::NAME, "--venv", environment.to_str().unwrap()].into_iter().chain(option);
        let ended = server.options(options).run_to_end();
        let (closed, uid) = (closed.display(), other.user.uid);
        let said = format!("user {uid} cannot enter {closed} (mode 0700, owner 0) on the way to {closed}/venv/bin/python: ");
        ended.failed(EXIT_BOOT, &[&said, &format!("chmod o+x {closed}")]);
    }
}

#[test]
fn a_user_without_an_account_has_nothing_of_roots_environment() {
    let Some(other) = user::other() else { return };
    let (seen, log) = environment(&other, &["--user", "123456", "--group", "123457"]);
    assert_eq!((&seen["HOME"], &seen["~"]), (&"/".into(), &"/".into()), "{seen}");
    assert_gone(&seen, &["USER", "LOGNAME", "MAIL", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"]);
    assert_eq!(seen["XDG_CACHE_HOME"], "/var/cache/shop", "this one names nothing of root's");
    assert!(log.contains("WARNING --user 123456: the user database has no such user, so HOME is /"), "{log}");
}

#[test]
fn a_user_with_an_account_has_its_own_environment_and_the_operator_the_last_word() {
    let Some(other) = user::other() else { return };
    let (seen, log) = environment(&other, &["--user", user::NAME, "--env", "TMPDIR=/var/tmp"]);
    let account = &other.user;
    assert_eq!(seen["HOME"], account.dir.to_string_lossy().as_ref(), "{seen}");
    assert_eq!(seen["SHELL"], "/bin/bash", "a program that anybody can start: {seen}");
    assert_eq!((&seen["USER"], &seen["LOGNAME"]), (&user::NAME.into(), &user::NAME.into()), "{seen}");
    assert_gone(&seen, &["MAIL", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS"]);
    assert_eq!((&seen["XDG_CACHE_HOME"], &seen["TMPDIR"]), (&"/var/cache/shop".into(), &"/var/tmp".into()), "{seen}");
    assert!(!log.contains("HOME"), "{log}");
}

#[test]
fn a_group_alone_leaves_the_environment_as_it_is() {
    let Some(other) = user::other() else { return };
    let (seen, _) = environment(&other, &["--group", "123457"]);
    for (name, value) in LOGIN {
        assert_eq!(seen[name], value, "{name}: {seen}");
    }
}

/// Starts the words that follow in a terminal of their own, as a login shell would; what comes in is typed. The last line is the
/// exit code.
const TERMINAL: &str = r#"
import os, pty, sys, threading
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
def show():
    try:
        while seen := os.read(terminal, 4096):
            os.write(1, seen)
    except OSError:
        pass
shower = threading.Thread(target=show, daemon=True)
shower.start()
def type():
    while typed := os.read(0, 4096):
        os.write(terminal, typed)
threading.Thread(target=type, daemon=True).start()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
# What was printed last may not have been read yet; the terminal ends when nobody has it any more.
shower.join(10)
os.write(1, b"\nexit code %d\n" % code)
"#;

/// Answers what it can do with a terminal.
const TYPIST: &str = r#"
import errno, fcntl, json, os, termios
def attempt(what):
    try:
        what()
        return "possible"
    except OSError as error:
        return errno.errorcode[error.errno]
def app(environ, start_response):
    seen = {"terminal": attempt(lambda: os.open("/dev/tty", os.O_RDWR)), "stdin": os.readlink("/proc/self/fd/0")}
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    terminals = [fd for fd in numbers if attempt(lambda: os.fstat(fd)) == "possible" and os.isatty(fd)]
    seen["terminals"] = len(terminals)
    seen["typing"] = sorted({attempt(lambda: fcntl.ioctl(fd, termios.TIOCSTI, b"x")) for fd in terminals})
    seen["reading"] = [fd for fd in terminals if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY]
    seen["session"] = os.getsid(0) == os.getpid()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]
"#;

/// A server in a terminal of its own.
struct Terminal {
    python: Child,
    dir: TempDir,
}

impl Terminal {
    /// Runs the server, with its files and this application in a directory of its own.
    fn run(other: &user::Other, source: &str, options: &[&str]) -> Self {
        let dir = place::fresh("test-");
        user::open_to_all(dir.path());
        fs::write(dir.path().join("app.py"), source).expect("the temp directory is writable");
        let mut command = Command::new(env!("BUILD_PYTHON_EXECUTABLE"));
        // The session is led by a shell, as in a login.
        command
            .args(["-c", TERMINAL, "/bin/sh", "-c", "trap : INT; \"$@\"; exit $?", "sh", "/usr/bin/env"])
            .arg(format!("HOME={}", dir.path().display()));
        if let Some(home) = other.python_home() {
            command.arg(format!("PYTHONHOME={}", home.display()));
        }
        command.arg(binary()).args(["--workers", "1", "--pid", "pid", "--bind", "unix:socket"]).args(options).arg("app");
        for name in ["VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "WEB_CONCURRENCY", "NOTIFY_SOCKET"] {
            command.env_remove(name);
        }
        use std::os::unix::process::CommandExt;
        command.current_dir(dir.path()).env("PYTHONDONTWRITEBYTECODE", "1").process_group(0);
        let python = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python can be run");
        Self { python, dir }
    }

    #[track_caller]
    fn start(other: &user::Other, options: &[&str]) -> Self {
        let started = Self::run(other, TYPIST, options);
        wait_for("a worker", START_LIMIT, || {
            (procfs::children(started.master()?).len() == 1 && started.path("socket").exists()).then_some(())
        });
        started
    }

    /// Waits for the end; what the terminal has shown.
    #[track_caller]
    fn shown(&mut self) -> String {
        let python = &mut self.python;
        wait_for("the end of the server", STOP_LIMIT, || python.try_wait().expect("it is ours"));
        let mut shown = String::new();
        self.python.stdout.take().expect("piped").read_to_string(&mut shown).expect("UTF-8");
        shown
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn master(&self) -> Option<i32> {
        fs::read_to_string(self.path("pid")).ok()?.trim().parse().ok()
    }

    fn ask(&self) -> serde_json::Value {
        let mut client = Client::connect(&Address::Unix(self.path("socket")));
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        serde_json::from_slice(&client.response().body).expect("JSON")
    }

    /// Types this, and returns what the terminal has shown in the end.
    #[track_caller]
    fn end_by(mut self, typed: &[u8]) -> String {
        let master = self.master().expect("it runs");
        let workers = procfs::children(master);
        self.python.stdin.as_ref().expect("piped").write_all(typed).expect("it reads");
        let shown = self.shown();
        wait_for("the end of the workers", SOON, || workers.iter().all(|pid| !procfs::alive(*pid)).then_some(()));
        assert!(!procfs::alive(master));
        shown
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(master) = self.master().filter(|pid| procfs::alive(*pid)) {
            // A failed test leaves it running; its workers end with it.
            let _ = nix::sys::signal::kill(Pid::from_raw(master), Signal::SIGKILL);
        }
        let _ = killpg(Pid::from_raw(self.python.id() as i32), Signal::SIGKILL);
        let _ = self.python.wait();
    }
}

#[test]
fn workers_of_another_user_can_neither_type_into_the_terminal_of_root_nor_read_it() {
    let Some(other) = user::other() else { return };
    let terminal = Terminal::start(&other, &["--user", user::NAME]);
    let seen = terminal.ask();
    assert_eq!(seen["terminal"], "ENXIO", "no terminal controls them: {seen}");
    assert!(seen["terminals"].as_u64().is_some_and(|count| count >= 2), "output goes to the terminal: {seen}");
    // Without the capability the kernel says EPERM, or EIO where dev.tty.legacy_tiocsti is off.
    assert!(seen["typing"] == serde_json::json!(["EPERM"]) || seen["typing"] == serde_json::json!(["EIO"]), "{seen}");
    assert_eq!(seen["reading"], serde_json::json!([]), "{seen}");
    assert_eq!((&seen["stdin"], &seen["session"]), (&"/dev/null".into(), &true.into()), "{seen}");
    // Ctrl-C reaches the master alone, and that is enough.
    let shown = terminal.end_by(b"\x03");
    assert!(shown.contains("exit code 0"), "{shown}");
}

#[test]
fn workers_of_the_same_user_stay_in_the_terminal_where_they_can_be_debugged() {
    let Some(other) = user::other() else { return };
    let terminal = Terminal::start(&other, &[]);
    let seen = terminal.ask();
    assert_eq!((&seen["terminal"], &seen["session"]), (&"possible".into(), &false.into()), "{seen}");
    assert!(seen["stdin"].as_str().expect("a string").starts_with("/dev/pts/"), "{seen}");
    let shown = terminal.end_by(b"\x03");
    assert!(shown.contains("exit code 0"), "{shown}");
}

#[test]
fn an_application_that_is_only_checked_has_no_terminal_either() {
    let Some(other) = user::other() else { return };
    let source = TYPIST.replace("    start_response", "    print('seen', json.dumps(seen))\n    start_response")
        + "\napp({}, lambda status, headers: None)\n";
    let shown = Terminal::run(&other, &source, &["--check-config", "--user", user::NAME]).shown();
    let line = shown.lines().find_map(|line| line.trim().strip_prefix("seen ")).unwrap_or_else(|| panic!("{shown}"));
    let seen: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&seen["terminal"], &seen["stdin"]), (&"ENXIO".into(), &"/dev/null".into()), "{seen}");
    assert!(seen["typing"] == serde_json::json!(["EPERM"]) || seen["typing"] == serde_json::json!(["EIO"]), "{seen}");
    assert_eq!(seen["reading"], serde_json::json!([]), "{seen}");
    assert!(shown.contains("exit code 0"), "{shown}");
}

/// Prints by the names of the streams, as `logging.FileHandler("/dev/stderr")` does.
const PRINTS: &str = r#"
import os
def app(environ, start_response):
    for name in ("stdout", "stderr"):
        with open("/dev/" + name, "w") as stream:
            stream.write(f"{environ['PATH_INFO']} by {os.getuid()} to {name}\n")
    start_response("200 OK", [])
    return [b"printed"]
"#;

#[test]
fn captured_output_of_another_user_can_be_opened_by_its_name() {
    let Some(other) = user::other() else { return };
    let server = server(&other, PRINTS).options(["--capture-output", "--user", user::NAME]);
    let log = server.temp().join("error.log");
    let mut server = server.options(["--error-logfile", log.to_str().expect("UTF-8")]).start();
    let uid = other.user.uid.as_raw();
    let print = |path: &str| {
        assert_eq!(server.get(path).text(), "printed");
        for name in ["stdout", "stderr"] {
            let text = format!("{path} by {uid} to {name}");
            let logged = || fs::read_to_string(&log).is_ok_and(|text_| text_.contains(&text)).then_some(());
            wait_for(&text, SOON, logged);
        }
    };
    print("/first");
    fs::rename(&log, server.temp().join("error.log.1")).expect("it is ours");
    server.signal(Signal::SIGUSR1);
    wait_for("the new log", SOON, || log.exists().then_some(()));
    print("/rotated");
    for (signal, done) in [(Signal::SIGHUP, "are of generation 2"), (Signal::SIGUSR2, "are of generation 3")] {
        server.signal(signal);
        wait_for(done, START_LIMIT, || fs::read_to_string(&log).is_ok_and(|text| text.contains(done)).then_some(()));
        print(&format!("/{signal}"));
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    assert!(!fs::read_to_string(&log).expect("it is there").contains("ERROR"));
}

#[test]
fn a_daemon_of_another_user_can_open_its_captured_output_too() {
    let Some(other) = user::other() else { return };
    let dir = place::fresh("test-");
    user::open_to_all(dir.path());
    let path = |name: &str| dir.path().join(name);
    fs::write(path("app.py"), PRINTS).expect("the temp directory is writable");
    let mut command = Command::new(binary());
    command.args(["--daemon", "--capture-output", "--user", user::NAME, "--workers", "1", "--bind", "unix:socket"]);
    command.args(["--pid", "pid", "--error-logfile", "log", "app"]).current_dir(dir.path());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("PYTHONPATH").env_remove("VIRTUAL_ENV");
    match other.python_home() {
        Some(home) => command.env("PYTHONHOME", home),
        None => command.env_remove("PYTHONHOME"),
    };
    common::tools::run(&mut command, START_LIMIT).succeeded();
    let pid: i32 = fs::read_to_string(path("pid")).expect("it runs").trim().parse().expect("a number");
    let mut client = Client::connect(&Address::Unix(path("socket")));
    client.send("GET /daemon HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let answer = client.response().text();
    common::server::signal_to(pid, Signal::SIGTERM);
    wait_for("the end of the daemon", STOP_LIMIT, || (!procfs::alive(pid)).then_some(()));
    let log = fs::read_to_string(Path::new(&path("log"))).expect("it is written");
    assert_eq!(answer, "printed", "{log}");
    assert!(log.contains("to stdout") && log.contains("to stderr"), "{log}");
}
