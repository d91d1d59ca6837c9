//! `--daemon`: the server leaves its caller, which waits until it is ready or has failed.
//!
//! ```text
//! caller ──fork──▶ middle: setsid ──fork──▶ master
//!    │                └ ends                  │ keeps standard output and error until it is ready: errors are seen
//!    └──────── waits for the exit code ◀──────┘
//! ```
//! The second fork makes a process that leads no session, so that no terminal can become its own. The working directory stays,
//! because relative paths of the options are looked up at a reload too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::net::activation;
use crate::sys::{host, process};

use super::event::code;
use super::logs::is_file;
use super::refusal;

/// Which process this is after [`detach`].
#[derive(Debug)]
pub enum Side {
    /// The caller; the server is ready or has failed, with this exit code.
    Caller(i32),
    /// The server.
    Daemon(Caller),
}

/// The caller as the server sees it.
#[derive(Debug)]
pub struct Caller(UnixStream);

/// Forks the server off.
pub fn detach() -> io::Result<Side> {
    let (caller, server) = UnixStream::pair()?;
    if let Some(middle) = process::split()? {
        drop(server);
        // It ends at once, with nothing to say.
        let _ = nix::sys::wait::waitpid(middle, None);
        return Ok(Side::Caller(wait(caller)));
    }
    drop(caller);
    setsid()?;
    if process::split()?.is_some() {
        process::exit_now(code::OK);
    }
    if !activation::is_input_listening() {
        dup2_stdin(null()?)?;
    }
    server.set_nonblocking(true)?;
    Ok(Side::Daemon(Caller(server)))
}

/// Waits for the server's word.
fn wait(mut server: UnixStream) -> i32 {
    let mut word = [0];
    match host::idle(|| server.read_exact(&mut word)) {
        Ok(()) => i32::from(word[0]),
        Err(_) => {
            refusal::complain("the server ended before it was ready, without saying why");
            code::FAILED
        }
    }
}

impl Caller {
    /// Reports to the caller how the start went. Only the first word counts.
    pub fn tell(mut self, code: i32) {
        // A caller that has left does not want to know.
        let _ = self.0.write_all(&[u8::try_from(code).unwrap_or(1)]);
    }

    /// Whether the caller has left before any report: nobody wants this server.
    pub fn has_left(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives up the caller's standard output and error, unless they are files: the reader of a pipe sees its end, a terminal can
/// close.
pub fn leave_streams() -> io::Result<()> {
    let null = null()?;
    if !is_file(&io::stdout()) {
        dup2_stdout(&null)?;
    }
    if !is_file(&io::stderr()) {
        dup2_stderr(&null)?;
    }
    Ok(())
}

fn null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_gets_the_code_or_learns_that_nobody_will_tell() {
        for (told, expected) in [(Some(0), 0), (Some(4), 4), (None, code::FAILED)] {
            let (caller, server) = UnixStream::pair().unwrap();
            let server = Caller(server);
            if let Some(code) = told {
                server.tell(code);
            } else {
                drop(server);
            }
            assert_eq!(wait(caller), expected);
        }
    }

    #[test]
    fn a_caller_that_leaves_is_noticed() {
        let (caller, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut server = Caller(server);
        assert!(!server.has_left());
        drop(caller);
        assert!(server.has_left());
    }
}
