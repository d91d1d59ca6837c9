//! A load client that counts: every answer that is missing, cut, wrong or late is a failure, with the worker it belongs to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{Address, Client};

/// Response field in which the test applications name the worker's process id.
pub const WORKER_FIELD: &str = "x-worker";

/// Pause after a refused connection, so that a server that is away is not flooded.
const AFTER_REFUSAL: Duration = Duration::from_millis(2);

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
}

/// One request without the right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Worker of the connection, when it had answered on it before.
    pub worker: Option<i32>,
    /// What happened.
    pub what: String,
}

/// What a load was answered with.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Right answers.
    pub ok: u64,
    /// All others.
    pub failures: Vec<Failure>,
    /// Right answers by worker.
    pub by_worker: BTreeMap<i32, u64>,
    /// Longest wait for an answer.
    pub slowest: Duration,
    /// Longest time in which no client was answered.
    pub gap: Duration,
}

/// When the last right answer came, and the longest time between two.
#[derive(Debug)]
struct Gaps {
    last: Instant,
    longest: Duration,
}

impl Gaps {
    fn look(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now.duration_since(self.last));
        self.last = now;
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    gaps: Arc<Mutex<Gaps>>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Plan {
    /// A load of GETs for `/` on keep-alive connections without pauses.
    pub fn new(address: &Address) -> Self {
        Self { address: address.clone(), clients: 8, keep_alive: true, target: "/".to_owned(), pause: Duration::ZERO }
    }

    /// Starts it.
    pub fn start(self) -> Load {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let gaps = Arc::new(Mutex::new(Gaps { last: Instant::now(), longest: Duration::ZERO }));
        let client = |_| {
            let (plan, stop, served, gaps) = (self.clone(), stop.clone(), served.clone(), gaps.clone());
            thread::spawn(move || plan.client(&stop, &served, &gaps))
        };
        let threads = (0..self.clients).map(client).collect();
        Load { stop, served, gaps, threads }
    }

    fn client(&self, stop: &AtomicBool, served: &AtomicU64, gaps: &Mutex<Gaps>) -> Tally {
        let close = if self.keep_alive { "" } else { "Connection: close\r\n" };
        let request = format!("GET {} HTTP/1.1\r\nHost: load\r\n{close}\r\n", self.target);
        let mut tally = Tally::default();
        let mut open: Option<(Client, Option<i32>)> = None;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let (mut client, known) = match open.take().map_or_else(|| Client::try_connect(&self.address).map(|c| (c, None)), Ok)
            {
                Ok(connection) => connection,
                Err(error) => {
                    tally.failures.push(Failure { worker: None, what: format!("connect: {error}") });
                    thread::sleep(AFTER_REFUSAL);
                    continue;
                }
            };
            let answer = client.try_send(request.as_bytes()).and_then(|()| client.try_response_to("GET"));
            tally.slowest = tally.slowest.max(began.elapsed());
            match answer {
                Ok(response) if response.status == 200 && response.complete => {
                    let worker = response.field(WORKER_FIELD).and_then(|pid| pid.parse().ok());
                    tally.ok += 1;
                    served.fetch_add(1, Ordering::Relaxed);
                    gaps.lock().expect("nobody panics with it").look();
                    if let Some(pid) = worker {
                        *tally.by_worker.entry(pid).or_default() += 1;
                    }
                    if self.keep_alive && !response.closes() {
                        open = Some((client, worker));
                    }
                }
                Ok(response) => tally.failures.push(Failure { worker: known, what: format!("{response:?}") }),
                Err(error) => tally.failures.push(Failure { worker: known, what: error.to_string() }),
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
        }
        tally
    }
}

impl Load {
    /// Waits until `count` more requests were answered rightly.
    #[track_caller]
    pub fn wait_for_more(&self, count: u64) {
        let target = self.served.load(Ordering::Relaxed) + count;
        let served = || (self.served.load(Ordering::Relaxed) >= target).then_some(());
        super::wait_for("answers under load", super::SOON, served);
    }

    /// Stops it and adds up.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.gaps.lock().expect("nobody panics with it").look();
        let mut sum = Tally { gap: self.gaps.lock().expect("nobody panics with it").longest, ..Tally::default() };
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
