//! Small blocks of a stream: which leave at once, which together, and the rules that hold in both cases. The worker's loop with a
//! native application, so that the stream can look at its client's socket between two blocks. The sockets are unix sockets, where
//! bytes of one side reach the other at once and room is small.

// Alone, because the rest of the harness needs the build's Python.
#[path = "common/native.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod native;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use native::Worker;
use nix::sys::socket::sockopt::SndBuf;
use nix::sys::socket::{MsgFlags, getsockopt, recv};
use tapster::config::{Bind, Endpoint};
use tapster::http::response::{Context, Encoder};
use tapster::http::terms::Terms;
use tapster::worker::app::{App, Outlet, Reply, Request};

/// Longest time that a step of a test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// `--threads`: one, where the main thread alone calls, and several.
const THREADS: [usize; 2] = [1, 4];

/// Longest answer that a stream looks at, in bytes. A look is taken out of the time in which blocks gather, so that it must be
/// short.
const ARRIVED: usize = 2048;

/// The block of this number; `None`: the end.
type CountedBlocks = dyn Fn(usize) -> Option<Vec<u8>> + Send + Sync;

struct Native(Arc<CountedBlocks>);

impl App for Native {
    fn call(&mut self, request: Request<'_>, out: &mut Vec<u8>, _: &mut dyn Outlet) -> Reply {
        let context = Context { terms: Terms { head_only: false, ..request.terms.closing() }, date: request.date, id: b"" };
        let encoding = Encoder::begin(out, &context, b"200 OK").unwrap().finish(None);
        let (blocks, mut numbers) = (self.0.clone(), 0..);
        Reply::Blocks(Box::new(native::CountedBlocks::new(encoding, move || numbers.next().and_then(|number| blocks(number)))))
    }

    fn release(&mut self) {}

    fn spawn(&self, name: &str, body: Box<dyn FnOnce(Box<dyn App>) + Send>) -> std::io::Result<()> {
        let app = Self(self.0.clone());
        std::thread::Builder::new().name(name.to_owned()).spawn(move || body(Box::new(app))).map(drop)
    }
}

/// A worker on a unix socket.
struct Served {
    worker: Worker,
    path: PathBuf,
    directory: tempfile::TempDir,
}

fn start(threads: usize, blocks: impl Fn(usize) -> Option<Vec<u8>> + Send + Sync + 'static) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let worker = Worker::start_within(PATIENCE, Native(Arc::new(blocks)), |settings| {
        settings.binds = vec![Bind::plain(Endpoint::Unix(path.clone()))];
        settings.threads = threads;
    });
    Served { worker, path, directory }
}

impl Served {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn stop(self) {
        self.worker.stop();
        drop(self.directory);
    }
}

fn ask(stream: &mut UnixStream) {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
}

/// The body of an answer to HTTP/1.0: the bytes up to the end.
fn read_body(stream: &mut UnixStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

/// The stream's view of its client: the bytes that have arrived there and are not read.
#[derive(Clone, Default)]
struct Arrived(Arc<Mutex<Option<UnixStream>>>);

impl Arrived {
    fn watch(&self, client: &UnixStream) {
        *self.0.lock().unwrap() = Some(client.try_clone().unwrap());
    }

    fn text(&self) -> String {
        let mut bytes = [0; ARRIVED];
        let client = self.0.lock().unwrap();
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let count = recv(client.as_ref().unwrap().as_raw_fd(), &mut bytes, flags).unwrap_or(0);
        assert!(count < ARRIVED, "there may be more than can be seen");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }
}

#[test]
fn the_first_block_has_arrived_when_the_second_is_asked_for() {
    for threads in THREADS {
        let arrived = Arrived::default();
        let view = arrived.clone();
        let (told, tells) = mpsc::channel();
        let worker = start(threads, move |number| match number {
            0 => Some(b"first".to_vec()),
            1 => {
                told.send(view.text()).unwrap();
                Some(b"second".to_vec())
            }
            _ => None,
        });
        let mut client = worker.connect();
        arrived.watch(&client);
        ask(&mut client);
        let seen = tells.recv_timeout(PATIENCE).unwrap();
        assert!(seen.ends_with("\r\n\r\nfirst"), "{threads} threads: {seen:?}");
        assert_eq!(read_body(&mut client), "firstsecond");
        worker.stop();
    }
}

#[test]
fn blocks_that_come_quickly_leave_together() {
    const COUNT: usize = 200;
    let arrived = Arrived::default();
    let view = arrived.clone();
    let (pieces, last) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let counter = pieces.clone();
    let worker = start(1, move |number| {
        let now = view.text().len();
        if last.swap(now, Ordering::SeqCst) != now {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        (number < COUNT).then(|| b"block".to_vec())
    });
    let mut client = worker.connect();
    arrived.watch(&client);
    ask(&mut client);
    assert_eq!(read_body(&mut client), "block".repeat(COUNT));
    let pieces = pieces.load(Ordering::SeqCst);
    assert!(pieces < COUNT / 2, "{COUNT} blocks left in {pieces} pieces");
    worker.stop();
}

#[test]
fn blocks_leave_while_the_next_one_is_still_being_made() {
    for threads in THREADS {
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let worker = start(threads, move |number| match number {
            0..10 => Some(vec![b'0' + number as u8]),
            10 => {
                gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                Some(b"!".to_vec())
            }
            _ => None,
        });
        let mut client = worker.connect();
        ask(&mut client);
        let mut answer = Vec::new();
        while !answer.ends_with(b"0123456789") {
            let mut piece = [0; 1000];
            let count = client.read(&mut piece).unwrap();
            assert!(count > 0, "the connection ended early: {}", answer.escape_ascii());
            answer.extend_from_slice(&piece[..count]);
        }
        open.send(()).unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "!");
        worker.stop();
    }
}

#[test]
fn order_is_kept_whoever_sends() {
    const COUNT: usize = 20_000;
    for threads in THREADS {
        let worker = start(threads, |number| {
            // Sometimes it takes long enough for the loop to be taken, in the middle of blocks that come quickly.
            if number % 500 == 250 {
                std::thread::sleep(Duration::from_millis(3));
            }
            (number < COUNT).then(|| format!("{number} {} ", "x".repeat(number % 300)).into_bytes())
        });
        let clients: Vec<JoinHandle<()>> = (0..3)
            .map(|index| {
                let mut client = worker.connect();
                // One of them is slow: the server's socket is full most of the time.
                std::thread::spawn(move || {
                    ask(&mut client);
                    let mut answer = Vec::new();
                    let mut piece = [0; 8192];
                    while let count @ 1.. = client.read(&mut piece).unwrap() {
                        answer.extend_from_slice(&piece[..count]);
                        if index == 0 {
                            std::thread::sleep(Duration::from_micros(200));
                        }
                    }
                    let text = String::from_utf8(answer).unwrap();
                    let text = text.split_once("\r\n\r\n").expect("a head").1;
                    let numbers: Vec<usize> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
                    assert!(numbers.iter().copied().eq(0..COUNT), "{} of {COUNT} blocks, or out of order", numbers.len());
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        worker.stop();
    }
}

#[test]
fn small_blocks_stop_for_a_client_that_does_not_read() {
    const COUNT: usize = 60_000;
    /// Bytes of one block.
    const BLOCK: usize = 1000;
    // The bytes that fit into the socket and into a block buffer (64 KiB), twice.
    let socket = getsockopt(&UnixStream::pair().unwrap().0, SndBuf).unwrap();
    let most = (socket + 64 * 1024) * 2 / BLOCK;
    assert!(most < COUNT, "the answer fits into the socket");
    let produced = Arc::new(AtomicUsize::new(0));
    let counter = produced.clone();
    let worker = start(1, move |number| {
        counter.fetch_max(number, Ordering::SeqCst);
        (number < COUNT).then(|| vec![b'x'; BLOCK])
    });
    let mut client = worker.connect();
    ask(&mut client);
    let mut last = usize::MAX;
    let deadline = Instant::now() + PATIENCE;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = produced.load(Ordering::SeqCst);
        if now > 0 && std::mem::replace(&mut last, now) == now {
            break;
        }
        assert!(Instant::now() < deadline, "the stream does not come to a halt");
    }
    assert!(last < most, "{last} blocks were produced for a client that reads nothing");
    assert_eq!(read_body(&mut client).len(), COUNT * BLOCK);
    worker.stop();
}
