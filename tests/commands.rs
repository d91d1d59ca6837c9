//! The commands to a running server: what they do, what they print, and their exit codes.

mod common;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use common::client::{Address, Client};
use common::server::{Running, Server, binary, signal_to};
use common::tools;
use common::{SOON, wait_for};

const APP: &str = "import re, time\n\
                   def application(environ, start_response):\n    \
                   path = environ['PATH_INFO']\n    \
                   if path == '/lock':\n        \
                   re.match(r'(a+)+$', 'a' * 60 + 'b')\n    \
                   if path == '/sleep':\n        \
                   time.sleep(60)\n    \
                   start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
                   return [b'hello']\n";

/// Runs a command; returns its exit code, standard output and standard error.
#[track_caller]
fn tapster(words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary());
    // The place of another server's socket is none of this one's.
    command
        .args(words)
        .env_remove("TAPSTER_CONTROL_SOCKET")
        .env("RUNTIME_DIRECTORY", "/nonexistent")
        .env_remove("XDG_RUNTIME_DIR");
    let finished = tools::run(&mut command, Duration::from_secs(90));
    (finished.status.code().expect("it exits"), finished.stdout, finished.stderr)
}

/// A command to this server.
#[track_caller]
fn order(server: &Running, words: &[&str]) -> (i32, String, String) {
    let Address::Unix(socket) = server.control() else { panic!("a unix socket") };
    let socket = socket.to_str().expect("UTF-8").to_owned();
    let words: Vec<&str> = words.iter().copied().chain(["--control-socket", &socket]).collect();
    tapster(&words)
}

#[track_caller]
fn figures(server: &Running) -> Value {
    let (_, text, error) = order(server, &["status", "--json"]);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{error}"))
}

#[test]
fn status_says_how_the_server_is_and_whether_that_is_well() {
    let server = Server::source(APP).workers(2).options(["--name", "shop"]).start();
    server.get("/");
    let (code, text, error) = order(&server, &["status"]);
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    assert!(text.starts_with(concat!("tapster ", env!("CARGO_PKG_VERSION"), "  shop  SERVING  generation 1  pid ")), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" ready ")).count(), 2, "{text}");
    server.signal(Signal::SIGWINCH);
    wait_for("the pause", SOON, || (figures(&server)["server"]["state"] == "paused").then_some(()));
    assert_eq!(order(&server, &["status"]).0, 1);
    server.stop();
}

#[test]
fn reload_waits_for_its_end_and_tells_it() {
    let server = Server::source(APP).expect_error("reload failed").expect_error("cannot boot").start();
    let (code, text, _) = order(&server, &["reload", "--wait"]);
    assert_eq!((code, text.as_str()), (0, "reload done: generation 2 serves\n"));
    assert_eq!(figures(&server)["server"]["generation"], 2);
    let app = server.temp().join("app.py");
    fs::write(&app, "import tapster_is_not_there\n").expect("writable");
    let (code, text, error) = order(&server, &["reload", "--wait=30"]);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(error.starts_with("tapster: reload failed, generation 2 keeps serving: generation 3 cannot boot\n"), "{error}");
    assert!(error.contains("ModuleNotFoundError: No module named 'tapster_is_not_there'"), "{error}");
    assert_eq!(server.get("/").status, 200);
    fs::write(&app, format!("import time\ntime.sleep(3)\n{APP}")).expect("writable");
    let (code, _, error) = order(&server, &["reload", "--wait=1"]);
    assert_eq!(code, 4, "{error}");
    let (code, text, _) = order(&server, &["reload"]);
    assert_eq!(code, 0, "{text}");
    wait_for("the reload after the one under way", SOON, || (figures(&server)["server"]["generation"] == 5).then_some(()));
    wait_for("its end", SOON, || (figures(&server)["server"]["state"] == "serving").then_some(()));
    assert_eq!((&figures(&server)["reloads"]["ok"], &figures(&server)["reloads"]["failed"]), (&3.into(), &1.into()));
    server.stop();
}

#[test]
fn upgrade_waits_for_the_new_program() {
    let server = Server::source(APP).start();
    let pid = figures(&server)["server"]["pid"].clone();
    let (code, text, error) = order(&server, &["upgrade", "--wait"]);
    assert_eq!(
        (code, text.as_str()),
        (0, concat!("upgrade done: tapster ", env!("CARGO_PKG_VERSION"), ", generation 2\n")),
        "{error}"
    );
    assert_eq!(figures(&server)["server"]["pid"], pid);
    server.stop();
}

#[test]
fn a_program_that_is_not_fit_fails_the_upgrade() {
    let server = Server::source(APP);
    let program = server.temp().join("tapster");
    fs::copy(binary(), &program).expect("there is room");
    let server = server.program(&program).expect_error("upgrade failed").start();
    fs::remove_file(&program).expect("it is there");
    fs::write(&program, "#!/bin/sh\nexit 7\n").expect("writable");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let (code, text, error) = order(&server, &["upgrade", "--wait=20"]);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(error.contains("upgrade failed, generation 1 keeps serving"), "{error}");
    server.stop();
}

#[test]
fn stop_waits_until_the_server_is_gone() {
    let mut server = Server::source(APP).start();
    let (code, text, error) = order(&server, &["stop", "--wait=30"]);
    assert_eq!((code, text.as_str()), (0, "stopped\n"), "{error}");
    server.wait(SOON);
    server.finish();
}

#[test]
fn scale_changes_the_number_of_workers() {
    let server = Server::source(APP).start();
    let (code, text, _) = order(&server, &["scale", "3"]);
    assert_eq!((code, text.as_str()), (0, "workers wanted until the next reload: 3\n"));
    wait_for("three workers", SOON, || (figures(&server)["capacity"]["workers_ready"] == 3).then_some(()));
    let (code, _, error) = order(&server, &["scale", "90000"]);
    assert_eq!(code, 1);
    assert!(error.contains("there is room for"), "{error}");
    assert_eq!(order(&server, &["scale", "1"]).0, 0);
    wait_for("one worker", SOON, || (server.workers().len() == 1).then_some(()));
    server.stop();
}

#[test]
fn the_log_level_is_that_of_master_and_workers_until_the_next_reload() {
    let server = Server::source(APP).start();
    assert_eq!(order(&server, &["log-level", "debug"]).0, 0);
    // A worker that boots says more now, and so does one that is there.
    assert_eq!(order(&server, &["scale", "2"]).0, 0);
    server.log().wait(&["[master] DEBUG", "worker 1 is ready"]);
    let (code, text, _) = order(&server, &["reload", "--wait"]);
    assert_eq!(code, 0, "{text}");
    let before = server.log().records().len();
    assert_eq!(order(&server, &["scale", "3"]).0, 0);
    wait_for("the worker", SOON, || (figures(&server)["capacity"]["workers_ready"] == 3).then_some(()));
    let later = server.log().records().split_off(before);
    assert!(later.iter().all(|record| record.level != "DEBUG"), "{later:#?}");
    server.stop();
}

#[test]
fn reopen_writes_on_in_new_files() {
    let server = Server::source(APP);
    let path = server.temp().join("access.log");
    let server = server.options(["--access-logfile", path.to_str().expect("UTF-8")]).start();
    server.get("/a");
    wait_for("the line", SOON, || fs::read_to_string(&path).is_ok_and(|text| text.contains("/a")).then_some(()));
    fs::rename(&path, server.temp().join("old.log")).expect("it is there");
    assert_eq!(order(&server, &["reopen"]).0, 0);
    server.log().wait(&["logs opened anew"]);
    wait_for("the next line in the new file", SOON, || {
        server.get("/b");
        fs::read_to_string(&path).is_ok_and(|text| text.contains("/b")).then_some(())
    });
    server.stop();
}

#[test]
fn requests_and_stacks_show_what_runs() {
    let server = Server::source(APP).workers(2).options(["--threads", "2", "--timeout", "0"]).start();
    let mut client = server.connect();
    client.send("GET /sleep?q=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let shown = wait_for("the request", SOON, || {
        let (code, text, _) = order(&server, &["requests"]);
        (code == 0 && text.contains("/sleep")).then_some(text)
    });
    assert!(shown.contains("GET /sleep?q=1  from 127.0.0.1"), "{shown}");
    let (code, text, error) = order(&server, &["stacks"]);
    assert_eq!(code, 0, "{text}{error}");
    assert!(text.contains("worker 0 (pid ") && text.contains("worker 1 (pid "), "{text}");
    let thread = text.lines().position(|line| line.contains("serving GET /sleep?q=1 HTTP/1.1 for "));
    let lines: Vec<&str> = text.lines().collect();
    let thread = thread.unwrap_or_else(|| panic!("{text}"));
    // In the package the frames of the command are below it.
    let mut frames = lines[thread + 1..].iter().take_while(|line| line.starts_with("  File "));
    assert!(frames.any(|line| line.contains("app.py\", line 7, in application")), "{text}");
    assert!(order(&server, &["stacks", "7"]).2.contains("there is no worker 7"));
    signal_to(server.pid(), Signal::SIGINT);
    signal_to(server.pid(), Signal::SIGQUIT);
}

#[test]
fn stacks_say_so_when_a_worker_cannot_answer() {
    let mut server = Server::source(APP).options(["--timeout", "0"]).start();
    let mut client = server.connect();
    client.send("GET /lock HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the request", SOON, || (figures(&server)["capacity"]["threads_busy"] == 1).then_some(()));
    let began = Instant::now();
    let (code, text, _) = order(&server, &["stacks"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("code in it keeps the interpreter's lock (GET /lock HTTP/1.1 for "), "{text}");
    assert!(text.contains("py-spy dump --pid "), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10));
    let worker = server.workers()[0];
    signal_to(worker, Signal::SIGSTOP);
    wait_for("the stop", SOON, || order(&server, &["stacks"]).1.contains("it is stopped").then_some(()));
    signal_to(worker, Signal::SIGKILL);
    server.expect_error("SIGKILL");
    signal_to(server.pid(), Signal::SIGTERM);
    server.wait(SOON);
}

#[test]
fn nobody_and_wrong_usage_have_their_codes() {
    let (code, text, error) = tapster(&["status", "--control-socket", "/nonexistent/x.ctl"]);
    assert_eq!((code, text.as_str()), (3, ""));
    assert!(error.starts_with("tapster: /nonexistent/x.ctl: "), "{error}");
    assert_eq!(tapster(&["scale"]).0, 2);
    assert_eq!(tapster(&["log-level", "loud"]).0, 2);
    assert_eq!(tapster(&["reload", "--frobnicate"]).0, 2);
    for verb in ["status", "requests", "reload", "upgrade", "stop", "scale", "stacks", "log-level", "reopen"] {
        let (code, text, _) = tapster(&[verb, "--help"]);
        assert_eq!(code, 0);
        assert!(text.contains(&format!("Usage: tapster {verb}")) && text.contains("Exit status"), "{text}");
    }
}

#[test]
fn commands_that_change_a_server_name_it() {
    let server = Server::source(APP).options(["--name", "shop"]).start();
    let place = tempfile::tempdir().expect("the temp directory is writable");
    std::os::unix::fs::symlink(server.temp(), place.path().join("tapster")).expect("writable");
    let run = |words: &[&str], service: Option<&std::path::Path>| {
        let mut command = Command::new(binary());
        command.args(words).env_remove("TAPSTER_CONTROL_SOCKET").env_remove("RUNTIME_DIRECTORY");
        command.env("XDG_RUNTIME_DIR", place.path()).envs(service.map(|path| ("RUNTIME_DIRECTORY", path)));
        let finished = tools::run(&mut command, Duration::from_secs(90));
        (finished.status.code().expect("it exits"), finished.stdout, finished.stderr)
    };
    let socket = place.path().join("tapster/shop.ctl");
    for words in [&["stop"][..], &["reload", "--wait"], &["upgrade"], &["scale", "2"], &["log-level", "debug"], &["reopen"]] {
        let (code, text, error) = run(words, None);
        assert_eq!((code, text.as_str()), (2, ""), "{words:?}: {error}");
        assert!(error.contains(&format!("--control-socket {}", socket.display())) && error.contains("--name"), "{error}");
    }
    // Others may run a server that is found in the place of the system.
    let (code, _, error) = run(&["status"], None);
    assert!(code == 0 || code == 2 && error.contains("there are several servers"), "it changes nothing: {error}");
    assert_eq!(run(&["reopen", "--name", "shop"], None).0, 0);
    assert_eq!(run(&["reopen", "--name", "other"], None).0, 3);
    assert_eq!(run(&["reopen"], Some(server.temp())).0, 0, "a unit's own directory has its own server");
    assert_eq!(run(&["stop", "--wait=30", "-n", "shop"], None).0, 0);
    server.finish();
}

#[test]
fn an_application_of_such_a_name_is_served_by_its_full_name() {
    let server = Server::source(APP);
    fs::copy(server.temp().join("app.py"), server.temp().join("status.py")).expect("writable");
    let dir = server.temp().to_owned();
    let server = server.command_line(["--bind", "127.0.0.1:0", "status:application"]).dir(&dir).start();
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

/// A program in a terminal of 118 columns and 30 rows, which tmux plays. Dropped, it ends.
struct Terminal(tempfile::TempDir);

impl Terminal {
    fn start(program: &[&str]) -> Self {
        let terminal = Self(tempfile::tempdir().expect("the temp directory is writable"));
        let session = ["-f", "/dev/null", "new-session", "-d", "-s", "t", "-x", "118", "-y", "30"];
        terminal.tmux(&[&session[..], program].concat()).succeeded();
        terminal
    }

    fn tmux(&self, words: &[&str]) -> tools::Finished {
        let socket = self.0.path().join("tmux");
        tools::run(Command::new("tmux").env("LC_ALL", "C.UTF-8").arg("-S").arg(socket).args(words), SOON)
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "t", key]).succeeded();
    }

    /// Waits until the screen has this text; returns the screen.
    #[track_caller]
    fn wait(&self, text: &str) -> String {
        wait_for(text, SOON, || {
            let screen = self.tmux(&["capture-pane", "-p", "-t", "t"]).stdout;
            screen.contains(text).then_some(screen)
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn top_draws_in_a_terminal_and_obeys_keys() {
    if tools::tool("tmux").is_none() {
        return tools::skip("tmux is not installed");
    }
    let server = Server::source(APP).options(["--name", "shop", "--threads", "2"]).start();
    let Address::Unix(socket) = server.control() else { panic!("a unix socket") };
    let program = binary();
    let words = [program.to_str().expect("UTF-8"), "top", "--control-socket", socket.to_str().expect("UTF-8")];
    let terminal = Terminal::start(&words);
    let screen = terminal.wait("shop  SERVING  generation 1");
    assert!(screen.contains("WORKER") && screen.contains("q quit"), "{screen}");
    terminal.press("s");
    terminal.wait("workers by busy");
    terminal.press("+");
    terminal.wait("workers 2 of 2 ready");
    terminal.press("k");
    let screen = terminal.wait("any key goes back");
    assert!(screen.contains("worker 0 (pid "), "{screen}");
    terminal.press("x");
    terminal.press("Enter");
    terminal.wait("THREAD      FOR  REQUEST");
    terminal.press("q");
    wait_for("the end", SOON, || (!terminal.tmux(&["has-session", "-t", "t"]).status.success()).then_some(()));
    let (code, text, _) = order(&server, &["top"]);
    assert_eq!(code, 0);
    assert!(text.contains("shop  SERVING"), "without a terminal there is one frame: {text}");
    server.stop();
}

#[test]
fn a_window_that_gets_another_size_stops_no_workers() {
    if tools::tool("tmux").is_none() {
        return tools::skip("tmux is not installed");
    }
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let (socket, log) = (dir.path().join("s"), dir.path().join("log"));
    let (bind, program, apps) = (format!("unix:{}", socket.display()), binary(), common::apps());
    let [program, apps, log_name] = [&program, &apps, &log].map(|path| path.to_str().expect("UTF-8"));
    let words = [program, "--chdir", apps, "--bind", &bind, "--control-socket", "none", "--error-logfile", log_name, "probe"];
    let terminal = Terminal::start(&words);
    let read = || fs::read_to_string(&log).unwrap_or_default();
    wait_for("the server", SOON, || read().contains("concurrent request").then_some(()));
    terminal.tmux(&["resize-window", "-t", "t", "-x", "90", "-y", "20"]).succeeded();
    assert_eq!(Client::connect(&Address::Unix(socket)).get("/").text(), "hello\n");
    // The master has both signals in hand by the end.
    terminal.press("C-c");
    wait_for("the end", SOON, || read().contains("stopped").then_some(()));
    assert!(!read().contains("the workers leave"), "{}", read());
}
