//! Applications that work with processes of their own: pools, executors and programs beside each other on several threads, and
//! children that outlive their worker.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use common::client::{Address, Client};
use common::server::{Running, STOP_LIMIT, Server, signal_to};
use common::{SOON, procfs, wait_for};
use nix::sys::signal::Signal;

/// Sum of the squares of 0 to 7: the result of every way of working.
const SUM: &str = "140";

/// Rounds of four requests at a time.
const ROUNDS: usize = 12;

/// The kinds of work that four threads do at the same time, in turn.
const MIXTURES: [[&str; 4]; 4] = [
    ["pool-fork", "pool-fork", "pool-fork", "run"],
    ["pool-fork", "pool-spawn", "executor-fork", "run"],
    ["executor-fork", "executor-fork", "executor-spawn", "pool-fork"],
    ["run", "executor-fork", "run", "pool-fork"],
];

fn pools() -> Server {
    pools_with("4")
}

fn pools_with(threads: &str) -> Server {
    // A client that is answered first waits for the slowest of its round, in which whole interpreters start.
    let server = Server::new("pools:application").options(["--threads", threads, "--keep-alive", "60"]);
    let temp = server.temp().display().to_string();
    server.env("POOLS_DIR", temp)
}

fn ask(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
}

/// Lets children that live on end.
fn pid(text: &str) -> i32 {
    text.parse().unwrap_or_else(|_| panic!("a process id, not {text:?}"))
}

/// The files and sockets that a process has open, without the streams and what has no name of its own.
fn sockets(pid: i32) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()?.into_os_string().into_string().ok());
    links.filter(|link| link.starts_with("socket:")).collect()
}

fn mix(server: &Running, way: &str) {
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for round in 0..ROUNDS {
        let mixture = MIXTURES[round % MIXTURES.len()];
        clients.iter_mut().zip(mixture).for_each(|(client, kind)| ask(client, &format!("/{way}?kind={kind}")));
        for (client, kind) in clients.iter_mut().zip(mixture) {
            assert_eq!(client.response().text(), SUM, "{kind} among {mixture:?} in round {round}");
        }
    }
}

#[test]
fn pools_executors_and_programs_work_beside_each_other_on_four_threads() {
    for way in ["work", "kept"] {
        let server = pools().start();
        let worker = server.workers()[0];
        // One after the other first, as an application must that keeps children: one that is forked while a program is started on
        // another thread keeps the pipe on which subprocess waits for the exec, in every server.
        for kind in ["pool-fork", "pool-spawn", "executor-fork", "executor-spawn", "run"] {
            assert_eq!(server.get(&format!("/{way}?kind={kind}")).text(), SUM, "{kind} alone");
        }
        mix(&server, way);
        assert_eq!(server.get("/end").text(), "0");
        let before = wait_for("its children to end", SOON, || {
            // What multiprocessing keeps for the life of a process that has used "spawn": its resource tracker.
            (procfs::children(worker).len() <= 1).then(|| sockets(worker))
        });
        for kind in ["pool-fork", "pool-spawn", "executor-fork", "executor-spawn"] {
            assert_eq!(server.get(&format!("/{way}?kind={kind}")).text(), SUM, "{kind} again");
        }
        mix(&server, way);
        assert_eq!(server.get("/end").text(), "0");
        wait_for("its children to end", SOON, || (procfs::children(worker).len() <= 1).then_some(()));
        wait_for("no socket more than before", SOON, || (sockets(worker).len() <= before.len()).then_some(()));
        assert_eq!(server.workers(), [worker]);
        server.stop();
    }
}

#[test]
fn a_child_that_lives_on_keeps_no_client_waiting_for_the_end_of_its_connection() {
    let mut server = pools().binds(["127.0.0.1:0", "unix:{temp}/sock"]).start();
    server.expect_error("SIGKILL");
    for address in server.addresses().to_vec() {
        let mut closing = Client::connect(&address);
        closing.send("GET /child HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let child = pid(&closing.response().text());
        assert!(closing.is_closed(), "the client is told at {address:?}");
        assert!(procfs::alive(child));
    }
    // A thread that waits beside the fork notices as well when its worker dies.
    let mut clients: Vec<Client> = server.addresses().iter().map(Client::connect).collect();
    clients.iter_mut().for_each(|client| ask(client, "/wait"));
    wait_for("both requests", SOON, || {
        let text = fs::read_to_string(server.temp().join("inside")).unwrap_or_default();
        (text.lines().count() == 2).then_some(())
    });
    let child = pid(&server.get("/child").text());
    signal_to(server.workers()[0], Signal::SIGKILL);
    assert!(clients.iter_mut().all(Client::is_closed), "the clients of a dead worker are told");
    assert!(procfs::alive(child));
    server.open_gate("gate");
    wait_for("the child's end", SOON, || (!procfs::alive(child)).then_some(()));
    wait_for("another worker", SOON, || (!server.workers().is_empty()).then_some(()));
    assert_eq!(server.get("/work?kind=run").text(), SUM);
    server.stop();
}

#[test]
fn a_child_that_outlives_the_server_has_nothing_of_it() {
    // An address of its own, of which no other server takes the port when it is free again.
    let mut server = pools().binds(["127.0.0.2:0", "unix:{temp}/sock"]).start();
    let worker = server.workers()[0];
    let mut idle = server.connect();
    assert_eq!(idle.get("/work?kind=run").text(), SUM);
    let child = pid(&server.get("/child").text());
    wait_for("a child without sockets of the server", SOON, || {
        // The ends of the worker's own signal pipes, and its spare descriptor: nobody waits for their end.
        let harmless = sockets(child).iter().filter(|link| sockets(worker).contains(*link)).count();
        (harmless <= 7).then_some(())
    });
    let address = server.address().clone();
    server.signal(Signal::SIGTERM);
    server.wait(STOP_LIMIT);
    assert!(idle.is_closed());
    assert!(procfs::alive(child));
    assert!(Client::try_connect(&address).is_err(), "nobody listens any more");
    let Address::Tcp(address) = address else { unreachable!("the first bind is TCP") };
    drop(std::net::TcpListener::bind(address).expect("the next server can have the address"));
    server.open_gate("gate");
    server.wait_for_empty_group(SOON);
    server.finish();
}

#[test]
fn a_worker_leaves_at_a_reload_although_its_children_live() {
    for target in ["/child", "/busy?kind=pool", "/busy?kind=process"] {
        // Python waits for such a process until the worker is killed. The others must let it go by itself, before SOON is over.
        let grace = if target.ends_with("process") { "5" } else { "30" };
        let server = pools().options(["--graceful-timeout", grace]).start();
        let old = server.workers()[0];
        let mut kept = server.connect();
        let child = pid(&kept.get(target).text());
        server.signal(Signal::SIGHUP);
        server.log().wait(&["reload done"]);
        assert_eq!(kept.get("/work?kind=run").text(), SUM, "{target}: the kept connection is served on");
        wait_for("the old worker to leave", SOON, || (!procfs::alive(old)).then_some(()));
        // Those of a pool are ended by multiprocessing when its process ends; nobody ends the others.
        assert_eq!(procfs::alive(child), !target.ends_with("pool"), "{target}");
        let began = std::time::Instant::now();
        assert_eq!(kept.get("/work?kind=pool-fork").text(), SUM);
        assert!(began.elapsed() < Duration::from_secs(10), "{target}: {:?}", began.elapsed());
        server.open_gate("gate");
        wait_for("the child's end", SOON, || (!procfs::alive(child)).then_some(()));
        server.stop();
    }
}

#[test]
fn a_child_that_returns_from_its_call_serves_nobody_and_is_ended() {
    for threads in ["1", "4"] {
        let mut server = pools_with(threads).start();
        server.expect_error("returned from its call");
        let worker = server.workers()[0];
        let mut client = server.connect();
        // Quickly, and when another thread has the loop.
        for (round, target) in ["/stray?sleep=0", "/stray?sleep=0.1", "/stray?sleep=0.1"].iter().enumerate() {
            assert_eq!(client.get(target).text(), "one of two", "{target}");
            let child = wait_for("the child", SOON, || {
                let text = fs::read_to_string(server.temp().join("strays")).unwrap_or_default();
                text.lines().nth(round).map(pid)
            });
            wait_for("its end", SOON, || (!procfs::alive(child)).then_some(()));
        }
        assert_eq!(server.workers(), [worker]);
        assert_eq!(client.get("/work?kind=run").text(), SUM);
        server.stop();
    }
}
