//! The hybrid executor with a native application: slow calls beside quick ones, hand-overs under load, streams that keep to
//! their thread.

// Alone, because the rest of the harness needs the build's Python.
#[path = "common/native.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod native;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use native::{CountedBlocks, PATIENCE, Worker, end, until};
use tapster::config::Settings;
use tapster::http::response::{Context, Encoder};
use tapster::http::terms::Terms;
use tapster::worker::app::{App, Outlet, Reply, Request};

/// Hand-overs of the stress test with one, two and eight threads; this variable names another number for all three.
const STRESS: [(usize, usize); 3] = [(1, 1_000), (2, 4_000), (8, 95_000)];
const STRESS_VARIABLE: &str = "TAPSTER_TEST_HAND_OVERS";

/// Connections of the stress test.
const CLIENTS: usize = 16;

/// Pause that costs a thread the loop in any case: two ticks of its watcher.
const LONG: Duration = Duration::from_micros(2_100);

#[derive(Default)]
struct Seen {
    inside: AtomicUsize,
    most_inside: AtomicUsize,
    threads: Mutex<HashMap<ThreadId, usize>>,
    strayed: AtomicUsize,
    dropped: AtomicUsize,
    /// Pauses that cost their thread the loop.
    long: AtomicUsize,
    /// Calls that began on another thread than the one before.
    moved: AtomicUsize,
    last: Mutex<Option<ThreadId>>,
    /// Whether requests are to have names of their own, and those that were seen.
    names_matter: AtomicBool,
    names: Mutex<HashSet<String>>,
    /// A gate that calls wait for: whether it is open.
    gate: AtomicBool,
}

impl Seen {
    fn begins(&self, name: &str) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_inside.fetch_max(inside, Ordering::SeqCst);
        let thread = std::thread::current().id();
        *self.threads.lock().unwrap().entry(thread).or_default() += 1;
        if self.last.lock().unwrap().replace(thread) != Some(thread) {
            self.moved.fetch_add(1, Ordering::SeqCst);
        }
        if self.names_matter.load(Ordering::SeqCst) {
            assert!(self.names.lock().unwrap().insert(name.to_owned()), "{name} was called twice");
        }
    }

    fn pause(&self, pause: Duration) {
        if pause >= LONG {
            self.long.fetch_add(1, Ordering::SeqCst);
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }

    fn turn_gate(&self, open: bool) {
        self.gate.store(open, Ordering::SeqCst);
    }

    /// Returns when the gate is open, or when the test has long failed because an answer is missing. ThreadSanitizer knows
    /// nothing of what std's condition variables do.
    fn pass_gate(&self) {
        let began = Instant::now();
        while !self.gate.load(Ordering::SeqCst) && began.elapsed() < 2 * PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until so many calls have begun and not ended.
    #[track_caller]
    fn await_inside(&self, calls: usize) {
        until(|| (self.inside.load(Ordering::SeqCst) == calls).then_some(()));
    }

    /// At least so often has a thread handed over to another.
    fn hand_overs(&self) -> usize {
        self.long.load(Ordering::SeqCst).max(self.moved.load(Ordering::SeqCst))
    }
}

/// Answers `/ID/MICROS` with ID after so many microseconds, `/ID/gate` when the gate is open; `/stream/ID/MICROS` with ten blocks
/// of ID.
struct Native {
    seen: Arc<Seen>,
}

impl App for Native {
    fn call(&mut self, request: Request<'_>, out: &mut Vec<u8>, _: &mut dyn Outlet) -> Reply {
        let target = String::from_utf8(request.head.target.of(request.bytes).to_vec()).unwrap();
        self.seen.begins(&target);
        let (rest, pause) = target.rsplit_once('/').unwrap();
        let pause = (pause != "gate").then(|| Duration::from_micros(pause.parse().unwrap()));
        let context = Context { terms: Terms { head_only: false, ..request.terms }, date: request.date, id: b"" };
        let mut encoder = Encoder::begin(out, &context, b"200 OK").unwrap();
        let reply = match rest.strip_prefix("/stream/") {
            Some(id) => {
                let (home, block, mut left) = (Home::here(self.seen.clone()), id.as_bytes().to_vec(), 0..10);
                let pause = pause.unwrap();
                Reply::Blocks(Box::new(CountedBlocks::new(encoder.finish(None), move || {
                    home.check();
                    left.next()?;
                    home.seen.pause(pause);
                    Some(block.clone())
                })))
            }
            None => {
                let id = rest.as_bytes();
                let mut encoding = encoder.finish(Some(id.len() as u64));
                encoding.block(out, id);
                match pause {
                    Some(pause) => self.seen.pause(pause),
                    None => self.seen.pass_gate(),
                }
                Reply::Complete(end(&mut encoding, out))
            }
        };
        self.seen.inside.fetch_sub(1, Ordering::SeqCst);
        reply
    }

    fn release(&mut self) {}

    fn spawn(&self, name: &str, body: Box<dyn FnOnce(Box<dyn App>) + Send>) -> std::io::Result<()> {
        let app = Self { seen: self.seen.clone() };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || body(Box::new(app))).map(drop)
    }
}

/// A stream that is to stay on the thread that began it.
struct Home {
    seen: Arc<Seen>,
    thread: ThreadId,
}

impl Home {
    fn here(seen: Arc<Seen>) -> Self {
        Self { seen, thread: std::thread::current().id() }
    }

    fn check(&self) {
        if std::thread::current().id() != self.thread {
            self.seen.strayed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.check();
        self.seen.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// A worker and what its application has seen.
struct Served {
    worker: Worker,
    seen: Arc<Seen>,
}

fn start(threads: usize) -> Served {
    start_with(|settings| settings.threads = threads)
}

fn start_with(change: impl FnOnce(&mut Settings)) -> Served {
    let seen = Arc::new(Seen::default());
    let worker = Worker::start(Native { seen: seen.clone() }, change);
    Served { worker, seen }
}

impl Served {
    fn client(&self) -> Client {
        Client::new(self.worker.tcp())
    }

    fn stop(self) -> Arc<Seen> {
        self.worker.stop();
        assert_eq!(self.seen.strayed.load(Ordering::SeqCst), 0, "a stream left its thread");
        self.seen
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self(BufReader::new(native::connect(address)))
    }

    fn send(&mut self, target: &str) {
        write!(self.0.get_mut(), "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the connection ended");
        line.trim_end().to_owned()
    }

    fn take(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// The body of one answer.
    fn answer(&mut self) -> String {
        assert_eq!(self.line(), "HTTP/1.1 200 OK");
        let mut length = None;
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = Some(value.parse().unwrap());
            }
        }
        if let Some(length) = length {
            return self.take(length);
        }
        let mut body = String::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            body += &self.take(size);
            assert_eq!(self.line(), "");
            if size == 0 {
                return body;
            }
        }
    }

    fn ask(&mut self, target: &str) -> String {
        self.send(target);
        self.answer()
    }
}

#[test]
fn quick_requests_are_served_beside_slow_ones() {
    let worker = start(4);
    let mut slow: Vec<Client> = (0..3).map(|_| worker.client()).collect();
    for client in &mut slow {
        client.send("/slow/gate");
    }
    let mut quick = worker.client();
    for n in 0..100 {
        assert_eq!(quick.ask(&format!("/{n}/0")), format!("/{n}"));
    }
    worker.seen.await_inside(3);
    worker.seen.turn_gate(true);
    for client in &mut slow {
        assert_eq!(client.answer(), "/slow");
    }
    worker.stop();
}

#[test]
fn never_more_calls_than_permits_and_the_rest_waits_in_order() {
    for threads in [1, 2, 5] {
        let worker = start(threads);
        let mut clients: Vec<Client> = (0..20).map(|_| worker.client()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&format!("/{n}/20000"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.answer(), format!("/{n}"));
        }
        let waits = worker.worker.scoreboard.snapshot(0).sums.waits.count();
        assert!((1..=20).contains(&waits), "{waits} requests have waited");
        let seen = worker.stop();
        assert_eq!(seen.most_inside.load(Ordering::SeqCst), threads);
    }
}

#[test]
fn with_one_permit_the_application_stays_on_one_thread_and_sockets_are_served_beside_it() {
    let worker = start(1);
    let mut slow = worker.client();
    slow.send("/slow/gate");
    let mut bad = worker.client();
    worker.seen.await_inside(1);
    bad.0.get_mut().write_all(b"NO HTTP\r\n\r\n").unwrap();
    assert_eq!(bad.line(), "HTTP/1.1 400 Bad Request");
    worker.seen.turn_gate(true);
    assert_eq!(slow.answer(), "/slow");
    for n in 0..50 {
        assert_eq!(slow.ask(&format!("/{n}/3000")), format!("/{n}"));
    }
    let seen = worker.stop();
    assert_eq!(seen.threads.lock().unwrap().len(), 1);
}

#[test]
fn an_idle_worker_notices_a_slow_call() {
    let worker = start(2);
    let mut slow = worker.client();
    let mut quick = worker.client();
    for _ in 0..5 {
        // The timer that the last call has set fires meanwhile, and nobody sets it.
        std::thread::sleep(Duration::from_millis(120));
        slow.send("/slow/gate");
        worker.seen.await_inside(1);
        assert_eq!(quick.ask("/quick/0"), "/quick");
        worker.seen.turn_gate(true);
        assert_eq!(slow.answer(), "/slow");
        worker.seen.turn_gate(false);
    }
    worker.stop();
}

#[test]
fn a_request_that_waits_for_slow_ones_is_turned_away_in_time() {
    // More than a busy machine stands still, because some of the first ones may have to wait too.
    let served = start_with(|settings| (settings.threads, settings.queue_timeout) = (2, Duration::from_secs(2)));
    let mut slow: Vec<Client> = (0..2).map(|_| served.client()).collect();
    // Slow enough, often enough, to go to other threads at once.
    for _ in 0..10 {
        slow.iter_mut().for_each(|client| client.send("/slow/5000"));
        slow.iter_mut().for_each(|client| assert_eq!(client.answer(), "/slow"));
    }
    slow.iter_mut().for_each(|client| client.send("/slow/gate"));
    served.seen.await_inside(2);
    let mut waiting: Vec<Client> = (0..6).map(|_| served.client()).collect();
    waiting.iter_mut().for_each(|client| client.send("/waits/0"));
    for client in &mut waiting {
        assert_eq!(client.line(), "HTTP/1.1 503 Service Unavailable");
    }
    served.seen.turn_gate(true);
    slow.iter_mut().for_each(|client| assert_eq!(client.answer(), "/slow"));
    drop(waiting);
    // The permits are free again.
    assert_eq!(served.client().ask("/later/0"), "/later");
    served.stop();
}

#[test]
fn streams_keep_to_their_thread_and_interleave() {
    let worker = start(4);
    let mut clients: Vec<Client> = (0..12).map(|_| worker.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&format!("/stream/{n}-/5000"));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer(), format!("{n}-").repeat(10));
    }
    let mut leaver = worker.client();
    leaver.send("/stream/x/20000");
    assert_eq!(leaver.line(), "HTTP/1.1 200 OK");
    drop(leaver);
    let deadline = Instant::now() + PATIENCE;
    while worker.seen.dropped.load(Ordering::SeqCst) < 13 {
        assert!(Instant::now() < deadline, "the stream of a gone client was not dropped");
        std::thread::yield_now();
    }
    worker.stop();
}

/// One client of the stress test: pipelined pairs of requests, of which each answer must be its own, until enough was handed
/// over. Sometimes it leaves in the middle and comes back.
fn stress(client: usize, address: SocketAddr, enough: impl Fn() -> bool) -> usize {
    let mut connection = Client::new(address);
    let mut random = client as u64 + 1;
    let mut answers = 0;
    for round in 0.. {
        if enough() {
            break;
        }
        let mut pair = Vec::new();
        for part in 0..2 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let micros = match random >> 60 {
                0..=5 => LONG.as_micros(),
                6 => 1_100,
                7 => 900,
                _ => 0,
            };
            let kind = if random >> 32 & 63 == 0 { "/stream" } else { "" };
            pair.push((kind, format!("{client}.{round}.{part}"), micros));
        }
        for (kind, id, micros) in &pair {
            connection.send(&format!("{kind}/{id}/{micros}"));
        }
        if random >> 40 & 63 == 0 {
            connection = Client::new(address);
            continue;
        }
        for (kind, id, _) in &pair {
            let answer = connection.answer();
            match *kind {
                "" => assert_eq!(answer, format!("/{id}")),
                _ => assert_eq!(answer, id.repeat(10)),
            }
            answers += 1;
        }
    }
    answers
}

#[test]
fn no_answer_is_lost_doubled_or_crossed_over_many_hand_overs() {
    let asked: Option<usize> = std::env::var(STRESS_VARIABLE).ok().map(|count| count.parse().expect("a number of hand-overs"));
    for (threads, count) in STRESS {
        let count = asked.unwrap_or(count);
        let served = start(threads);
        served.seen.names_matter.store(true, Ordering::SeqCst);
        let (address, seen) = (served.worker.tcp(), &*served.seen);
        let began = Instant::now();
        let answers: usize = std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|client| scope.spawn(move || stress(client, address, || seen.hand_overs() >= count))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        let time = began.elapsed();
        let seen = served.stop();
        println!("{threads} threads: {} hand-overs and {answers} answers in {time:?}", seen.hand_overs());
        assert!(seen.most_inside.load(Ordering::SeqCst) <= threads);
        assert!(seen.names.lock().unwrap().len() >= answers);
    }
}
