//! Calls a real application in a real interpreter without sockets: a request is raw bytes, what would go on the wire is
//! collected. One thread of the test process owns the interpreter; tests hand it work.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use tapster::channel::BootError;
use tapster::config::Level;
use tapster::config::{AppSpec, Code, LogTarget, Settings};
use tapster::http::framing::Length;
use tapster::http::head::{Head, HeadView, Limits, Parsed, Progress};
use tapster::http::header_cache::HeaderCache;
use tapster::http::terms::Terms;
use tapster::log::error::{Log, Who};
use tapster::log::sink::Sink;
use tapster::worker::app::{
    App, BodyFile, Client, Fate, Gone, Outlet, Peer, Produced, Renounce, Reply, Request, RequestBody, Summary, WorkerFacts,
};
use tapster::wsgi::{AppStart, ListenerEnviron, Wsgi};

/// Value of the Date field in every answer.
pub const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

const LIMITS: Limits = Limits { request_line: 8190, fields: 100, field_size: 8190 };

type Job = Box<dyn FnOnce() + Send>;

/// Runs a closure on the thread that owns the interpreter.
#[track_caller]
pub fn with_python<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    static THREAD: OnceLock<Sender<Job>> = OnceLock::new();
    let jobs = THREAD.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        thread::spawn(move || receiver.into_iter().for_each(|job| job()));
        sender
    });
    let (sender, receiver) = channel();
    let job = move || drop(sender.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))));
    jobs.send(Box::new(job)).expect("the thread lives as long as the process");
    match receiver.recv().expect("every job answers") {
        Ok(value) => value,
        // Once more here: the output of the other thread is not captured with that of the test.
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(message), _) => panic!("{message}"),
            (None, Some(message)) => panic!("{message}"),
            (None, None) => std::panic::resume_unwind(panic),
        },
    }
}

/// A loaded application with its log. Stays on the interpreter's thread.
pub struct Server {
    pub app: Box<dyn App>,
    pub blocks: HeaderCache,
    pub dir: tempfile::TempDir,
}

/// How the server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    pub workers: usize,
    pub listeners: Vec<ListenerEnviron>,
    pub environ_names: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 1, listeners: vec![listener("testing", "8000")], environ_names: Vec::new() }
    }
}

/// A TCP listener of this name and port.
pub fn listener(name: &str, port: &str) -> ListenerEnviron {
    ListenerEnviron { name: name.to_owned(), port: port.to_owned(), is_encrypted: false }
}

pub fn log(dir: &Path) -> Log {
    let sink = Sink::open(&LogTarget::File(dir.join("error.log"))).expect("the test's directory is writable");
    Log::new(Arc::new(sink), Level::Debug, Who::Worker(0))
}

/// Loads what APP names, with the test's directory as base of file names.
pub fn boot(dir: &Path, app: AppSpec, options: Options) -> Result<Box<dyn App>, BootError> {
    let settings = Settings { app, ..Settings::default() };
    let renounce: Renounce = Arc::new(|| ());
    let Options { workers, listeners, environ_names } = options;
    Wsgi::new(AppStart {
        settings: &settings,
        listeners,
        workers,
        run_once: false,
        renounce: &renounce,
        told: None,
        facts: &WorkerFacts { age: 1, requests: Arc::new(|| 0) },
        log: log(dir),
        environ_names,
        stacks: None,
    })
}

impl Server {
    /// Serves a Python source that defines `app`.
    #[track_caller]
    pub fn new(source: &str) -> Self {
        Self::with(source, Options::default())
    }

    #[track_caller]
    pub fn with(source: &str, options: Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("tested.py");
        fs::write(&path, source).expect("the test's directory is writable");
        let app = AppSpec::Target { code: Code::File(path), callable: None, text: "tested.py".into() };
        let app = boot(dir.path(), app, options).unwrap_or_else(|error| panic!("{}", error.text));
        Self::of(app, dir)
    }

    /// Serves an application that was loaded with this directory.
    pub fn of(app: Box<dyn App>, dir: tempfile::TempDir) -> Self {
        Self { app, blocks: HeaderCache::new(0), dir }
    }

    /// What the error log holds.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }

    /// A file that the application wrote into the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One request to its end.
    #[track_caller]
    pub fn get(&mut self, request: &str) -> Answer {
        self.call(request.as_bytes(), &Setup::default())
    }

    #[track_caller]
    pub fn call(&mut self, raw: &[u8], setup: &Setup) -> Answer {
        let mut out = Vec::new();
        let mut sent = Sent { wire: Vec::new(), pushes: 0, left: setup.leave_after };
        let (mut steps, mut held) = (0, 0);
        let summary = match self.begin(raw, setup, &mut out, &mut sent) {
            Reply::Complete(summary) => summary,
            Reply::Blocks(mut stream) => loop {
                steps += 1;
                if setup.drop_after.is_some_and(|after| steps > after) {
                    let summary = stream.summary();
                    drop(stream);
                    break summary;
                }
                match stream.advance(&mut out, &mut sent) {
                    Produced::Rendered => {}
                    Produced::LargeBlock => {
                        held += 1;
                        let (block, suffix) = stream.large_block();
                        out.extend_from_slice(block);
                        out.extend_from_slice(suffix);
                    }
                    Produced::File { offset, len } => {
                        let mut file =
                            fs::File::from(stream.file().expect("announced").try_clone_to_owned().expect("a descriptor"));
                        file.seek(SeekFrom::Start(offset)).expect("a regular file");
                        file.take(len).read_to_end(&mut out).expect("readable");
                    }
                    Produced::End(summary) => break summary,
                }
            },
        };
        sent.wire.append(&mut out);
        Answer { bytes: sent.wire, summary, pushes: sent.pushes, steps, held }
    }

    /// The call alone; the caller drives the stream.
    #[track_caller]
    pub fn begin(&mut self, raw: &[u8], setup: &Setup, out: &mut Vec<u8>, outlet: &mut dyn Outlet) -> Reply {
        let mut head = Head::default();
        let parsed = self.blocks.resume(&mut head, raw, &LIMITS, &mut Progress::default());
        let parsed = parsed.unwrap_or_else(|error| panic!("the test's request is refused: {error}"));
        assert_eq!(parsed, Parsed::Complete, "the test's request has no complete head");
        let framing = self.blocks.framing(&head, raw);
        let (framing, block) = framing.unwrap_or_else(|error| panic!("the test's request is refused: {error}"));
        let body = &raw[head.len..];
        let body = match (framing.length, setup.spool) {
            (Length::None, _) => RequestBody::Empty,
            (_, _) if body.is_empty() => RequestBody::Empty,
            (_, false) => RequestBody::Memory(body.to_vec()),
            (_, true) => {
                let mut file = tempfile::tempfile().expect("a temporary file");
                // Left at its end, as by somebody who has just written it.
                file.write_all(body).expect("writable");
                RequestBody::File(BodyFile { file, len: body.len() as u64, guard: Box::new(()) })
            }
        };
        let request = Request {
            bytes: raw,
            head: &head,
            block,
            framing,
            peer: &setup.peer,
            tls: None,
            client: Arc::new(Staying),
            listener: setup.listener,
            terms: Terms::of(HeadView { head: &head, bytes: raw }, setup.persistent && framing.persistent),
            date: DATE.as_bytes(),
            body,
            upgrade: None,
        };
        self.app.call(request, out, outlet)
    }
}

/// What is special about a request. A chunked one is given with its body already decoded.
pub struct Setup {
    pub peer: Peer,
    pub listener: usize,
    pub persistent: bool,
    pub spool: bool,
    /// Drop the stream after so many steps: the client has left.
    pub drop_after: Option<usize>,
    /// The client leaves after so many pushes of `write()`.
    pub leave_after: Option<usize>,
}

impl Default for Setup {
    fn default() -> Self {
        let peer = Peer { addr: "127.0.0.1".into(), port: "50000".into(), trusted: false, proxy: None };
        Self { peer, listener: 0, persistent: true, spool: false, drop_after: None, leave_after: None }
    }
}

/// A client that stays.
struct Staying;

impl Client for Staying {
    fn has_left(&self) -> bool {
        false
    }
}

/// The socket of `write()`.
pub struct Sent {
    pub wire: Vec<u8>,
    pub pushes: usize,
    pub left: Option<usize>,
}

impl Outlet for Sent {
    fn push(&mut self, out: &mut Vec<u8>) -> Result<(), Gone> {
        if self.left.is_some_and(|left| self.pushes >= left) {
            return Err(Gone::Client);
        }
        self.pushes += 1;
        self.wire.append(out);
        Ok(())
    }
}

/// What went on the wire.
#[derive(Debug)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub summary: Summary,
    pub pushes: usize,
    pub steps: usize,
    pub held: usize,
}

impl Answer {
    pub fn head(&self) -> String {
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(self.bytes.len(), |end| end + 2);
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }

    /// What follows the head, chunks and all.
    pub fn raw_body(&self) -> &[u8] {
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(self.bytes.len(), |end| end + 4);
        &self.bytes[end..]
    }

    /// The body as text, chunked coding removed.
    pub fn body(&self) -> String {
        let mut raw = self.raw_body();
        if self.field("Transfer-Encoding").is_none() {
            return String::from_utf8_lossy(raw).into_owned();
        }
        let mut body = Vec::new();
        while let Some(line) = raw.windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&raw[..line])
                .ok()
                .and_then(|size| usize::from_str_radix(size, 16).ok())
                .expect("a chunk size");
            body.extend_from_slice(&raw[line + 2..][..size]);
            raw = &raw[line + 2 + size + 2..];
            if size == 0 {
                break;
            }
        }
        String::from_utf8_lossy(&body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<String> {
        let head = self.head();
        head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }

    pub fn status(&self) -> u16 {
        let head = self.head();
        head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// All that went on the wire.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// A good, complete answer that keeps the connection.
    #[track_caller]
    pub fn expect_ok(&self, body: &str) {
        assert_eq!((self.status(), self.body().as_str(), self.summary.fate), (200, body, Fate::Keep), "{}", self.head());
        assert_eq!(self.summary.status, 200);
    }
}
