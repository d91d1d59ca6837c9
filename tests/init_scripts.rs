//! The files of scripts/init: the tools that will read them accept them, and the sysv script does what the LSB says, run for
//! real as root.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long what happens soon may take: workers leave within a second of their master.
const SOON: Duration = Duration::from_secs(5);

/// The path of a program; `None` after saying that the test is skipped. Under CI=true a missing program is a failure.
fn tool(name: &str) -> Option<PathBuf> {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

fn skip(reason: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(env::var("CI").as_deref() != Ok("true"), "{test} would be skipped: {reason}");
    eprintln!("SKIPPED: {test}: {reason}");
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("only root can do this");
    }
    root
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/init").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(script(name)).expect("it is in the repository")
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    text(&output)
}

#[test]
fn the_shell_scripts_pass_shellcheck() {
    let Some(shellcheck) = tool("shellcheck") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    succeeds(Command::new(shellcheck).arg(script("tapster")).arg(root.join(".ci/run")));
}

#[test]
fn systemd_accepts_the_units() {
    let Some(analyze) = tool("systemd-analyze") else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    // The program has to exist where the unit says.
    let service = read("tapster.service").replace("/usr/local/bin/tapster", env!("CARGO_BIN_EXE_tapster"));
    fs::write(dir.path().join("tapster.service"), service).expect("it is written");
    fs::write(dir.path().join("tapster.socket"), read("tapster.socket")).expect("it is written");
    for unit in ["tapster.service", "tapster.socket"] {
        let said = succeeds(Command::new(&analyze).args(["verify", "--man=no"]).arg(dir.path().join(unit)));
        // Unknown keys are only warnings; complaints about other units of the machine are not ours.
        assert!(!said.contains("tapster"), "{said}");
    }
}

#[test]
fn systemd_makes_the_directories() {
    let Some(tmpfiles) = tool("systemd-tmpfiles") else { return };
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    for path in ["etc", "run", "var/log"] {
        fs::create_dir_all(dir.path().join(path)).expect("it is made");
    }
    fs::write(dir.path().join("etc/passwd"), "www-data:x:33:33::/:/bin/false\n").expect("it is written");
    fs::write(dir.path().join("etc/group"), "www-data:x:33:\n").expect("it is written");
    let root = format!("--root={}", dir.path().display());
    succeeds(Command::new(tmpfiles).args(["--create", &root]).arg(script("tapster.tmpfiles")));
    let mode = |path: &str| fs::metadata(dir.path().join(path)).expect("it was made").permissions().mode() & 0o777;
    assert_eq!((mode("run/tapster"), mode("var/log/tapster")), (0o755, 0o750));
}

#[test]
fn logrotate_empties_a_log_that_is_open() {
    let Some(logrotate) = tool("logrotate") else { return };
    succeeds(Command::new(&logrotate).arg("--debug").arg(script("tapster.logrotate")));
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).expect("it is made");
    let config = dir.path().join("config");
    fs::write(&config, read("tapster.logrotate").replace("/var/log/tapster", &logs.to_string_lossy())).expect("written");
    let log = logs.join("access.log");
    let target = tapster::config::LogTarget::File(log.clone());
    let sink = tapster::log::sink::Sink::open(&target).expect("the log opens");
    sink.write(b"before\n");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    succeeds(Command::new("chown").args(["-R", "www-data:www-data"]).arg(&logs));
    let state = dir.path().join("state");
    succeeds(Command::new(&logrotate).arg("--force").arg("--state").arg(&state).arg(&config));
    sink.write(b"after\n");
    assert_eq!(fs::read(logs.join("access.log.1")).expect("it was rotated"), b"before\n");
    assert_eq!(fs::read(&log).expect("it is there"), b"after\n");
}

/// The sysv script with its own defaults, directories and application.
struct Service {
    dir: tempfile::TempDir,
}

const APP: &str = r#"
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served\n"]
"#;

impl Service {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let service = Self { dir };
        service.app(APP);
        service.configure("APP=shop:application");
        // The unix socket is made in it.
        succeeds(Command::new("chown").arg(user()).arg(service.dir.path()));
        service
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn app(&self, source: &str) {
        fs::write(self.path("shop.py"), source).expect("it is written");
    }

    fn configure(&self, app: &str) {
        let dir = self.dir.path().display();
        let defaults = format!(
            "{app}\nDAEMON={daemon}\nDIRECTORY={dir}\nBIND=unix:{dir}/socket\nOPTIONS='--workers 2'\n\
             RUN_AS={user}\nPIDFILE={dir}/tapster.pid\nLOGDIR={dir}/log\nPATH={path}\n",
            daemon = env!("CARGO_BIN_EXE_tapster"),
            user = user(),
            path = env::var("PATH").unwrap_or_default(),
        );
        fs::write(self.path("defaults"), defaults).expect("it is written");
    }

    /// Runs an action; its exit code and what it said.
    fn act(&self, action: &str) -> (i32, String) {
        let output = run(Command::new(script("tapster")).arg(action).env("INIT_DEFAULTS", self.path("defaults")));
        (output.status.code().expect("the script ends by itself"), text(&output))
    }

    #[track_caller]
    fn expect(&self, action: &str, code: i32) -> String {
        let (actual, said) = self.act(action);
        let log = fs::read_to_string(self.path("log/error.log")).unwrap_or_default();
        assert_eq!(actual, code, "{action}: {said}\nlog:\n{log}");
        said
    }

    fn pid(&self) -> String {
        fs::read_to_string(self.path("tapster.pid")).expect("there is a pid file").trim().to_owned()
    }

    /// Waits for something that happens soon.
    #[track_caller]
    fn until(&self, what: &str, happened: impl Fn() -> bool) {
        let began = Instant::now();
        while !happened() {
            assert!(began.elapsed() < SOON, "waited in vain until {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the application answers.
    fn answer(&self) -> String {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.path("socket")).expect("somebody listens");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer is read");
        answer
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let (code, said) = self.act("stop");
        if code != 0 {
            eprintln!("the service could not be stopped: {said}");
        }
    }
}

/// Whom the server runs as: www-data where that user can reach the program and its Python, which in a home directory it cannot.
fn user() -> &'static str {
    let probe = Command::new("setpriv")
        .args(["--reuid=www-data", "--regid=www-data", "--clear-groups", env!("CARGO_BIN_EXE_tapster"), "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if probe.is_ok_and(|status| status.success()) { "www-data:www-data" } else { "root:root" }
}

/// A running service, where one can be run.
fn service() -> Option<Service> {
    tool("start-stop-daemon")?;
    is_root().then(Service::new)
}

#[test]
fn a_service_lives_as_the_lsb_says() {
    let Some(service) = service() else { return };
    assert!(service.expect("status", 3).contains("not running"));
    service.expect("try-restart", 0);
    service.expect("reload", 7);
    service.expect("stop", 0);
    assert!(service.expect("start", 0).contains("started, pid "));
    // Ready means ready: no waiting here.
    assert!(service.answer().ends_with("served\n"));
    let first = service.pid();
    assert!(service.expect("status", 0).contains(&first));
    service.expect("start", 0);
    assert_eq!(service.pid(), first, "a second start starts nothing");

    for action in ["restart", "try-restart", "reload", "force-reload"] {
        let before = service.pid();
        service.expect(action, 0);
        assert_ne!(service.pid(), before, "{action}");
        assert!(service.answer().ends_with("served\n"));
    }

    service.expect("stop", 0);
    assert!(!service.path("tapster.pid").exists());
    service.expect("status", 3);
}

#[test]
fn a_broken_application_stops_neither_a_restart_nor_a_reload_in_the_middle() {
    let Some(service) = service() else { return };
    service.expect("start", 0);
    let pid = service.pid();
    service.app("import no_such_module\n");
    for action in ["restart", "reload", "try-restart", "force-reload"] {
        let said = service.expect(action, 1);
        assert!(said.contains("no_such_module") && said.contains("left alone"), "{action}: {said}");
        assert_eq!(service.pid(), pid);
        assert!(service.answer().ends_with("served\n"));
    }
    service.expect("stop", 0);
    let said = service.expect("start", 1);
    assert!(said.contains("no_such_module"), "the reason is shown: {said}");
    service.expect("status", 3);
}

#[test]
fn a_killed_server_is_reported_dead_and_can_be_started() {
    let Some(service) = service() else { return };
    service.expect("start", 0);
    let pid = service.pid();
    succeeds(Command::new("kill").args(["-KILL", &pid]));
    // The workers notice and leave; until then the socket is theirs.
    service.until("nobody listens", || std::os::unix::net::UnixStream::connect(service.path("socket")).is_err());
    service.expect("status", 1);
    service.expect("start", 0);
    assert!(service.answer().ends_with("served\n"));
}

#[test]
fn what_cannot_be_done_is_refused_with_its_code() {
    let Some(service) = service() else { return };
    service.expect("explode", 2);
    service.configure("APP=");
    assert!(service.expect("start", 6).contains("set APP in"));
    service.configure("APP=shop:application");
    let defaults = service.path("defaults");
    let text = fs::read_to_string(&defaults).expect("it is there");
    fs::write(&defaults, format!("{text}DAEMON=/nonexistent\n")).expect("it is written");
    service.expect("start", 5);
}
