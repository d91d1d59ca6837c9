//! One server with everything that happens to it: made up from a seed, run, and held against the books.

use std::fmt;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::server::{Running, Server};
use super::ledger::Ledger;
use super::plan::{Flavour, Habits};
use super::random::Random;
use super::session::{Fault, Leaving, Seen, Session};

/// Requests of one client have ids from its number times this on.
const IDS: u32 = 1 << 20;

/// Longest pause before a disturbance, in milliseconds.
const PAUSE_MAX: usize = 2_000;

/// Reloads, upgrades and the like in the life of one server.
const DISTURBANCES: [Signal; 7] =
    [Signal::SIGHUP, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGUSR1, Signal::SIGTTIN, Signal::SIGTTIN, Signal::SIGTTOU];

/// A server, its clients, and what happens meanwhile.
#[derive(Debug)]
pub struct Round {
    seed: u64,
    threads: usize,
    workers: usize,
    /// KiB.
    body_buffer: usize,
    max_requests: usize,
    max_queue: Option<usize>,
    /// Whether workers hand connections over to each other.
    hands_off: bool,
    /// Whether the kernel holds a connection until its first bytes are there.
    defers: bool,
    habits: Habits,
    clients: usize,
    /// Whether signals come.
    disturbed: bool,
}

/// What went through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Requests that were answered whole, or cut as expected.
    pub answered: u64,
    /// Requests whose client left.
    pub left: u64,
    /// Refused ones.
    pub refused: u64,
}

/// What is wrong.
#[derive(Debug)]
struct Failure {
    client: usize,
    session: Option<(usize, String)>,
    what: String,
}

impl Round {
    /// Makes one up.
    pub fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mostly = random.pick(&[Flavour::Quick, Flavour::Mixed, Flavour::Mixed, Flavour::Heavy]);
        let max_requests = if random.percent(25) { random.between(100, 5_000) } else { 0 };
        let disturbed = random.percent(60);
        Self {
            seed,
            threads: random.pick(&[1, 1, 2, 8]),
            workers: random.pick(&[1, 1, 3]),
            body_buffer: random.pick(&[1, 16, 64, 256, 2048]),
            max_requests,
            max_queue: random.percent(8).then(|| random.between(0, 4)),
            // A worker that leaves and cannot hand its connections over closes them.
            hands_off: disturbed || max_requests > 0 || random.percent(50),
            defers: random.percent(70),
            habits: Habits { mostly, writes: random.percent(70) },
            clients: random.pick(&[8, 16, 24, 48]),
            disturbed,
        }
    }

    fn server(&self) -> Server {
        let server = Server::new("differential").workers(self.workers).binds(["127.0.0.1:0", "unix:{temp}/socket"]);
        let marks = server.temp().join("marks");
        fs::write(&marks, "").expect("the temp directory is writable");
        let access = server.temp().join("access");
        let mut options = vec![
            format!("--threads={}", self.threads),
            format!("--body-buffer={}k", self.body_buffer),
            format!("--max-requests={}", self.max_requests),
            format!("--access-logfile={}", access.display()),
            "--access-logformat=%(s)s %(B)s %(r)s".to_owned(),
            // The machine may be busy, and no client is to be forgotten for that.
            "--keep-alive=60".to_owned(),
            "--limit-request-line=16384".to_owned(),
        ];
        options.extend(self.max_queue.map(|count| format!("--max-queue={count}")));
        if !self.hands_off {
            options.push("--no-lending".to_owned());
        }
        if !self.defers {
            options.push("--defer-accept=0".to_owned());
        }
        server.env("DIFFERENTIAL_MARKS", marks.to_str().expect("the temp directory is UTF-8")).options(options)
    }

    /// Runs it; connections begin for so long.
    #[track_caller]
    pub fn run(&self, time: Duration) -> Tally {
        let server = self.server().start();
        let until = Instant::now() + time;
        let failure = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let done = AtomicBool::new(false);
        let books: Vec<Vec<(Session, Vec<Seen>)>> = thread::scope(|scope| {
            let client = |number: usize| {
                let (server, failure, stop) = (&server, &failure, &stop);
                scope.spawn(move || self.client(number, server, failure, stop, until))
            };
            let clients: Vec<_> = (0..self.clients).map(client).collect();
            let disturber = scope.spawn(|| self.disturb(&server, &done));
            let books = clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect();
            done.store(true, Ordering::Relaxed);
            disturber.join().expect("signals can be sent");
            books
        });
        if let Some(failure) = failure.into_inner().expect("nobody panics with it") {
            self.fail(&failure);
        }
        self.settle(server, &books)
    }

    fn client(
        &self,
        number: usize,
        server: &Running,
        failure: &Mutex<Option<Failure>>,
        stop: &AtomicBool,
        until: Instant,
    ) -> Vec<(Session, Vec<Seen>)> {
        let mut random = Random::new(self.seed ^ (number as u64 + 1) << 40);
        let mut id = number as u32 * IDS;
        let mut book = Vec::new();
        for index in 0.. {
            if stop.load(Ordering::Relaxed) || (index > 0 && Instant::now() > until) {
                break;
            }
            let session = Session::random(id, self.habits, &mut random);
            id += session.plans.len() as u32;
            let address = &server.addresses()[usize::from(random.percent(30))];
            match session.run(address, self.max_queue.is_some(), stop) {
                Ok(seen) => book.push((session, seen)),
                Err(Fault { plan, what }) => {
                    let request = describe(&session, index, plan);
                    let failed = Failure { client: number, session: Some((index, request)), what: format!("{what} ({address})") };
                    failure.lock().expect("nobody panics with it").get_or_insert(failed);
                    // It is set after that: the others then fail too, as if nothing came.
                    stop.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        book
    }

    fn disturb(&self, server: &Running, done: &AtomicBool) {
        if !self.disturbed {
            return;
        }
        let mut more = 0;
        let mut random = Random::new(self.seed ^ u64::MAX);
        loop {
            let pause = Duration::from_millis(random.between(20, PAUSE_MAX) as u64);
            let signal = random.pick(&DISTURBANCES);
            let began = Instant::now();
            while began.elapsed() < pause {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
            // Never fewer workers than at the start.
            match signal {
                Signal::SIGTTIN => more += 1,
                Signal::SIGTTOU if more == 0 => continue,
                Signal::SIGTTOU => more -= 1,
                _ => {}
            }
            server.signal(signal);
        }
    }

    /// Stops the server and looks into the books.
    fn settle(&self, server: Running, books: &[Vec<(Session, Vec<Seen>)>]) -> Tally {
        let temp = server.temp().to_owned();
        let read = |name: &str| String::from_utf8_lossy(&fs::read(temp.join(name)).expect("it was made")).into_owned();
        let mut server = server;
        server.signal(Signal::SIGTERM);
        let status = server.wait(Duration::from_secs(60));
        if status.code() != Some(0) {
            self.fail(&Failure { client: 0, session: None, what: format!("the server ended with {status}") });
        }
        let errors = server.log().unexpected(&[]);
        let ledger = Ledger::read(&read("marks"), &read("access"), errors.iter().map(|record| record.text.as_str()));
        let general = |what: String| -> ! { self.fail(&Failure { client: 0, session: None, what }) };
        let mut ledger = ledger.unwrap_or_else(|what| general(what));
        let (mut tally, mut cut) = (Tally::default(), 0);
        for (client, book) in books.iter().enumerate() {
            for (index, (session, seen)) in book.iter().enumerate() {
                cut += usize::from(matches!(session.leaving, Leaving::Sent(..) | Leaving::Received(_)));
                if let Err((plan, what)) = ledger.check(session, seen, self.max_queue.is_some()) {
                    self.fail(&Failure { client, session: Some((index, describe(session, index, plan))), what });
                }
                for seen in seen {
                    match seen {
                        Seen::Answered(_) => tally.answered += 1,
                        Seen::Left(_) | Seen::Unsent => tally.left += 1,
                        Seen::Refused(_) => tally.refused += 1,
                        Seen::Behind => {}
                    }
                }
            }
        }
        if let Err(what) = ledger.finish(cut) {
            general(what);
        }
        tally
    }

    fn fail(&self, failure: &Failure) -> ! {
        let Failure { client, session, what } = failure;
        let request = session.as_ref().map_or_else(String::new, |(_, request)| format!("\nclient {client}, {request}"));
        panic!(
            "{what}{request}\nround: {self}\nto run it again: TAPSTER_DIFFERENTIAL_SEED={} (timing may need some tries)",
            self.seed
        );
    }
}

fn describe(session: &Session, index: usize, plan: usize) -> String {
    let before = plan.checked_sub(1).map_or_else(String::new, |before| format!(", behind {}", session.plans[before]));
    let request = &session.plans[plan];
    let upload = request.upload.as_ref().map_or_else(String::new, |upload| format!(" with {upload:?}"));
    format!("connection {index}, request {plan}: {request}{upload}{before}\nof a connection with {session}")
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
