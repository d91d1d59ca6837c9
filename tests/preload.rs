//! `--preload`: one process loads the application, and the workers are forks of it.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::deploy::{self, WORKERS, load, reload, set};
use common::server::{Running, STOP_LIMIT, Server, signal_to};
use common::{SOON, procfs, user, wait_for};

/// Longest time without any answer, as in the other scenarios.
const GAP: Duration = Duration::from_secs(1);

/// A worker is back within 30 ms; the rest is for a busy machine, of which the quickest of some tries has less. The wait for a
/// processor does not count.
const BACK_WITHIN: Duration = Duration::from_millis(150);

/// Tries to be quick.
const TRIES: usize = 4;

fn deployed() -> Server {
    deploy::server().options(["--preload"])
}

fn source(source: &str) -> Server {
    Server::source(source).options(["--preload"])
}

#[track_caller]
fn mold(server: &Running) -> i32 {
    wait_for("one mold", SOON, || match server.molds()[..] {
        [mold] => Some(mold),
        _ => None,
    })
}

#[track_caller]
fn all_workers(server: &Running) -> Vec<i32> {
    wait_for("all workers", SOON, || Some(server.workers()).filter(|workers| workers.len() == WORKERS))
}

/// The texts that so many fresh connections get.
fn answers(server: &Running, target: &str, count: usize) -> Vec<String> {
    (0..count).map(|_| String::from_utf8(server.get(target).body).expect("UTF-8")).collect()
}

#[test]
fn the_application_is_loaded_once_and_a_worker_that_was_killed_is_back_at_once() {
    let server = deployed().expect_error("SIGKILL").start();
    assert_eq!((deploy::boots(&server), all_workers(&server).len()), (1, WORKERS));
    let mold = mold(&server);
    let mut quickest = Duration::MAX;
    for _ in 0..TRIES {
        let before = all_workers(&server);
        let queued =
            || procfs::processor_wait(server.pid()) + procfs::processor_wait(mold) + procfs::processor_wait("thread-self");
        let (killed, waited) = (Instant::now(), queued());
        signal_to(before[0], Signal::SIGKILL);
        let is_new = |pid: &i32| !before.contains(pid) && procfs::command_line(*pid).contains("worker");
        let new = wait_for("another worker", SOON, || server.workers().into_iter().find(is_new));
        let took = killed.elapsed();
        // One after the other, they have waited for a processor that others had.
        quickest = quickest.min(took.saturating_sub(queued() - waited + procfs::processor_wait(new)));
        server.log().wait(&["was killed by SIGKILL"]);
        all_workers(&server);
    }
    eprintln!("a worker is back after {quickest:?}");
    assert!(quickest < BACK_WITHIN, "back after {quickest:?}");
    assert_eq!((deploy::boots(&server), server.molds()), (1, vec![mold]));
    server.stop();
}

#[test]
fn a_dead_mold_is_made_anew_while_the_workers_serve_and_new_workers_are_forked_from_it() {
    let server = deployed().expect_error("the mold of the workers").expect_error("SIGKILL").start();
    let (first, workers) = (mold(&server), all_workers(&server));
    let load = load(&server);
    signal_to(first, Signal::SIGKILL);
    let second = wait_for("another mold", SOON, || server.molds().into_iter().find(|pid| *pid != first));
    load.wait_for_more(200);
    load.assert_flawless(GAP);
    assert_eq!(server.workers(), workers, "the workers are those from before");
    signal_to(workers[1], Signal::SIGKILL);
    wait_for("a replacement", SOON, || {
        let now = server.workers();
        (now.len() == WORKERS && !now.contains(&workers[1])).then_some(())
    });
    assert_eq!((deploy::boots(&server), server.molds()), (2, vec![second]));
    server.stop();
}

#[test]
fn a_mold_and_all_workers_that_die_at_once_come_back() {
    let server = deployed().expect_error("the mold of the workers").expect_error("SIGKILL").start();
    let (mold, workers) = (mold(&server), all_workers(&server));
    // The master learns of the workers first, all at once, and waits for the mold when that dies.
    server.signal(Signal::SIGSTOP);
    signal_to(mold, Signal::SIGSTOP);
    workers.into_iter().for_each(|pid| signal_to(pid, Signal::SIGKILL));
    server.signal(Signal::SIGCONT);
    server.log().wait(&["was killed by SIGKILL"]);
    signal_to(mold, Signal::SIGKILL);
    wait_for("two loads", SOON, || (deploy::boots(&server) == 2).then_some(()));
    server.log().wait(&["another one is made"]);
    all_workers(&server);
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.molds().len(), 1);
    server.stop();
}

#[test]
fn a_reload_makes_a_new_mold_first_and_twenty_of_them_lose_nothing() {
    let server = deployed().start();
    let load = load(&server);
    for count in 1..=20 {
        let before = mold(&server);
        set(&server, "version", &format!("v{count}"));
        reload(&server, "reload done", count);
        load.wait_for_more(50);
        wait_for("the old mold to end with its last worker", SOON, || {
            let now = server.molds();
            (now.len() == 1 && !now.contains(&before)).then_some(())
        });
        wait_for("the last of what has ended to be waited for", SOON, || {
            procfs::all().iter().all(|other| other.parent != server.pid() || other.state != 'Z').then_some(())
        });
        assert_eq!(answers(&server, "/", 4), vec![format!("v{count}"); 4]);
    }
    load.assert_flawless(GAP);
    assert_eq!(deploy::boots(&server), 21);
    server.stop();
}

#[test]
fn an_old_mold_stays_as_long_as_a_worker_of_it_serves() {
    let server = deployed().workers(1).start();
    let before = mold(&server);
    let mut client = server.connect();
    client.send("GET /sleep HTTP/1.1\r\nHost: test\r\n\r\n");
    reload(&server, "is ready; the workers before it give way", 1);
    assert!(server.molds().contains(&before), "the worker that sleeps is still there");
    assert_eq!(client.response().status, 200);
    wait_for("the end of the old mold", SOON, || (!server.molds().contains(&before)).then_some(()));
    server.stop();
}

#[test]
fn a_reload_of_broken_code_changes_nothing_and_workers_still_come_back_from_the_old_mold() {
    let server = deployed().expect_error("reload failed").expect_error("this version is broken").expect_error("SIGKILL").start();
    let (old, workers) = (mold(&server), all_workers(&server));
    set(&server, "mode", "raise");
    set(&server, "version", "broken");
    reload(&server, "reload failed, generation 1 keeps serving", 1);
    wait_for("the end of the failed mold", SOON, || (server.molds() == [old]).then_some(()));
    signal_to(workers[0], Signal::SIGKILL);
    wait_for("a replacement", SOON, || {
        let now = server.workers();
        (now.len() == WORKERS && !now.contains(&workers[0])).then_some(())
    });
    assert_eq!(answers(&server, "/", 8), ["0"; 8]);
    assert_eq!(deploy::boots(&server), 2);
    server.stop();
}

#[test]
fn a_mold_that_cannot_load_any_more_is_tried_again_until_it_can() {
    let server =
        deployed().expect_error("the mold of the workers").expect_error("this version is broken").expect_error("SIGKILL").start();
    set(&server, "mode", "raise");
    signal_to(mold(&server), Signal::SIGKILL);
    server.log().wait(&["the mold of the workers", "cannot boot", "this version is broken", "serve on"]);
    assert_eq!(all_workers(&server).len(), WORKERS);
    assert_eq!(server.get("/").status, 200);
    set(&server, "mode", "");
    mold(&server);
    let gone = all_workers(&server)[0];
    signal_to(gone, Signal::SIGKILL);
    wait_for("a replacement", SOON, || {
        let now = server.workers();
        (now.len() == WORKERS && !now.contains(&gone)).then_some(())
    });
    server.stop();
}

#[test]
fn a_start_that_cannot_load_ends_with_the_traceback_and_the_code_of_the_application() {
    let server = deployed();
    fs::write(server.temp().join("mode"), "raise").expect("writable");
    server.run_to_end().failed(4, &["cannot boot", "RuntimeError: this version is broken"]);
    let server = deployed();
    fs::write(server.temp().join("mode"), "exit").expect("writable");
    server.run_to_end().failed(3, &["exited with code 7"]);
    let server = deployed().options(["--boot-timeout", "2"]);
    fs::write(server.temp().join("mode"), "hang").expect("writable");
    server.run_to_end().failed(3, &["deploy.py"]);
}

#[test]
fn a_stop_while_the_mold_loads_does_not_wait_for_it() {
    let server = deployed();
    fs::write(server.temp().join("mode"), "hang").expect("writable");
    let mut server = server.start_without_waiting();
    mold(&server);
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    server.finish();
}

#[test]
fn the_mold_ends_with_the_master() {
    let mut server = deployed().start();
    let (mold, workers) = (mold(&server), all_workers(&server));
    signal_to(server.pid(), Signal::SIGKILL);
    server.wait(STOP_LIMIT);
    wait_for("the end of mold and workers", SOON, || workers.iter().chain([&mold]).all(|pid| !procfs::alive(*pid)).then_some(()));
}

const LEFT_OVERS: &str = r#"
import atexit, os, random, socket, sys, threading, types
DIR = os.environ["DIR"]
fake = sys.modules["numpy.random"] = types.ModuleType("numpy.random")
fake.state = 1
def seed(number):
    fake.state = number
fake.seed = seed
server = socket.create_server(("127.0.0.1", 0))
peer = socket.create_connection(server.getsockname())
threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
forks = []
os.register_at_fork(after_in_child=lambda: forks.append(os.getpid()))
loader = os.getpid()
def leave():
    with open(DIR + "/left", "a") as left:
        left.write("%d\n" % os.getpid())
atexit.register(leave)
def app(environ, start_response):
    start_response("200 OK", [])
    text = "%d %d %d %s %s %s" % (os.getpid(), loader, fake.state, random.random(), forks == [os.getpid()], threading.active_count())
    return [text.encode()]
"#;

#[test]
fn what_workers_would_share_wrongly_is_said_and_random_numbers_differ() {
    let server = source(LEFT_OVERS).workers(2);
    let dir = server.temp().display().to_string();
    let server = server.env("DIR", dir).start();
    let record =
        server.log().wait(&["[mold] WARNING", "--preload: the application has threads (poller", "connections (127.0.0.1:"]);
    assert!(record.text.contains("leave --preload out"), "{}", record.text);
    server.log().wait(&["random numbers", "numpy.random"]);
    let mold = mold(&server);
    let seen: Vec<Vec<String>> = wait_for("answers of both workers", SOON, || {
        let mut seen: Vec<Vec<String>> =
            answers(&server, "/", 20).iter().map(|text| text.split(' ').map(str::to_owned).collect()).collect();
        seen.sort();
        seen.dedup_by(|a, b| a[0] == b[0]);
        (seen.len() == 2).then_some(seen)
    });
    for words in &seen {
        assert_eq!((words[1].parse(), words[4].as_str()), (Ok(mold), "True"), "{words:?}");
        assert_eq!(words[5], "1", "no thread of the mold is counted: {words:?}");
    }
    assert!(seen[0][2] != seen[1][2] && seen[0][3] != seen[1][3] && seen[0][2] != "1", "{seen:?}");
    let left = server.temp().join("left");
    let workers = server.workers();
    server.signal(Signal::SIGTERM);
    wait_for("exit handlers", SOON, || {
        let text = fs::read_to_string(&left).unwrap_or_default();
        let pids: Vec<i32> = text.lines().map(|line| line.parse().expect("a number")).collect();
        (pids.len() == 3 && workers.iter().chain([&mold]).all(|pid| pids.contains(pid)) && pids[2] == mold).then_some(())
    });
    server.stop();
}

const HOOKS: &str = r#"
import os
preload_app = True
loaded = {}
def post_fork(server, worker):
    worker.log.info("post_fork in %d age %d", os.getpid(), worker.age)
def post_worker_init(worker):
    worker.log.info("post_worker_init in %d", os.getpid())
"#;

#[test]
fn hooks_run_in_the_workers_and_gunicorns_setting_means_it() {
    let server = Server::source(LEFT_OVERS).workers(2);
    let (dir, conf) = (server.temp().display().to_string(), server.temp().join("gunicorn.conf.py"));
    fs::write(&conf, HOOKS).expect("writable");
    let server = server.env("DIR", dir).options(["-c", conf.to_str().expect("UTF-8")]).start();
    mold(&server);
    for pid in server.workers() {
        server.log().wait(&[&format!("[{pid}] [worker"), &format!("post_fork in {pid}")]);
        server.log().wait(&[&format!("post_worker_init in {pid}")]);
    }
    server.stop();
}

const LOGGING: &str = r#"
import logging, os, sys
log = logging.getLogger("gunicorn.error")
log.warning("loaded in %d", os.getpid())
def app(environ, start_response):
    log.warning("asked in %d", os.getpid())
    print("printed in", os.getpid())
    if environ["PATH_INFO"] == "/crash":
        import ctypes
        ctypes.string_at(1)
    start_response("200 OK", [])
    return [b"ok"]
"#;

#[test]
fn what_a_worker_logs_prints_and_crashes_with_is_its_own() {
    let mut server = source(LOGGING).workers(1).options(["--capture-output", "--access-logfile", "-"]).start();
    let (mold, worker) = (mold(&server), server.workers()[0]);
    server.log().wait(&[&format!("[{mold}] [mold] WARNING loaded in {mold}")]);
    assert_eq!(server.get("/").status, 200);
    server.log().wait(&[&format!("[{worker}] [worker 0] WARNING asked in {worker}")]);
    server.log().wait(&[&format!("[{worker}] [worker 0] INFO printed in {worker}")]);
    wait_for("a line of the access log", SOON, || server.stdout().contains("GET / HTTP/1.1").then_some(()));
    server.expect_error("SIGSEGV");
    let mut client = server.connect();
    client.send("GET /crash HTTP/1.1\r\nHost: test\r\n\r\n");
    // The stacks are in the file of this worker.
    server.log().wait(&["was killed by SIGSEGV", "GET /crash", "in app"]);
    server.stop();
}

const GROWING: &str = r#"
held = [b"x" * (150 << 20)]
def app(environ, start_response):
    if environ["PATH_INFO"] == "/grow":
        held.append(b"y" * (150 << 20))
    start_response("200 OK", [])
    return [b"ok"]
"#;

#[test]
fn only_memory_that_is_not_shared_counts_against_the_limit() {
    let server = source(GROWING).workers(1).options(["--max-worker-rss", "100M"]).start();
    let worker = server.workers()[0];
    // Two looks of the master.
    std::thread::sleep(Duration::from_millis(4500));
    assert_eq!((server.workers(), server.get("/").status), (vec![worker], 200));
    assert!(procfs::resident(worker) > 150 << 20);
    server.get("/grow");
    server.log().wait(&["--max-worker-rss"]);
    wait_for("another worker", SOON, || (server.workers().len() == 1 && server.workers()[0] != worker).then_some(()));
    server.stop();
}

const HOSTILE: &str = r#"
import os, socket, threading, time
DIR = os.environ["DIR"]
loader = os.getpid()
def attack():
    while not os.path.exists(DIR + "/attack"):
        time.sleep(0.01)
    kind = open(DIR + "/attack").read()
    os.rename(DIR + "/attack", DIR + "/attacked")
    for number in os.listdir("/proc/self/fd"):
        try:
            own = socket.socket(fileno=os.dup(int(number)))
        except OSError:
            continue
        if own.type == socket.SOCK_SEQPACKET:
            packet = {"rubbish": b"Zrubbish", "forged": b"b" + (999).to_bytes(8, "little"), "files": b"b"}[kind]
            files = [open("/dev/null")] if kind == "files" else []
            try:
                socket.send_fds(own, [packet], [file.fileno() for file in files])
            except OSError:
                own.send(packet)
threading.Thread(target=attack, daemon=True).start()
def app(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"#;

#[test]
fn a_mold_that_was_broken_into_is_replaced_and_the_server_serves_on() {
    for kind in ["rubbish", "forged", "files"] {
        let server = source(HOSTILE).workers(2);
        let dir = server.temp().display().to_string();
        let server = server.env("DIR", dir).expect_error("mold").expect_error("SIGKILL").start();
        let first = mold(&server);
        fs::write(server.temp().join("attack.new"), kind).expect("writable");
        fs::rename(server.temp().join("attack.new"), server.temp().join("attack")).expect("writable");
        wait_for("the attack", SOON, || server.temp().join("attacked").exists().then_some(()));
        let before = server.workers();
        signal_to(before[0], Signal::SIGKILL);
        wait_for("another mold", SOON, || server.molds().into_iter().find(|pid| *pid != first));
        wait_for("another worker", SOON, || {
            let now = server.workers();
            (now.len() == 2 && !now.contains(&before[0])).then_some(())
        });
        assert_eq!(server.get("/").status, 200);
        let mut server = server;
        if server.log().find(&["has the version of another program"]).is_some() {
            // The queue of the workers is among the sockets.
            server.expect_error("a connection that was handed over is lost");
        }
        server.stop();
    }
}

const WHO: &str = r#"
import os
loaded_as = os.getuid()
def app(environ, start_response):
    start_response("200 OK", [])
    return [("%d %d %d" % (loaded_as, os.getuid(), os.getppid())).encode()]
"#;

#[test]
fn the_mold_is_of_the_workers_user_and_the_workers_are_children_of_the_master() {
    let Some(other) = user::other() else { return };
    let server = source(WHO).workers(2).options(["--user", user::NAME, "--capture-output"]);
    user::open_to_all(server.temp());
    let server = match other.python_home() {
        Some(home) => server.env("PYTHONHOME", home.to_str().expect("UTF-8")),
        None => server,
    };
    let server = server.start();
    let uid = other.user.uid.as_raw();
    let status = fs::read_to_string(format!("/proc/{}/status", mold(&server))).expect("readable");
    assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{status}");
    assert_eq!(answers(&server, "/", 3), vec![format!("{uid} {uid} {}", server.pid()); 3]);
    server.stop();
}

#[test]
fn the_logs_are_those_of_the_time_of_the_fork() {
    let server = deployed().options(["--access-logfile", "access.log"]);
    let dir = server.temp().to_owned();
    let server = server.dir(&dir).env("PYTHONPATH", common::apps().to_str().expect("UTF-8")).expect_error("SIGKILL").start();
    fs::rename(dir.join("access.log"), dir.join("access.old")).expect("there is a log");
    server.signal(Signal::SIGUSR1);
    server.log().wait(&["logs opened anew"]);
    let before = all_workers(&server);
    for pid in &before {
        signal_to(*pid, Signal::SIGKILL);
    }
    wait_for("new workers", SOON, || {
        let now = server.workers();
        (now.len() == WORKERS && before.iter().all(|pid| !now.contains(pid))).then_some(())
    });
    let old = fs::read_to_string(dir.join("access.old")).expect("readable").len();
    assert_eq!(server.get("/").status, 200);
    wait_for("a line", SOON, || {
        fs::read_to_string(dir.join("access.log")).is_ok_and(|text| text.contains("GET /")).then_some(())
    });
    assert_eq!(fs::read_to_string(dir.join("access.old")).expect("readable").len(), old);
    server.stop();
}
