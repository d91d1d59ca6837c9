//! What workers of another user have of the terminal that the master was started in: its output, and nothing else.
//!
//! A process may put bytes into the input of its controlling terminal (TIOCSTI, ioctl_tty(2)), where the shell of root reads
//! them. A process that has a descriptor of a terminal for reading reads what root types. So these workers have a session of
//! their own, which no terminal controls, nothing on standard input, and the terminal for writing only.
//!
//! By that the keys of the terminal (Ctrl-C, Ctrl-\\, Ctrl-Z) signal the master alone, which passes their meaning to the workers.
//! The workers of a stopped master (Ctrl-Z) continue to serve.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::sys::process::leave_terminal;

/// Opens the terminal again, for writing only, where this process has it as standard output or error. Called by the master before
/// it opens logs, whose descriptors the workers get.
pub fn keep_for_writing() -> io::Result<()> {
    if io::stdout().is_terminal() {
        dup2_stdout(open_for_writing(libc::STDOUT_FILENO)?)?;
    }
    if io::stderr().is_terminal() {
        dup2_stderr(open_for_writing(libc::STDERR_FILENO)?)?;
    }
    Ok(())
}

fn open_for_writing(number: i32) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(format!("/proc/self/fd/{number}"))
}

/// Gives the terminal up without leaving its session, which a process that leads a group cannot: Ctrl-C still reaches this
/// process.
pub fn give_up() -> io::Result<()> {
    keep_for_writing()?;
    dup2_stdin(File::open("/dev/null")?)?;
    leave_terminal()
}

/// Leaves the session of the master, and with it its terminal. Called in a forked worker, which leads no process group yet.
pub fn leave() -> io::Result<()> {
    dup2_stdin(File::open("/dev/null")?)?;
    setsid()?;
    Ok(())
}
