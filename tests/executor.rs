//! The hybrid executor with a native application: slow calls beside quick ones, hand-overs under load, streams that keep to
//! their thread.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use tapster::channel::{self, MasterEnd, Order, Report};
use tapster::config::{Bind, LogTarget, Settings};
use tapster::http::response::{Body as Encoding, Context, Encoder, End};
use tapster::log::Level;
use tapster::log::error::{Log, Who};
use tapster::log::sink::Sink;
use tapster::net::listener::{self, Address};
use tapster::scoreboard::Scoreboard;
use tapster::sys::signals::Blocked;
use tapster::worker::app::{App, Fate, Outlet, Reply, Request, Step, Stream, Summary};
use tapster::worker::{self, Boot};

/// Longest time that a step of a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests of the stress test, over all its clients.
const STRESS: usize = 20_000;

#[derive(Default)]
struct Seen {
    inside: AtomicUsize,
    most_inside: AtomicUsize,
    threads: Mutex<HashMap<ThreadId, usize>>,
    strayed: AtomicUsize,
    dropped: AtomicUsize,
}

/// Answers `/ID/MICROS` with ID after so many microseconds; `/stream/ID/MICROS` with ten blocks of it.
struct Native {
    seen: Arc<Seen>,
}

impl App for Native {
    fn call(&mut self, request: Request<'_>, out: &mut Vec<u8>, _: &mut dyn Outlet) -> Reply {
        let inside = self.seen.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most_inside.fetch_max(inside, Ordering::SeqCst);
        *self.seen.threads.lock().unwrap().entry(std::thread::current().id()).or_default() += 1;
        let target = String::from_utf8(request.head.target.of(request.bytes).to_vec()).unwrap();
        let (rest, micros) = target.rsplit_once('/').unwrap();
        let pause = Duration::from_micros(micros.parse().unwrap());
        let context = Context {
            version: request.head.version,
            head_only: false,
            persistent: request.persistent && request.framing.persistent,
            date: request.date,
        };
        let encoder = Encoder::begin(out, &context, b"200 OK").unwrap();
        let reply = match rest.strip_prefix("/stream/") {
            Some(id) => Reply::Stream(Box::new(Blocks {
                seen: self.seen.clone(),
                encoding: encoder.finish(None),
                block: id.as_bytes().to_vec(),
                left: 10,
                pause,
                home: std::thread::current().id(),
            })),
            None => {
                let id = rest.as_bytes();
                let mut encoding = encoder.finish(Some(id.len() as u64));
                encoding.block(out, id);
                if !pause.is_zero() {
                    std::thread::sleep(pause);
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

fn end(encoding: &mut Encoding, out: &mut Vec<u8>) -> Summary {
    let fate = match encoding.end(out) {
        End::Complete { persistent: true } => Fate::Keep,
        End::Complete { persistent: false } => Fate::Close,
        End::Short(_) => Fate::Cut,
    };
    Summary { status: 200, sent: encoding.sent(), fate }
}

struct Blocks {
    seen: Arc<Seen>,
    encoding: Encoding,
    block: Vec<u8>,
    left: usize,
    pause: Duration,
    home: ThreadId,
}

impl Blocks {
    fn check_thread(&self) {
        if std::thread::current().id() != self.home {
            self.seen.strayed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Stream for Blocks {
    fn advance(&mut self, out: &mut Vec<u8>) -> Step {
        self.check_thread();
        if self.left == 0 {
            return Step::End(end(&mut self.encoding, out));
        }
        self.left -= 1;
        std::thread::sleep(self.pause);
        self.encoding.block(out, &self.block);
        Step::Rendered
    }

    fn held(&self) -> (&[u8], &'static [u8]) {
        (&[], &[])
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn summary(&self) -> Summary {
        Summary { status: 200, sent: self.encoding.sent(), fate: Fate::Cut }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.check_thread();
        self.seen.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Worker {
    master: MasterEnd,
    address: SocketAddr,
    seen: Arc<Seen>,
    thread: JoinHandle<i32>,
}

fn start(threads: usize) -> Worker {
    let settings = Settings { binds: vec![Bind::Tcp { host: "127.0.0.1".to_owned(), port: 0 }], threads, ..Settings::default() };
    let listeners = listener::bind_all(&settings).unwrap();
    let Address::Tcp(address) = *listeners[0].address() else { panic!("bound to TCP") };
    let (master, end) = channel::pair().unwrap();
    let members = settings.members();
    let boot = Boot {
        stacks: tempfile::tempfile().unwrap(),
        settings: Arc::new(settings),
        listeners,
        queue: tapster::lending::Queue::new().unwrap(),
        slot: 0,
        workers: 1,
        scoreboard: Arc::new(Scoreboard::new(1, members).unwrap()),
        channel: end,
        signals: Blocked::all().unwrap(),
        log: Log::new(Arc::new(Sink::open(&LogTarget::Stderr).unwrap()), Level::Debug, Who::Worker(0)),
        access: None,
    };
    let seen = Arc::new(Seen::default());
    let app = Native { seen: seen.clone() };
    let thread = std::thread::spawn(move || worker::run(boot, |_| Ok((Box::new(app) as Box<dyn App>, "native".to_owned()))));
    let deadline = Instant::now() + PATIENCE;
    while master.receive().unwrap() != Some(Report::Ready("native".to_owned())) {
        assert!(Instant::now() < deadline, "the worker is not ready");
        std::thread::yield_now();
    }
    Worker { master, address, seen, thread }
}

impl Worker {
    fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    fn stop(self) -> Arc<Seen> {
        self.master.send(Order::Drain).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(self.thread.join().unwrap()));
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok(0));
        assert_eq!(self.seen.strayed.load(Ordering::SeqCst), 0, "a stream left its thread");
        self.seen
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
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
        client.send("/slow/1000000");
    }
    let mut quick = worker.client();
    let began = Instant::now();
    for n in 0..100 {
        assert_eq!(quick.ask(&format!("/{n}/0")), format!("/{n}"));
    }
    assert!(began.elapsed() < Duration::from_millis(900), "the quick requests waited: {:?}", began.elapsed());
    for client in &mut slow {
        assert_eq!(client.answer(), "/slow");
    }
    worker.stop();
}

#[test]
fn never_more_calls_than_slots_and_the_rest_waits_in_order() {
    for threads in [1, 2, 5] {
        let worker = start(threads);
        let mut clients: Vec<Client> = (0..20).map(|_| worker.client()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&format!("/{n}/20000"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.answer(), format!("/{n}"));
        }
        let seen = worker.stop();
        assert_eq!(seen.most_inside.load(Ordering::SeqCst), threads);
    }
}

#[test]
fn with_one_slot_the_application_stays_on_one_thread_and_sockets_are_served_beside_it() {
    let worker = start(1);
    let mut slow = worker.client();
    slow.send("/slow/500000");
    let mut bad = worker.client();
    while worker.seen.inside.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let began = Instant::now();
    bad.0.get_mut().write_all(b"NO HTTP\r\n\r\n").unwrap();
    assert_eq!(bad.line(), "HTTP/1.1 400 Bad Request");
    assert!(began.elapsed() < Duration::from_millis(400), "a bad request waited for the application: {:?}", began.elapsed());
    assert_eq!(slow.answer(), "/slow");
    for n in 0..50 {
        assert_eq!(slow.ask(&format!("/{n}/3000")), format!("/{n}"));
    }
    let seen = worker.stop();
    assert_eq!(seen.threads.lock().unwrap().len(), 1);
}

#[test]
fn an_idle_worker_notices_a_slow_call_after_its_watcher_slept() {
    let worker = start(2);
    let mut slow = worker.client();
    let mut quick = worker.client();
    for _ in 0..5 {
        // Longer than the watcher stays awake without calls.
        std::thread::sleep(Duration::from_millis(120));
        slow.send("/slow/300000");
        while worker.seen.inside.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let began = Instant::now();
        assert_eq!(quick.ask("/quick/0"), "/quick");
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        assert_eq!(slow.answer(), "/slow");
    }
    worker.stop();
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

#[test]
fn no_answer_is_lost_doubled_or_crossed_over_many_hand_overs() {
    for threads in [1, 2, 8] {
        let worker = start(threads);
        std::thread::scope(|scope| {
            for client in 0..16 {
                let mut connection = worker.client();
                scope.spawn(move || {
                    let mut random = client as u64 + 1;
                    for n in 0..STRESS / 16 / 4 {
                        let mut targets = Vec::new();
                        for part in 0..4 {
                            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                            let micros = match random >> 60 {
                                0 => 2_500,
                                1 => 1_100,
                                2 => 900,
                                _ => 0,
                            };
                            let kind = if random >> 32 & 31 == 0 { "/stream" } else { "" };
                            targets.push((kind, format!("{client}.{n}.{part}"), micros));
                        }
                        // Pipelined in twos.
                        for pair in targets.chunks(2) {
                            for (kind, id, micros) in pair {
                                connection.send(&format!("{kind}/{id}/{micros}"));
                            }
                            for (kind, id, _) in pair {
                                let answer = connection.answer();
                                match *kind {
                                    "" => assert_eq!(answer, format!("/{id}")),
                                    _ => assert_eq!(answer, id.repeat(10)),
                                }
                            }
                        }
                    }
                });
            }
        });
        let seen = worker.stop();
        assert!(seen.most_inside.load(Ordering::SeqCst) <= threads);
    }
}
