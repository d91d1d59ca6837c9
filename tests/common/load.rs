//! A load client that counts: every answer that is missing, cut, wrong or late is a failure, with the worker it belongs to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{Address, Client};
use super::clock::Clock;
use super::procfs;

/// Response field in which the test applications name the worker's process id.
pub const WORKER_FIELD: &str = "x-worker";

/// Pause after a refused connection, so that a server that is away is not flooded.
const AFTER_REFUSAL: Duration = Duration::from_millis(2);

/// A connection without a request for so long is not used again: a server that drains closes it soon (after 500 ms without a
/// request), and a client that did not run for a while would meet that close.
const UNUSED: Duration = Duration::from_millis(250);

/// What a client sees whose connection is cut.
const CUT: [&str; 3] = ["closed before the end of the head", "Connection reset by peer", "Broken pipe"];

/// Longest wait for any number of answers, as long as they come.
const ENOUGH: Duration = Duration::from_secs(120);

/// What to send.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub address: Address,
    /// Parallel clients, each with one request at a time.
    pub clients: usize,
    /// Whether a connection serves more than one request.
    pub keep_alive: bool,
    /// Request target.
    pub target: String,
    /// Pause of each client between two requests.
    pub pause: Duration,
    /// Processes whose waits for a processor count for no answer: the workers, where the longest wait is judged.
    pub starved: Vec<i32>,
}

/// One request without the right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Worker of the connection, when it had answered on it before.
    pub worker: Option<i32>,
    /// What happened.
    pub what: String,
    /// How long the server had waited for this request when it was sent: since the connection, or the request before it, was
    /// begun.
    pub late: Duration,
}

/// The answers to a load.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Right answers.
    pub ok: u64,
    /// All others.
    pub failures: Vec<Failure>,
    /// Right answers by worker.
    pub by_worker: BTreeMap<i32, u64>,
    /// Longest wait for an answer, by a [`Clock`], without that of [`Plan::starved`].
    pub slowest: Duration,
    /// Longest time in which no client was answered, by a [`Clock`].
    pub gap: Duration,
}

/// When the last right answer came, and the longest time between two.
#[derive(Debug, Default)]
struct Gaps {
    last: Duration,
    longest: Duration,
}

impl Gaps {
    fn look(&mut self, clock: &Clock) {
        let now = clock.now();
        self.longest = self.longest.max(now.saturating_sub(self.last));
        self.last = now;
    }
}

/// The state that the clients of a load share.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    served: AtomicU64,
    clock: Arc<Clock>,
    gaps: Mutex<Gaps>,
}

impl Shared {
    fn look(&self) -> Duration {
        let mut gaps = self.gaps.lock().expect("nobody panics with it");
        gaps.look(&self.clock);
        gaps.longest
    }
}

/// A connection between two requests.
struct Open {
    client: Client,
    /// The worker that has answered on it.
    worker: Option<i32>,
    /// When it, or the last request on it, was begun.
    since: Instant,
}

/// A load that runs until it is stopped.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Plan {
    /// A load of GETs for `/` on keep-alive connections without pauses.
    pub fn new(address: &Address) -> Self {
        Self {
            address: address.clone(),
            clients: 8,
            keep_alive: true,
            target: "/".to_owned(),
            pause: Duration::ZERO,
            starved: Vec::new(),
        }
    }

    /// Starts it.
    pub fn start(self) -> Load {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            served: AtomicU64::new(0),
            clock: Clock::start(),
            gaps: Mutex::new(Gaps::default()),
        });
        let client = |_| {
            let (plan, shared) = (self.clone(), shared.clone());
            thread::spawn(move || plan.client(&shared))
        };
        let threads = (0..self.clients).map(client).collect();
        Load { shared, threads }
    }

    /// How long each thread of the starved processes has waited for a processor.
    fn waits(&self) -> Vec<(String, Duration)> {
        self.starved.iter().flat_map(|pid| procfs::processor_waits(*pid)).collect()
    }

    fn client(&self, shared: &Shared) -> Tally {
        let close = if self.keep_alive { "" } else { "Connection: close\r\n" };
        let request = format!("GET {} HTTP/1.1\r\nHost: load\r\n{close}\r\n", self.target);
        let mut tally = Tally::default();
        let mut kept: Option<Open> = None;
        while !shared.stop.load(Ordering::Relaxed) {
            let before = self.waits();
            let (began, asked) = (Instant::now(), shared.clock.now());
            let connect = || Client::try_connect(&self.address).map(|client| Open { client, worker: None, since: began });
            let usable = kept.take().filter(|open| open.since.elapsed() < UNUSED);
            let Open { mut client, worker: known, since } = match usable.map_or_else(connect, Ok) {
                Ok(open) => open,
                Err(error) => {
                    tally.failures.push(Failure { worker: None, what: format!("connect: {error}"), late: Duration::ZERO });
                    thread::sleep(AFTER_REFUSAL);
                    continue;
                }
            };
            let sent = client.try_send(request.as_bytes());
            let late = since.elapsed();
            let answer = sent.and_then(|()| client.try_response_to("GET"));
            let took = shared.clock.now().saturating_sub(asked);
            if took > tally.slowest {
                // One thread has it at a time; which one is not known.
                let since = |(thread, wait): (String, Duration)| {
                    let known = before.iter().find(|(other, _)| *other == thread);
                    wait.saturating_sub(known.map_or(Duration::ZERO, |(_, before)| *before))
                };
                let longest = self.waits().into_iter().map(since).max().unwrap_or_default();
                tally.slowest = tally.slowest.max(took.saturating_sub(longest));
            }
            match answer {
                Ok(response) if response.status == 200 && response.complete => {
                    let worker = response.field(WORKER_FIELD).and_then(|pid| pid.parse().ok());
                    tally.ok += 1;
                    shared.served.fetch_add(1, Ordering::Relaxed);
                    shared.look();
                    if let Some(pid) = worker {
                        *tally.by_worker.entry(pid).or_default() += 1;
                    }
                    if self.keep_alive && !response.closes() {
                        kept = Some(Open { client, worker, since: began });
                    }
                }
                Ok(response) => tally.failures.push(Failure { worker: known, what: format!("{response:?}"), late }),
                Err(error) => tally.failures.push(Failure { worker: known, what: error.to_string(), late }),
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
        }
        tally
    }
}

impl Load {
    /// Requests that were answered rightly so far.
    fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Waits until `count` more requests were answered rightly; how long that takes is the machine's, as long as answers come.
    #[track_caller]
    pub fn wait_for_more(&self, count: u64) {
        let target = self.served() + count;
        let (mut seen, mut at) = (self.served(), Instant::now());
        super::wait_for("answers under load", ENOUGH, || {
            let served = self.served();
            if served != seen {
                (seen, at) = (served, Instant::now());
            }
            assert!(at.elapsed() < super::SOON, "no answer under load for {:?}", super::SOON);
            (served >= target).then_some(())
        });
    }

    /// Stops it and adds up.
    pub fn stop(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally { gap: self.shared.look(), ..Tally::default() };
        for thread in self.threads {
            let tally = thread.join().expect("a load client does not panic");
            sum.ok += tally.ok;
            sum.failures.extend(tally.failures);
            sum.slowest = sum.slowest.max(tally.slowest);
            for (pid, count) in tally.by_worker {
                *sum.by_worker.entry(pid).or_default() += count;
            }
        }
        sum
    }
}

impl Failure {
    /// Whether the connection was cut.
    pub fn is_cut(&self) -> bool {
        CUT.iter().any(|what| self.what.starts_with(what))
    }
}

impl Tally {
    /// Fails the test unless every request was answered rightly.
    #[track_caller]
    pub fn assert_flawless(&self) {
        assert!(
            self.failures.is_empty(),
            "{} of {}: {:#?}",
            self.failures.len(),
            self.ok,
            &self.failures[..self.failures.len().min(5)]
        );
        assert!(self.ok > 0, "nothing was asked");
    }
}
