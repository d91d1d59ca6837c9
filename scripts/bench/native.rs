//! Tapster's worker with an application that is a constant: what the same loop, parser and encoder cost without Python.
//! Listens at HOST:PORT until it is told to end.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use tapster::channel::{self, Heard, MasterEnd, Order, Report};
use tapster::config::Level;
use tapster::config::{Bind, Endpoint, LogTarget, Settings};
use tapster::http::response::{Context, Encoder, End};
use tapster::http::terms::Terms;
use tapster::log::error::{Log, Who};
use tapster::log::sink::Sink;
use tapster::net::bind;
use tapster::scoreboard::Scoreboard;
use tapster::sys::memory::file_of;
use tapster::sys::signals::Blocked;
use tapster::worker::app::{App, Fate, Outlet, Reply, Request, Summary};
use tapster::worker::{self, Boot};

/// The answer of tests/apps/hello.py.
const BODY: &[u8] = b"Hello World!\n";

/// Seconds that an idle connection is kept, as the other servers of the comparison are told to.
const KEEP_ALIVE: u64 = 300;

struct Hello;

impl App for Hello {
    fn call(&mut self, request: Request<'_>, out: &mut Vec<u8>, _outlet: &mut dyn Outlet) -> Reply {
        let context = Context { terms: Terms { head_only: false, ..request.terms }, date: request.date, id: b"" };
        let mut encoder = Encoder::begin(out, &context, b"200 OK").expect("a plain status");
        encoder.field(b"Content-Type", b"text/plain").expect("a plain field");
        encoder.field(b"Content-Length", b"13").expect("a plain field");
        let mut body = encoder.finish(None);
        body.block(out, BODY);
        let fate = match body.end(out) {
            End::Complete { persistent: true } => Fate::Keep,
            End::Complete { persistent: false } => Fate::Close,
            End::Short(_) => Fate::Cut,
        };
        Reply::Complete(Summary { status: 200, sent: body.sent(), fate, ..Summary::default() })
    }

    fn release(&mut self) {}

    fn spawn(&self, name: &str, body: Box<dyn FnOnce(Box<dyn App>) + Send>) -> std::io::Result<()> {
        std::thread::Builder::new().name(name.to_owned()).spawn(|| body(Box::new(Self))).map(drop)
    }
}

/// A worker passes SIGTERM on to its master, and leaves when that says so.
fn end_when_told(master: &MasterEnd) {
    loop {
        // An error shows at the next step.
        let _ = poll(&mut [PollFd::new(master.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        match master.receive() {
            Heard::Report(Report::Dismissed) => master.send(Order::Quit).expect("the worker is there"),
            Heard::Report(_) | Heard::Nothing => {}
            Heard::End | Heard::Breach(_) => return,
        }
    }
}

fn main() -> ExitCode {
    let address = std::env::args().nth(1).and_then(|address| {
        let (host, port) = address.rsplit_once(':')?;
        Some(Bind::plain(Endpoint::Tcp { host: host.to_owned(), port: port.parse().ok()? }))
    });
    let Some(bind) = address else {
        eprintln!("usage: native HOST:PORT");
        return ExitCode::from(2);
    };
    let keep_alive = std::time::Duration::from_secs(KEEP_ALIVE);
    let settings = Settings { binds: vec![bind], keep_alive, ..Settings::default() };
    let (master, end) = channel::pair().expect("a socketpair");
    let sink = Sink::open(&LogTarget::Stderr).expect("standard error");
    let members = settings.all_threads();
    let boot = Boot {
        age: 1,
        stands_in: false,
        stacks: file_of(c"stacks", b"").expect("a file in memory"),
        listeners: bind::bind_all(&settings).unwrap_or_else(|error| panic!("{error}")),
        settings: Arc::new(settings),
        queue: tapster::handoff::Queue::new().expect("a socketpair"),
        slot: 0,
        workers: 1,
        scoreboard: Arc::new(Scoreboard::new(1, members).expect("shared memory")),
        channel: end,
        signals: Blocked::all().expect("a signal mask"),
        log: Log::new(Arc::new(sink), Level::Warning, Who::Worker(0)),
        access: None,
        tls: None,
        mold: None,
    };
    std::thread::spawn(move || end_when_told(&master));
    let code = worker::run(boot, |_| Ok((Box::new(Hello) as Box<dyn App>, "native".to_owned())));
    ExitCode::from(code as u8)
}
