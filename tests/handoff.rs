//! Connections that change their worker: handed over by a busy one, or by one that leaves. No client notices.

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::client::{Address, Client};
use common::handoff::{ONE_THREAD, server, spread, wait_for_calls, worker_of};
use common::server::{Running, at_once, signal_to};
use common::{SOON, procfs, wait_for};

/// Connections of the scenarios.
const CONNECTIONS: usize = 64;

/// Workers of the scenarios.
const WORKERS: usize = 4;

/// Connections of one worker.
fn of_worker(clients: Vec<(Client, i32)>, pid: i32, count: usize) -> Vec<Client> {
    let found: Vec<Client> = clients.into_iter().filter(|(_, worker)| *worker == pid).map(|(client, _)| client).collect();
    assert!(found.len() >= count);
    found
}

/// Waits until every worker of a server that stops has taken what came to the listeners and closed them. The last one that has a
/// listener open keeps connections from being refused, whatever the master has done.
#[track_caller]
fn wait_for_last_calls(address: &Address) {
    wait_for("closed listeners", SOON, || Client::try_connect(address).is_err().then_some(()));
}

/// Of two workers it is the last that gives way.
fn first_to_leave(server: &Running) -> i32 {
    let line = server.log().wait(&["worker 1 of", "forked (pid "]).text;
    line.split("(pid ").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok()).expect("a process id")
}

/// The client's only connection is asked again and again, and never replaced.
struct Load {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<Result<usize, String>>,
}

impl Load {
    fn start(address: &Address, pause: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let mut client = Client::connect(address);
        let thread = thread::spawn(move || {
            let mut count = 0;
            loop {
                // The last request comes after everything that the connection went through.
                let last = stopped.recv_timeout(pause) != Err(mpsc::RecvTimeoutError::Timeout);
                let sent = client.try_send(b"GET /?ms=1 HTTP/1.1\r\nHost: x\r\n\r\n");
                let response = sent.and_then(|()| client.try_response_to("GET"));
                let response = response.map_err(|error| format!("request {count}: {error}"))?;
                if response.status != 200 || response.closes() {
                    return Err(format!("request {count}: {response:?}"));
                }
                count += 1;
                if last {
                    return Ok(count);
                }
            }
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<usize, String> {
        // A client that has failed does not listen any more.
        let _ = self.stop.send(());
        self.thread.join().expect("a client does not panic")
    }
}

/// Clients that never connect again, each at its own pace.
fn crowd(server: &Running) -> Vec<Load> {
    (0..CONNECTIONS).map(|index| Load::start(server.address(), Duration::from_millis(3 + 5 * index as u64))).collect()
}

#[track_caller]
fn assert_kept(loads: Vec<Load>) {
    let results: Vec<Result<usize, String>> = loads.into_iter().map(Load::stop).collect();
    let failures: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failures.is_empty(), "{} of {CONNECTIONS}: {:#?}", failures.len(), &failures[..failures.len().min(3)]);
    let total: usize = results.iter().flatten().sum();
    eprintln!("{total} requests on {CONNECTIONS} connections, none failed, none closed");
}

#[test]
fn a_waiting_request_is_served_by_an_idle_worker_with_its_body_and_those_after_it() {
    for threads in ["1", "4"] {
        let server = server(2, &["--threads", threads]).binds(["127.0.0.1:0", "unix:{temp}/s"]).start();
        for address in server.addresses() {
            let gate = format!("gate-{}", address.to_string().len());
            let clients = spread(&server, address, 8);
            let busy = clients[0].1;
            let mut clients = of_worker(clients, busy, 8).into_iter();
            let count: usize = threads.parse().expect("it is a number");
            let mut slow: Vec<Client> = clients.by_ref().take(count).collect();
            let idle = server.workers().into_iter().find(|worker| *worker != busy).expect("there are two");
            // On a busy machine a request may wait so long for the interpreter that another worker takes it: not this one now.
            at_once(idle, || {
                for client in &mut slow {
                    client.send(format!("GET /slow?gate={gate} HTTP/1.1\r\nHost: x\r\n\r\n"));
                }
                wait_for_calls(&server, busy, count);
            });
            for mut client in clients.take(3) {
                client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloPOST /b HTTP/1.1\r\nHost: x\r\n");
                client
                    .send("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n");
                for expected in ["hello|/a", "abcde|/b", "|/c"] {
                    let response = client.response();
                    assert_eq!(response.text(), expected);
                    let names = response.field("x-names").expect("the application names the ends").to_owned();
                    assert_ne!(worker_of(&response), busy, "{threads} threads, {address}");
                    if let Address::Tcp(address) = address {
                        assert_eq!(names, format!("127.0.0.1 {} 127.0.0.1 {}", address.port(), client.port()));
                    }
                }
            }
            server.open_gate(&gate);
            for client in &mut slow {
                assert_eq!(worker_of(&client.response()), busy);
            }
            std::fs::remove_file(server.temp().join(format!("inside-{busy}"))).expect("the worker has made it");
        }
        server.stop();
    }
}

#[test]
fn requests_of_busy_workers_are_served_by_whoever_is_free_first_and_survive_a_crash() {
    let server = server(2, &[ONE_THREAD, &["--access-logformat", "%(U)s %(Q)s"]].concat());
    let access = server.temp().join("access");
    let mut server = server.options(["--access-logfile", &access.display().to_string()]).start();
    server.expect_error("exited with code 9");
    let clients = spread(&server, server.address(), 8);
    let [first, second] = server.workers()[..] else { panic!("there are two") };
    let (ones, others): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(_, worker)| *worker == first);
    let mut ones: Vec<Client> = ones.into_iter().map(|(client, _)| client).collect();
    let mut others: Vec<Client> = others.into_iter().map(|(client, _)| client).collect();
    ones[0].send("GET /?gate=one&die=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    others[0].send("GET /?gate=two HTTP/1.1\r\nHost: x\r\n\r\n");
    for pid in [first, second] {
        wait_for_calls(&server, pid, 1);
    }
    // Nobody is free: these wait in the queue, which outlives the worker that has put them there.
    for client in &mut ones[1..8] {
        client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    wait_for("seven in the queue", SOON, || (server.log().text().matches("handed a request").count() >= 7).then_some(()));
    server.open_gate("one");
    assert!(ones[0].is_closed(), "its worker is dead");
    for client in &mut ones[1..8] {
        assert_ne!(worker_of(&client.response()), first);
    }
    server.open_gate("two");
    assert_eq!(worker_of(&others[0].response()), second);
    // Answers leave before their lines are written.
    let waits: Vec<u64> = wait_for("seven lines", SOON, || {
        let log = std::fs::read_to_string(&access).expect("there is an access log");
        let waits: Vec<u64> = log.lines().filter_map(|line| line.strip_prefix("/waits ")?.parse().ok()).collect();
        (log.ends_with('\n') && waits.len() >= 7).then_some(waits)
    });
    assert!(waits.len() == 7 && waits.iter().all(|wait| *wait > 0), "the wait counts on: {waits:?}");
    server.stop();
}

#[test]
fn what_is_in_the_queue_is_answered_at_a_stop() {
    let mut server = server(2, ONE_THREAD).start();
    let address = server.address().clone();
    let mut clients = spread(&server, &address, 8);
    let workers = server.workers();
    let mut slow: Vec<Client> = Vec::new();
    for pid in workers {
        let index = clients.iter().position(|(_, worker)| *worker == pid).expect("there are eight");
        let (mut client, _) = clients.remove(index);
        client.send("GET /?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for_calls(&server, pid, 1);
        slow.push(client);
    }
    let mut idle = clients.split_off(10);
    for (client, _) in &mut clients {
        client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    wait_for("ten in the queue", SOON, || (server.log().text().matches("handed a request").count() >= 10).then_some(()));
    server.signal(Signal::SIGTERM);
    wait_for_last_calls(&address);
    server.open_gate("gate");
    for client in &mut slow {
        assert_eq!(client.response().status, 200);
    }
    for (client, _) in &mut clients {
        let response = client.response();
        assert!(response.status == 200 && response.closes(), "{response:?}");
    }
    for (client, _) in &mut idle {
        assert!(client.is_closed());
    }
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.finish();
}

#[test]
fn what_is_in_the_queue_at_a_stop_is_answered_by_workers_without_connections_of_their_own() {
    let mut server = server(2, ONE_THREAD).start();
    let address = server.address().clone();
    let mut clients = spread(&server, &address, 5);
    for pid in server.workers() {
        let index = clients.iter().position(|(_, worker)| *worker == pid).expect("there are five");
        let (mut client, _) = clients.swap_remove(index);
        client.send("GET /?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for_calls(&server, pid, 1);
        // The client leaves before its answer is there, so that nothing lingers after the call.
    }
    clients.truncate(4);
    for (client, _) in &mut clients {
        client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    wait_for("four in the queue", SOON, || (server.log().text().matches("handed a request").count() >= 4).then_some(()));
    server.signal(Signal::SIGTERM);
    wait_for_last_calls(&address);
    server.open_gate("gate");
    for (client, _) in &mut clients {
        let response = client.response();
        assert!(response.status == 200 && response.closes(), "{response:?}");
    }
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.finish();
}

#[test]
fn what_finds_no_worker_in_time_is_refused_and_the_queue_is_bounded() {
    let server = server(2, &[ONE_THREAD, &["--queue-timeout", "1s", "--max-queue", "5"]].concat()).start();
    let clients = spread(&server, server.address(), 30);
    let workers = server.workers();
    let mut by_worker: Vec<Vec<Client>> = vec![Vec::new(), Vec::new()];
    for (client, worker) in clients {
        by_worker[usize::from(worker == workers[1])].push(client);
    }
    for clients in &mut by_worker {
        clients[0].send("GET /?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    for pid in &workers {
        wait_for_calls(&server, *pid, 1);
    }
    let began = Instant::now();
    for client in &mut by_worker[0][1..30] {
        client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    for client in &mut by_worker[0][1..30] {
        let response = client.response();
        assert_eq!((response.status, response.field("retry-after")), (503, Some("5")), "{response:?}");
    }
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&took), "{took:?}");
    let text = server.log().text();
    let handed = text.matches("handed a request").count();
    assert!((5..40).contains(&handed), "as many as may wait are handed over, some twice: {handed}");
    server.open_gate("gate");
    for clients in &mut by_worker {
        assert_eq!(clients[0].response().status, 200);
    }
    server.stop();
}

#[test]
fn as_many_requests_wait_between_workers_with_threads_as_in_each() {
    const THREADS: usize = 2;
    const MAX_QUEUE: usize = 2;
    let options = ["--threads", &THREADS.to_string(), "--max-queue", &MAX_QUEUE.to_string()];
    let server = server(2, &options).start();
    let clients = spread(&server, server.address(), 10);
    let [first, second] = server.workers()[..] else { panic!("there are two") };
    let (mut ones, mut others): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(_, worker)| *worker == first);
    // Calls that last: each worker keeps its first requests near its threads.
    for (client, _) in ones[..THREADS].iter_mut().chain(&mut others[..THREADS]) {
        client.send("GET /?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    for pid in [first, second] {
        wait_for_calls(&server, pid, THREADS);
    }
    for (client, _) in &mut ones[THREADS..] {
        client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    let handed = || server.log().text().matches("handed a request").count();
    wait_for("as many in the shared queue", SOON, || (handed() >= MAX_QUEUE).then_some(()));
    server.open_gate("gate");
    let statuses: Vec<u16> = ones[THREADS..].iter_mut().map(|(client, _)| client.response().status).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served >= 2 * MAX_QUEUE && statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    for (client, _) in ones[..THREADS].iter_mut().chain(&mut others[..THREADS]) {
        assert_eq!(client.response().status, 200);
    }
    server.stop();
}

#[test]
fn a_reload_closes_no_connection() {
    // Deadlines are handed over too, and those of the first connections count through all the reloads.
    let server = server(WORKERS, &["--keep-alive", "600", "--header-timeout", "600"]).start();
    let loads = crowd(&server);
    let mut idle: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").status, 200);
    }
    let mut half = server.connect();
    half.send("GET /half HTTP/1.1\r\nHo");
    for count in 1..=20 {
        common::deploy::reload(&server, "reload done", count);
    }
    half.send("st: x\r\n\r\n");
    assert_eq!(half.response().text(), "|/half");
    for client in &mut idle {
        assert_eq!(client.get("/").status, 200, "an idle connection was handed over twenty times");
    }
    assert_kept(loads);
    server.stop();
}

#[test]
fn without_handoff_a_reload_closes_idle_connections() {
    let server = server(2, &["--no-lending"]).start();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    common::deploy::reload(&server, "reload done", 1);
    assert!(idle.is_closed());
    server.stop();
}

#[test]
fn recycled_workers_close_no_connection() {
    let server = server(WORKERS, &["--max-requests", "100", "--max-requests-jitter", "50"]).start();
    let before = server.workers();
    let loads = crowd(&server);
    server.wait_for_end_of(&before);
    assert_kept(loads);
    server.stop();
}

#[test]
fn one_worker_less_closes_no_connection() {
    let server = server(WORKERS, &[]).start();
    let loads = crowd(&server);
    for left in (1..WORKERS).rev() {
        server.signal(Signal::SIGTTOU);
        wait_for("the end of one worker", SOON, || (server.workers().len() == left).then_some(()));
    }
    assert_kept(loads);
    server.stop();
}

#[test]
fn a_worker_that_leaves_already_closes_its_connections_when_the_others_leave_too() {
    let server = server(2, ONE_THREAD).start();
    let pid = first_to_leave(&server);
    let mut client = of_worker(spread(&server, server.address(), 1), pid, 1).remove(0);
    client.send("GET /?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for_calls(&server, pid, 1);
    server.signal(Signal::SIGTTOU);
    server.log().wait(&["worker 1 is told to leave (Retire)"]);
    server.signal(Signal::SIGWINCH);
    // It gets the order before the other one, which has nothing to do.
    wait_for("the end of the other worker", SOON, || (server.workers() == [pid]).then_some(()));
    server.open_gate("gate");
    assert_eq!(worker_of(&client.response()), pid);
    assert!(client.is_closed(), "nobody is there to take the connection");
    wait_for("the end of the workers", SOON, || server.workers().is_empty().then_some(()));
    server.stop();
}

#[test]
fn a_busy_worker_that_leaves_takes_no_connection_from_others() {
    let server = server(2, &[ONE_THREAD, &["--no-lending", "--max-queue", "0"]].concat()).start();
    let leaves = first_to_leave(&server);
    let stays = server.workers().into_iter().find(|pid| *pid != leaves).expect("there are two");
    let mut clients = of_worker(spread(&server, server.address(), 2), leaves, 2);
    let (mut client, mut other) = (clients.remove(0), clients.remove(0));
    let with_other = procfs::open_files(leaves);
    client.send("GET /?gate=gate HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for_calls(&server, leaves, 1);
    // It leaves the listeners at the end of the iteration that publishes this.
    assert_eq!(other.get("/").status, 503);
    drop(other);
    wait_for("the end of its connection", SOON, || (procfs::open_files(leaves) < with_other).then_some(()));
    signal_to(stays, Signal::SIGSTOP);
    let mut waiting = server.connect();
    waiting.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
    let files = procfs::open_files(leaves);
    server.signal(Signal::SIGTTOU);
    wait_for("closed listeners", SOON, || (procfs::open_files(leaves) < files).then_some(()));
    signal_to(stays, Signal::SIGCONT);
    assert_eq!(worker_of(&waiting.response()), stays);
    server.open_gate("gate");
    assert_eq!(worker_of(&client.response()), leaves);
    server.stop();
}

#[test]
fn an_upgrade_closes_no_connection() {
    let server = server(2, &[]).start();
    let loads = crowd(&server);
    for count in 1..=2 {
        server.signal(Signal::SIGUSR2);
        common::deploy::wait_for_records(&server, "reload done", count);
    }
    assert_kept(loads);
    server.stop();
}

#[test]
fn ten_thousand_idle_connections_are_handed_over_in_seconds() {
    /// More than is allowed, so that a failure shows how long it took.
    const PATIENCE: Duration = Duration::from_secs(120);
    let hard = common::raise_open_files();
    let count = usize::try_from(hard).unwrap_or(usize::MAX).min(10_500) - 500;
    let server = server(2, &["--keep-alive", "600", "--header-timeout", "300", "--graceful-timeout", "120"]).start();
    let began = Instant::now();
    let mut idle: Vec<Client> = Vec::new();
    for _ in 0..count {
        let mut client = server.connect();
        assert_eq!(client.get("/").status, 200);
        idle.push(client);
    }
    let asked = began.elapsed();
    let began = Instant::now();
    server.signal(Signal::SIGHUP);
    wait_for("the reload", PATIENCE, || server.log().find(&["reload done"]));
    wait_for("two workers", PATIENCE, || (server.workers().len() == 2).then_some(()));
    let took = began.elapsed();
    eprintln!("{count} connections made and asked in {asked:?}, handed over in {took:?}");
    for client in &mut idle {
        assert_eq!(client.get("/").status, 200);
    }
    // A machine that is slow to make so many connections is slow to hand them over; making and asking one takes much longer.
    assert!(took < Duration::from_secs(10).max(asked * 2), "{took:?}");
    server.stop();
}
