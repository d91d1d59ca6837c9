//! The doors for operators under pressure: floods of questions, and questions at the moments when the master has the most to do.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::Value;

use common::client::{Address, Client};
use common::server::{Running, Server, signal_to};
use common::status::door;
use common::{SOON, procfs, wait_for};

/// Longest time for an answer, whatever the server does.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Tries of what others on the machine may hold up.
const TRIES: usize = 3;

/// Clients of a flood.
const FLOOD: usize = 20;

/// Oldest figures of a public door.
const REPEATED_FOR: f64 = 0.1;

const APP: &str = "def application(environ, start_response):\n    \
                   start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
                   return [b'hello']\n";

fn server() -> Server {
    common::status::server(APP)
}

fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn ask(client: &mut Client, target: &str) -> std::io::Result<common::client::Response> {
    client.try_send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    client.try_response_to("GET")
}

fn figures(client: &mut Client) -> Value {
    let response = ask(client, "/status.json").expect("it answers");
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

#[test]
fn a_flood_is_answered_with_figures_of_a_moment_ago() {
    let server = server().workers(1).start();
    // All of them ask before one of them reads, so that it is a flood on a busy machine too.
    let mut clients: Vec<Client> = (0..FLOOD).map(|_| Client::connect(&door(&server))).collect();
    let (began, mut moments) = (Instant::now(), HashSet::new());
    let mut asked = 0;
    // 20 a second, of which those of one second may come at once; 10 more where none is left and the last one is too old.
    let most = || (30.0 * (began.elapsed().as_secs_f64() + 1.0)) as usize;
    // On a busy machine until there were enough.
    while asked < 2000 && (began.elapsed() < Duration::from_secs(3) || (asked <= 2 * most() && began.elapsed() < 2 * SOON)) {
        let before = wall();
        clients.iter_mut().for_each(|client| client.send("GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        for client in &mut clients {
            let response = client.response();
            assert_eq!(response.status, 200, "{response:?}");
            let now = response.json()["now_s"].as_f64().expect("a number");
            assert!(before - now <= REPEATED_FOR, "the figures are {} s old", before - now);
            moments.insert(now.to_bits());
            asked += 1;
        }
    }
    let most = most();
    assert!(moments.len() <= most && asked > 2 * most, "{asked} questions, {} renderings", moments.len());
    let mut control = Client::connect(&server.control());
    let moments: HashSet<u64> = (0..100).map(|_| figures(&mut control)["now_s"].as_f64().expect("a number").to_bits()).collect();
    assert_eq!(moments.len(), 100, "the control socket repeats nothing");
    server.stop();
}

#[test]
fn what_the_server_does_is_seen_at_once_in_a_flood() {
    let server = server().workers(1).start();
    let mut client = Client::connect(&door(&server));
    for generation in 2..6 {
        server.signal(Signal::SIGHUP);
        let done = format!("reload done: all workers are of generation {generation}");
        wait_for(&done, SOON, || {
            (0..20).for_each(|_| _ = figures(&mut client));
            server.log().find(&[&done])
        });
        let seen = figures(&mut client);
        assert_eq!((&seen["server"]["generation"], &seen["reloads"]["ok"]), (&generation.into(), &(generation - 1).into()));
    }
    server.stop();
}

/// The answers of a door, without what client and master have waited for a processor: other tests keep those busy.
#[derive(Debug)]
struct Waits {
    longest: Duration,
    count: usize,
}

/// Sets it at the end of its life, so that a failure ends those who wait for it too.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Asks without pause until it is `done`.
fn ask_until(done: &AtomicBool, address: &Address, master: i32) -> Waits {
    let mut client = None;
    let mut waits = Waits { longest: Duration::ZERO, count: 0 };
    while !done.load(Relaxed) {
        for target in ["/health/live", "/metrics", "/health/ready"] {
            let queued = || procfs::processor_wait(master) + procfs::processor_wait("thread-self");
            let (began, before) = (Instant::now(), queued());
            // An exec closes connections; who comes then waits in the kernel's queue.
            while ask(client.get_or_insert_with(|| Client::connect(address)), target).is_err() {
                client = None;
                assert!(began.elapsed() < SOON, "no answer");
            }
            let wait = began.elapsed().saturating_sub(queued() - before);
            (waits.longest, waits.count) = (waits.longest.max(wait), waits.count + 1);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    waits
}

#[test]
fn no_answer_waits_for_a_change_of_the_server() {
    // An exec reads the program, and a disk that is busy holds that up. What the master does itself comes each time.
    let tries: Vec<Waits> = (0..TRIES).map(|_| waits_over_changes()).collect();
    let least = tries.iter().map(|waits| waits.longest).min();
    assert!(least.is_some_and(|longest| longest < AT_ONCE), "the longest of each try: {tries:?}");
}

/// Waits for answers while the server is changed in every way.
fn waits_over_changes() -> Waits {
    let mut server = server().workers(3).start();
    let (address, master, done) = (door(&server), server.pid(), AtomicBool::new(false));
    let awaits = |server: &Running, reloads: u64, workers: usize| {
        wait_for("the change", SOON, || {
            let mut client = Client::connect(&server.control());
            let seen = ask(&mut client, "/status.json").ok()?.json();
            let ready = |workers: &Value| workers.as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "ready"));
            let counts = (seen["reloads"]["ok"].as_u64(), seen["workers"].as_array().map(Vec::len));
            (counts == (Some(reloads), Some(workers)) && ready(&seen["workers"]) && seen["server"]["state"] == "serving")
                .then_some(())
        });
    };
    let waits = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(&done, &address, master));
        let end = AtEnd(&done);
        for (number, change) in [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGUSR2].into_iter().enumerate() {
            server.signal(change);
            awaits(&server, number as u64 + 1, 3);
        }
        for (change, workers) in [(Signal::SIGTTIN, 4), (Signal::SIGTTOU, 3), (Signal::SIGUSR1, 3)] {
            server.signal(change);
            awaits(&server, 4, workers);
        }
        server.expect_error("was killed by SIGKILL");
        signal_to(server.workers()[0], Signal::SIGKILL);
        server.log().wait(&["SIGKILL"]);
        awaits(&server, 4, 3);
        drop(end);
        asking.join().expect("every question is answered")
    });
    server.stop();
    waits
}
