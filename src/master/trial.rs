//! The trial of a new program: before the master becomes it, it is run beside the server, reads the master's state from its
//! standard input and says whether it could continue from there. Nothing that it does can harm the server.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{self, Child, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sys::exec::passing;
use crate::sys::fd::add_flags;
use crate::sys::memory;
use crate::sys::process::Pid;

use super::command::Command;
use super::state::SavedState;

/// The option that makes a program answer instead of serve. A program that does not know it refuses, as it must.
pub const OPTION: &str = "--check-state";

/// The same for a program that calls the server, and has arguments of its own.
pub const VARIABLE: &str = "TAPSTER_CHECK_STATE";

/// The last line of a program that can continue. Success alone would not do: `true` succeeds.
pub const ANSWER: &str = "tapster: the state can be taken over";

/// Most of the program's words that are kept, in bytes: enough for the reason.
const WORDS_MAX: usize = 4096;

/// A new program on trial.
#[derive(Debug)]
pub struct Trial {
    child: Child,
    /// Its standard output and error, until it is closed.
    words: Option<PipeReader>,
    text: Vec<u8>,
}

impl Trial {
    /// Starts the program of `command` on the state of this process, which names these `descriptors`: the program has them as
    /// well.
    pub fn start(command: &Command, state: &SavedState, descriptors: &[BorrowedFd<'_>]) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{} cannot be started: {error}", command.program().display());
        let state = memory::file_of(c"tapster-state", &state.render(process::id()).map_err(failed)?).map_err(failed)?;
        let (words, writer) = io::pipe().map_err(failed)?;
        add_flags(&words, OFlag::O_NONBLOCK).map_err(failed)?;
        let mut program = process::Command::new(command.program());
        let argv = if command.is_script() {
            program.env(VARIABLE, "1");
            command.argv().to_vec()
        } else {
            command.with_option(OPTION)
        };
        std::os::unix::process::CommandExt::arg0(&mut program, &argv[0]);
        program.args(&argv[1..]).current_dir(command.dir()).stdin(Stdio::from(state));
        program.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        let child = passing(descriptors, || program.spawn()).map_err(failed)?;
        Ok(Self { child, words: Some(words), text: Vec::new() })
    }

    /// Whether this is its process.
    pub fn is(&self, pid: Pid) -> bool {
        u32::try_from(pid.as_raw()) == Ok(self.child.id())
    }

    /// What to wait for, besides SIGCHLD.
    pub fn words(&self) -> Option<BorrowedFd<'_>> {
        self.words.as_ref().map(PipeReader::as_fd)
    }

    /// How it went, once the program has ended; the error is a clause: `it exited with code 1: ...`.
    pub fn outcome(&mut self) -> Option<Result<(), String>> {
        self.listen();
        let status = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => Some(status),
            // Nothing else waits for it; but if so, its answer counts.
            Err(_) => None,
        };
        self.listen();
        let text = String::from_utf8_lossy(&self.text);
        Some(judge(status, text.trim_end()))
    }

    /// Ends it. From now on it is a process that nobody waits for: where it sleeps in the kernel, its end may last.
    pub fn abandon(mut self) {
        // It fails only if it has ended and was waited for.
        let _ = self.child.kill();
    }

    fn listen(&mut self) {
        let mut piece = [0; 1024];
        while let Some(words) = &mut self.words {
            match words.read(&mut piece) {
                Ok(0) => self.words = None,
                Ok(count) => {
                    self.text.extend_from_slice(&piece[..count]);
                    let excess = self.text.len().saturating_sub(WORDS_MAX);
                    self.text.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => return,
                Err(_) => self.words = None,
            }
        }
    }
}

fn judge(status: Option<ExitStatus>, text: &str) -> Result<(), String> {
    let answered = text.lines().last() == Some(ANSWER);
    match status {
        Some(status) if !status.success() => {
            let colon = if text.is_empty() { "" } else { ": " };
            Err(format!("it ended with {status}{colon}{text}"))
        }
        Some(_) | None if answered => Ok(()),
        Some(_) | None => Err(format!("it does not understand {OPTION}, or serves nothing; it said {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_success_with_the_answer_is_success() {
        let ended = |code: i32| Some(ExitStatus::from_raw(code << 8));
        assert_eq!(judge(ended(0), &format!("a warning\n{ANSWER}")), Ok(()));
        assert_eq!(judge(None, ANSWER), Ok(()));
        assert_eq!(judge(ended(1), ANSWER).unwrap_err(), format!("it ended with exit status: 1: {ANSWER}"));
        assert_eq!(judge(ended(0), "").unwrap_err(), "it does not understand --check-state, or serves nothing; it said \"\"");
        assert!(judge(Some(ExitStatus::from_raw(libc::SIGSEGV)), "").unwrap_err().contains("SIGSEGV"));
    }
}
