//! Becoming another program in the same process: same id, same children, and the descriptors that must stay.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::execve;

use super::signals::Blocked;

/// Executes `program` with these arguments (the first is its own name), with the environment of this process and one `variable`
/// more, and with the descriptors of `keep` open. It returns only an error, and then all is as before.
///
/// `signals` stay blocked across exec, and those that have arrived wait for the new program, which must unblock them when it has
/// handlers.
pub fn exec(program: &Path, argv: &[OsString], variable: (&str, &OsStr), keep: &[BorrowedFd<'_>], signals: Blocked) -> io::Error {
    let result = prepare(program, argv, variable).and_then(|(program, argv, environment)| {
        set_close_on_exec(keep, false)?;
        Ok(execve(&program, &argv, &environment)?)
    });
    // The error of exec is the one to report; this cannot fail for open descriptors.
    let _ = set_close_on_exec(keep, true);
    drop(signals);
    match result {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Starts a program that gets these descriptors under their numbers, besides its standard streams. This process must have no
/// other thread that starts one at the same time.
pub fn passing<T>(fds: &[BorrowedFd<'_>], start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let started = set_close_on_exec(fds, false).and_then(|()| start());
    set_close_on_exec(fds, true)?;
    started
}

type Prepared = (CString, Vec<CString>, Vec<CString>);

fn prepare(program: &Path, argv: &[OsString], variable: (&str, &OsStr)) -> io::Result<Prepared> {
    let c_string = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::other);
    let argv = argv.iter().map(|word| c_string(word)).collect::<io::Result<_>>()?;
    let own = std::iter::once((OsString::from(variable.0), variable.1.to_owned()));
    let environment = std::env::vars_os().filter(|(name, _)| name != variable.0).chain(own);
    let environment = environment
        .map(|(name, value)| c_string(&OsString::from_vec([name.as_bytes(), b"=", value.as_bytes()].concat())))
        .collect::<io::Result<_>>()?;
    Ok((c_string(program.as_os_str())?, argv, environment))
}

fn set_close_on_exec(fds: &[BorrowedFd<'_>], close: bool) -> io::Result<()> {
    let flags = if close { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    // FD_CLOEXEC is the only flag that a descriptor has (fcntl(2)).
    fds.iter().try_for_each(|fd| fcntl(fd, FcntlArg::F_SETFD(flags)).map(drop)).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::getpid;

    use super::*;
    use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};

    fn sh(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    #[test]
    fn kept_descriptors_and_the_variable_come_through() {
        let alone = alone_in_test();
        let kept = File::open("/dev/null").unwrap();
        let closed = File::open("/dev/null").unwrap();
        let script = format!(
            "[ \"$STATE\" = x ] && [ -e /proc/self/fd/{} ] && [ ! -e /proc/self/fd/{} ]",
            kept.as_raw_fd(),
            closed.as_raw_fd(),
        );
        let pid = fork_in_test(&alone, |blocked| {
            let _ = exec(Path::new("/bin/sh"), &sh(&script), ("STATE", "x".as_ref()), &[kept.as_fd()], blocked);
            99
        });
        assert_eq!(wait_in_test(pid), Exit::Code(0));
    }

    #[test]
    fn a_signal_that_comes_before_exec_waits_for_the_new_program() {
        let alone = alone_in_test();
        // SIGTERM is bit 14 of the masks: the 4 of the fourth digit from the right. (A shell would clear them.)
        let masks = r"ShdPnd:\s[0-9a-f]{12}[4-7c-f][0-9a-f]{3}\s+SigBlk:\s[0-9a-f]{12}[4-7c-f][0-9a-f]{3}\s";
        let argv = ["grep", "-Ezq", masks, "/proc/self/status"].map(OsString::from);
        let grep = ["/usr/bin/grep", "/bin/grep"].map(Path::new).into_iter().find(|path| path.exists()).expect("grep");
        let pid = fork_in_test(&alone, |blocked| {
            let _ = kill(getpid(), Signal::SIGTERM);
            let _ = exec(grep, &argv, ("STATE", "x".as_ref()), &[], blocked);
            99
        });
        assert_eq!(wait_in_test(pid), Exit::Code(0));
    }

    #[test]
    fn a_failure_leaves_everything_as_it_was() {
        let alone = alone_in_test();
        let file = File::open("/dev/null").unwrap();
        let pid = fork_in_test(&alone, |blocked| {
            let error = exec(Path::new("/nonexistent"), &sh(""), ("STATE", "x".as_ref()), &[file.as_fd()], blocked);
            let closes = fcntl(&file, FcntlArg::F_GETFD).is_ok_and(|flags| flags == FdFlag::FD_CLOEXEC.bits());
            i32::from(error.raw_os_error() != Some(libc::ENOENT) || !closes)
        });
        assert_eq!(wait_in_test(pid), Exit::Code(0));
    }
}
