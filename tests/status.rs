//! The doors for operators: figures, metrics, probes, commands, and that nobody who comes in by them can disturb the server.

mod common;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use common::client::{Address, Client, Response};
use common::server::{Running, Server, signal_to};
use common::status::door;
use common::tools::{self, skip, tool};
use common::{SOON, procfs, venv, wait_for};

/// Longest time for an answer, whatever the server does.
const AT_ONCE: Duration = Duration::from_millis(100);

const APP: &str = "import time\n\
                   def application(environ, start_response):\n    \
                   path = environ['PATH_INFO']\n    \
                   if path == '/spin':\n        \
                   sum(range(10**12))\n    \
                   if path == '/sleep':\n        \
                   time.sleep(float(environ['QUERY_STRING']))\n    \
                   start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
                   return [b'hello']\n";

fn server() -> Server {
    common::status::server(APP)
}

/// The door on a port that the kernel has chosen.
#[track_caller]
fn tcp_door(server: &Running) -> Address {
    let record = server.log().wait(&["status and metrics on http://127.0.0.1:"]);
    let text = record.text.split("http://").nth(1).expect("an address").trim().to_owned();
    Address::parse(&format!("http://{text}")).expect("an address")
}

#[track_caller]
fn ask_by(method: &str, address: &Address, target: &str) -> Response {
    let mut client = Client::connect(address);
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    client.response_to(method)
}

#[track_caller]
fn get(address: &Address, target: &str) -> Response {
    ask_by("GET", address, target)
}

#[track_caller]
fn figures(address: &Address) -> Value {
    let response = get(address, "/status.json");
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// Every path is answered at once; the slowest of a few tries counts the least, since the machine is busy with other tests.
#[track_caller]
fn answers_at_once(server: &Running, what: &str) {
    for address in [door(server), server.control()] {
        for target in ["/", "/status.json", "/metrics", "/health/live", "/health/ready"] {
            let times = (0..5).map(|_| {
                let began = Instant::now();
                get(&address, target);
                began.elapsed()
            });
            let best = times.min().expect("there are five");
            assert!(best < AT_ONCE, "{what}: {target} took {best:?}");
        }
    }
}

/// The program that checks metrics; Debian's package is prometheus.
#[track_caller]
fn promtool_is_silent(metrics: &str) {
    use std::io::Write;
    use std::process::Stdio;
    let Some(promtool) = tool("promtool") else { return skip("promtool (package prometheus) is not installed") };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    child.stdin.take().expect("it is piped").write_all(metrics.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{metrics}", String::from_utf8_lossy(&said));
}

#[test]
fn the_document_has_what_the_server_is() {
    let server = server().workers(2).options(["--threads", "3", "--name", "shop"]).start();
    for _ in 0..5 {
        server.get("/");
    }
    let document = figures(&door(&server));
    assert_eq!(document["schema"], 1);
    assert_eq!(document["server"]["name"], "shop");
    assert_eq!(document["server"]["pid"], server.pid());
    assert_eq!(document["server"]["state"], "serving");
    assert_eq!(document["server"]["generation"], 1);
    assert!(document["server"]["python"].as_str().unwrap().starts_with("Python 3."), "{document}");
    assert_eq!(document["capacity"]["workers_ready"], 2);
    assert_eq!(document["capacity"]["threads"], 6);
    assert_eq!(document["requests"]["total"], 5);
    assert_eq!(document["listeners"][0]["protocol"], "http");
    let pids: Vec<i64> = document["workers"].as_array().unwrap().iter().map(|worker| worker["pid"].as_i64().unwrap()).collect();
    assert_eq!(pids, server.workers().iter().map(|pid| i64::from(*pid)).collect::<Vec<_>>());
    assert!(document["workers"][0]["rss_bytes"].as_u64().unwrap() > 1 << 20);
    server.stop();
}

#[test]
fn only_operators_see_queries_and_clients() {
    let server = server().start();
    let mut client = server.connect();
    client.send("GET /sleep?30 HTTP/1.1\r\nHost: x\r\nX-Request-ID: r-7\r\n\r\n");
    let listed = |address: &Address| figures(address)["in_flight"][0].clone();
    let public = wait_for("the request", SOON, || Some(listed(&door(&server))).filter(|request| !request.is_null()));
    assert_eq!((&public["method"], &public["path"]), (&"GET".into(), &"/sleep".into()));
    let text = get(&door(&server), "/status.json").text();
    assert!(!text.contains("?30") && !text.contains("r-7") && !text.contains("127.0.0.1\""), "{text}");
    let full = listed(&server.control());
    assert_eq!((&full["query"], &full["request_id"], &full["client"]), (&"30".into(), &"r-7".into(), &"127.0.0.1".into()));
    drop(client);
    server.signal(Signal::SIGINT);
}

#[test]
fn metrics_please_promtool_in_both_formats() {
    let server = server().workers(2).start();
    server.get("/");
    let metrics = get(&door(&server), "/metrics");
    assert_eq!(metrics.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    promtool_is_silent(&metrics.text());
    let mut client = Client::connect(&door(&server));
    client.send("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n");
    let open = client.response();
    assert_eq!(open.field("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.text().ends_with("# EOF\n"));
    server.stop();
}

/// jsonschema of PyPI is in the virtual environment of the tests.
#[track_caller]
fn fits_the_schema(document: &Value) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/status/status.schema.json");
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let file = dir.path().join("document.json");
    std::fs::write(&file, document.to_string()).expect("the temp directory is writable");
    let code = "import json, sys, jsonschema\n\
                schema, document = (json.load(open(path)) for path in sys.argv[1:])\n\
                jsonschema.Draft202012Validator.check_schema(schema)\n\
                jsonschema.validate(document, schema)\n";
    let mut command = Command::new(venv::python());
    tools::run(command.args(["-c", code]).arg(schema).arg(file), SOON).succeeded();
}

#[test]
fn the_document_fits_its_schema() {
    let server = server().workers(2).options(["--threads", "2"]).start();
    server.get("/");
    fits_the_schema(&figures(&door(&server)));
    server.signal(Signal::SIGWINCH);
    wait_for("the workers to leave", SOON, || server.workers().is_empty().then_some(()));
    let document = figures(&server.control());
    assert_eq!(document["server"]["state"], "paused");
    fits_the_schema(&document);
    server.stop();
}

#[test]
fn the_document_fits_its_schema_while_much_happens() {
    let server = server().workers(2).options(["--threads", "2"]).expect_error("SIGKILL").expect_error("reload failed");
    let mut server = server.expect_error("cannot boot").start();
    let mut client = server.connect();
    client.send("GET /sleep?60 HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\n\r\n");
    signal_to(server.workers()[0], Signal::SIGKILL);
    server.log().wait(&["SIGKILL"]);
    wait_for("its successor", SOON, || (figures(&door(&server))["capacity"]["workers_ready"] == 2).then_some(()));
    std::fs::write(server.temp().join("app.py"), "import time\ntime.sleep(1)\n1/0\n").expect("writable");
    server.signal(Signal::SIGHUP);
    wait_for("the reload", SOON, || (figures(&door(&server))["server"]["state"] == "reloading").then_some(()));
    fits_the_schema(&figures(&server.control()));
    server.log().wait(&["reload failed"]);
    let document = figures(&server.control());
    assert!(document["last_change"]["error"].as_str().is_some_and(|error| error.contains("ZeroDivisionError")), "{document}");
    assert_eq!((&document["exits"][0]["cause"], &document["worker_exits"]["boot_failed"]), (&"boot_failed".into(), &1.into()));
    fits_the_schema(&document);
    server.signal(Signal::SIGTERM);
    wait_for("the end to begin", SOON, || (figures(&door(&server))["server"]["state"] == "stopping").then_some(()));
    fits_the_schema(&figures(&door(&server)));
    server.signal(Signal::SIGINT);
    server.signal(Signal::SIGQUIT);
    server.wait(SOON);
}

#[test]
fn probes_follow_the_life_of_the_server() {
    let server = server().options(["--graceful-timeout", "20"]).start();
    let ready = |server: &Running| (get(&door(server), "/health/ready").status, get(&door(server), "/health/live").status);
    assert_eq!(ready(&server), (200, 200));
    server.signal(Signal::SIGWINCH);
    wait_for("the pause", SOON, || (ready(&server) == (503, 200)).then_some(()));
    server.signal(Signal::SIGTTIN);
    wait_for("the worker", SOON, || (ready(&server) == (200, 200)).then_some(()));
    let mut client = server.connect();
    client.send("GET /sleep?3 HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the request", SOON, || (figures(&door(&server))["capacity"]["threads_busy"] == 1).then_some(()));
    server.signal(Signal::SIGTERM);
    wait_for("the end to begin", SOON, || (ready(&server) == (503, 200)).then_some(()));
    answers_at_once(&server, "while it drains");
    assert_eq!(client.response().status, 200);
    let mut server = server;
    server.wait(SOON);
    server.finish();
    assert!(!server.temp().join("status").exists(), "the socket's file is gone");
}

#[test]
fn it_answers_while_the_workers_cannot() {
    let server = server().workers(2).options(["--timeout", "0"]).start();
    for worker in server.workers() {
        signal_to(worker, Signal::SIGSTOP);
    }
    answers_at_once(&server, "with stopped workers");
    for worker in server.workers() {
        signal_to(worker, Signal::SIGCONT);
    }
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send("GET /spin HTTP/1.1\r\nHost: x\r\n\r\n"));
    wait_for("both to spin", SOON, || (figures(&door(&server))["capacity"]["threads_busy"] == 2).then_some(()));
    answers_at_once(&server, "while all workers spin");
    drop(clients);
    let mut server = server;
    server.signal(Signal::SIGINT);
    server.signal(Signal::SIGQUIT);
    server.wait(SOON);
}

#[test]
fn it_answers_before_a_worker_is_ready() {
    let server = Server::source(&format!("import time\ntime.sleep(2)\n{APP}"));
    let path = server.temp().join("status");
    let mut server = server.options(["--status-bind", &format!("unix:{}", path.display())]).start_without_waiting();
    // Its file is there a moment before anybody listens.
    wait_for("the door", SOON, || UnixStream::connect(&path).is_ok().then_some(()));
    assert_eq!(figures(&door(&server))["server"]["state"], "starting");
    assert_eq!(get(&door(&server), "/health/ready").status, 503);
    answers_at_once(&server, "while it starts");
    assert!(server.becomes_ready());
    server.signal(Signal::SIGTERM);
    server.wait(SOON);
    server.finish();
}

#[test]
fn malformed_slow_and_many_clients_disturb_nobody() {
    // Room for answers on their way and for what an allocator keeps; 400 connections with a request each would be more.
    const GROWTH: u64 = 2 << 20;
    let server = server().options(["--status-bind", "127.0.0.1:0"]).start();
    server.get("/");
    for address in [door(&server), tcp_door(&server), server.control()] {
        let trouble = || {
            let silent: Vec<Client> = (0..100).map(|_| Client::connect(&address)).collect();
            let mut longest = Duration::ZERO;
            for number in 0..300 {
                let mut client = Client::connect(&address);
                let text = match number % 6 {
                    0 => format!("\x16\x03\x01{number}"),
                    1 => format!("GET /{} HTTP/1.1\r\n", "x".repeat(number * 10)),
                    2 => "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\n".to_owned(),
                    3 => format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "y".repeat(9000)),
                    4 => "POST /reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
                    _ => "\0\r\n\r\n".to_owned(),
                };
                // It may be refused before it is all sent.
                let _ = client.try_send(text.as_bytes());
                if number % 50 == 0 {
                    let queued = || procfs::processor_wait(server.pid()) + procfs::processor_wait("thread-self");
                    let (began, before) = (Instant::now(), queued());
                    assert_eq!(get(&address, "/health/live").status, 200);
                    longest = longest.max(began.elapsed().saturating_sub(queued() - before));
                }
            }
            assert!(longest < AT_ONCE, "among them an answer took {longest:?}");
            silent
        };
        let files = procfs::open_files(server.pid());
        // The first time makes what is made once.
        drop(trouble());
        let memory = procfs::resident(server.pid());
        let silent = trouble();
        let open = procfs::open_files(server.pid());
        assert!(open <= files + 64, "{files} files were open, and {open} are");
        assert_eq!(figures(&address)["server"]["generation"], 1, "no command was taken from them");
        drop(silent);
        let now = procfs::resident(server.pid());
        assert!(now <= memory + GROWTH, "it had {memory} bytes, and has {now}");
    }
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn a_public_door_takes_no_commands_and_a_loopback_one_no_foreign_host() {
    let server = Server::source(APP).options(["--status-bind", "127.0.0.1:0"]).start();
    let address = tcp_door(&server);
    assert_eq!(get(&address, "/health/live").status, 200);
    let mut client = Client::connect(&address);
    client.send("GET /status.json HTTP/1.1\r\nHost: rebound.example\r\n\r\n");
    assert_eq!(client.response().status, 421);
    let refused = ask_by("POST", &address, "/reload");
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD")));
    assert_eq!(get(&address, "/stacks").status, 404);
    let head = ask_by("HEAD", &address, "/metrics");
    assert_eq!((head.status, head.body.len()), (200, 0));
    for (name, value) in [("cache-control", "no-store"), ("x-content-type-options", "nosniff")] {
        assert_eq!(head.field(name), Some(value));
    }
    assert!(head.field("access-control-allow-origin").is_none());
    server.stop();
}

#[test]
fn a_door_that_cannot_be_had_refuses_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let address = taken.local_addr().expect("it is bound").to_string();
    Server::source(APP)
        .options(["--status-bind", &address])
        .run_to_end()
        .failed(1, &["--status-bind: cannot listen on", "in use"]);
    let server = server().start();
    let Address::Unix(control) = server.control() else { panic!("a unix socket") };
    let second = Server::source(APP).options(["--control-socket", control.to_str().expect("UTF-8")]);
    second.run_to_end().failed(1, &["--control-socket: cannot listen on", "another process listens there"]);
    server.stop();
}

#[test]
fn the_control_socket_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::source(APP).options(["--name", "a b"]);
    std::fs::write(server.temp().join("a-b-2.ctl"), "").expect("writable");
    let stale = std::os::unix::net::UnixListener::bind(server.temp().join("a-b.ctl")).expect("writable");
    drop(stale);
    let server = server.start();
    let path = server.temp().join("a-b.ctl");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a stale socket is replaced");
    server.stop();
    let server = Server::source(APP).options(["--control-socket-mode", "660"]).start();
    let Address::Unix(path) = server.control() else { panic!("a unix socket") };
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o660);
    server.stop();
    let server = Server::source(APP).options(["--control-socket", "none"]).start();
    let entries = std::fs::read_dir(server.temp()).expect("it is there").filter_map(Result::ok);
    assert!(entries.map(|entry| entry.path()).all(|path| path.extension().is_none_or(|end| end != "ctl")));
    server.stop();
}

#[test]
fn the_doors_survive_an_upgrade() {
    let server = server().start();
    server.get("/");
    let (before, control) = (figures(&door(&server)), server.control());
    server.signal(Signal::SIGUSR2);
    server.log().wait(&["reload done"]);
    for address in [door(&server), control] {
        let after = figures(&address);
        assert_eq!(after["server"]["pid"], before["server"]["pid"]);
        assert_eq!(after["server"]["generation"], 2);
        assert_eq!(after["last_change"]["kind"], "upgrade");
        assert_eq!(after["reloads"]["ok"], 1);
        let started = |document: &Value| document["server"]["started_s"].as_f64().unwrap().floor();
        assert_eq!(started(&after), started(&before), "an upgrade is no start");
        assert!(after["requests"]["total"].as_u64() >= before["requests"]["total"].as_u64());
    }
    server.stop();
}
