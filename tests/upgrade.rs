//! SIGUSR2: the master becomes another program in place. Nobody outside notices, and a program that is not fit changes nothing.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use common::client::Client;
use common::load::{Load, Plan, WORKER_FIELD};
use common::server::{Running, START_LIMIT, STOP_LIMIT, Server, binary, signal_to};
use common::{SOON, procfs, tools, wait_for};

/// Workers of the tests under load.
const WORKERS: usize = 4;

/// Pause of a load client: eight of them ask a few hundred times a second.
const PAUSE: Duration = Duration::from_millis(10);

/// The log's words when nothing has changed.
const FAILED: &str = "upgrade failed, generation 1 keeps serving";

/// The log's words when the new program has taken over.
const EXECUTED: &str = "upgrade: this is tapster";

fn unsteady() -> Server {
    let server = Server::new("unsteady");
    let temp = server.temp().display().to_string();
    server.env("UNSTEADY_DIR", temp)
}

/// The server run through a link that can be pointed elsewhere.
fn linked(server: Server) -> (Server, PathBuf) {
    let path = server.temp().join("tapster");
    symlink(binary(), &path).expect("the temp directory is writable");
    (server.program(&path), path)
}

/// Half of the clients on connections that stay, half on one for each request.
struct Loads(Load, Load);

impl Loads {
    fn start(server: &Running) -> Self {
        let plan = Plan { clients: 4, pause: PAUSE, ..Plan::new(server.address()) };
        let loads = Self(plan.clone().start(), Plan { keep_alive: false, ..plan }.start());
        loads.wait();
        loads
    }

    fn wait(&self) {
        self.0.wait_for_more(50);
        self.1.wait_for_more(50);
    }

    #[track_caller]
    fn assert_flawless(self) {
        for tally in [self.0.stop(), self.1.stop()] {
            tally.assert_flawless();
            eprintln!("{} answered, the slowest in {:?}", tally.ok, tally.slowest);
        }
    }
}

/// Makes an executable copy. It is written by a process of its own: one that another test starts meanwhile would inherit the
/// descriptor from this one for a moment, and what somebody may write to cannot be executed (ETXTBSY).
#[track_caller]
fn install(from: &Path, to: &Path) {
    tools::run(Command::new("install").args(["-m", "755"]).args([from, to]), SOON).succeeded();
}

/// Makes an executable file of these bytes.
#[track_caller]
fn install_bytes(bytes: impl AsRef<[u8]>, to: &Path) {
    let data = to.with_extension("data");
    fs::write(&data, bytes).expect("the temp directory is writable");
    install(&data, to);
}

/// Waits until none of `before` is left and as many others are there. The master has no other children for long.
#[track_caller]
fn wait_for_new_workers(server: &Running, before: &[i32]) {
    wait_for("workers of the new program", START_LIMIT, || {
        let now = server.workers();
        (now.len() == before.len() && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
}

/// How many records have the text.
fn count(server: &Running, text: &str) -> usize {
    server.log().records().iter().filter(|record| record.text.contains(text)).count()
}

/// Sends USR2 and waits until workers of the new program have replaced all others.
#[track_caller]
fn upgrade(server: &Running) {
    let (before, executed) = (server.workers(), count(server, EXECUTED));
    server.signal(Signal::SIGUSR2);
    wait_for("the new program", SOON, || (count(server, EXECUTED) > executed).then_some(()));
    wait_for_new_workers(server, &before);
}

fn identity(path: &Path) -> (u64, u64) {
    let meta = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (meta.dev(), meta.ino())
}

fn exe(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

#[test]
fn five_upgrades_under_load_lose_nothing() {
    let server = unsteady().workers(WORKERS).start();
    let command_line = fs::read(format!("/proc/{}/cmdline", server.pid())).expect("it runs");
    let loads = Loads::start(&server);
    upgrade(&server);
    let files = procfs::open_files(server.pid());
    for _ in 0..4 {
        loads.wait();
        upgrade(&server);
    }
    loads.wait();
    let mut answered = BTreeSet::new();
    wait_for("an answer of each worker of the last program", SOON, || {
        answered.extend(server.get("/").field(WORKER_FIELD).and_then(|pid| pid.parse::<i32>().ok()));
        server.workers().iter().all(|pid| answered.contains(pid)).then_some(())
    });
    loads.assert_flawless();
    // Those of a worker that has just ended go a moment after it.
    wait_for("no descriptor to be left behind", SOON, || (procfs::open_files(server.pid()) <= files).then_some(()));
    assert_eq!(fs::read(format!("/proc/{}/cmdline", server.pid())).expect("it runs"), command_line);
    server.stop();
}

#[test]
fn a_program_that_is_not_fit_changes_nothing() {
    let script = |text: &str| format!("#!/bin/sh\n{text}\n").into_bytes();
    let refusal = "tapster: state version 1 is not known here (3 is): stop and start the server instead";
    let mut binary = fs::read(binary()).expect("it is there");
    // Enough for the kernel, which reads the heads, and nothing of the code.
    binary.truncate(64 * 1024);
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("fails", script("echo it is broken >&2; exit 1"), "exit status: 1: it is broken"),
        ("knows another state", script(&format!("echo '{refusal}' >&2; exit 1")), refusal),
        ("is not tapster", script("exit 0"), "it does not understand --check-state"),
        ("kills itself", script("kill -SEGV $$"), "SIGSEGV"),
        ("is cut in its code", binary.clone(), "SIG"),
        ("is cut in its head", binary[..40].to_vec(), "upgrade failed"),
        ("is empty", Vec::new(), "upgrade failed"),
    ];
    let (server, path) = linked(unsteady().workers(WORKERS).expect_error(FAILED));
    let server = server.start();
    let workers = server.workers();
    let loads = Loads::start(&server);
    let mut failed = 0;
    let mut try_it = |case: &str, reason: &str| {
        server.signal(Signal::SIGUSR2);
        failed += 1;
        wait_for(&format!("the failure of a program that {case}"), SOON, || (count(&server, FAILED) == failed).then_some(()));
        let records = server.log().records();
        let last = records.iter().rev().find(|record| record.text.contains(FAILED)).expect("it was just there");
        assert!(last.text.contains(reason), "{case}: {}", last.text);
        loads.wait();
        assert_eq!(server.workers(), workers, "{case}");
    };
    for (case, contents, reason) in cases {
        let new = server.temp().join("new");
        install_bytes(contents, &new);
        fs::rename(&new, &path).expect("writable");
        try_it(case, reason);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("writable");
    try_it("cannot be executed", "ermission denied");
    fs::remove_file(&path).expect("it was there");
    try_it("is missing", "No such file");
    loads.assert_flawless();

    symlink(common::server::binary(), &path).expect("writable");
    upgrade(&server);
    server.stop();
}

#[test]
fn a_program_that_does_not_answer_is_given_up() {
    let (server, path) = linked(unsteady().expect_error(FAILED));
    let server = server.start();
    fs::remove_file(&path).expect("it was there");
    install_bytes("#!/bin/sh\nexec sleep 600\n", &path);
    server.signal(Signal::SIGUSR2);
    assert!(server.log().wait(&[FAILED]).text.contains("no answer within 10 s"));
    assert_eq!(server.get("/").status, 200);
    wait_for("the end of the new program", SOON, || (server.workers().len() == 1).then_some(()));

    server.signal(Signal::SIGUSR2);
    wait_for("the trial", SOON, || (server.workers().len() == 2).then_some(()));
    server.stop();
}

#[test]
fn a_configuration_that_has_become_wrong_changes_nothing() {
    let server = unsteady().expect_error(FAILED);
    let config = server.temp().join("tapster.toml");
    fs::write(&config, "keep-alive = 5\n").expect("writable");
    let server = server.options(["-c", config.to_str().expect("UTF-8")]).start();
    let workers = server.workers();
    fs::write(&config, "keep-alive = 'always'\n").expect("writable");
    server.signal(Signal::SIGUSR2);
    assert!(server.log().wait(&[FAILED]).text.contains("keep_alive = always"));
    assert_eq!(server.workers(), workers);
    fs::write(&config, "keep-alive = 4\n").expect("writable");
    upgrade(&server);
    server.stop();
}

#[test]
fn workers_that_do_not_boot_in_the_new_program_leave_the_old_ones_serving() {
    let server = unsteady().workers(WORKERS).expect_error("broken after a good start").expect_error(FAILED).start();
    let workers = server.workers();
    let loads = Loads::start(&server);
    fs::write(server.temp().join("broken"), "").expect("the temp directory is writable");
    server.signal(Signal::SIGUSR2);
    server.log().wait(&[EXECUTED]);
    server.log().wait(&["RuntimeError: broken after a good start"]);
    server.log().wait(&[FAILED]);
    loads.wait();
    assert_eq!(server.workers(), workers);

    fs::remove_file(server.temp().join("broken")).expect("it was written");
    upgrade(&server);
    loads.wait();
    loads.assert_flawless();
    server.stop();
}

#[test]
fn a_binary_replaced_on_the_disk_is_the_one_that_runs() {
    let server = unsteady().workers(2);
    let path = server.temp().join("tapster");
    install(&binary(), &path);
    let server = server.program(&path).start();
    let first = identity(&path);
    assert_eq!(identity(&exe(server.pid())), first);
    let new = server.temp().join("new");
    install(&binary(), &new);
    fs::rename(&new, &path).expect("the temp directory is writable");
    assert_ne!(identity(&path), first);
    upgrade(&server);
    for pid in server.workers().into_iter().chain([server.pid()]) {
        assert_eq!(identity(&exe(pid)), identity(&path));
    }
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

/// A program that finds another version of the messages in the hand-off queue than its own, as after an upgrade to one that has
/// changed them.
fn with_another_queue() -> String {
    format!(
        "#!/bin/sh\n\
         if [ -n \"$TAPSTER_STATE_FD\" ]; then\n    \
             state=/proc/self/fd/$TAPSTER_STATE_FD\n    \
             changed=$(sed 's/\"queue\":{{\"version\":[0-9]*,/\"queue\":{{\"version\":255,/' \"$state\")\n    \
             case $changed in *:255,*) ;; *) echo 'the state names no queue' >&2; exit 1 ;; esac\n    \
             printf '%s\\n' \"$changed\" >\"$state\"\n\
         fi\n\
         exec '{}' \"$@\"\n",
        binary().display()
    )
}

#[test]
fn workers_with_other_messages_in_their_queue_hand_nothing_over_and_empty_it() {
    // Two new workers at once: one of the old ones does not end.
    let options = ["--threads", "1", "--keep-alive", "60", "--log-level", "debug", "--reload-surge", "2"];
    let (server, path) = linked(unsteady().workers(2).options(options));
    let server = server.start();
    let slots: [i32; 2] = [0, 1].map(|slot| {
        let record = server.log().wait(&[&format!("worker {slot} of"), "forked (pid "]);
        let pid = record.text.split("(pid ").nth(1).and_then(|rest| rest.split(')').next());
        pid.and_then(|pid| pid.parse().ok()).expect("a process id")
    });
    let connect_to = |pid: i32| {
        wait_for("a connection to the worker", SOON, || {
            let mut client = server.connect();
            (client.get("/").field("x-worker") == Some(&pid.to_string())).then_some(client)
        })
    };
    let mut busy = slots.map(connect_to);
    let [mut idle, mut waiting] = [(); 2].map(|()| connect_to(slots[0]));
    for (name, client) in ["stays", "retires"].into_iter().zip(&mut busy) {
        client.send(format!("GET /gated?name={name} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let entered = server.temp().join(format!("entered-{name}"));
        wait_for("the request to run", SOON, || entered.exists().then_some(()));
    }
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    server.log().wait(&["handed a request"]);
    server.signal(Signal::SIGTTOU);
    server.log().wait(&["worker 1 is told to leave (Retire)"]);

    let new = server.temp().join("new");
    install_bytes(with_another_queue(), &new);
    fs::rename(&new, &path).expect("writable");
    server.signal(Signal::SIGUSR2);
    server.log().wait(&["reload done"]);
    assert_eq!(server.get("/").status, 200, "the new worker answers");
    assert!(idle.is_closed(), "nobody else would take it out of the queue");
    let [mut stays, mut retires] = busy;
    let open = |name: &str| fs::write(server.temp().join(format!("gate-{name}")), "").expect("the temp directory is writable");
    open("retires");
    assert_eq!(retires.response().text(), "passed retires");
    assert!(retires.is_closed(), "a worker that retired before the upgrade is told as well");
    let response = waiting.response();
    assert!(response.status == 200 && response.closes(), "{response:?}");
    assert_eq!(response.field("x-worker"), Some(slots[1].to_string().as_str()), "what was in the queue is theirs");
    open("stays");
    assert_eq!(stays.response().text(), "passed stays");
    assert!(stays.is_closed());
    wait_for_new_workers(&server, &slots);
    server.stop();
}

#[test]
fn a_unix_socket_stays_and_is_removed_at_the_end() {
    let server = unsteady().binds(["unix:{temp}/s", "127.0.0.1:0"]).start();
    let path = server.temp().join("s");
    let before = fs::symlink_metadata(&path).expect("it is bound").ino();
    upgrade(&server);
    upgrade(&server);
    assert_eq!(fs::symlink_metadata(&path).expect("it stays").ino(), before);
    for address in server.addresses() {
        let mut client = Client::connect(address);
        assert_eq!(client.get("/").status, 200, "{address}");
    }
    server.signal(Signal::SIGTERM);
    let mut server = server;
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    assert!(!path.exists(), "a socket that the server has made leaves with it");
    server.finish();
}

#[test]
fn a_request_that_runs_is_finished_by_its_worker() {
    let server = unsteady().start();
    let mut client = server.connect();
    client.send("GET /gated?name=long HTTP/1.1\r\nHost: test\r\n\r\n");
    let entered = server.temp().join("entered-long");
    wait_for("the request to run", SOON, || entered.exists().then_some(()));
    let before = server.workers();
    server.signal(Signal::SIGUSR2);
    server.log().wait(&["reload done"]);
    assert_eq!(server.get("/").status, 200, "the new worker answers while the old one is busy");
    assert!(server.workers().contains(&before[0]), "it is waited for");
    fs::write(server.temp().join("gate-long"), "").expect("the temp directory is writable");
    assert_eq!(client.response().text(), "passed long");
    wait_for_new_workers(&server, &before);
    server.stop();
}

#[test]
fn signals_that_come_during_the_upgrade_are_obeyed_after_it() {
    // The trial takes some milliseconds, exec and adoption the next: the delays cover both.
    for delay in (0..40).step_by(3).map(Duration::from_millis) {
        let mut server = Server::new("hello").start();
        server.signal(Signal::SIGUSR2);
        std::thread::sleep(delay);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(STOP_LIMIT).code(), Some(0), "TERM after {delay:?}");
        server.finish();
    }
}

#[test]
fn a_worker_that_dies_during_the_upgrade_is_not_forgotten() {
    let server = unsteady().workers(2).expect_error("SIGKILL").start();
    let before = server.workers();
    server.signal(Signal::SIGUSR2);
    signal_to(before[0], Signal::SIGKILL);
    wait_for_new_workers(&server, &before);
    wait_for("no zombie", SOON, || procfs::all().iter().all(|p| p.parent != server.pid() || p.state != 'Z').then_some(()));
    assert!(server.log().find(&[&before[0].to_string(), "SIGKILL"]).is_some());
    server.stop();
}

#[test]
fn directory_and_environment_are_those_of_the_start() {
    let source = |release: &str| {
        format!(
            "import os\n\
             def app(environ, start_response):\n\
             \x20   start_response('200 OK', [])\n\
             \x20   return [repr(['{release}', os.environ['MINE'], os.environ.get('TAPSTER_STATE_FD')]).encode()]\n"
        )
    };
    let server = Server::new("app:app");
    let releases = ["one", "two"].map(|name| server.temp().join(name));
    for (path, name) in releases.iter().zip(["one", "two"]) {
        fs::create_dir(path).and_then(|()| fs::write(path.join("app.py"), source(name))).expect("writable");
    }
    let current = server.temp().join("current");
    symlink(&releases[0], &current).expect("writable");
    let server = server.dir(&current).env("PWD", current.to_str().expect("UTF-8")).env("MINE", "kept").start();
    assert_eq!(server.get("/").text(), "['one', 'kept', None]");
    upgrade(&server);
    assert_eq!(server.get("/").text(), "['one', 'kept', None]");
    fs::remove_file(&current).and_then(|()| symlink(&releases[1], &current)).expect("writable");
    upgrade(&server);
    assert_eq!(server.get("/").text(), "['two', 'kept', None]", "the link is followed anew");
    server.stop();
}

#[test]
fn the_pid_file_and_captured_output_go_on() {
    let source = "import os\n\
                  def app(environ, start_response):\n\
                  \x20   print(environ['PATH_INFO'], os.getpid(), flush=True)\n\
                  \x20   start_response('200 OK', [])\n\
                  \x20   return [b'']\n";
    let server = Server::source(source);
    let pid_file = server.temp().join("pid");
    let server = server.options(["--capture-output", "--pid", pid_file.to_str().expect("UTF-8")]).start();
    let first = (identity(&pid_file), fs::read_to_string(&pid_file).expect("it is written"));
    assert_eq!(first.1.trim(), server.pid().to_string());
    for path in ["/one", "/two", "/three"] {
        let worker = server.workers()[0];
        assert_eq!(server.get(path).status, 200);
        server.log().wait(&["[worker", &format!("{path} {worker}")]);
        upgrade(&server);
        assert_eq!((identity(&pid_file), fs::read_to_string(&pid_file).expect("it stays")), first);
    }
    server.signal(Signal::SIGTERM);
    let mut server = server;
    assert_eq!(server.wait(STOP_LIMIT).code(), Some(0));
    assert!(!pid_file.exists(), "it leaves with its server");
    server.finish();
}
