//! The files of scripts/init: the tools that will read them accept them, and the sysv script does what the LSB says, run for
//! real as root.

mod common;

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::tools::{skip, tool};
use common::{SOON, procfs, user, wait_for};

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
    let paths = [".ci/run", ".ci/twice", "scripts/tsan", "scripts/deb", "scripts/deb-check", "scripts/init/tapster"];
    succeeds(Command::new(&shellcheck).args(paths.map(|path| root.join(path))));
    let debian = root.join("scripts/debian");
    succeeds(Command::new(&shellcheck).args(["postinst", "prerm", "postrm"].map(|name| debian.join(format!("tapster.{name}")))));
    // The scenarios' common file is beside them here.
    let check = debian.join("check");
    let names = ["container", "common", "systemd", "sysv"];
    succeeds(Command::new(&shellcheck).args(["--external-sources", "--source-path=SCRIPTDIR"]).args(names).current_dir(check));
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
    fs::write(dir.path().join("etc/group"), "adm:x:4:\n").expect("it is written");
    let root = format!("--root={}", dir.path().display());
    succeeds(Command::new(tmpfiles).args(["--create", &root]).arg(script("tapster.tmpfiles")));
    let mode = |path: &str| fs::metadata(dir.path().join(path)).expect("it was made").permissions().mode() & 0o7777;
    assert_eq!((mode("run/tapster"), mode("var/log/tapster")), (0o755, 0o2750));
}

#[test]
fn logrotate_accepts_its_file() {
    let Some(logrotate) = tool("logrotate") else { return };
    succeeds(Command::new(&logrotate).arg("--debug").arg(script("tapster.logrotate")));
}

#[test]
fn logrotate_moves_the_logs_of_a_running_service() {
    let Some(logrotate) = tool("logrotate") else { return };
    let Some(service) = service() else { return };
    service.expect("start", 0);
    service.answer();
    let (log, moved) = (service.path("log/access.log"), service.path("log/access.log.1"));
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    wait_for("the first line", SOON, || (lines(&log) == 1).then_some(()));
    let config = read("tapster.logrotate")
        .replace("/var/log/tapster", &service.path("log").to_string_lossy())
        .replace("/run/tapster.pid", &service.path("tapster.pid").to_string_lossy());
    fs::write(service.path("logrotate"), config).expect("it is written");
    let rotate = ["--force", "--state"].map(Into::into).into_iter().chain([service.path("state"), service.path("logrotate")]);
    succeeds(Command::new(&logrotate).args(rotate));
    wait_for("the new log", SOON, || log.exists().then_some(()));
    let old = fs::metadata(&moved).expect("it was moved").ino();
    let writes = |pid: &i32, inode: u64| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
        fds.flatten().any(|fd| fs::metadata(fd.path()).is_ok_and(|meta| meta.ino() == inode))
    };
    let workers = procfs::children(service.pid().parse().expect("a number"));
    wait_for("workers that have left the old log", SOON, || workers.iter().all(|pid| !writes(pid, old)).then_some(()));
    service.answer();
    wait_for("the second line", SOON, || (lines(&log) == 1).then_some(()));
    assert_eq!(lines(&moved), 1);
    assert_eq!(fs::metadata(&log).expect("it is there").permissions().mode() & 0o777, 0o640);
}

/// The sysv script with its own defaults, directories and application.
struct Service {
    dir: tempfile::TempDir,
    other: user::Other,
}

const APP: &str = r#"
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served\n"]
"#;

impl Service {
    fn new(other: user::Other) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        user::open_to_all(dir.path());
        let service = Self { dir, other };
        service.app(APP);
        service.configure("APP=shop:application");
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
            "{app}\nDAEMON={daemon}\nDIRECTORY={dir}\nTAPSTER_BIND=unix:{dir}/socket\nOPTIONS='--workers 2'\n\
             RUN_AS={user}:{user}\nPIDFILE={dir}/tapster.pid\nLOGDIR={dir}/log\nPATH={path}\n",
            daemon = env!("CARGO_BIN_EXE_tapster"),
            user = user::NAME,
            path = env::var("PATH").unwrap_or_default(),
        );
        fs::write(self.path("defaults"), defaults).expect("it is written");
    }

    /// Runs an action; its exit code and what it said.
    fn act(&self, action: &str) -> (i32, String) {
        let mut command = Command::new(script("tapster"));
        command.arg(action).env("INIT_DEFAULTS", self.path("defaults")).env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(home) = self.other.python_home() {
            command.env("PYTHONHOME", home);
        }
        let output = run(&mut command);
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

/// A running service, where one can be run.
fn service() -> Option<Service> {
    tool("start-stop-daemon")?;
    Some(Service::new(user::other()?))
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

    let owner = |pid: i32| fs::metadata(format!("/proc/{pid}")).expect("it lives").uid();
    let master: i32 = first.parse().expect("a number");
    assert_eq!(owner(master), 0, "the master is root");
    let workers = procfs::children(master);
    assert_eq!(workers.len(), 2);
    assert!(workers.into_iter().all(|pid| owner(pid) == service.other.user.uid.as_raw()), "the workers are not");

    for action in ["restart", "try-restart"] {
        let before = service.pid();
        service.expect(action, 0);
        assert_ne!(service.pid(), before, "{action}");
        assert!(service.answer().ends_with("served\n"));
    }
    for action in ["reload", "force-reload"] {
        let before = service.pid();
        service.expect(action, 0);
        assert_eq!(service.pid(), before, "{action} keeps the master");
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
    assert!(said.contains("no_such_module") && said.contains("code 4"), "the reason is shown: {said}");
    service.expect("status", 3);
}

#[test]
fn a_start_that_takes_too_long_leaves_nothing_behind() {
    let Some(service) = service() else { return };
    service.app("import time\ntime.sleep(3600)\n");
    let defaults = service.path("defaults");
    let text = fs::read_to_string(&defaults).expect("it is there");
    fs::write(&defaults, format!("{text}START_TIMEOUT=5\n")).expect("it is written");
    assert!(service.expect("start", 1).contains("not ready after 5 seconds"));
    wait_for("the end of the daemon", SOON, || (!service.path("tapster.pid").exists()).then_some(()));
    service.expect("status", 3);
}

#[test]
fn a_killed_server_is_reported_dead_and_can_be_started() {
    let Some(service) = service() else { return };
    service.expect("start", 0);
    let pid = service.pid();
    succeeds(Command::new("kill").args(["-KILL", &pid]));
    // The workers notice and leave; until then the socket is theirs.
    let silent = || std::os::unix::net::UnixStream::connect(service.path("socket")).is_err().then_some(());
    wait_for("nobody to listen", SOON, silent);
    service.expect("status", 1);
    service.expect("start", 0);
    assert!(service.answer().ends_with("served\n"));
}

#[test]
fn another_program_whose_number_is_in_the_pid_file_is_neither_taken_for_the_server_nor_ended() {
    let Some(service) = service() else { return };
    let log = service.path("tapster.log");
    fs::write(&log, "").expect("it is written");
    let mut viewer = Command::new("tail").arg("-f").arg(&log).spawn().expect("tail can be run");
    let number = format!("{}\n", viewer.id());
    let stale = || fs::write(service.path("tapster.pid"), &number).expect("it is written");
    stale();
    let status = service.act("status").0;
    service.expect("stop", 0);
    let lives = viewer.try_wait().expect("it is ours").is_none();
    stale();
    service.expect("start", 0);
    let answer = service.answer();
    service.expect("stop", 0);
    viewer.kill().and_then(|()| viewer.wait()).expect("it is ours");
    assert!(lives && status == 1, "status {status}, and the log viewer lives: {lives}");
    assert!(answer.ends_with("served\n"));
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
