//! The reading of the configuration at a reload, by a copy of the master: it may have to execute a file of gunicorn, which takes
//! as long as that likes, or to read from a disk that does not answer. The master serves meanwhile.
//!
//! The copy says what it has read as a line of JSON, and ends. Nothing else of it reaches the server.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::fchdir;
use serde::{Deserialize, Serialize};

use crate::certificates::Certificates;
use crate::config::{Level, Notice, Settings};
use crate::sys::process::Pid;

use super::errand::Errand;

/// Longest time for a reading: a file of gunicorn has 10 s of them.
pub const READING_TIMEOUT: Duration = Duration::from_secs(15);

/// Most bytes of the answer: settings are some KiB, and certificates have a bound of their own.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// The answer.
#[derive(Serialize, Deserialize)]
struct ReadAnswer {
    read: Result<(Box<Settings>, Option<Certificates>), String>,
    notices: Vec<(Level, String)>,
}

/// What the configuration says: settings and what the log is told about them, or one line that says why they cannot be used.
pub type SettingsRead = Result<(Settings, Vec<Notice>), String>;

/// The same with the certificates that the settings name.
pub type WholeRead = Result<(Settings, Option<Certificates>, Vec<Notice>), String>;

/// A reading under way.
#[derive(Debug)]
pub struct Reading {
    errand: Errand,
    /// The directory that it reads in, which the start directory was when it began.
    here: File,
}

impl Reading {
    /// Has a copy of this process read, in the working directory of this moment. It does not return in the copy.
    pub fn start(read: impl FnOnce() -> WholeRead) -> io::Result<Self> {
        let here = OpenOptions::new().read(true).custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits()).open(".")?;
        let errand = Errand::start(READING_TIMEOUT, ANSWER_MAX, || tell(read()))?;
        Ok(Self { errand, here })
    }

    /// What to wait for.
    pub fn answer(&self) -> BorrowedFd<'_> {
        self.errand.answer()
    }

    /// Whether this is its process.
    pub fn is(&self, pid: Pid) -> bool {
        self.errand.is(pid)
    }

    /// When it has taken too long.
    pub fn until(&self) -> Instant {
        self.errand.until()
    }

    /// What was read, once it is there.
    pub fn outcome(&mut self, now: Instant) -> Option<WholeRead> {
        let said = self.errand.outcome(now)?;
        Some(said.map_err(|why| format!("the configuration {why}")).and_then(|bytes| understand(&bytes)))
    }

    /// Ends it, if it has not ended, and enters the directory that it has read in. The process is one that nobody waits for from
    /// now on.
    pub fn enter_its_directory(self) -> io::Result<()> {
        self.errand.end();
        Ok(fchdir(&self.here)?)
    }

    /// Ends it: nobody wants to know any more.
    pub fn abandon(self) {
        self.errand.end();
    }
}

fn tell(read: WholeRead) -> io::Result<Vec<u8>> {
    let (read, notices) = match read {
        Ok((settings, certificates, notices)) => (Ok((Box::new(settings), certificates)), notices),
        Err(why) => (Err(why), Vec::new()),
    };
    let notices = notices.into_iter().map(|notice| (notice.level, notice.text)).collect();
    Ok(serde_json::to_vec(&ReadAnswer { read, notices })?)
}

fn understand(bytes: &[u8]) -> WholeRead {
    let answer: ReadAnswer = serde_json::from_slice(bytes)
        .map_err(|_| "the configuration cannot be read: the process that reads it has ended without an answer".to_owned())?;
    let notices = answer.notices.into_iter().map(|(level, text)| Notice { level, text }).collect();
    answer.read.map(|(settings, certificates)| (*settings, certificates, notices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_copy_has_read_comes_back() {
        let said = |read: WholeRead| understand(&tell(read).unwrap());
        let settings = Settings { threads: 7, ..Settings::default() };
        let read: WholeRead =
            Ok((settings, Some(Certificates::default()), vec![Notice::warning("mind the gap"), Notice::info("x")]));
        assert_eq!(said(read.clone()), read);
        assert_eq!(said(Err("workers = 0".into())), Err("workers = 0".into()));
        for damaged in [&b""[..], b"{}", b"\xff"] {
            assert!(understand(damaged).unwrap_err().contains("without an answer"));
        }
    }
}
