//! The access log of a worker as its threads write it: lines are collected and written at the end of an iteration.

use std::sync::Arc;

use crate::http::head::Span;
use crate::log::access::{Format, Record, Time};
use crate::log::sink::Sink;
use crate::worker::kept::copied;

use super::READ_SIZE;

/// Access-log lines are written when so many bytes wait, or at the end of the loop's iteration.
const LOG_BATCH: usize = 32 * 1024;

/// A copy of the head of an answer for the log. Without memory it is a status line without fields: if it were empty, later bytes
/// would be taken for the head.
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
}

impl Journal {
    /// A journal without lines.
    pub(super) fn new(sink: Arc<Sink>, format: Arc<Format>) -> Self {
        let lines = Vec::with_capacity(LOG_BATCH + READ_SIZE);
        Self { sink, format, lines, time: Time::of(std::process::id()) }
    }

    /// The head of an answer, at `place` in the output, if the format wants it.
    pub(in crate::worker) fn response_head<'a>(&self, out: &'a [u8], place: Span) -> &'a [u8] {
        if self.format.wants_response_head() { place.of_any(out) } else { &[] }
    }

    /// Writes the line of one answer.
    pub(in crate::worker) fn record(&mut self, mut record: Record<'_>) {
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

    /// Whether lines wait for the reader of the log, or were lost and it does not say so yet.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        self.sink.is_behind()
    }

    /// Lines that were ever lost.
    pub(super) fn lost_ever(&self) -> u64 {
        self.sink.lost_ever()
    }

    /// Writes the lines that wait, as far as there is room.
    pub(super) fn catch_up(&self) {
        self.sink.catch_up_now();
    }

    pub(super) fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.sink.write(&self.lines);
            self.lines.clear();
        }
    }
}
