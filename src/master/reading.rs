//! The reading of the configuration at a reload, by a copy of the master: it may have to execute a file of gunicorn, which takes
//! as long as that likes, or to read from a disk that does not answer. The master serves meanwhile.
//!
//! The copy says what it has read as a line of JSON, and ends. Nothing else of it reaches the server.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::fchdir;
use serde::{Deserialize, Serialize};

use crate::config::{Level, Notice, Settings};
use crate::sys::fd::add_flags;
use crate::sys::process::{self, Fork, Pid};

use super::event::code;
use super::refusal::reason;

/// Longest time for a reading: a file of gunicorn has 10 s of them.
pub const READING_TIMEOUT: Duration = Duration::from_secs(15);

/// Most bytes of the answer: settings are some KiB.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// The answer.
#[derive(Serialize, Deserialize)]
struct ReadAnswer {
    settings: Result<Box<Settings>, String>,
    notices: Vec<(Level, String)>,
}

/// What was read: settings and what the log is told about them, or one line that says why they cannot be used.
pub type SettingsRead = Result<(Settings, Vec<Notice>), String>;

/// A reading under way.
#[derive(Debug)]
pub struct Reading {
    pid: Pid,
    /// The directory that it reads in, which the start directory was when it began.
    here: File,
    answer: PipeReader,
    bytes: Vec<u8>,
    until: Instant,
}

impl Reading {
    /// Has a copy of this process read, in the working directory of this moment. It does not return in the copy.
    pub fn start(read: impl FnOnce() -> SettingsRead) -> io::Result<Self> {
        let here = OpenOptions::new().read(true).custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits()).open(".")?;
        let (answer, writer) = io::pipe()?;
        add_flags(&answer, OFlag::O_NONBLOCK)?;
        match process::fork(Signal::SIGKILL, &[])? {
            Fork::Parent(pid) => Ok(Self { pid, here, answer, bytes: Vec::new(), until: Instant::now() + READING_TIMEOUT }),
            Fork::Child(signals) => {
                // What the file starts must not inherit the mask.
                drop(signals);
                let told = tell(writer, read());
                process::exit_now(if told.is_ok() { code::OK } else { code::FAILED })
            }
        }
    }

    /// What to wait for.
    pub fn answer(&self) -> BorrowedFd<'_> {
        self.answer.as_fd()
    }

    /// Whether this is its process.
    pub fn is(&self, pid: Pid) -> bool {
        self.pid == pid
    }

    /// When it has taken too long.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// What was read, once it is there.
    pub fn outcome(&mut self, now: Instant) -> Option<SettingsRead> {
        let mut piece = [0; 4096];
        loop {
            match self.answer.read(&mut piece) {
                Ok(0) => return Some(understand(&self.bytes)),
                Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => break,
                Err(error) => return Some(Err(format!("the configuration cannot be read: {}", reason(&error)))),
            }
            if self.bytes.len() > ANSWER_MAX {
                return Some(Err(format!("the configuration cannot be read: it is more than {ANSWER_MAX} bytes")));
            }
        }
        (self.until <= now).then(|| Err(format!("the configuration is not read within {} s", READING_TIMEOUT.as_secs())))
    }

    /// Ends it, if it has not ended, and enters the directory that it has read in. The process is one that nobody waits for from
    /// now on.
    pub fn enter_its_directory(self) -> io::Result<()> {
        self.kill();
        Ok(fchdir(&self.here)?)
    }

    /// Ends it: nobody wants to know any more.
    pub fn abandon(self) {
        self.kill();
    }

    fn kill(&self) {
        // It was not waited for, so the number is its own. It fails for no child.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

fn tell(mut writer: impl Write, read: SettingsRead) -> io::Result<()> {
    let (settings, notices) = match read {
        Ok((settings, notices)) => (Ok(Box::new(settings)), notices),
        Err(why) => (Err(why), Vec::new()),
    };
    let notices = notices.into_iter().map(|notice| (notice.level, notice.text)).collect();
    writer.write_all(&serde_json::to_vec(&ReadAnswer { settings, notices })?)
}

fn understand(bytes: &[u8]) -> SettingsRead {
    let answer: ReadAnswer = serde_json::from_slice(bytes)
        .map_err(|_| "the configuration cannot be read: the process that reads it has ended without an answer".to_owned())?;
    let notices = answer.notices.into_iter().map(|(level, text)| Notice { level, text }).collect();
    answer.settings.map(|settings| (*settings, notices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_copy_has_read_comes_back() {
        let said = |read: SettingsRead| {
            let mut bytes = Vec::new();
            tell(&mut bytes, read).unwrap();
            understand(&bytes)
        };
        let settings = Settings { threads: 7, ..Settings::default() };
        let read: SettingsRead = Ok((settings, vec![Notice::warning("mind the gap"), Notice::info("x")]));
        assert_eq!(said(read.clone()), read);
        assert_eq!(said(Err("workers = 0".into())), Err("workers = 0".into()));
        for damaged in [&b""[..], b"{}", b"\xff"] {
            assert!(understand(damaged).unwrap_err().contains("without an answer"));
        }
    }
}
