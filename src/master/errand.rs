//! An errand of a copy of the master: what it does may last as long as a disk likes, and the master goes on meanwhile.
//!
//! The copy writes what it has to say into a pipe, and ends. Nothing else of it reaches the server.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};

use crate::sys::fd::add_flags;
use crate::sys::process::{self, Fork, Pid};

use super::event::code;
use super::refusal::reason;

/// An errand under way.
#[derive(Debug)]
pub struct Errand {
    pid: Pid,
    answer: PipeReader,
    bytes: Vec<u8>,
    most: usize,
    time: Duration,
    until: Instant,
}

impl Errand {
    /// Has a copy of this process do this, within `time`, and say `most` bytes of it at most. It does not return in the copy.
    pub fn start(time: Duration, most: usize, work: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Self> {
        let (answer, mut writer) = io::pipe()?;
        add_flags(&answer, OFlag::O_NONBLOCK)?;
        match process::fork(Signal::SIGKILL, &[])? {
            Fork::Parent(pid) => Ok(Self { pid, answer, bytes: Vec::new(), most, time, until: Instant::now() + time }),
            Fork::Child(signals) => {
                // What it starts must not inherit the mask.
                drop(signals);
                let told = work().and_then(|bytes| writer.write_all(&bytes));
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

    /// What it has said, once it is at its end. The error is the end of a sentence: `is not read within 15 s`.
    pub fn outcome(&mut self, now: Instant) -> Option<Result<Vec<u8>, String>> {
        let mut piece = [0; 4096];
        loop {
            match self.answer.read(&mut piece) {
                Ok(0) => return Some(Ok(std::mem::take(&mut self.bytes))),
                Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => break,
                Err(error) => return Some(Err(format!("cannot be read: {}", reason(&error)))),
            }
            if self.bytes.len() > self.most {
                return Some(Err(format!("cannot be read: it is more than {} bytes", self.most)));
            }
        }
        (self.until <= now).then(|| Err(format!("is not read within {} s", self.time.as_secs())))
    }

    /// Ends it, if it has not ended. The process is one that nobody waits for from now on.
    pub fn end(self) {
        // It was not waited for, so the number is its own. It fails for no child.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};

    const MOST: usize = 100_000;

    /// What an errand says that has so much time, from a process that has one thread.
    fn outcome(time: Duration, work: impl FnOnce() -> io::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
        let mut errand = Errand::start(time, MOST, work).unwrap();
        let said = loop {
            let left = PollTimeout::try_from(errand.until().saturating_duration_since(Instant::now())).unwrap();
            poll(&mut [PollFd::new(errand.answer(), PollFlags::POLLIN)], left).unwrap();
            if let Some(said) = errand.outcome(Instant::now()) {
                break said;
            }
        };
        errand.end();
        said
    }

    #[test]
    fn an_errand_says_what_it_has_found_and_has_a_limit_of_time_and_of_words() {
        let alone = alone_in_test();
        let long = Duration::from_secs(60);
        let child = fork_in_test(&alone, |_| {
            let found = outcome(long, || Ok(vec![b'x'; MOST]));
            let much = outcome(long, || Ok(vec![b'x'; MOST + 1]));
            let mute = outcome(long, || Err(io::ErrorKind::Other.into()));
            let late = outcome(Duration::from_millis(50), || {
                nix::unistd::pause();
                Ok(Vec::new())
            });
            let fits = found == Ok(vec![b'x'; MOST])
                && much.is_err_and(|why| why.contains("more than"))
                && mute == Ok(Vec::new())
                && late.is_err_and(|why| why.contains("not read within"));
            i32::from(!fits)
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
    }
}
