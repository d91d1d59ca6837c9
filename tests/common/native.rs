//! A worker on a thread of the test's own process, with an application without Python.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tapster::channel::{self, Heard, MasterEnd, Order, Report};
use tapster::config::Level;
use tapster::config::{Bind, Endpoint, LogTarget, Settings};
use tapster::http::response::{BodyFraming, End};
use tapster::log::error::{Log, Who};
use tapster::log::sink::Sink;
use tapster::net::bind;
use tapster::net::listener::Address;
use tapster::scoreboard::Scoreboard;
use tapster::sys::signals::Blocked;
use tapster::worker::app::{App, Blocks, Fate, Outlet, Produced, Summary};
use tapster::worker::{self, Boot};

/// Longest time that a step of such a test may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the worker calls its application.
const NAME: &str = "native";

/// A worker on a thread.
pub struct Worker {
    /// The master's end of its channel.
    pub master: MasterEnd,
    /// Where it listens.
    pub address: Address,
    /// Its published state, in slot 0.
    pub scoreboard: Arc<Scoreboard>,
    thread: JoinHandle<i32>,
    /// Longest time that one of its steps may take.
    patience: Duration,
}

impl Worker {
    /// A worker with this application on 127.0.0.1 and a free port, unless `change` says otherwise; returns when it is ready.
    pub fn start(app: impl App + Send + 'static, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_within(PATIENCE, app, change)
    }

    /// The same; each of its steps may take as long as `patience`.
    pub fn start_within(patience: Duration, app: impl App + Send + 'static, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings =
            Settings { binds: vec![Bind::plain(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 0 })], ..Settings::default() };
        change(&mut settings);
        let listeners = bind::bind_all(&settings).unwrap();
        let address = listeners[0].address().clone();
        let (master, end) = channel::pair().unwrap();
        let members = settings.all_threads();
        let scoreboard = Arc::new(Scoreboard::new(1, members).unwrap());
        // As a master does for a new worker.
        scoreboard.reset(0, std::process::id());
        let boot = Boot {
            age: 1,
            stands_in: false,
            settings: Arc::new(settings),
            listeners,
            queue: tapster::handoff::Queue::new().unwrap(),
            slot: 0,
            workers: 1,
            scoreboard: scoreboard.clone(),
            channel: end,
            signals: Blocked::all().unwrap(),
            log: Log::new(Arc::new(Sink::open(&LogTarget::Stderr).unwrap()), Level::Debug, Who::Worker(0)),
            access: None,
            stacks: tempfile::tempfile().unwrap(),
            tls: None,
            mold: None,
        };
        let thread = std::thread::spawn(move || worker::run(boot, |_| Ok((Box::new(app) as Box<dyn App>, NAME.to_owned()))));
        let worker = Self { master, address, scoreboard, thread, patience };
        worker.await_report(&Report::Ready(NAME.to_owned()));
        worker
    }

    /// Its TCP address.
    #[track_caller]
    pub fn tcp(&self) -> SocketAddr {
        let Address::Tcp(address) = self.address else { panic!("bound to {}", self.address) };
        address
    }

    /// A connection to it.
    pub fn connect(&self) -> TcpStream {
        connect(self.tcp())
    }

    /// Waits for what the worker says next.
    #[track_caller]
    pub fn await_report(&self, expected: &Report) {
        let heard = until_within(self.patience, || Some(self.master.receive()).filter(|heard| *heard != Heard::Nothing));
        assert_eq!(heard, Heard::Report(expected.clone()));
    }

    /// Orders a drain and waits for the end of the worker.
    #[track_caller]
    pub fn stop(self) {
        self.master.send(Order::Drain).unwrap();
        self.ended();
    }

    /// Waits for the end of the worker.
    #[track_caller]
    pub fn ended(self) {
        let (sender, receiver) = mpsc::channel();
        let thread = self.thread;
        std::thread::spawn(move || sender.send(thread.join().unwrap()));
        assert_eq!(receiver.recv_timeout(self.patience), Ok(0));
    }
}

/// A connection whose reads and writes fail after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Polls a condition that another thread fulfils.
#[track_caller]
pub fn until<T>(condition: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, condition)
}

#[track_caller]
fn until_within<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "the condition was not met in {patience:?}");
        std::thread::yield_now();
    }
}

/// Ends a body; returns the worker's result.
pub fn end(encoding: &mut BodyFraming, out: &mut Vec<u8>) -> Summary {
    let fate = match encoding.end(out) {
        End::Complete { persistent: true } => Fate::Keep,
        End::Complete { persistent: false } => Fate::Close,
        End::Short(_) => Fate::Cut,
    };
    summary(encoding, fate)
}

/// The facts about the part of a body that was sent so far.
pub fn summary(encoding: &BodyFraming, fate: Fate) -> Summary {
    Summary { status: 200, sent: encoding.sent(), fate, ..Summary::default() }
}

/// A stream of blocks that are rendered into the worker's output, as `next` gives them; dropped with what `next` holds.
pub struct CountedBlocks<F> {
    encoding: BodyFraming,
    next: F,
}

impl<F: FnMut() -> Option<Vec<u8>> + Send> CountedBlocks<F> {
    /// `next` gives a block each time; `None`: the end.
    pub fn new(encoding: BodyFraming, next: F) -> Self {
        Self { encoding, next }
    }
}

impl<F: FnMut() -> Option<Vec<u8>> + Send> Blocks for CountedBlocks<F> {
    fn advance(&mut self, out: &mut Vec<u8>, _: &mut dyn Outlet) -> Produced {
        let Some(block) = (self.next)() else {
            return Produced::End(end(&mut self.encoding, out));
        };
        self.encoding.block(out, &block);
        Produced::Rendered
    }

    fn large_block(&self) -> (&[u8], &'static [u8]) {
        (&[], &[])
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn summary(&self) -> Summary {
        summary(&self.encoding, Fate::Cut)
    }
}
