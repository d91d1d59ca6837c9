//! The changes that are not reported yet: those that come together are one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::WatchReport;

/// Time without another change after which one is reported: files that are saved together are loaded together.
const QUIET: Duration = Duration::from_millis(30);

/// The same where files have only gone: they come back in a moment as a rule, since some editors move the old file away first.
const QUIET_WITHOUT: Duration = Duration::from_millis(250);

/// A change is reported this much later at most, however many follow: a checkout of many files lasts.
const PENDING_MAX: Duration = Duration::from_secs(1);

/// A change that was not reported yet.
#[derive(Debug)]
pub struct PendingChange {
    /// The first file, and how many changes followed.
    file: PathBuf,
    others: usize,
    began: Instant,
    last: Instant,
    /// Whether something was written.
    written: bool,
}

impl PendingChange {
    /// The first change.
    pub fn new(file: PathBuf, written: bool) -> Self {
        let now = Instant::now();
        Self { file, others: 0, began: now, last: now, written }
    }

    /// Another one.
    pub fn add(&mut self, file: &Path, written: bool) {
        self.others += usize::from(self.file != file);
        self.last = Instant::now();
        self.written |= written;
    }

    /// When it is to be reported.
    pub fn due(&self) -> Instant {
        let quiet = if self.written { QUIET } else { QUIET_WITHOUT };
        (self.last + quiet).min(self.began + PENDING_MAX)
    }

    /// The report of it.
    pub fn report(&self) -> WatchReport {
        let file = self.file.to_string_lossy().escape_debug().to_string();
        WatchReport::Changed(match self.others {
            0 => file,
            _ => format!("{file} and others"),
        })
    }
}
