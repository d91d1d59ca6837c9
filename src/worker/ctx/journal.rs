//! The access log of a worker as its threads write it: lines are collected and written at the end of an iteration.

use std::sync::Arc;

use crate::http::head::{HeadView, Span};
use crate::log::access::{Format, Record, Time};
use crate::log::sink::Sink;
use crate::worker::app::Peer;
use crate::worker::clock::Clock;
use crate::worker::kept::copied;

use super::READ_SIZE;

/// Nanoseconds per microsecond.
const NS_PER_MICRO: u64 = 1_000;

/// Microseconds per second.
const MICROS: u64 = 1_000_000;

/// Access-log lines are written when so many bytes wait, or at the end of the loop's iteration.
const LOG_BATCH: usize = 32 * 1024;

/// The facts about one answer for the access log.
pub struct LogEntry<'a> {
    /// The client.
    pub peer: &'a Peer,
    /// The head and its bytes, when one could be parsed.
    pub head: Option<HeadView<'a>>,
    /// Status.
    pub status: u16,
    /// Body bytes.
    pub sent: u64,
    /// Rendered head of the answer, if the format wants it.
    pub response_head: &'a [u8],
    /// When the application was called, nanoseconds of the loop's clock; `None` when it was not.
    pub began: Option<u64>,
    /// How long it waited for a permit, in nanoseconds.
    pub queued: u64,
    /// Environ values that the format asked for.
    pub environ: &'a [Option<String>],
}

/// A copy of it for the log. Without memory it is a status line without fields: if it were empty, later bytes would be taken for
/// the head.
pub(in crate::worker) fn copy_of_head(head: &[u8]) -> Vec<u8> {
    copied(head).unwrap_or_else(|| b"\r\n".to_vec())
}

/// The access log of this worker: lines wait here until the end of the iteration.
#[derive(Debug)]
pub struct Journal {
    sink: Arc<Sink>,
    /// The compiled format.
    pub format: Arc<Format>,
    pub(super) lines: Vec<u8>,
    time: Time,
    pid: u32,
}

impl Journal {
    /// A journal without lines.
    pub(super) fn new(sink: Arc<Sink>, format: Arc<Format>) -> Self {
        let lines = Vec::with_capacity(LOG_BATCH + READ_SIZE);
        Self { sink, format, lines, time: Time::default(), pid: std::process::id() }
    }

    /// The head of an answer, at `place` in the output, if the format wants it.
    pub(in crate::worker) fn response_head<'a>(&self, out: &'a [u8], place: Span) -> &'a [u8] {
        if self.format.wants_response_head() { place.of_any(out) } else { &[] }
    }

    /// Writes the line of one answer.
    pub(in crate::worker) fn record(&mut self, entry: &LogEntry<'_>, clock: &Clock) {
        let micros = entry.began.map_or(0, |began| clock.micros_since(began));
        let mut record = Record {
            peer: entry.peer.addr.as_bytes(),
            head: entry.head,
            status: entry.status,
            sent: entry.sent,
            response_head: entry.response_head,
            began: clock.wall().saturating_sub(micros / MICROS),
            micros,
            queued: entry.queued / NS_PER_MICRO,
            environ: entry.environ,
            pid: self.pid,
        };
        let most = self.format.most(&record);
        if most > self.lines.capacity() - self.lines.len() && !self.make_room(most) {
            // The client determines its size. A line without it is better than no line.
            (record.head, record.response_head, record.environ) = (None, &[], &[]);
        }
        self.format.render(&record, &mut self.time, &mut self.lines);
        if self.lines.len() >= LOG_BATCH {
            self.flush();
        }
    }

    /// Makes room for a line of at most so many bytes; `false`: there is no memory for it.
    #[cold]
    fn make_room(&mut self, most: usize) -> bool {
        if self.lines.try_reserve(most).is_ok() {
            return true;
        }
        self.flush();
        self.lines.try_reserve(most).is_ok()
    }

    pub(super) fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.sink.write(&self.lines);
            self.lines.clear();
        }
    }
}
