//! Requests that found no application slot in time: answered 503, counted, and told to the error log in summaries, since a server
//! that has too much to do must not also write a line for each.

use crate::log::error::Log;

/// Least time between two summaries, in milliseconds.
const SUMMARY_MS: u64 = 1_000;

/// What such a client is told to wait before it comes again (RFC 9110 section 10.2.3), in seconds.
pub const RETRY_AFTER: &[u8] = b"5";

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many as `--max-queue` waited already.
    QueueFull,
    /// It waited as long as `--queue-timeout`.
    Waited,
}

impl Refusal {
    /// For the body of the answer.
    pub fn detail(self) -> &'static str {
        match self {
            Self::QueueFull => "too many requests wait for the application",
            Self::Waited => "the application had no time for the request",
        }
    }
}

/// What was not told yet.
#[derive(Debug, Default)]
pub struct Overload {
    full: u64,
    waited: u64,
    /// Earliest time of the next summary, in milliseconds of the loop's clock.
    next: u64,
    /// Whether it was told that upgraded connections hold all slots.
    held: bool,
}

impl Overload {
    /// Counts one.
    pub fn count(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::QueueFull => self.full += 1,
            Refusal::Waited => self.waited += 1,
        }
    }

    /// A request found no slot. Says once when that is because all `slots` are `held` by connections that the application has taken
    /// over: then waiting may not help.
    pub fn note_held(&mut self, held: usize, permits: usize, log: &Log) {
        if held >= permits && !std::mem::replace(&mut self.held, true) {
            log.warning(format_args!(
                "all {permits} threads of this worker are held by upgraded connections (WebSockets), and requests wait for them: each \
                 takes a thread as long as it stands; raise --threads"
            ));
        }
    }

    /// When it has something to tell, in milliseconds of the loop's clock.
    pub fn wants(&self) -> Option<u64> {
        (self.full + self.waited > 0).then_some(self.next)
    }

    /// Tells what came since the last time, if it is time.
    pub fn tell(&mut self, now: u64, log: &Log) {
        if self.wants().is_none_or(|at| at > now) {
            return;
        }
        let (full, waited) = (std::mem::take(&mut self.full), std::mem::take(&mut self.waited));
        self.next = now + SUMMARY_MS;
        log.warning(format_args!(
            "the application is too busy: {} requests were answered 503 ({waited} had waited for --queue-timeout, {full} were more \
             than --max-queue); raise --threads or --workers, or find what makes it slow",
            full + waited
        ));
    }
}
