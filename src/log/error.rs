//! The error log: `2026-11-21T10:00:00.123+00:00 [pid] [master|worker N] LEVEL message`, one write per record.

use std::fmt;
use std::sync::Arc;

use super::Level;
use super::sink::Sink;

/// Who writes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The master.
    Master,
    /// The worker in this slot.
    Worker(usize),
}

/// A handle to the error log; cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Log {
    sink: Arc<Sink>,
    level: Level,
    who: Who,
}

impl Log {
    /// A log of `who` into `sink`; records below `level` are dropped.
    pub fn new(sink: Arc<Sink>, level: Level, who: Who) -> Self {
        Self { sink, level, who }
    }

    /// The same log for another writer (a worker after the fork).
    pub fn of(&self, who: Who) -> Self {
        Self { who, ..self.clone() }
    }

    /// Whether records of this level are written.
    pub fn enabled(&self, level: Level) -> bool {
        level >= self.level
    }

    /// Writes one record. Each line after the first is indented by two blanks, control characters are escaped, so that nobody can
    /// forge a record.
    pub fn write(&self, level: Level, message: fmt::Arguments<'_>) {
        let _ = (level, message, &self.sink, self.who);
        todo!()
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
