//! How a server starts or does not: binds, readiness, number of workers, failures and their exit codes.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread::available_parallelism;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use common::client::Client;
use common::server::{Running, STOP_LIMIT, Server};
use common::{procfs, tools};

/// Usage or configuration is wrong.
const EXIT_USAGE: i32 = 2;
/// It failed for another reason, such as a port in use.
const EXIT_FAILED: i32 = 1;
/// The workers do not boot.
const EXIT_BOOT: i32 = 3;
/// The application cannot be loaded.
const EXIT_APP: i32 = 4;

#[track_caller]
fn assert_serves(server: &Running) {
    for address in server.addresses() {
        let mut client = Client::connect(address);
        assert_eq!(client.get("/").text(), "hello\n", "{address}");
    }
}

#[test]
fn without_an_application_the_welcome_page_is_served() {
    let server = Server::new("").start();
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.field("content-type").is_some_and(|value| value.starts_with("text/html")), "{page:?}");
    for part in ["Tapster", env!("CARGO_PKG_VERSION"), "PATH_INFO", "</html>"] {
        assert!(page.text().contains(part), "no {part:?} in {page:?}");
    }
    let escaped = server.get("/?<script>alert(1)</script>");
    assert!(!escaped.text().contains("<script>alert(1)"), "the page shows the request, it does not run it");
    server.stop();
}

#[test]
fn one_line_says_what_runs_where() {
    let server = Server::new("probe").workers(2).start();
    let address = server.address().to_string();
    let text = server.log().text();
    let line = text.lines().find(|line| line.contains(&address)).unwrap_or_else(|| panic!("no {address} in {text}"));
    for part in ["2", "Python", &server.pid().to_string()] {
        assert!(line.contains(part), "no {part:?} in {line:?}");
    }
    server.stop();
}

#[test]
fn the_ready_line_comes_when_every_worker_is_ready() {
    let server = Server::source(
        "import os, time\nopen(f'booted-{os.getpid()}', 'w').close()\ntime.sleep(0.2)\nopen(f'ready-{os.getpid()}', 'w').close()\n\
         from probe import application\n",
    );
    let apps = common::apps().display().to_string();
    let server = server.options(["--pythonpath", &apps]).workers(3).start();
    for pid in server.workers() {
        assert!(server.temp().join(format!("ready-{pid}")).exists(), "worker {pid} was not ready");
    }
    assert_serves(&server);
    server.stop();
}

#[test]
fn several_addresses_are_served_by_every_worker() {
    if TcpListener::bind("[::1]:0").is_err() {
        return tools::skip("this machine has no ::1");
    }
    let server = Server::new("probe").binds(["127.0.0.1:0", "localhost:0", "unix:{temp}/a.sock", "[::1]:0"]).workers(2).start();
    assert_eq!(server.addresses().len(), 4);
    assert_serves(&server);
    let mut client = Client::connect(&server.addresses()[2]);
    let seen = client.get("/environ").json();
    assert!(seen.get("REMOTE_ADDR").is_none_or(|addr| addr == ""), "a unix socket's client has no address: {seen}");
    let seen = Client::connect(&server.addresses()[3]).get("/environ").json();
    assert_eq!(seen["REMOTE_ADDR"], "::1");
    let port = server.addresses()[3].tcp().port().to_string();
    assert_eq!(seen["SERVER_PORT"], port.as_str());
    server.stop();
}

#[test]
fn a_unix_socket_has_the_mode_that_the_umask_leaves() {
    let server = Server::new("probe").binds(["unix:{temp}/a.sock"]).options(["--umask", "007"]).start();
    let mode = fs::metadata(server.temp().join("a.sock")).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o770, "{mode:o}");
    server.stop();
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let server = Server::new("probe").binds(["unix:{temp}/a.sock"]);
    drop(UnixListener::bind(server.temp().join("a.sock")).expect("the temp directory is writable"));
    let server = server.start();
    assert_serves(&server);
    server.stop();
}

#[test]
fn a_unix_socket_that_somebody_listens_on_is_left_alone() {
    let server = Server::new("probe").binds(["unix:{temp}/a.sock"]);
    let path = server.temp().join("a.sock");
    let _other = UnixListener::bind(&path).expect("the temp directory is writable");
    server.run_to_end().failed(EXIT_FAILED, &["a.sock"]);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let server = Server::new("probe").binds(["unix:{temp}/precious"]);
    let path = server.temp().join("precious");
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    let kept = dir.path().join("precious");
    fs::write(&path, "precious").expect("the temp directory is writable");
    fs::hard_link(&path, &kept).expect("both are on one file system");
    server.run_to_end().failed(EXIT_FAILED, &["precious"]);
    assert_eq!(fs::read_to_string(&kept).expect("it was linked"), "precious");
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let other = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = other.local_addr().expect("it is bound").to_string();
    let ended = Server::new("probe").binds(["127.0.0.1:0", &address]).run_to_end();
    ended.failed(EXIT_FAILED, &[&address, "in use"]);
    assert!(!ended.stderr.contains("panicked") && ended.stderr.lines().count() <= 3, "{}", ended.stderr);
}

#[test]
fn bad_addresses_and_options_are_usage_errors() {
    for bind in ["127.0.0.1:99999", "127.0.0.1:http", "unix:", "[::1"] {
        let ended = Server::new("probe").binds([bind]).run_to_end();
        ended.failed(EXIT_USAGE, &[bind]);
    }
    Server::new("probe").workers_by_default().options(["--workers", "0"]).run_to_end().failed(EXIT_USAGE, &["workers"]);
    Server::new("probe").options(["--wokers", "1"]).run_to_end().failed(EXIT_USAGE, &["--wokers", "--workers"]);
}

#[test]
fn an_application_that_cannot_be_imported_ends_the_server_with_its_traceback() {
    for workers in [1, 3] {
        let ended = Server::source("import this_module_is_missing\n").workers(workers).run_to_end();
        ended.failed(EXIT_APP, &["Traceback", "app.py", "line 1", "this_module_is_missing"]);
        assert_eq!(ended.stderr.matches("ModuleNotFoundError").count(), 1, "said once, not by each worker:\n{}", ended.stderr);
    }
    Server::source("def application(:\n").run_to_end().failed(EXIT_APP, &["SyntaxError", "app.py"]);
    Server::source("raise SystemExit(0)\n").run_to_end().failed(EXIT_APP, &["SystemExit"]);
}

#[test]
fn workers_that_die_at_boot_end_the_server() {
    let ended = Server::source("import os\nos._exit(9)\n").workers(2).run_to_end();
    ended.failed(EXIT_BOOT, &["9"]);
    let ended = Server::source("import ctypes\nctypes.string_at(1)\n").run_to_end();
    ended.failed(EXIT_BOOT, &["SIGSEGV"]);
}

#[test]
fn one_worker_that_cannot_boot_at_start_ends_them_all() {
    let source = "import os\ntry:\n    os.mkdir('first')\nexcept FileExistsError:\n    raise RuntimeError('not the first')\n\
                  from probe import application\n";
    let apps = common::apps().display().to_string();
    Server::source(source).options(["--pythonpath", &apps]).workers(2).run_to_end().failed(EXIT_APP, &["not the first"]);
}

#[test]
fn check_config_imports_the_application_and_serves_nothing() {
    let good = Server::new("probe").options(["--check-config"]).run_to_end();
    assert_eq!((good.code, good.ready.as_str()), (Some(0), ""), "{good:#?}");
    Server::new("no_such_module").options(["--check-config"]).run_to_end().failed(EXIT_APP, &["no_such_module"]);
    Server::new("probe").options(["--check-config", "--bind", "127.0.0.1:x"]).run_to_end().failed(EXIT_USAGE, &["127.0.0.1:x"]);
    let other = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = other.local_addr().expect("it is bound").to_string();
    let busy = Server::new("probe").binds([&address]).options(["--check-config"]).run_to_end();
    assert_eq!(busy.code, Some(0), "a check beside a running server: {busy:#?}");
}

#[test]
fn auto_means_as_many_workers_as_usable_processors() {
    let all = Server::new("probe").workers_by_default().options(["--workers", "auto"]).start();
    let usable = available_parallelism().expect("Linux tells").get();
    assert_eq!(all.workers().len(), usable);
    all.stop();
    let default = Server::new("probe").workers_by_default().start();
    assert_eq!(default.workers().len(), usable, "auto is the default");
    default.stop();
    if tools::tool("taskset").is_some() {
        let mine = sched_getaffinity(Pid::from_raw(0)).expect("Linux tells");
        let first = (0..CpuSet::count()).find(|cpu| mine.is_set(*cpu) == Ok(true)).expect("this thread runs somewhere");
        let one = Server::new("probe").workers_by_default().launcher(["taskset", "-c", &first.to_string()]).start();
        assert_eq!(one.workers().len(), 1, "affinity limits it");
        one.stop();
    }
    let told = Server::new("probe").workers_by_default().env("WEB_CONCURRENCY", "3").start();
    assert_eq!(told.workers().len(), 3);
    told.stop();
}

#[test]
fn a_stop_during_boot_leaves_nothing() {
    let server = Server::source("import time\nopen('importing', 'w').close()\ntime.sleep(20)\n").workers(2);
    let marker = server.temp().join("importing");
    let mut server = server.start_without_waiting();
    common::wait_for("the import to begin", common::SOON, || marker.exists().then_some(()));
    server.signal(Signal::SIGTERM);
    server.wait(STOP_LIMIT);
    server.finish();
}

#[test]
fn the_master_has_one_thread_and_no_interpreter() {
    let server = Server::new("probe").workers(2).start();
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("the master lives").count();
    assert_eq!(tasks, 1);
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.pid())).expect("the master lives");
    // Where the server is a package, its master is an interpreter that has loaded this package's module and no other.
    let foreign =
        |line: &&str| line.contains("lib-dynload") || (line.contains("-packages/") && !line.contains("/tapster/_tapster."));
    assert_eq!(maps.lines().find(foreign), None, "the master never runs Python");
    assert!(procfs::memory(server.pid()) > 0);
    server.stop();
}
