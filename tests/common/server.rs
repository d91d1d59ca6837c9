//! The server under test: options, application and environment in; addresses, log and exit code out.

use std::fs::{self, File};
use std::io::{PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::client::{Address, Client, Response};
use super::errorlog::ErrorLog;
use super::lifetime::Lifetime;
use super::tls::{self, Certificate};
use super::{LOOK_EVERY, ROLLED, SOON, apps, place, procfs, wait_for};

/// Time for the start of an interpreter and an application in every worker, on a busy machine and with a debug build.
pub const START_LIMIT: Duration = Duration::from_secs(60);

/// Time for a graceful stop of a server that has nothing long to finish.
pub const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Descriptor that the server writes its ready line to.
const READY_FD: &str = "3";

/// Lines of the log printed when a test fails.
const LOG_TAIL: usize = 200;

/// Gives every server that does not say `--threads` itself so many, so that what holds with one thread is seen to hold with more.
const THREADS_VARIABLE: &str = "TAPSTER_TEST_THREADS";

/// Starts every server with `--preload`, likewise.
const PRELOAD_VARIABLE: &str = "TAPSTER_TEST_PRELOAD";

/// Gives every server that does not say it itself, and has a bind that it is for, a certificate; likewise.
const TLS_VARIABLE: &str = "TAPSTER_TEST_TLS";

/// How binds begin that a certificate is not for.
const UNENCRYPTED: [&str; 7] = ["unix:", "fd:", "http:", "scgi:", "uwsgi:", "fastcgi:", "ajp:"];

/// How the titles of a mold and of a master begin.
const MOLD: &str = "tapster: mold";
const MASTER: &str = "tapster: master";

/// Variables that would change what a test asks for.
const FOREIGN_VARIABLES: [&str; 10] = [
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONUNBUFFERED",
    "WEB_CONCURRENCY",
    "PORT",
    "FORWARDED_ALLOW_IPS",
    "GUNICORN_CMD_ARGS",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
];

/// A server to be started.
#[must_use = "a builder does nothing until it is started"]
pub struct Server {
    app: Option<String>,
    options: Vec<String>,
    env: Vec<(String, String)>,
    dir: PathBuf,
    temp: TempDir,
    launcher: Vec<String>,
    program: PathBuf,
    workers: Option<usize>,
    binds: Vec<String>,
    /// Addresses that the configuration under test binds itself.
    own_binds: usize,
    expected: Vec<String>,
}

/// A running server. Dropping it kills its process group.
pub struct Running {
    child: Child,
    ready: PipeReader,
    addresses: Vec<Address>,
    log: ErrorLog,
    temp: TempDir,
    expected: Vec<String>,
    status: Option<ExitStatus>,
    lifetime: Option<Lifetime>,
}

impl Server {
    /// A server for this application (`module:callable`, a path), run in the directory of the test applications, with one worker
    /// on 127.0.0.1 and a free port.
    pub fn new(app: &str) -> Self {
        let temp = place::fresh("test-");
        Self {
            app: (!app.is_empty()).then(|| app.to_owned()),
            options: Vec::new(),
            env: Vec::new(),
            dir: apps(),
            temp,
            launcher: Vec::new(),
            program: binary(),
            workers: Some(1),
            binds: vec!["127.0.0.1:0".to_owned()],
            own_binds: 0,
            expected: Vec::new(),
        }
    }

    /// A server for an application written here, as `app.py` in its fresh directory.
    pub fn source(source: &str) -> Self {
        let mut server = Self::new("app");
        server.dir = server.temp.path().to_owned();
        fs::write(server.dir.join("app.py"), source).expect("the temp directory is writable");
        server
    }

    /// Adds options.
    pub fn options<S: AsRef<str>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Sets the number of workers.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    /// Leaves the number of workers to the server.
    pub fn workers_by_default(mut self) -> Self {
        self.workers = None;
        self
    }

    /// Uses the virtual environment with the frameworks.
    pub fn frameworks(self) -> Self {
        let dir = super::venv::dir().to_str().expect("the target directory is UTF-8").to_owned();
        self.options(["--venv", &dir])
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Has its binds speak TLS with this certificate, and with those that follow.
    pub fn certificate(self, of: &Certificate) -> Self {
        let [chain, key] = [&of.chain, &of.key].map(|path| path.to_str().expect("the temp directory is UTF-8").to_owned());
        self.options(["--certfile", &chain, "--keyfile", &key])
    }

    /// Has its binds speak TLS with the certificate that tests share.
    pub fn tls(self) -> Self {
        self.certificate(&tls::shared().1)
    }

    /// Runs it in this directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = dir.to_owned();
        self
    }

    /// Binds these addresses instead of 127.0.0.1 and a free port; `{temp}` is the fresh directory.
    pub fn binds<S: AsRef<str>>(mut self, binds: impl IntoIterator<Item = S>) -> Self {
        let temp = self.temp.path().to_str().expect("the temp directory is UTF-8");
        self.binds = binds.into_iter().map(|bind| bind.as_ref().replace("{temp}", temp)).collect();
        self
    }

    /// Gives it this whole command line, the application included, which binds one address as its configuration says.
    pub fn command_line<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        (self.app, self.workers, self.own_binds) = (None, None, 1);
        self.binds.clear();
        self.options(words)
    }

    /// Runs it through another program that ends in an exec, such as `taskset`.
    pub fn launcher<S: AsRef<str>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.launcher = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Lets it have so many open files.
    pub fn open_files(self, limit: usize) -> Self {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        self.launcher(["/bin/sh", "-c", &script, "sh"])
    }

    /// Runs this file instead of the binary under test, such as a link to it that the test will change.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = path.to_owned();
        self
    }

    /// An error whose record contains `part` will be in the log: it must be there at the end, and fails no test.
    pub fn expect_error(mut self, part: &str) -> Self {
        self.expected.push(part.to_owned());
        self
    }

    /// The fresh directory of this server, removed at the end.
    pub fn temp(&self) -> &Path {
        self.temp.path()
    }

    /// The command line, as the shell that starts it gets it. The shell moves its standard output to the ready descriptor: so
    /// nothing but the server inherits the pipe, although other tests start processes at the same time.
    fn command(&self) -> (Command, PipeReader) {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        let log = File::create(self.log_path()).expect("the temp directory is writable");
        let mut command = Command::new("/bin/sh");
        let script = format!(r#"exec {READY_FD}>&1 1>"$STDOUT_FILE"; unset STDOUT_FILE; exec "$@""#);
        command.args(["-c", &script, "sh"]).args(&self.launcher).arg(&self.program);
        for bind in &self.binds {
            command.args(["--bind", bind]);
        }
        if let Some(count) = self.workers {
            command.args(["--workers", &count.to_string()]);
        }
        let is_for = |bind: &String| !UNENCRYPTED.iter().any(|prefix| bind.starts_with(prefix));
        let lacks = self.binds.iter().any(is_for) && !self.options.iter().any(|option| option == "--certfile");
        if lacks && std::env::var_os(TLS_VARIABLE).is_some() {
            let Certificate { chain, key } = &tls::shared().1;
            command.arg("--certfile").arg(chain).arg("--keyfile").arg(key);
        }
        command.args(["--ready-fd", READY_FD]).args(&self.options).args(&self.app);
        for name in FOREIGN_VARIABLES {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TAPSTER_")) {
            command.env_remove(name);
        }
        // The options of a test go before the variable, and its file does not.
        let file = self.options.iter().any(|option| option.starts_with("-c") || option.starts_with("--config"));
        if let Some(threads) = std::env::var_os(THREADS_VARIABLE).filter(|_| !file) {
            command.env("TAPSTER_THREADS", threads);
        }
        if std::env::var_os(PRELOAD_VARIABLE).is_some() && !file {
            command.env("TAPSTER_PRELOAD", "true");
        }
        // The place of its control socket.
        command.env("RUNTIME_DIRECTORY", self.temp.path());
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("STDOUT_FILE", self.temp.path().join("stdout"));
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(&self.dir);
        use std::os::unix::process::CommandExt;
        command.process_group(0).stdin(Stdio::null()).stdout(writer).stderr(log);
        (command, reader)
    }

    fn log_path(&self) -> PathBuf {
        self.temp.path().join("stderr")
    }

    fn spawn(self) -> Running {
        let (mut command, ready) = self.command();
        let child = command.spawn().expect("the server can be started");
        // The command keeps the writing end open until it is dropped.
        drop(command);
        let log = ErrorLog::new(&self.log_path());
        let lifetime = Some(Lifetime::of(child.id() as i32));
        Running { child, ready, addresses: Vec::new(), log, temp: self.temp, expected: self.expected, status: None, lifetime }
    }

    /// Starts it without waiting for anything.
    pub fn start_without_waiting(self) -> Running {
        self.spawn()
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Running {
        let binds = self.binds.len() + self.own_binds;
        let mut running = self.spawn();
        running.wait_for_ready();
        assert_eq!(running.addresses.len(), binds, "every bind is reported: {:?}", running.addresses);
        running
    }

    /// Starts a server that is expected to fail (or a command that only prints) and waits for its end.
    #[track_caller]
    pub fn run_to_end(self) -> Ended {
        let mut running = self.spawn();
        let status = running.wait(START_LIMIT);
        let mut ready = Vec::new();
        running.ready.read_to_end(&mut ready).expect("a pipe can be read");
        running.assert_empty_group();
        Ended {
            code: status.code(),
            stdout: running.stdout(),
            stderr: running.log.text(),
            ready: String::from_utf8_lossy(&ready).into_owned(),
        }
    }
}

/// The binary under test; TAPSTER_BIN names another one, such as an installed or an optimised build.
pub fn binary() -> PathBuf {
    std::env::var_os("TAPSTER_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tapster")), PathBuf::from)
}

/// What a server that ended by itself left.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// What was written to the ready descriptor.
    pub ready: String,
}

impl Ended {
    /// Checks the exit code, that nothing was said to be ready, and that the message has all of `parts`.
    #[track_caller]
    pub fn failed(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "exit code; {self:#?}");
        assert_eq!(self.ready, "", "nothing is ready");
        for part in parts {
            assert!(self.stderr.contains(part), "the message has no {part:?}:\n{}", self.stderr);
        }
        self
    }
}

impl Running {
    /// The first address.
    pub fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// All addresses, in the order of the binds.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The server's fresh directory.
    pub fn temp(&self) -> &Path {
        self.temp.path()
    }

    /// The control socket, whatever the name of the application.
    #[track_caller]
    pub fn control(&self) -> Address {
        let entries = fs::read_dir(self.temp()).expect("the temp directory is there").filter_map(Result::ok);
        let mut found = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "ctl"));
        Address::Unix(found.next().expect("there is a control socket"))
    }

    /// The error log.
    pub fn log(&self) -> &ErrorLog {
        &self.log
    }

    /// What was written to standard output.
    pub fn stdout(&self) -> String {
        fs::read(self.temp.path().join("stdout")).map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
    }

    /// The master's process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The workers' process ids. What the master has just forked is none yet: it may become a mold. One that is about to end shows no
    /// title, and may have been one.
    pub fn workers(&self) -> Vec<i32> {
        let is_worker = |pid: &i32| {
            let title = procfs::command_line(*pid);
            !title.is_empty() && ![MOLD, MASTER].iter().any(|other| title.starts_with(other))
        };
        procfs::children(self.pid()).into_iter().filter(is_worker).collect()
    }

    /// The process ids of the molds (`--preload`).
    pub fn molds(&self) -> Vec<i32> {
        procfs::children(self.pid()).into_iter().filter(|pid| procfs::command_line(*pid).starts_with(MOLD)).collect()
    }

    /// Makes the file in its directory that a call of the test application waits for (tests/apps/notes.py).
    pub fn open_gate(&self, name: &str) {
        std::fs::write(self.temp().join(name), "").expect("the temp directory is writable");
    }

    /// Waits until these workers are gone. One that gives way may still be leaving when the log says that its successor is there.
    #[track_caller]
    pub fn wait_for_end_of(&self, workers: &[i32]) {
        wait_for("the old workers to leave", ROLLED, || {
            let now = self.workers();
            workers.iter().all(|pid| !now.contains(pid)).then_some(())
        });
    }

    /// A URL of the first address.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address())
    }

    /// A connection to the first address.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        let mut client = self.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        client.response()
    }

    /// Sends these bytes on a connection of their own and reads one response.
    #[track_caller]
    pub fn exchange(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect();
        client.send(bytes);
        client.response()
    }

    /// Declares another error that is expected, see [`Server::expect_error`].
    pub fn expect_error(&mut self, part: &str) {
        self.expected.push(part.to_owned());
    }

    /// Sends a signal to the master.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    /// Waits for the end of the master.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let child = &mut self.child;
        let status = wait_for("the end of the master", limit, || child.try_wait().expect("the master is our child"));
        self.status = Some(status);
        status
    }

    /// Waits until no process of the group is left.
    #[track_caller]
    pub fn wait_for_empty_group(&self, limit: Duration) {
        wait_for("an empty process group", limit, || procfs::group(self.pid()).is_empty().then_some(()));
    }

    /// Graceful stop: TERM, exit code 0, nobody left, nothing unexpected in the log, which is returned.
    #[track_caller]
    pub fn stop(mut self) -> ErrorLog {
        self.signal(Signal::SIGTERM);
        let status = self.wait(STOP_LIMIT);
        assert_eq!((status.code(), status.signal()), (Some(0), None), "a graceful stop ends with exit code 0");
        self.finish();
        self.log.keep()
    }

    /// Checks of a server whose master has ended: nobody left, nothing unexpected in the log.
    #[track_caller]
    pub fn finish(&self) {
        self.assert_empty_group();
        self.check_log();
    }

    /// Every error in the log was declared, and every declared one is there.
    #[track_caller]
    pub fn check_log(&self) {
        let unexpected = self.log.unexpected(&self.expected);
        assert!(unexpected.is_empty(), "unexpected errors in the log: {unexpected:#?}");
        for part in &self.expected {
            assert!(self.log.find(&[part]).is_some(), "no record with {part:?} in the log");
        }
    }

    /// A helper process of the interpreter, such as multiprocessing's, ends when it sees that its worker is gone.
    #[track_caller]
    fn assert_empty_group(&self) {
        let began = Instant::now();
        while !procfs::group(self.pid()).is_empty() && began.elapsed() < SOON {
            std::thread::sleep(LOOK_EVERY);
        }
        let left = procfs::group(self.pid());
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// Waits until a server that was started without waiting is ready.
    #[track_caller]
    pub fn wait_for_ready(&mut self) {
        let line = self.ready_line();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.first(), Some(&"READY"), "no ready line, but {line:?}");
        self.addresses = words[1..].iter().filter_map(|word| Address::parse(word)).collect();
    }

    /// Waits for the ready line or the end of the start; whether the server is ready.
    pub fn becomes_ready(&mut self) -> bool {
        self.ready_line().starts_with("READY")
    }

    /// Reads up to the line end or the end of the pipe, at most [`START_LIMIT`].
    fn ready_line(&mut self) -> String {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let began = Instant::now();
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            let left = START_LIMIT.saturating_sub(began.elapsed());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let mut fds = [PollFd::new(self.ready.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => panic!("cannot wait for the ready line: {error}"),
            }
            match self.ready.read(&mut byte) {
                Ok(1..) => line.push(byte[0]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&line).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.pid());
        // ESRCH: the group is empty already.
        let _ = killpg(group, Signal::SIGKILL);
        self.lifetime = None;
        if self.status.is_none() {
            let _ = self.child.wait();
        }
        let began = Instant::now();
        while !procfs::group(self.pid()).is_empty() && began.elapsed() < SOON {
            std::thread::sleep(LOOK_EVERY);
        }
        if std::thread::panicking() {
            let text = self.log.text();
            let lines: Vec<&str> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_TAIL)..];
            eprintln!("--- log of server {} (last {} of {} lines)", self.pid(), shown.len(), lines.len());
            eprintln!("{}\n---", shown.join("\n"));
        } else {
            assert!(procfs::group(self.pid()).is_empty(), "processes survive SIGKILL");
        }
    }
}

/// Sends a signal to a process that must be there.
#[track_caller]
pub fn signal_to(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("cannot send {signal} to {pid}: {error}"));
}

/// Lets a worker see everything that `act` does at once.
#[track_caller]
pub fn at_once(worker: i32, act: impl FnOnce()) {
    signal_to(worker, Signal::SIGSTOP);
    wait_for("the worker to stand still", SOON, || procfs::process(worker).filter(|process| process.state == 'T'));
    act();
    signal_to(worker, Signal::SIGCONT);
}
