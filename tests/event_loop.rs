//! The worker's loop without Python: a native application with real sockets, for all that only the loop decides (back-pressure,
//! budgets, deadlines, the drain).

// Alone, because the rest of the harness needs the build's Python.
#[path = "common/native.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod native;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use native::{CountedBlocks, Worker, end, summary, until};
use tapster::channel::{Order, Report};
use tapster::config::Settings;
use tapster::http::framing::Length;
use tapster::http::response::{self, BodyFraming as Encoding, Context, Encoder};
use tapster::http::terms::Terms;
use tapster::worker::app::{App, Blocks, Fate, Outlet, Produced, Reply, Request, Summary};

/// Bytes of one large block; more than any socket buffer takes at once.
const LARGE: usize = 32 * 1024 * 1024;

/// The loop's clock may be late by so much: it stands still within an iteration.
const CLOCK: Duration = Duration::from_millis(50);

/// A drain leaves idle connections so much time, for requests that are on their way.
const IDLE_AT_DRAIN: Duration = Duration::from_millis(500);

/// Attempts at a drain; in one of them the machine does not stand still for most of [`IDLE_AT_DRAIN`].
const DRAINS: usize = 10;

/// The application's record of its calls.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    blocks: AtomicUsize,
    closed: AtomicUsize,
}

/// Answers by path.
struct Native {
    seen: Arc<Seen>,
    file: std::fs::File,
}

impl App for Native {
    fn call(&mut self, request: Request<'_>, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Reply {
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        let context = Context { terms: Terms { head_only: false, ..request.terms }, date: request.date, id: b"" };
        let mut encoder = Encoder::begin(out, &context, b"200 OK").unwrap();
        encoder.field(b"Content-Type", b"text/plain").unwrap();
        let open = || Open(self.seen.clone());
        match request.head.target.of(request.bytes) {
            b"/blocks" => {
                let (open, mut left) = (open(), 0..100);
                Reply::Blocks(Box::new(CountedBlocks::new(encoder.finish(None), move || {
                    left.next()?;
                    open.0.blocks.fetch_add(1, Ordering::SeqCst);
                    Some(vec![b'b'; 100_000])
                })))
            }
            b"/large" => {
                let encoding = encoder.finish(Some(LARGE as u64));
                let block = vec![b'l'; LARGE];
                Reply::Blocks(Box::new(Large { _open: open(), encoding, block, given: false }))
            }
            b"/file" => {
                let len = self.file.metadata().unwrap().len();
                let encoding = encoder.finish(Some(len));
                let file = self.file.try_clone().unwrap();
                Reply::Blocks(Box::new(FileStream { _open: open(), encoding, file, len, given: false }))
            }
            b"/write" => {
                let mut encoding = encoder.finish(None);
                for _ in 0..300 {
                    encoding.block(out, &[b'w'; 100_000]);
                    if outlet.push(out).is_err() {
                        return Reply::Complete(summary(&encoding, Fate::Cut));
                    }
                }
                complete(encoding, out)
            }
            _ => {
                let text = match &request.framing.length {
                    Length::None => "hello".to_owned(),
                    Length::Known(_) | Length::Chunked => format!("body of {}", request.body.len()),
                };
                let mut encoding = encoder.finish(Some(text.len() as u64));
                encoding.block(out, text.as_bytes());
                complete(encoding, out)
            }
        }
    }

    fn release(&mut self) {}

    fn spawn(&self, name: &str, body: Box<dyn FnOnce(Box<dyn App>) + Send>) -> std::io::Result<()> {
        let app = Self { seen: self.seen.clone(), file: self.file.try_clone()? };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || body(Box::new(app))).map(drop)
    }
}

fn complete(mut encoding: Encoding, out: &mut Vec<u8>) -> Reply {
    Reply::Complete(end(&mut encoding, out))
}

/// Counts the end of a stream.
struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// One block that is sent without a copy.
struct Large {
    _open: Open,
    encoding: Encoding,
    block: Vec<u8>,
    given: bool,
}

impl Blocks for Large {
    fn advance(&mut self, out: &mut Vec<u8>, _: &mut dyn Outlet) -> Produced {
        if self.given {
            return Produced::End(end(&mut self.encoding, out));
        }
        self.given = true;
        let len = self.encoding.around(out, self.block.len() as u64).take;
        self.block.truncate(len as usize);
        Produced::LargeBlock
    }

    fn large_block(&self) -> (&[u8], &'static [u8]) {
        (&self.block, &[])
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn summary(&self) -> Summary {
        summary(&self.encoding, Fate::Cut)
    }
}

/// A file that the kernel sends.
struct FileStream {
    _open: Open,
    encoding: Encoding,
    file: std::fs::File,
    len: u64,
    given: bool,
}

impl Blocks for FileStream {
    fn advance(&mut self, out: &mut Vec<u8>, _: &mut dyn Outlet) -> Produced {
        if self.given {
            return Produced::End(end(&mut self.encoding, out));
        }
        self.given = true;
        let len = self.encoding.around(out, self.len).take;
        Produced::File { offset: 0, len }
    }

    fn large_block(&self) -> (&[u8], &'static [u8]) {
        (&[], &[])
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn summary(&self) -> Summary {
        summary(&self.encoding, Fate::Cut)
    }
}

/// A worker and what its application has seen.
struct Served {
    worker: Worker,
    seen: Arc<Seen>,
}

fn start(change: impl FnOnce(&mut Settings)) -> Served {
    let seen = Arc::new(Seen::default());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![b'f'; LARGE]).unwrap();
    let worker = Worker::start(Native { seen: seen.clone(), file }, change);
    Served { worker, seen }
}

impl Served {
    fn connect(&self) -> TcpStream {
        self.worker.connect()
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn stop(self) {
        self.worker.stop();
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Checks that the server closes the connection and sends nothing more. A single read would not do: it ends in EINTR when the
/// machine freezes the process, as it has a timeout (signal(7)).
#[track_caller]
fn assert_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
}

/// Reads one answer that has a Content-Length.
fn read_answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read_exact(&mut byte);
        assert!(read.is_ok(), "{read:?} in a head: {}", head.escape_ascii());
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

#[test]
fn a_connection_serves_request_after_request() {
    let worker = start(|_| {});
    let mut stream = worker.connect();
    for _ in 0..10 {
        stream.write_all(GET.as_bytes()).unwrap();
        let (head, body) = read_answer(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, b"hello");
    }
    worker.stop();
}

#[test]
fn a_request_in_single_bytes_is_served_like_one_in_a_piece() {
    let worker = start(|_| {});
    let request = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n";
    let mut stream = worker.connect();
    stream.set_nodelay(true).unwrap();
    for byte in request.bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_answer(&mut stream).1, b"body of 8");
    worker.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order_also_around_bodies() {
    let worker = start(|_| {});
    let mut stream = worker.connect();
    let mut input = String::new();
    for n in 0..500 {
        input += GET;
        let body = "x".repeat(n);
        input += &format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n{body}");
    }
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(input.as_bytes()).unwrap());
    for n in 0..500 {
        assert_eq!(read_answer(&mut stream).1, b"hello");
        assert_eq!(read_answer(&mut stream).1, format!("body of {n}").as_bytes());
    }
    writing.join().unwrap();
    worker.stop();
}

#[test]
fn a_client_that_does_not_read_stops_the_stream_and_nobody_else() {
    let worker = start(|_| {});
    let mut slow = worker.send("GET /blocks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut other = worker.connect();
    // While the slow client reads nothing, the stream comes to a halt long before its end; others are served meanwhile.
    let mut last = usize::MAX;
    until(|| {
        other.write_all(GET.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut other).1, b"hello");
        std::thread::sleep(Duration::from_millis(20));
        let blocks = worker.seen.blocks.load(Ordering::SeqCst);
        (std::mem::replace(&mut last, blocks) == blocks && blocks > 0).then_some(())
    });
    assert!(last < 100, "the whole answer was produced for a client that reads nothing");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"\r\n0\r\n\r\n"));
    assert_eq!(answer.iter().filter(|&&byte| byte == b'b').count(), 100 * 100_000);
    assert_eq!(until(|| Some(worker.seen.closed.load(Ordering::SeqCst)).filter(|&closed| closed > 0)), 1);
    worker.stop();
}

#[test]
fn a_stream_ends_when_its_client_leaves() {
    let worker = start(|_| {});
    let slow = worker.send("GET /blocks HTTP/1.1\r\nHost: x\r\n\r\n");
    until(|| (worker.seen.blocks.load(Ordering::SeqCst) > 0).then_some(()));
    drop(slow);
    until(|| (worker.seen.closed.load(Ordering::SeqCst) == 1).then_some(()));
    worker.stop();
}

#[test]
fn large_blocks_files_and_written_bytes_arrive_whole() {
    let worker = start(|_| {});
    for (path, byte) in [("/large", b'l'), ("/file", b'f')] {
        let mut stream = worker.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let (_, body) = read_answer(&mut stream);
        assert!(body.len() == LARGE && body.iter().all(|&b| b == byte), "{path}");
        stream.write_all(GET.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).1, b"hello", "the connection serves on behind {path}");
    }
    let mut stream = worker.send("GET /write HTTP/1.0\r\n\r\n");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.iter().filter(|&&byte| byte == b'w').count(), 300 * 100_000);
    worker.stop();
}

#[test]
fn what_a_full_socket_does_not_take_goes_to_no_other_client() {
    let worker = start(|_| {});
    let mut full = worker.send("GET /write HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    until(|| (worker.seen.calls.load(Ordering::SeqCst) == 1).then_some(()));
    let mut other = worker.send(GET);
    assert_eq!(read_answer(&mut other).1, b"hello");
    let mut answer = Vec::new();
    full.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"\r\n0\r\n\r\n"), "the last chunk is missing");
    worker.stop();
}

#[test]
fn a_client_that_takes_nothing_is_cut_after_the_write_timeout() {
    let worker = start(|settings| settings.write_timeout = Duration::from_millis(300));
    let _slow = worker.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    until(|| (worker.seen.closed.load(Ordering::SeqCst) == 1).then_some(()));
    worker.stop();
}

#[test]
fn half_a_head_is_answered_with_408_and_silence_is_closed() {
    let worker = start(|settings| settings.header_timeout = Duration::from_millis(300));
    let mut half = worker.send("GET / HTTP/1.1\r\nHos");
    let mut silent = worker.connect();
    assert!(read_answer(&mut half).0.starts_with("HTTP/1.1 408 "));
    assert_closed(&mut silent);
    worker.stop();
}

#[test]
fn half_a_body_is_answered_with_408() {
    let worker = start(|settings| settings.body_timeout = Duration::from_millis(300));
    let mut half = worker.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    assert!(read_answer(&mut half).0.starts_with("HTTP/1.1 408 "));
    assert_eq!(worker.seen.calls.load(Ordering::SeqCst), 0);
    worker.stop();
}

#[test]
fn an_idle_connection_is_closed_after_its_keep_alive_time_only() {
    // More than a busy machine stands still between two requests.
    let keep_alive = Duration::from_secs(2);
    let worker = start(|settings| settings.keep_alive = keep_alive);
    let mut stream = worker.connect();
    let mut last = Instant::now();
    for _ in 0..5 {
        // The server counts from the iteration in which it answers, which may be long over when the answer is read.
        last = Instant::now();
        stream.write_all(GET.as_bytes()).unwrap();
        read_answer(&mut stream);
    }
    assert_closed(&mut stream);
    assert!(last.elapsed() >= keep_alive - CLOCK, "closed after {:?}", last.elapsed());
    worker.stop();
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read_and_the_client_sees_why() {
    let worker = start(|settings| settings.limit_request_body = 1000);
    let mut stream = worker.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n");
    stream.write_all(&vec![b'x'; 3_000_000]).unwrap();
    assert!(read_answer(&mut stream).0.starts_with("HTTP/1.1 413 "));
    assert_closed(&mut stream);
    assert_eq!(worker.seen.calls.load(Ordering::SeqCst), 0);
    worker.stop();
}

#[test]
fn continue_is_sent_once_and_only_to_a_client_that_waits() {
    let worker = start(|_| {});
    let head = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut waiting = worker.send(head);
    let mut interim = [0; response::CONTINUE.len()];
    waiting.read_exact(&mut interim).unwrap();
    assert_eq!(interim, *response::CONTINUE);
    waiting.write_all(b"bo").unwrap();
    waiting.write_all(b"dy").unwrap();
    assert_eq!(read_answer(&mut waiting).1, b"body of 4");
    let mut eager = worker.send(&format!("{head}body"));
    let (head, body) = read_answer(&mut eager);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, b"body of 4");
    worker.stop();
}

/// Drains a worker; whether that went so quickly that the request on an idle connection was still on its way in time.
fn drain() -> bool {
    let worker = start(|settings| settings.defer_accept = Duration::ZERO);
    let mut kept = worker.send(GET);
    read_answer(&mut kept);
    let mut half = worker.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n");
    let queued: Vec<TcpStream> = (0..20).map(|_| worker.send(GET)).collect();
    let began = Instant::now();
    worker.worker.master.send(Order::Drain).unwrap();
    worker.worker.await_report(&Report::Draining);
    // Fails when the server has closed it, for which it had reason then.
    let sent = kept.write_all(GET.as_bytes());
    let in_time = began.elapsed() < IDLE_AT_DRAIN - CLOCK;
    half.write_all(b"body").unwrap();
    let (head, body) = read_answer(&mut half);
    assert!(head.contains("Connection: close\r\n"), "{head}");
    assert_eq!(body, b"body of 4");
    for mut stream in queued {
        assert_eq!(read_answer(&mut stream).1, b"hello");
    }
    if in_time {
        sent.unwrap();
        assert!(read_answer(&mut kept).0.contains("Connection: close\r\n"), "a request on its way is answered");
    }
    worker.worker.ended();
    in_time
}

#[test]
fn a_drain_answers_what_was_accepted_and_what_is_queued() {
    assert!((0..DRAINS).any(|_| drain()), "in {DRAINS} drains the machine was too slow");
}

#[test]
fn connections_beyond_the_limit_wait_and_are_served_later() {
    let worker = start(|settings| {
        settings.worker_connections = 2;
        settings.keep_alive = Duration::from_millis(200);
    });
    let streams: Vec<TcpStream> = (0..10).map(|_| worker.send(GET)).collect();
    for mut stream in streams {
        assert_eq!(read_answer(&mut stream).1, b"hello");
    }
    worker.stop();
}
