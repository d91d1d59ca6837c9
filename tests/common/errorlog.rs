//! Reading the error log: records, their level, and what a test did not expect.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The standard error of the server, which is its error log.
#[derive(Clone, Debug)]
pub struct ErrorLog {
    path: PathBuf,
    /// What was in it when its server had stopped and its directory was about to go.
    last: Option<String>,
}

/// One record with the lines that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `DEBUG` to `CRITICAL`; empty for text that is no record (what the interpreter or a C library wrote).
    pub level: String,
    /// Everything, lines joined by line ends.
    pub text: String,
}

const LEVELS: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

impl ErrorLog {
    /// The log in this file, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), last: None }
    }

    /// The log as it is now, to be read when its file is gone.
    pub fn keep(&self) -> Self {
        Self { path: self.path.clone(), last: Some(self.text()) }
    }

    /// All of it.
    pub fn text(&self) -> String {
        let read = || fs::read(&self.path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        self.last.clone().unwrap_or_else(read)
    }

    /// Records so far.
    pub fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for line in self.text().lines() {
            match (level(line), records.last_mut()) {
                (None, Some(last)) if !last.level.is_empty() && line.starts_with(' ') => {
                    last.text.push('\n');
                    last.text.push_str(line);
                }
                (found, _) => records.push(Record { level: found.unwrap_or_default().to_owned(), text: line.to_owned() }),
            }
        }
        records
    }

    /// The first record that contains all of `parts`.
    pub fn find(&self, parts: &[&str]) -> Option<Record> {
        self.records().into_iter().find(|record| parts.iter().all(|part| record.text.contains(part)))
    }

    /// Waits for a record that contains all of `parts`.
    #[track_caller]
    pub fn wait(&self, parts: &[&str]) -> Record {
        super::wait_for(&format!("a log record with {parts:?}"), super::ROLLED, || self.find(parts))
    }

    /// How many workers were ready at the least, once `all` of them were, replayed from the records; a record with `ends` takes
    /// its worker out.
    pub fn fewest_ready(&self, all: usize, ends: &str) -> usize {
        let mut ready = BTreeSet::new();
        let mut fewest = usize::MAX;
        for record in self.records() {
            let Some((_, rest)) = record.text.split_once(" worker ") else { continue };
            let Some(slot) = rest.split_whitespace().next().and_then(|word| word.parse::<usize>().ok()) else { continue };
            if rest.contains("is ready") {
                ready.insert(slot);
            } else if rest.contains(ends) {
                ready.remove(&slot);
            }
            if fewest != usize::MAX || ready.len() == all {
                fewest = fewest.min(ready.len());
            }
        }
        fewest
    }

    /// Errors that contain none of the `expected` texts.
    pub fn unexpected(&self, expected: &[String]) -> Vec<Record> {
        let severe =
            |record: &Record| record.level == "ERROR" || record.level == "CRITICAL" || record.text.contains("panicked at");
        let foreseen = |record: &Record| expected.iter().any(|part| record.text.contains(part.as_str()));
        self.records().into_iter().filter(|record| severe(record) && !foreseen(record)).collect()
    }
}

/// The level of a line that begins a record: a date, then `[pid]`, `[who]` and the level as words of their own.
fn level(line: &str) -> Option<&'static str> {
    if !line.trim_start_matches('[').starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut words = line.split_whitespace().map(|word| word.trim_matches(['[', ']'])).take(8);
    words.find_map(|word| LEVELS.into_iter().find(|level| *level == word))
}
