//! The error log: `2026-11-21T10:00:00.123+00:00 [pid] [master|worker N] LEVEL message`, one write per record.

use std::fmt::{self, Write as _};
use std::process;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use crate::config::Level;
use crate::sys::time;

use super::escape::TryText;
use super::sink::Sink;
use super::syslog::RecordKind;
use super::{escape, stamp};

/// Most bytes of one rendered message; what is more is cut out of its middle, because the first lines of a traceback say what was
/// done, and the last what went wrong. 64 KiB hold the longest traceback that CPython prints on its own (1,000 frames are folded)
/// and are what a pipe takes at once.
pub const RECORD_MAX: usize = 64 * 1024;

/// Bytes that one byte of a message becomes at most where it is escaped.
const ESCAPED_MAX: usize = 4;

/// Bytes of a message for which there must be memory always.
const BEGINNING: usize = 1024;

/// How far a cut is moved to fall between two lines, in bytes.
const LINE_SEARCH: usize = 1024;

/// The process that writes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The master.
    Master,
    /// The worker in this slot.
    Worker(usize),
    /// The process that workers are forked from (`--preload`).
    Mold,
    /// The hook process.
    Hooks,
    /// The process of one request (CGI).
    Cgi,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("master"),
            Self::Worker(slot) => write!(f, "worker {slot}"),
            Self::Mold => f.write_str("mold"),
            Self::Hooks => f.write_str("hooks"),
            Self::Cgi => f.write_str("cgi"),
        }
    }
}

/// Severities that are counted: those from [`Level::Warning`] on.
pub const COUNTED_LEVELS: usize = 3;

/// Counts the records that somebody should look at.
pub trait RecordCounter: fmt::Debug + Send + Sync {
    /// One more, of this severity; 0 is [`Level::Warning`].
    fn count(&self, severity: usize);
}

/// The records of a process by severity.
#[derive(Debug, Default)]
pub struct RecordCounts([AtomicU64; COUNTED_LEVELS]);

impl RecordCounts {
    /// How many there were.
    pub fn get(&self) -> [u64; COUNTED_LEVELS] {
        std::array::from_fn(|severity| self.0[severity].load(Relaxed))
    }
}

impl RecordCounter for RecordCounts {
    fn count(&self, severity: usize) {
        self.0[severity].fetch_add(1, Relaxed);
    }
}

/// A handle to the error log; cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Log {
    sink: Arc<Sink>,
    /// The least level that is written, of all clones together.
    level: Arc<AtomicU8>,
    who: Who,
    counter: Option<Arc<dyn RecordCounter>>,
}

impl Log {
    /// A log of `who` into `sink`; records below `level` are dropped.
    pub fn new(sink: Arc<Sink>, level: Level, who: Who) -> Self {
        Self { sink, level: Arc::new(AtomicU8::new(level as u8)), who, counter: None }
    }

    /// The same log, whose records are counted.
    pub fn counting(self, counter: Arc<dyn RecordCounter>) -> Self {
        Self { counter: Some(counter), ..self }
    }

    /// The same log for another writer (a worker after the fork).
    pub fn of(&self, who: Who) -> Self {
        Self { who, ..self.clone() }
    }

    /// Where it is written.
    pub fn sink(&self) -> Arc<Sink> {
        self.sink.clone()
    }

    /// Whether records wait for the reader, or were lost and the log does not say so yet.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.sink.is_behind()
    }

    /// Records that were ever lost.
    pub fn lost_ever(&self) -> u64 {
        self.sink.lost_ever()
    }

    /// Writes the records that wait, as far as there is room.
    pub fn catch_up(&self) {
        self.sink.catch_up_now();
    }

    /// The process ends: waits a moment for a reader that is late ([`Sink::finish`]).
    pub fn finish(&self) {
        self.sink.finish();
    }

    /// Writes a line that the process `pid`, which is `who`, has printed. An operator has asked for it, so no level is too low.
    pub fn relay(&self, who: Who, pid: u32, line: &str) {
        self.record(Level::Info, who, pid, format_args!("{line}"));
    }

    /// Writes one record, whatever its level: somebody else has decided that it is worth it.
    pub fn pass(&self, level: Level, message: fmt::Arguments<'_>) {
        self.record(level, self.who, process::id(), message);
    }

    /// Whether records of this level are written.
    pub fn enabled(&self, level: Level) -> bool {
        level as u8 >= self.level.load(Relaxed)
    }

    /// Drops records below `level` from now on, in all clones of this log.
    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Relaxed);
    }

    /// The least level that is written.
    pub fn level(&self) -> Level {
        Level::of_number(self.level.load(Relaxed)).unwrap_or_default()
    }

    /// Writes one record. Each line after the first is indented by two blanks, control characters are escaped, so that nobody can
    /// forge a record; a message beyond [`RECORD_MAX`] is cut in its middle.
    pub fn write(&self, level: Level, message: fmt::Arguments<'_>) {
        if !self.enabled(level) {
            return;
        }
        // The pid is asked for each record: a handle that crosses a fork (the application's own included) never names its parent.
        self.record(level, self.who, process::id(), message);
    }

    fn record(&self, level: Level, who: Who, pid: u32, message: fmt::Arguments<'_>) {
        if let (Some(counter), Some(severity)) = (&self.counter, (level as usize).checked_sub(Level::Warning as usize)) {
            counter.count(severity);
        }
        let mut record = Vec::with_capacity(256);
        let mut line = String::new();
        let syslog = self.sink.syslog();
        // Writing fails only if a Display of the message does, or without memory; what was written so far is kept.
        if let Some(syslog) = syslog {
            syslog.header(&mut record, level, RecordKind::Error, pid);
            let _ = write!(line, "[{who}] ");
        } else {
            stamp::precise(&mut record, time::wall());
            let _ = write!(line, " [{pid}] [{who}] {} ", level.name());
        }
        record.extend_from_slice(line.as_bytes());
        let mut text = TryText::default();
        let _ = text.write_fmt(message);
        let text = text.into_string();
        let start = record.len();
        let shown = if record.try_reserve(ESCAPED_MAX * text.len()).is_ok() { &text } else { beginning(&text) };
        escape::message(&mut record, shown);
        cut(&mut record, start);
        if syslog.is_some() {
            return self.sink.send(&record);
        }
        record.push(b'\n');
        self.sink.write(&record);
    }

    /// Writes at [`Level::Debug`].
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Debug, message);
    }

    /// Writes at [`Level::Info`].
    pub fn info(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Info, message);
    }

    /// Writes at [`Level::Warning`].
    pub fn warning(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Warning, message);
    }

    /// Writes at [`Level::Error`].
    pub fn error(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Error, message);
    }

    /// Writes at [`Level::Critical`].
    pub fn critical(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Critical, message);
    }
}

/// The beginning of a message that there is no memory for.
fn beginning(text: &str) -> &str {
    let end = (0..=text.len().min(BEGINNING)).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// Cuts the middle out of the rendered message from `start` on if it is longer than [`RECORD_MAX`].
fn cut(record: &mut Vec<u8>, start: usize) {
    let message = &record[start..];
    if message.len() <= RECORD_MAX {
        return;
    }
    let head_end = line_end_before(message, RECORD_MAX / 2);
    let tail_start = line_start_after(message, message.len() - RECORD_MAX / 2);
    let note = format!("\n  [... {} bytes cut ...]\n", tail_start - head_end);
    record.splice(start + head_end..start + tail_start, note.into_bytes());
}

/// The nearest end of a line at or before `at`, else the nearest end of a character.
fn line_end_before(text: &[u8], at: usize) -> usize {
    let from = at - LINE_SEARCH;
    match memchr::memrchr(b'\n', &text[from..at]) {
        Some(end) => from + end,
        None => (from..=at).rev().find(|&i| !is_continuation(text[i])).unwrap_or(at),
    }
}

/// The nearest start of a line at or after `at`, else the nearest start of a character.
fn line_start_after(text: &[u8], at: usize) -> usize {
    match memchr::memchr(b'\n', &text[at..at + LINE_SEARCH]) {
        Some(end) => at + end + 1,
        None => (at..text.len()).find(|&i| !is_continuation(text[i])).unwrap_or(at),
    }
}

/// Whether the byte is inside a UTF-8 sequence.
fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogTarget;

    /// What a log writes that `act` uses.
    fn written(level: Level, act: impl FnOnce(&Log)) -> String {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("error.log");
        let sink = Sink::open(&LogTarget::File(path.clone())).expect("the log opens");
        act(&Log::new(Arc::new(sink), level, Who::Master));
        std::fs::read_to_string(path).expect("the log is UTF-8")
    }

    #[test]
    fn a_record_names_time_process_writer_and_level() {
        let text = written(Level::Info, |log| {
            log.info(format_args!("listening on {}", "127.0.0.1:8000"));
            log.of(Who::Worker(3)).critical(format_args!("gone"));
        });
        let lines: Vec<&str> = text.lines().collect();
        let pid = process::id();
        assert_eq!(&lines[0][29..], format!(" [{pid}] [master] INFO listening on 127.0.0.1:8000"));
        assert_eq!(&lines[1][29..], format!(" [{pid}] [worker 3] CRITICAL gone"));
        let stamp = &lines[0][..29];
        assert_eq!((&stamp[4..5], &stamp[10..11], &stamp[19..20], &stamp[26..27]), ("-", "T", ".", ":"), "{stamp}");
    }

    #[test]
    fn records_below_the_level_are_dropped() {
        let text = written(Level::Warning, |log| {
            log.debug(format_args!("a"));
            log.info(format_args!("b"));
            log.warning(format_args!("c"));
            log.error(format_args!("d"));
        });
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_level_that_is_set_later_holds_for_all_clones() {
        let text = written(Level::Warning, |log| {
            let clone = log.of(Who::Worker(1));
            log.set_level(Level::Debug);
            clone.debug(format_args!("a"));
            assert_eq!(clone.level(), Level::Debug);
        });
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_message_of_many_lines_is_one_record() {
        let text = written(Level::Info, |log| log.error(format_args!("a\nb\n\nc\n")));
        assert!(text.ends_with(" ERROR a\n  b\n  \n  c\n"), "{text}");
    }

    #[test]
    fn a_huge_message_loses_its_middle_visibly() {
        let message: String = (0..20_000).map(|n| format!("frame {n}\n")).collect();
        let text = written(Level::Info, |log| log.error(format_args!("{message}")));
        assert!(text.len() < RECORD_MAX + 200, "{}", text.len());
        assert!(text.contains("ERROR frame 0\n  frame 1\n"));
        assert!(text.ends_with("\n  frame 19998\n  frame 19999\n"));
        let note = text.lines().find(|l| l.contains("bytes cut")).expect("the cut is said");
        assert!(note.starts_with("  [... "), "{note}");
        assert!(text.lines().skip(1).all(|l| l == note || l.starts_with("  frame ")), "a line was cut in two");
    }

    #[test]
    fn a_huge_line_is_cut_between_characters() {
        for pad in 0..4 {
            let message = format!("{}{}", "x".repeat(pad), "日本語🦀".repeat(20_000));
            let text = written(Level::Info, |log| log.error(format_args!("{message}")));
            assert!(text.len() < RECORD_MAX + 200);
            assert!(text.contains("bytes cut ...]\n") && text.ends_with("🦀\n"));
        }
    }
}
