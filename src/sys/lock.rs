//! Locks that belong to a process (fcntl(2), "advisory record locking"): no forked child has them, they end with the process,
//! even if others have the file open, and they survive exec as long as a descriptor does.
//!
//! The trap: they are lost as soon as the process closes any descriptor of the file. So a locked file is opened once.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;

/// The holder of a lock that keeps a process from locking a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nobody does.
    Free,
    /// A process with the lock that only one can have, which takes a descriptor for writing. `None` when it cannot be named here:
    /// it is in another namespace of processes.
    Owned(Option<Pid>),
    /// A process with a lock that many can have: read access to the file is enough for it.
    Read,
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    // A length of 0 means the whole file, however long it becomes.
    libc::flock { l_type: kind as libc::c_short, l_whence: libc::SEEK_SET as libc::c_short, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Takes the lock that only one process can have, without waiting. The file is open for writing. `Free` means that it is this
/// process's now.
pub fn take(file: &impl AsFd) -> io::Result<Lock> {
    loop {
        match fcntl(file.as_fd(), FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => return Ok(Lock::Free),
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(errno) => return Err(errno.into()),
        }
        match look(file)? {
            // It was released in between.
            Lock::Free => {}
            held => return Ok(held),
        }
    }
}

/// Who has the lock, if another process has.
pub fn look(file: &impl AsFd) -> io::Result<Lock> {
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut lock))?;
    Ok(match i32::from(lock.l_type) {
        libc::F_UNLCK => Lock::Free,
        libc::F_RDLCK => Lock::Read,
        _ => Lock::Owned((lock.l_pid > 0).then(|| Pid::from_raw(lock.l_pid))),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::sys::process::{Exit, alone_in_test, exit_now, fork_in_test, wait_in_test};

    #[test]
    fn one_process_has_it_and_no_child_of_it() {
        let alone = alone_in_test();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let file = File::create(&path).unwrap();
        assert_eq!(take(&file).unwrap(), Lock::Free);
        assert_eq!(take(&file).unwrap(), Lock::Free, "it is ours");
        let own = nix::unistd::getpid();
        let child = fork_in_test(&alone, |_| {
            let other = take(&file).is_ok_and(|lock| lock == Lock::Owned(Some(own)));
            let seen = File::open(&path).and_then(|file| look(&file)).is_ok_and(|lock| lock == Lock::Owned(Some(own)));
            // A child that closes the file takes nothing from its parent.
            drop(OwnedFd::from(file.try_clone().unwrap_or_else(|_| exit_now(2))));
            i32::from(!(other && seen))
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
        let child = fork_in_test(&alone, |_| i32::from(take(&file).is_ok_and(|lock| lock == Lock::Free)));
        assert_eq!(wait_in_test(child), Exit::Code(0), "it is held still");
    }
}
