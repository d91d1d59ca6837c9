//! Requests that crash their worker, beside ordinary ones, and workers that die without any: which are replaced at once, and
//! which are not.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::client::Client;
use common::server::{Running, Server};
use common::{ROLLED, SOON, place, wait_for};

const WORKERS: usize = 4;

/// `/crash` ends the worker at once; once the file DIES is there, each worker dies by itself soon after it has loaded the application.
const APP: &str = "import os, signal, threading, time
with open(os.environ['BOOTS'], 'a') as boots:
    boots.write('boot\\n')
if os.environ.get('BROKEN') and os.path.exists(os.environ['BROKEN']):
    os.kill(os.getpid(), signal.SIGSEGV)
def die():
    while not os.path.exists(os.environ['DIES']):
        time.sleep(.01)
    time.sleep(.3)
    os.kill(os.getpid(), signal.SIGSEGV)
if os.environ.get('DIES'):
    threading.Thread(target=die, daemon=True).start()
def app(environ, start_response):
    if environ['PATH_INFO'] == '/crash':
        os.kill(os.getpid(), signal.SIGSEGV)
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";

/// Time between two requests that crash.
const POISON_EVERY: Duration = Duration::from_millis(300);

/// How long poison is sent, and the variable that names another time.
const POISONED: Duration = Duration::from_secs(4);
const SECONDS: &str = "POISON_SECONDS";

/// Clients beside the one that sends poison, and the pause of each between two requests: a few hundred requests a second.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// Longest wait of 99 of 100 requests, where the machine may be busy with anything; POISON_P99_MS names another one. A free one
/// needs less than 20 ms.
const P99: Duration = Duration::from_secs(3);

/// Forks a second of a crash loop.
const MOST_PER_SECOND: usize = 2;

/// How long a crash loop is watched.
const WATCHED: Duration = Duration::from_secs(4);

fn server(variables: &[(&str, &str)]) -> Server {
    let server = Server::source(APP).workers(WORKERS).options(["--log-level", "debug"]);
    let boots = server.temp().join("boots").display().to_string();
    let server = server.env("BOOTS", boots).expect_error("SIGSEGV");
    variables.iter().fold(server, |server, (name, value)| server.env(name, value))
}

fn boots(server: &Running) -> usize {
    std::fs::read_to_string(server.temp().join("boots")).map_or(0, |text| text.lines().count())
}

fn named(variable: &str, otherwise: Duration, unit: Duration) -> Duration {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).map_or(otherwise, |count: u32| unit * count)
}

/// The fates of a client's requests.
#[derive(Default)]
struct Fate {
    /// How long each answer took.
    answered: Vec<Duration>,
    /// What happened instead of an answer.
    failures: Vec<String>,
}

/// Sends GET requests, each on a connection of its own, until it has to stop.
fn ask(server: &Running, stop: &AtomicBool) -> Fate {
    let mut fate = Fate::default();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = Client::try_connect(server.address()).and_then(|mut client| {
            client.try_send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            client.try_response_to("GET")
        });
        match answer {
            Ok(response) if response.status == 200 && response.body == b"ok" => fate.answered.push(began.elapsed()),
            Ok(response) => fate.failures.push(format!("{response:?}")),
            Err(error) => fate.failures.push(error.to_string()),
        }
        thread::sleep(PAUSE);
    }
    fate
}

/// Asks for a crash at fixed times; returns how often.
fn poison(server: &Running, time: Duration) -> usize {
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < time {
        let mut client = server.connect();
        client.send("GET /crash HTTP/1.1\r\nHost: x\r\n\r\n");
        sent += 1;
        thread::sleep((began + POISON_EVERY * sent as u32).saturating_duration_since(Instant::now()));
    }
    sent
}

#[test]
fn requests_that_crash_their_worker_take_nothing_from_others() {
    let server = server(&[]).start();
    let stop = AtomicBool::new(false);
    let (sent, mut fate) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| ask(&server, &stop))).collect();
        let sent = poison(&server, named(SECONDS, POISONED, Duration::from_secs(1)));
        stop.store(true, Ordering::Relaxed);
        let mut sum = Fate::default();
        for client in clients {
            let fate = client.join().expect("a client does not panic");
            sum.answered.extend(fate.answered);
            sum.failures.extend(fate.failures);
        }
        (sent, sum)
    });
    fate.answered.sort();
    let at = |share: f64| fate.answered[(fate.answered.len() as f64 * share) as usize];
    let crashed = || server.log().records().iter().filter(|record| record.text.contains("killed by SIGSEGV")).count();
    wait_for("the last crash", SOON, || (crashed() >= sent).then_some(()));
    let fewest = server.log().fewest_ready(WORKERS, "was killed by SIGSEGV");
    eprintln!(
        "{sent} crashes, {} answers, {} lost with a worker; median {:?}, p99 {:?}, longest {:?}; {fewest} ready at the least",
        fate.answered.len(),
        fate.failures.len(),
        at(0.5),
        at(0.99),
        fate.answered[fate.answered.len() - 1],
    );
    assert!(at(0.99) < named("POISON_P99_MS", P99, Duration::from_millis(1)), "p99 is {:?}", at(0.99));
    // How long a boot takes is the machine's: on a busy one four crashes may come within one.
    assert!(fewest > 0 || std::env::var_os(SECONDS).is_none(), "at some time nobody was ready");
    // The connections that a crashed worker had accepted are lost with it, and nothing else.
    assert!(fate.failures.len() <= sent, "{} of {}: {:?}", fate.failures.len(), fate.answered.len(), fate.failures);
    assert!(server.log().find(&["failed again"]).is_none() && server.log().find(&["degraded"]).is_none());
    server.stop();
}

#[test]
fn an_attacker_who_sends_crashes_only_cannot_keep_the_service_away() {
    let server = server(&[]).start();
    // Each of them is the first request that its worker gets.
    for _ in 0..4 * WORKERS {
        let mut client = server.connect();
        client.send("GET /crash HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.try_response_to("GET").is_err());
    }
    wait_for("all workers", SOON, || (server.workers().len() == WORKERS).then_some(()));
    assert_eq!(server.get("/").status, 200);
    assert!(server.log().find(&["failed again"]).is_none() && server.log().find(&["degraded"]).is_none());
    server.stop();
}

/// Watches a crash loop; no more boots than the limit allows, whose first and last second are not whole.
#[track_caller]
fn assert_slow(server: &Running, before: usize, began: Instant) {
    thread::sleep(WATCHED);
    let tried = || boots(server) - before;
    wait_for("boots one after the other", ROLLED, || (tried() >= 2).then_some(()));
    let tried = tried();
    let most = WORKERS + MOST_PER_SECOND * (began.elapsed().as_secs() as usize + 2);
    assert!(tried <= most, "{tried} boots in {:?}", began.elapsed());
    server.log().wait(&["WARNING", "degraded"]);
}

#[test]
fn a_crash_loop_at_boot_after_a_poisoned_request_is_slow() {
    let broken = place::fresh("broken-");
    let path = broken.path().join("now");
    let server = server(&[("BROKEN", path.to_str().expect("the temp directory is UTF-8"))]).start();
    std::fs::write(&path, "").expect("the temp directory is writable");
    let (before, began) = (boots(&server), Instant::now());
    for _ in 0..WORKERS {
        let mut client = server.connect();
        client.send("GET /crash HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.try_response_to("GET").is_err());
    }
    assert_slow(&server, before, began);
    std::fs::remove_file(&path).expect("it is there");
    wait_for("the repaired application", SOON, || (server.workers().len() == WORKERS).then_some(()));
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn workers_that_die_after_their_boot_without_a_request_are_a_crash_loop() {
    let dies = place::fresh("dies-");
    let path = dies.path().join("now");
    let server = server(&[("DIES", path.to_str().expect("the temp directory is UTF-8"))]).start();
    let (before, began) = (boots(&server), Instant::now());
    std::fs::write(&path, "").expect("the temp directory is writable");
    assert_slow(&server, before, began);
    server.stop();
}
