//! `--debug`: one process that serves and has the terminal.

mod common;

use std::fs;
use std::time::Instant;

use nix::sys::signal::Signal;

use common::server::{STOP_LIMIT, Server};
use common::{SOON, procfs, wait_for};

/// Tells who answers, waits for a file, or stands in the debugger.
const APPLICATION: &str = r#"
import os, sys, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        open("waits", "w").close()
        while not os.path.exists("gate"):
            time.sleep(0.01)
    if path == "/close":
        # The descriptors of what attends to signals come after the file for stacks.
        numbers = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)]
        links = {number: os.readlink("/proc/self/fd/%d" % number) for number in numbers}
        stacks = max(number for number, link in links.items() if "memfd:stacks" in link)
        assert links[stacks + 2].startswith("socket:"), links
        os.close(stacks + 2)
    if path == "/debug":
        answer = 0
        breakpoint()
        body = str(answer)
    else:
        body = "%d %s %s %s" % (os.getpid(), os.environ.get("SEEN"), os.getcwd(), environ["wsgi.multiprocess"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body.encode()]
"#;

/// Runs the server on a terminal, answers the prompts of the debugger, and writes to standard output what it has shown.
const TERMINAL: &str = r#"
import os, pty, select, signal, sys
child, terminal = pty.fork()
if not child:
    os.execv(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
signal.signal(signal.SIGINT, lambda *_: os.write(terminal, b"\x03"))
words, seen = [b"answer = 6 * 7\n", b"print(sys.stdin.isatty(), os.getppid() == %d)\n" % os.getpid(), b"continue\n"], b""
while True:
    try:
        part = os.read(terminal, 4096)
    except OSError:
        break
    sys.stdout.buffer.write(part)
    sys.stdout.flush()
    seen += part
    if seen.endswith(b"(Pdb) "):
        seen = b""
        os.write(terminal, words[0])
        # Round about: the debugger comes again.
        words.append(words.pop(0))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if hasattr(os, "waitstatus_to_exitcode") else 0)
"#;

#[test]
fn one_process_serves_without_a_master() {
    let server = Server::source(APPLICATION);
    let elsewhere = server.temp().join("elsewhere");
    fs::create_dir(&elsewhere).expect("the temp directory is writable");
    let path = server.temp().display().to_string();
    let pid_file = server.temp().join("pid");
    let server = server.workers_by_default().options(["--debug", "--chdir", &elsewhere.display().to_string()]);
    let server = server.options(["--pythonpath", &path, "--env", "SEEN=it", "--pid", &pid_file.display().to_string()]);
    let server = server.env("WEB_CONCURRENCY", "1").start();
    let expected = format!("{} it {} False", server.pid(), elsewhere.canonicalize().expect("it is there").display());
    assert_eq!(server.get("/").text(), expected);
    assert!(server.workers().is_empty(), "{:?}", server.workers());
    assert_eq!(procfs::group(server.pid()).len(), 1);
    assert_eq!(fs::read_to_string(&pid_file).expect("it is there").trim(), server.pid().to_string());
    server.log().wait(&["one process with 1 thread on ", &format!("pid {}", server.pid())]);
    for signal in [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGTTIN] {
        server.signal(signal);
        server.log().wait(&[&format!("WARNING {} needs a master", &signal.as_str()[3..])]);
    }
    assert_eq!(server.get("/").text(), expected);
    let log = server.stop();
    assert!(log.find(&["INFO stopped"]).is_some(), "{}", log.text());
    assert!(!pid_file.exists(), "the pid file is left");
}

#[test]
fn breakpoint_has_the_terminal() {
    let server = Server::source(APPLICATION);
    let terminal = server.temp().join("terminal.py");
    fs::write(&terminal, TERMINAL).expect("the temp directory is writable");
    let server = server.launcher(["python3", &terminal.display().to_string()]).options(["--debug"]).start();
    let answer = server.get("/debug");
    assert_eq!((answer.status, answer.text()), (200, "42".to_owned()), "{}", server.stdout());
    wait_for("what the debugger has printed", SOON, || server.stdout().contains("True True").then_some(()));
    server.stop();
}

#[test]
fn an_interrupt_stops_it_after_a_debugger_has_continued() {
    let server = Server::source(APPLICATION);
    let terminal = server.temp().join("terminal.py");
    fs::write(&terminal, TERMINAL).expect("the temp directory is writable");
    let mut server = server.launcher(["python3", &terminal.display().to_string()]).options(["--debug"]).start();
    for _ in 0..2 {
        assert_eq!(server.get("/debug").status, 200, "{}", server.stdout());
    }
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0), "{}", server.stdout());
    server.finish();
}

/// Runs the server on a terminal, which goes away at SIGTERM; ends as the server does, and with 99 if that stays.
const VANISHING: &str = r#"
import os, pty, signal, sys, time
child, terminal = pty.fork()
if not child:
    os.execv(sys.argv[1], sys.argv[1:])
def vanish(*_):
    os.close(terminal)
    for _ in range(1000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            os._exit(status >> 8 or status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os._exit(99)
signal.signal(signal.SIGTERM, vanish)
while True:
    os.write(1, os.read(terminal, 4096))
"#;

#[test]
fn a_terminal_that_hangs_up_takes_it_along() {
    let server = Server::source(APPLICATION);
    let terminal = server.temp().join("terminal.py");
    fs::write(&terminal, VANISHING).expect("the temp directory is writable");
    let pid_file = server.temp().join("pid");
    let server = server.launcher(["python3", &terminal.display().to_string()]);
    let mut server = server.options(["--debug", "--pid", &pid_file.display().to_string()]).start();
    assert_eq!(server.get("/").status, 200);
    assert!(pid_file.exists());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    server.finish();
    assert!(!pid_file.exists(), "the pid file is left");
}

#[test]
fn an_interrupt_finishes_what_runs_and_a_second_one_does_not() {
    for signals in [1, 2] {
        let server = Server::source(APPLICATION).options(["--debug"]);
        let pid_file = server.temp().join("pid");
        let mut server = server.options(["--pid", &pid_file.display().to_string()]).start();
        let mut client = server.connect();
        client.send("GET /wait HTTP/1.0\r\n\r\n");
        wait_for("the call", SOON, || server.temp().join("waits").exists().then_some(()));
        server.signal(Signal::SIGINT);
        server.log().wait(&["once more ends them"]);
        if signals == 1 {
            server.open_gate("gate");
            assert_eq!(client.response().status, 200);
        } else {
            server.signal(Signal::SIGINT);
        }
        assert!(server.wait(STOP_LIMIT).success());
        server.finish();
        assert!(!pid_file.exists(), "the pid file is left");
    }
}

#[test]
fn an_application_that_closes_what_is_not_its_own_ends_with_the_process() {
    let server = Server::source(APPLICATION).options(["--debug"]).expect_error("descriptors of the server are closed");
    let mut server = server.start();
    assert_eq!(server.get("/close").status, 200);
    // Who waits for descriptors does not notice until the next one.
    server.signal(Signal::SIGHUP);
    assert_eq!(server.wait(SOON).code(), Some(1));
    server.finish();
}

#[test]
fn a_stop_ends_at_the_graceful_timeout() {
    let mut server = Server::source(APPLICATION).options(["--debug", "--graceful-timeout", "1s"]).start();
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.0\r\n\r\n");
    wait_for("the call", SOON, || server.temp().join("waits").exists().then_some(()));
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    assert!(server.wait(STOP_LIMIT).success());
    assert!(began.elapsed().as_secs_f64() > 0.9, "{:?}", began.elapsed());
    server.log().wait(&["WARNING requests do not end within --graceful-timeout"]);
    server.finish();
}

#[test]
fn what_cannot_be_loaded_ends_it_with_the_traceback() {
    let ended = Server::source("import nothing_of_that_name\n").options(["--debug"]).run_to_end();
    ended.failed(4, &["No module named 'nothing_of_that_name'", "app.py\", line 1"]);
    let ended = Server::new("").options(["--debug", "--daemon"]).run_to_end();
    ended.failed(2, &["--daemon", "needs a master"]);
    let ended = Server::source(APPLICATION).workers(2).options(["--debug"]).run_to_end();
    ended.failed(2, &["--workers", "one process"]);
}
