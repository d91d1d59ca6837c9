//! The server as Python programs call it: `tapster.serve`, `tapster.start`, pytest's fixture and PasteDeploy's runner.
//! scripts/test-wheel runs these against a package.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use common::server::{Running, STOP_LIMIT, Server, signal_to};
use common::tools::{self, Finished};
use common::{SOON, procfs, venv};

/// The first lines of most programs: an application that tells of its process.
const HEAD: &str = r#"
import atexit, json, os, random, signal, sys, threading, time
import tapster

HERE = os.getpid()

def app(environ, start_response):
    body = json.dumps({
        "pid": os.getpid(), "loaded_in": HERE, "version": VERSION, "random": random.random(), "late": os.environ.get("LATE"),
        "threads": [thread.name for thread in threading.enumerate()], "noted": NOTED,
    }).encode()
    print("asked")
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

VERSION = 1
NOTED = []
"#;

/// The call of most programs; it exits with the server's code.
const SERVE: &str = r#"
if __name__ == "__main__":
    code = tapster.serve(app, bind="127.0.0.1:0", workers=2, ready_fd=3, env={"LATE": "yes"})
    print("served", code, os.getpid() == HERE)
    sys.exit(code)
"#;

/// The Python that the package is installed in.
fn python() -> PathBuf {
    let environment = venv::given();
    environment.expect("TAPSTER_TEST_VENV has to name an environment with the package, see scripts/test-wheel").join("bin/python")
}

/// A program in a fresh directory that will serve one address.
fn program(source: &str) -> Server {
    let server = Server::source("");
    fs::write(server.temp().join("run.py"), source).expect("the directory is writable");
    let python = python().display().to_string();
    server.launcher([python.as_str()]).program("run.py".as_ref()).command_line::<&str>([])
}

/// Runs a program of these lines to its end.
#[track_caller]
fn run(source: &str) -> Finished {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("run.py"), source).expect("the directory is writable");
    tools::run(Command::new(python()).arg("run.py").current_dir(directory.path()), 3 * SOON)
}

/// Waits until something has happened in the log once more than `before`.
#[track_caller]
fn wait_for_record(server: &Running, part: &str, act: impl FnOnce()) {
    let count = || server.log().records().iter().filter(|record| record.text.contains(part)).count();
    let before = count();
    act();
    common::wait_for(part, 3 * SOON, || (count() > before).then_some(()));
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn an_object_is_served_by_forks_of_the_program_that_has_it() {
    let mut server = program(&(HEAD.to_owned() + SERVE)).start();
    let seen = server.get("/").json();
    assert_eq!(seen["loaded_in"], server.pid(), "the program is the master");
    assert_eq!(seen["late"], "yes");
    let workers = server.workers();
    assert_eq!(workers.len(), 2);
    assert!(workers.contains(&(seen["pid"].as_i64().unwrap() as i32)));
    // Another worker takes the place of a dead one, and has the same memory.
    signal_to(workers[0], Signal::SIGKILL);
    server.wait_for_end_of(&workers[..1]);
    common::wait_for("another worker", SOON, || (server.workers().len() == 2).then_some(()));
    assert_eq!(server.get("/").json()["loaded_in"], server.pid());
    server.expect_error("SIGKILL");
    // HUP cannot load the code of somebody else, and says so.
    let before = server.workers();
    wait_for_record(&server, "send SIGUSR2, which starts the program anew", || server.signal(Signal::SIGHUP));
    assert_eq!(server.workers(), before);
    server.expect_error("the application is an object of the program");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
    assert!(server.stdout().ends_with("served 0 True\n"), "the program continues: {}", server.stdout());
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn usr2_starts_the_program_anew_in_its_process() {
    let server = program(&(HEAD.to_owned() + SERVE)).start();
    let path = server.temp().join("run.py");
    let change = |from: &str, to: &str| {
        let source = fs::read_to_string(&path).unwrap();
        assert!(source.contains(from), "{source}");
        fs::write(&path, source.replace(from, to)).unwrap();
    };
    let mut server = server;
    change("VERSION = 1", "VERSION = 1 / 0");
    let before = server.workers();
    wait_for_record(&server, "ZeroDivisionError", || server.signal(Signal::SIGUSR2));
    assert_eq!(server.workers(), before, "a program that fails changes nothing");
    server.expect_error("upgrade failed");
    change("VERSION = 1 / 0", "VERSION = 2");
    for version in [2, 3] {
        let before = server.workers();
        wait_for_record(&server, "reload done", || server.signal(Signal::SIGUSR2));
        server.wait_for_end_of(&before);
        let seen = server.get("/").json();
        assert_eq!((seen["version"].as_i64(), seen["loaded_in"].as_i64()), (Some(version), Some(server.pid().into())));
        change(&format!("VERSION = {version}"), &format!("VERSION = {}", version + 1));
    }
    // The one that an upgrade has started refuses HUP too.
    wait_for_record(&server, "send SIGUSR2, which starts the program anew", || server.signal(Signal::SIGHUP));
    server.expect_error("the application is an object of the program");
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_named_application_is_loaded_by_each_worker_and_by_hup() {
    let server = program(
        "import os, sys, tapster\n\
         if __name__ == '__main__':\n    \
         sys.exit(tapster.serve('site_of_mine:app', port=0, workers=1, ready_fd=3, pythonpath='lib'))\n",
    );
    fs::create_dir(server.temp().join("lib")).unwrap();
    let module = server.temp().join("lib/site_of_mine.py");
    fs::write(&module, HEAD).unwrap();
    let mut server = server.start();
    let seen = server.get("/").json();
    assert_eq!(seen["loaded_in"], seen["pid"]);
    fs::write(&module, HEAD.replace("VERSION = 1", "VERSION = 2")).unwrap();
    wait_for_record(&server, "reload done", || server.signal(Signal::SIGHUP));
    assert_eq!(server.get("/").json()["version"], 2);
    fs::write(&module, "1 / 0").unwrap();
    wait_for_record(&server, "reload failed", || server.signal(Signal::SIGHUP));
    server.expect_error("ZeroDivisionError");
    server.expect_error("reload failed");
    assert_eq!(server.get("/").json()["version"], 2);
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn threads_at_the_fork_are_named_and_what_forks_share_is_mended() {
    let source = HEAD.to_owned()
        + r#"
atexit.register(lambda: open("exits", "a").write("%d\n" % os.getpid()))
os.register_at_fork(after_in_child=lambda: NOTED.append("forked"))
signal.signal(signal.SIGALRM, lambda *_: NOTED.append("alarm"))
signal.signal(signal.SIGTERM, lambda *_: open("terms", "a").write("x"))
release = threading.Event()
thread = threading.Thread(target=lambda: [release.wait(.01) for _ in iter(lambda: not release.is_set(), False)], name="ticker")
thread.start()
print("before")
"#;
    let end = "\nif __name__ == '__main__':\n    \
               code = tapster.serve(app, bind='127.0.0.1:0', workers=2, ready_fd=3, capture_output=True)\n    \
               release.set()\n    sys.exit(code)\n";
    let mut server = program(&(source + end)).start();
    server.log().wait(&["has started 1 other thread (ticker), which the workers do not have"]);
    let [one, other] = [0, 1].map(|_| {
        // Each answers once: the first is busy with the connection until it is answered.
        let seen = server.get("/").json();
        assert_eq!(seen["threads"], serde_json::json!(["MainThread"]));
        assert_eq!(seen["noted"][0], "forked");
        seen["random"].as_f64().unwrap()
    });
    assert_ne!(one, other);
    let worker = server.get("/").json()["pid"].as_i64().unwrap() as i32;
    for pid in server.workers() {
        signal_to(pid, Signal::SIGALRM);
    }
    common::wait_for("the handler of the program", SOON, || {
        server.get("/").json()["noted"].as_array().unwrap().contains(&"alarm".into()).then_some(())
    });
    server.log().wait(&["INFO asked"]);
    assert!(server.workers().contains(&worker));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
    assert_eq!(server.stdout(), "before\n", "the output of the workers is in the log, and nothing is written twice");
    assert_eq!(fs::read_to_string(server.temp().join("exits")).unwrap(), format!("{}\n", server.pid()));
    assert!(!server.temp().join("terms").exists(), "the signal was the server's");
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn what_cannot_be_served_is_an_exception_that_says_what_to_do() {
    let source = HEAD.to_owned()
        + r#"
def refused(kind, part, *args, **options):
    try:
        tapster.serve(*args, **options)
    except kind as error:
        assert part in str(error), (part, error)
    else:
        raise AssertionError(part)

refused(TypeError, "wrokers (argument of the call): no such option; did you mean workers?", app, wrokers=2)
refused(TypeError, "did you mean bind?", app, listen="*:80")
refused(TypeError, "did you mean worker_connections?", app, connection_limit=5)
refused(TypeError, "neither a WSGI application nor the name of one", 5)
refused(TypeError, "functions are read from a file", app, post_fork=print)
refused(TypeError, "leave one out", app, port=1, bind=":2")
refused(ValueError, "workers=many (argument of the call): must be a whole number", app, workers="many")
refused(ValueError, "workers=nan (argument of the call): must be a whole number", app, workers=float("nan"))
refused(ValueError, "ciphers=x (argument of the call): ciphers are not chosen by hand", app, ciphers="x")
refused(ValueError, "the callable is missing", "module:")
refused(ValueError, "no worker can load it again", app, reload=True)
refused(ValueError, "one process by the command alone", app, debug=True)
os.environ["TAPSTER_THREADS"] = "none"
refused(ValueError, "TAPSTER_THREADS=none (environment): ", app)
del os.environ["TAPSTER_THREADS"]
errors = []
interrupt = signal.getsignal(signal.SIGINT)
def beside():
    try:
        tapster.serve(app)
    except RuntimeError as error:
        errors.append(str(error))
thread = threading.Thread(target=beside)
thread.start()
thread.join()
assert "main thread" in errors[0], errors
assert signal.getsignal(signal.SIGINT) is interrupt
print("done")
"#;
    assert_eq!(run(&source).succeeded().stdout, "done\n");
    // A program that serves itself when it is imported.
    let ended =
        program("import tapster\ndef app(environ, start_response): pass\ntapster.serve('run:app', ready_fd=3)\n").run_to_end();
    assert!(ended.stderr.contains("put the call behind `if __name__ == '__main__':`"), "{}", ended.stderr);
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_program_can_serve_more_than_once_and_has_its_signals_back() {
    let source = HEAD.to_owned()
        + r#"
def stop_soon():
    time.sleep(.3)
    os.kill(HERE, signal.SIGTERM)

got = []
signal.signal(signal.SIGTERM, lambda *_: got.append("mine"))
for _ in range(2):
    thread = threading.Thread(target=stop_soon)
    thread.start()
    assert tapster.serve(app, port=0, workers=1, log_level="error") == 0
    thread.join()
assert got == []
os.kill(HERE, signal.SIGTERM)
assert got == ["mine"]
assert tapster.serve("no_such_module:app", port=0, log_level="critical") == 4
print("done")
"#;
    assert_eq!(run(&source).succeeded().stdout, "done\n");
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_started_server_is_there_until_it_is_stopped_or_the_program_ends() {
    let source = HEAD.to_owned()
        + r#"
import urllib.request

def ask(server):
    with urllib.request.urlopen(server.url, timeout=20) as answer:
        return json.load(answer)

with tapster.start(app) as server:
    seen = ask(server)
    assert seen["loaded_in"] == HERE and seen["pid"] != server.pid != HERE, seen
    assert server.is_running() and server.url.startswith("http://127.0.0.1:"), server
assert server.exit_code == 0 and not server.is_running()
with tapster.start("module_here:app", workers=2, bind=["127.0.0.1:0", "unix:" + os.path.abspath("s")]) as server:
    seen = ask(server)
    assert seen["loaded_in"] == seen["pid"], seen
    assert len(server.addresses) == 2, server.addresses
for kind, part, options in [
    (TypeError, "did you mean workers?", {"wrokers": 1}),
    (ValueError, "must be a whole number", {"workers": "many"}),
    (TypeError, "has no place here", {"daemon": True}),
    (TypeError, "host: a bytes is no name", {"host": b"localhost"}),
    (TypeError, "write bind='unix:/run/s'", {"host": "unix:/run/s"}),
    (ValueError, "error_logfile: '/tmp/\\udcff' is not Unicode", {"error_logfile": os.fsdecode(b"/tmp/\xff")}),
    (TypeError, "access_logformat: a object cannot be", {"access_logformat": {"a": object()}}),
]:
    try:
        tapster.start(app, **options)
    except kind as error:
        assert part in str(error), error
    else:
        raise AssertionError(part)
try:
    tapster.start("no_such_module:app", log_level="critical")
except RuntimeError as error:
    assert "exit code 4: the application cannot be loaded" in str(error), error
else:
    raise AssertionError
if os.fork() == 0:
    # As a daemon may be, whose next files have the numbers of its streams.
    os.closerange(0, 3)
    with tapster.start(app) as server:
        os._exit(0 if ask(server)["loaded_in"] == HERE else 9)
assert os.wait()[1] == 0
# Left to the end of the program, in both ways in which that comes.
print(tapster.start(app).pid, tapster.start(app, port=0).pid, flush=True)
if "kill" in sys.argv:
    os.kill(HERE, signal.SIGKILL)
"#;
    for way in ["leave", "kill"] {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("run.py"), &source).unwrap();
        fs::write(directory.path().join("module_here.py"), HEAD).unwrap();
        let mut command = Command::new(python());
        let ended = tools::run(command.args(["run.py", way]).current_dir(directory.path()), 3 * SOON);
        let killed = ended.status.signal() == Some(Signal::SIGKILL as i32);
        assert!(if way == "leave" { ended.status.success() } else { killed }, "{}\n{}", ended.stdout, ended.stderr);
        assert!(!ended.stderr.contains("other thread"), "the program has none: {}", ended.stderr);
        let pids: Vec<i32> = ended.stdout.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert_eq!(pids.len(), 2, "{}", ended.stdout);
        for pid in pids {
            common::wait_for("the end of a server", SOON, || (!procfs::alive(pid)).then_some(()));
        }
    }
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn servers_may_be_started_at_once_and_beside_forks_of_the_program() {
    let source = HEAD.to_owned()
        + r#"
started = threading.Barrier(4, timeout=20)
sleepers, failed = [], []
pipe = os.pipe

def slow_pipe():
    # So that others fork meanwhile.
    ends = pipe()
    time.sleep(0.05)
    return ends

os.pipe = slow_pipe

def beside():
    # Whatever such a process has of a server that is just being started, it keeps.
    for _ in range(40):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        sleepers.append(pid)
        time.sleep(0.002)

def keep():
    try:
        with tapster.start(app):
            # No server waits for the end of another one.
            started.wait()
    except BaseException as error:
        failed.append(error)

def fail():
    try:
        tapster.start("no_such_module:app", log_level="critical")
    except RuntimeError as error:
        assert "exit code 4" in str(error), error
    else:
        failed.append("it has started")

threads = [threading.Thread(target=beside), threading.Thread(target=fail), *(threading.Thread(target=keep) for _ in range(4))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for pid in sleepers:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
assert not failed, failed
"#;
    run(&source).succeeded();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn a_start_that_is_interrupted_leaves_nothing() {
    let source = HEAD.to_owned()
        + r#"
class Interrupted(Exception):
    pass

def interrupt(*_):
    raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
for _ in range(3):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        # It does not become ready.
        tapster.start("never:app", log_level="critical")
    except Interrupted:
        pass
    else:
        raise AssertionError
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        continue
    raise AssertionError("a process is left")
"#;
    let directory = written(&[("run.py", &source), ("never.py", "import time\ntime.sleep(600)\n")]);
    tools::run(Command::new(python()).arg("run.py").current_dir(directory.path()), 3 * SOON).succeeded();
}

/// A file in a fresh directory, and the directory.
fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fs::write(directory.path().join(name), text).expect("the directory is writable");
    }
    directory
}

fn in_venv(name: &str) -> PathBuf {
    python().with_file_name(name)
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn pytest_has_the_fixture() {
    let tests = r#"
import os, signal, urllib.request
import pytest

def app(environ, start_response):
    start_response("200 OK", [])
    return [environ["PATH_INFO"].encode()]

kept = []

def test_one(tapster_server):
    one, other = tapster_server(app), tapster_server(app, threads=2)
    assert one.url != other.url
    assert urllib.request.urlopen(one.url + "/x", timeout=20).read() == b"/x"
    kept.extend([one, other])

def test_they_are_stopped():
    assert [server.exit_code for server in kept] == [0, 0]

def test_that_fails_shows_the_log(tapster_server):
    def broken(environ, start_response):
        raise ZeroDivisionError("by the application")
    server = tapster_server(broken)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(server.url, timeout=20)
    assert False
"#;
    let directory = written(&[("test_it.py", tests)]);
    let mut pytest = Command::new(in_venv("pytest"));
    let ended = tools::run(pytest.args(["-q", "-W", "error"]).current_dir(directory.path()), 3 * SOON);
    assert!(ended.stdout.contains("1 failed, 2 passed"), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("ZeroDivisionError: by the application"), "{}", ended.stdout);
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn types_are_strict_and_those_of_callers_are_checked() {
    let caller = "\
import tapster
from flask import Flask

app = Flask(__name__)
code: int = tapster.serve(app, workers=2, bind=['127.0.0.1:0'], env={'A': 'b'}, log_level='info')
with tapster.start('m:app') as server:
    address: str = server.url
    pid: int = server.pid
tapster.serve(app, wrokers=2)  # wrong
tapster.serve(3)  # wrong
tapster.start(app, daemon='yes')  # wrong
";
    let directory = written(&[("caller.py", caller)]);
    let mypy = |args: &[&str]| {
        let mut command = Command::new(in_venv("mypy"));
        tools::run(command.arg("--strict").args(args).current_dir(directory.path()), 6 * SOON)
    };
    mypy(&["-p", "tapster"]).succeeded();
    let ended = mypy(&["caller.py"]);
    let lines: Vec<&str> = ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("caller.py:")?.split_once(": error").map(|(line, _)| line))
        .collect();
    assert_eq!(lines, ["9", "10", "11"], "{}\n{}", ended.stdout, ended.stderr);
}

/// The blocks of code of README.md whose first line is this.
fn example(first: &str) -> String {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once(&format!("{first}\n")).unwrap_or_else(|| panic!("README.md has {first:?}"));
    rest.split("```").next().expect("the block ends").to_owned()
}

/// Serves what the example names, on another port than everybody's.
#[track_caller]
fn serves(directory: &Path, words: &[&str], expected: &str) {
    let server = Server::source("").dir(directory);
    let server = server.launcher([in_venv(words[0]).display().to_string()]).program(words[1].as_ref());
    let server = server.command_line::<&str>([]).env("TAPSTER_READY_FD", "3").env("TAPSTER_BIND", "127.0.0.1:0").start();
    // Django answers no other name.
    let answer = server.exchange("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.text().contains(expected), "{}", answer.text());
    server.stop();
}

#[test]
#[ignore = "scripts/test-wheel runs it"]
fn the_examples_of_the_documents_serve() {
    let free = |text: String| text.replace("port=8000", "port=0").replace("127.0.0.1:8000", "127.0.0.1:0");
    let flask = free(example("# app.py, by: venv/bin/python app.py"));
    let directory = written(&[("app.py", &flask)]);
    serves(directory.path(), &["python", "app.py"], "Hello from Flask");

    let directory = written(&[("serve.py", &example("# serve.py beside manage.py does the same"))]);
    let mut project = Command::new(in_venv("django-admin"));
    tools::run(project.args(["startproject", "mysite", "."]).current_dir(directory.path()), SOON).succeeded();
    serves(directory.path(), &["python", "serve.py"], "The install worked successfully");

    let section = free(common::manual::example("; development.ini of Pyramid, for pserve"));
    let app = format!("[app:main]\nuse = call:shop:main\n{section}");
    let module = "from pyramid.config import Configurator\nfrom pyramid.response import Response\n\n\
                  def main(global_config, **settings):\n    \
                  with Configurator() as config:\n        \
                  config.add_route('home', '/')\n        \
                  config.add_view(lambda request: Response('Hello from Pyramid'), route_name='home')\n        \
                  return config.make_wsgi_app()\n";
    let directory = written(&[("development.ini", &app), ("shop.py", module)]);
    let path = directory.path().display().to_string();
    // What the harness adds is not for pserve.
    let script = format!("exec {} development.ini", in_venv("pserve").display());
    let server = Server::source("").dir(directory.path()).launcher(["/bin/sh", "-c", &script]).command_line::<&str>([]);
    let server = server.env("TAPSTER_READY_FD", "3").env("PYTHONPATH", path).start();
    assert_eq!(server.get("/").text(), "Hello from Pyramid");
    server.stop();
}
