//! Requests that found no permit in time: answered 503, counted, and logged in summaries, since an overloaded server must not
//! also write a line for each.

use crate::log::count;
use crate::log::error::Log;
use crate::scoreboard::RefusalReason;

/// Least time between two summaries, in milliseconds.
const SUMMARY_MS: u64 = 1_000;

/// How long such a client should wait before it comes again (Retry-After, RFC 9110 section 10.2.3), in seconds.
pub const RETRY_AFTER: &[u8] = b"5";

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many as `--max-queue` waited already.
    QueueFull,
    /// It waited as long as `--queue-timeout`.
    Waited,
    /// The worker leaves at once.
    Stopping,
}

impl Refusal {
    /// The reason, for the body of the answer.
    pub fn detail(self) -> &'static str {
        match self {
            Self::QueueFull => "too many requests wait for the application",
            Self::Waited => "the application had no time for the request",
            Self::Stopping => "the server is stopping",
        }
    }

    /// The reason as it is counted.
    pub fn reason(self) -> RefusalReason {
        match self {
            Self::QueueFull => RefusalReason::QueueFull,
            Self::Waited => RefusalReason::QueueTimeout,
            Self::Stopping => RefusalReason::Stopping,
        }
    }
}

/// The counts that were not logged yet.
#[derive(Debug, Default)]
pub struct Overload {
    full: u64,
    waited: u64,
    stopping: u64,
    /// Earliest time of the next summary, in milliseconds of the loop's clock.
    next: u64,
    /// Whether the log has the line that upgraded connections have all permits.
    held: bool,
}

impl Overload {
    /// Counts a refusal.
    pub fn count(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::QueueFull => self.full += 1,
            Refusal::Waited => self.waited += 1,
            Refusal::Stopping => self.stopping += 1,
        }
    }

    /// A request found no permit. Logs once when connections that the application has taken over have all `permits`: then
    /// waiting may not help.
    pub fn note_held(&mut self, held: usize, permits: usize, log: &Log) {
        if held >= permits && !std::mem::replace(&mut self.held, true) {
            log.warning(format_args!(
                "all {permits} threads of this worker are held by upgraded connections (WebSockets), and requests wait for them: each \
                 takes a thread as long as it stands; raise --threads"
            ));
        }
    }

    /// When the next summary is due, in milliseconds of the loop's clock.
    pub fn wants(&self) -> Option<u64> {
        (self.full + self.waited > 0).then_some(self.next)
    }

    /// Logs the counts since the last summary, if one is due at `now`, in milliseconds of the loop's clock.
    #[inline]
    pub fn tell(&mut self, now: u64, log: &Log) {
        if self.wants().is_some_and(|at| at <= now) {
            self.summarise(now, log);
        }
    }

    #[cold]
    fn summarise(&mut self, now: u64, log: &Log) {
        let (full, waited) = (std::mem::take(&mut self.full), std::mem::take(&mut self.waited));
        self.next = now + SUMMARY_MS;
        log.warning(format_args!(
            "the application is too busy: {} got 503 ({waited} had waited for --queue-timeout, {full} were more than --max-queue); \
             raise --threads or --workers, or find what makes it slow",
            count(full + waited, "request")
        ));
    }

    /// Logs the counts that no summary has: the worker ends.
    pub fn tell_last(&mut self, log: &Log) {
        self.next = 0;
        self.tell(0, log);
        if self.stopping > 0 {
            log.warning(format_args!("a quick stop: {} that had not begun got 503", count(self.stopping, "request")));
        }
    }
}
