//! fork, wait, parent-death signal, environment, process facts.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
pub use nix::unistd::Pid;
use nix::unistd::{ForkResult, getpid, getppid, getsid};

use super::host;
use super::signals::{self, Blocked};

/// Most descriptors asked for: a container's hard limit can be 2^30, and programs exist that close them one by one.
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The process that forked; the child's id.
    Parent(Pid),
    /// The new process. Its signals are blocked until the guard is dropped: install the handlers first, and nothing is lost.
    Child(Blocked),
}

/// Forks. In the child every signal has its default action (SIGPIPE and SIGXFSZ are ignored) except those in `keep`, whose
/// handlers stay as they are, and `death` is sent when the parent dies.
///
/// Refused when the process has other threads: they do not exist in the child, and the locks that they hold stay held. A process that
/// belongs to a runtime ([`host::live_in`]) may have threads of that, which knows what to do about them.
pub fn fork(death: Signal, keep: &[Signal]) -> io::Result<Fork> {
    refuse_threads()?;
    fork_now(death, keep)
}

/// Sets variables in the environment of this process, in order. Refused when the process has other threads, which may read it.
pub fn set_env(variables: &[(String, String)]) -> io::Result<()> {
    if variables.is_empty() {
        return Ok(());
    }
    refuse_threads()?;
    for (name, value) in variables {
        // SAFETY: no other thread exists that could read or write the environment at the same time, or the thread holds the lock
        // of the runtime, under which its own code writes there.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

/// Takes variables out of the environment of this process; refused as by [`set_env`].
pub fn unset_env(names: &[&str]) -> io::Result<()> {
    refuse_threads()?;
    for name in names {
        // SAFETY: as in `set_env`.
        unsafe { std::env::remove_var(name) };
    }
    Ok(())
}

/// Forks and changes nothing else: a process that continues alone (a daemon). `None` in the child. Refused as by [`fork`].
pub fn split() -> io::Result<Option<Pid>> {
    refuse_threads()?;
    // SAFETY: fork(2) itself has no precondition. No other thread exists whose locks the child could find held, or they are those
    // of a runtime that is told.
    match unsafe { host::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => {
            host::tell_child();
            Ok(None)
        }
    }
}

/// The same for a process that ends soon and needs nothing of a runtime.
fn split_for_a_moment() -> io::Result<Option<Pid>> {
    refuse_threads()?;
    // SAFETY: as in `split`; the child calls nothing of a runtime, and the C library has its own locks ready for it.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Forks a process whose parent is this one's parent, which has to be a subreaper ([`adopt_orphans`]). The child alone gets `Some`;
/// `death` is sent to it when that parent dies. Its signals are blocked as by [`fork`], but their actions stay what they are here: it
/// is to go on with what this process has prepared. Other threads are the business of the runtime ([`host::live_in`]).
///
/// fork(2) twice, and not clone(2) with CLONE_PARENT: the C library and others (pthread_atfork(3)) have locks and threads to mend
/// in the child.
pub fn fork_sibling(death: Signal) -> io::Result<Option<Blocked>> {
    refuse_threads()?;
    let parent = getppid();
    let blocked = Blocked::all()?;
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: as in `split`.
    match unsafe { host::fork() }? {
        ForkResult::Parent { child: middle } => {
            let ended = loop {
                match nix::sys::wait::waitpid(middle, None) {
                    Err(Errno::EINTR) => {}
                    ended => break ended,
                }
            };
            // From now on the grandchild has another parent: the end of the pipe tells it so.
            drop(writer);
            match ended {
                Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => Ok(None),
                Ok(nix::sys::wait::WaitStatus::Exited(_, errno)) => Err(io::Error::from_raw_os_error(errno)),
                Ok(_) => Err(io::Error::other("the process that was to fork was killed")),
                Err(errno) => Err(errno.into()),
            }
        }
        // SAFETY: this process has one thread, and uses nothing of a runtime until it ends.
        ForkResult::Child => match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Parent { .. }) => exit_now(0),
            Err(errno) => exit_now(errno as i32),
            Ok(ForkResult::Child) => {
                drop(writer);
                let _ = reader.read(&mut [0]);
                // The parent may have died before the signal was requested; then nobody waits for this process.
                if prctl::set_pdeathsig(death).is_err() || getppid() != parent {
                    exit_now(1);
                }
                host::tell_child();
                Ok(Some(blocked))
            }
        },
    }
}

/// Makes this process the parent of descendants whose own parent has died (prctl(2), PR_SET_CHILD_SUBREAPER), or not any more; returns
/// whether that is new. It stays so across exec.
pub fn adopt_orphans(adopts: bool) -> io::Result<bool> {
    let is_new = prctl::get_child_subreaper()? != adopts;
    prctl::set_child_subreaper(adopts)?;
    Ok(is_new)
}

/// Whether this is a child of this process that was not waited for, dead or alive.
pub fn is_child(pid: Pid) -> bool {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let Ok(number) = libc::id_t::try_from(pid.as_raw()) else { return false };
    // SAFETY: `info` is a valid place for the answer; nothing is collected.
    unsafe { libc::waitid(libc::P_PID, number, info.as_mut_ptr(), flags) == 0 }
}

/// Has this process, a child of `parent`, get SIGTERM when the thread ends that has forked it. The error is that the parent has ended
/// already.
pub fn follow_parent(parent: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid().as_raw() != parent {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the parent has ended"));
    }
    Ok(())
}

/// Gives up the controlling terminal of this process, if it has one (TIOCNOTTY, ioctl_tty(2)). The leader of a session keeps it:
/// that session has no shell whose terminal it could be.
pub fn leave_terminal() -> io::Result<()> {
    if getsid(None)? == getpid() {
        return Ok(());
    }
    let terminal = match std::fs::File::open("/dev/tty") {
        Ok(terminal) => terminal,
        // ENXIO: there is none. ENOENT: a directory tree without devices, in which nobody can open it by name.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENOENT)) => return Ok(()),
        Err(error) => return Err(error),
    };
    // SAFETY: TIOCNOTTY takes no argument, and the descriptor is open.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) })?;
    Ok(())
}

/// Closes a descriptor by the end of a process made for it, so that this one never waits for the last close of a file (a socket
/// that lingers, a file system that does not answer). Refused as by [`fork`]; then the descriptor comes back.
pub fn close_elsewhere(fd: OwnedFd) -> Result<(), (OwnedFd, io::Error)> {
    let forked = io::pipe().and_then(|(reader, writer)| Ok((split_for_a_moment()?, reader, writer)));
    match forked {
        Ok((Some(middle), _, writer)) => {
            drop(fd);
            // The last process waits for its end.
            drop(writer);
            // It ends at once.
            while nix::sys::wait::waitpid(middle, None) == Err(Errno::EINTR) {}
            Ok(())
        }
        Ok((None, mut reader, writer)) => {
            // This process needs no parent that waits for it.
            if !matches!(split_for_a_moment(), Ok(None)) {
                exit_now(0);
            }
            drop(writer);
            let _ = reader.read(&mut [0]);
            // The kernel does not linger for files that it closes at the end of a process.
            exit_now(0)
        }
        Err(error) => Err((fd, error)),
    }
}

fn refuse_threads() -> io::Result<()> {
    if host::is_there() {
        return Ok(());
    }
    // A directory has one link for itself, one for its name and one for each subdirectory. Without /proc nothing shows it.
    if std::fs::metadata("/proc/self/task").is_ok_and(|tasks| tasks.nlink() > 3) {
        return Err(io::Error::other("the process has other threads"));
    }
    Ok(())
}

fn fork_now(death: Signal, keep: &[Signal]) -> io::Result<Fork> {
    let parent = getpid();
    // A signal between the fork and the child's own handlers would otherwise run the parent's handlers in the child and be lost.
    let blocked = Blocked::all()?;
    // SAFETY: fork(2) itself has no precondition; only other threads limit what the child may do. `fork` rules them out, or they
    // are those of a runtime that is told.
    match unsafe { host::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => {
            signals::reset_all(keep);
            // The parent may have died before the signal was requested; then nobody waits for this process.
            if prctl::set_pdeathsig(death).is_err() || getppid() != parent {
                exit_now(1);
            }
            host::tell_child();
            Ok(Fork::Child(blocked))
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal {
        /// Its number.
        number: i32,
        /// Whether a core was written.
        core: bool,
    },
}

impl Exit {
    /// By SIGKILL.
    pub const KILLED: Self = Self::Signal { number: libc::SIGKILL, core: false };

    /// Whether SIGKILL ended it.
    pub fn is_kill(self) -> bool {
        matches!(self, Self::Signal { number: libc::SIGKILL, .. })
    }
}

impl fmt::Display for Exit {
    /// `exited with code 3`, `was killed by SIGSEGV (core dumped)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal { number, core } => {
                write!(f, "was killed by {}{}", signals::name(number), if core { " (core dumped)" } else { "" })
            }
        }
    }
}

/// Collects a child that has ended, and how much processor time it and its own children have used; `None` while it runs.
pub fn reap(pid: Pid) -> io::Result<Option<(Exit, Duration)>> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `status` is a valid place for one int and `usage` for one rusage during the call. (nix's waitpid fails for a
    // real-time signal after the status is gone.)
    let exit = match unsafe { libc::wait4(pid.as_raw(), &mut status, libc::WNOHANG, usage.as_mut_ptr()) } {
        -1 => return Err(io::Error::last_os_error()),
        0 => return Ok(None),
        _ if libc::WIFEXITED(status) => Exit::Code(libc::WEXITSTATUS(status)),
        _ => Exit::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) },
    };
    // SAFETY: it is made of integers, all of which are zero or were written.
    let usage = unsafe { usage.assume_init() };
    Ok(Some((exit, duration(usage.ru_utime) + duration(usage.ru_stime))))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
}

/// Most children of others that are waited for at once: a process that makes them as fast as it can must not keep this one from
/// its work.
const ORPHANS_AT_ONCE: usize = 256;

/// Waits for children that nobody knows, and forgets them: orphans that this process inherits (as PID 1 of a container, or as a
/// subreaper), children from before it executed this program, and processes that a child has made its siblings (CLONE_PARENT,
/// clone(2)). `is_own` recognises the children that somebody else waits for: this function stops after one of them, and must be
/// called again after that. Returns whether there may be more, for which it must be called soon, whether a signal comes or not.
pub fn reap_orphans(is_own: impl Fn(Pid) -> bool) -> bool {
    for _ in 0..ORPHANS_AT_ONCE {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is a valid place for the answer; nothing is collected yet.
        let found = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) } == 0;
        // SAFETY: zeroed before, which is a valid siginfo_t with pid 0, and filled for a child that has ended.
        let pid = if found { unsafe { info.assume_init().si_pid() } } else { 0 };
        if pid == 0 || is_own(Pid::from_raw(pid)) || reap(Pid::from_raw(pid)).is_err() {
            return false;
        }
    }
    true
}

/// Ends this process at once: no exit handlers, no buffers flushed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no precondition and does not return.
    unsafe { libc::_exit(code) }
}

/// Raises the soft limit of open descriptors to the hard one.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(MAX_DESCRIPTORS);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}

/// Descriptors that this process may have open; the largest number when that is unknown.
pub fn descriptor_limit() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(usize::MAX, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// The cores that this process may use, by affinity and by the quota of its control group; at least 1.
pub fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Sets the process's file mode creation mask for good; bits beyond 0o777 are ignored, as by umask(2).
pub fn set_umask(mask: u32) {
    umask(Mode::from_bits_truncate(mask));
}

/// Held by tests that fork (exclusively) and by tests that a fork beside them would disturb (shared): a child has copies of every
/// open descriptor, so a socket that a test closes stays open for as long as the child lives.
#[cfg(test)]
pub(crate) static FORKS: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// Keeps tests that fork, and those disturbed by it, apart.
#[cfg(test)]
pub(crate) fn alone_in_test() -> std::sync::RwLockWriteGuard<'static, ()> {
    FORKS.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Forks from a test, which runs on a thread: the child may do nothing but what `body` does, and exits with its result.
#[cfg(test)]
pub(crate) fn fork_in_test(_alone: &std::sync::RwLockWriteGuard<'_, ()>, body: impl FnOnce(Blocked) -> i32) -> Pid {
    match fork_now(Signal::SIGKILL, &[]).unwrap() {
        Fork::Parent(pid) => pid,
        Fork::Child(blocked) => exit_now(body(blocked)),
    }
}

/// Waits for a child of a test.
#[cfg(test)]
pub(crate) fn wait_in_test(pid: Pid) -> Exit {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    reap(pid).unwrap().expect("it has ended").0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

    use nix::sys::signal::{kill, raise};

    use super::*;
    use crate::sys::memory::SharedSlice;

    #[test]
    fn the_exit_code_of_a_child_is_collected_once() {
        let alone = alone_in_test();
        let pid = fork_in_test(&alone, |_| 7);
        assert_eq!(wait_in_test(pid), Exit::Code(7));
        assert_eq!(reap(pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }

    #[test]
    fn a_signal_sent_before_the_child_unblocks_waits_for_it() {
        let alone = alone_in_test();
        let lived_on = SharedSlice::<AtomicU32>::new(1).unwrap();
        let pid = fork_in_test(&alone, |blocked| {
            let _ = raise(Signal::SIGTERM);
            lived_on[0].store(1, Relaxed);
            drop(blocked);
            9
        });
        assert_eq!(wait_in_test(pid), Exit::Signal { number: libc::SIGTERM, core: false });
        assert_eq!(lived_on[0].load(Relaxed), 1);
    }

    #[test]
    fn a_child_keeps_only_the_handlers_it_is_to_keep_and_dies_with_its_parent() {
        let _alone = alone_in_test();
        for signal in [Signal::SIGUSR1, Signal::SIGALRM] {
            signal_hook::flag::register(signal as i32, Arc::new(AtomicBool::new(false))).unwrap();
        }
        match fork_now(Signal::SIGUSR2, &[Signal::SIGUSR1]).unwrap() {
            Fork::Child(_blocked) => {
                let default = |signal| signals::disposition(signal) == libc::SIG_DFL;
                let right = !default(libc::SIGUSR1)
                    && default(libc::SIGALRM)
                    && default(libc::SIGSEGV)
                    && signals::disposition(libc::SIGPIPE) == libc::SIG_IGN
                    && prctl::get_pdeathsig() == Ok(Some(Signal::SIGUSR2));
                exit_now(i32::from(!right))
            }
            Fork::Parent(pid) => assert_eq!(wait_in_test(pid), Exit::Code(0)),
        }
    }

    #[test]
    fn a_sibling_is_a_child_of_the_parent_that_adopts_orphans() {
        let alone = alone_in_test();
        let before = prctl::get_child_subreaper().unwrap();
        adopt_orphans(true).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let told = |text: &str| nix::unistd::write(&writer, text.as_bytes()).is_ok_and(|len| len == text.len());
        let parent = getpid();
        let elder = fork_in_test(&alone, |_| match fork_sibling(Signal::SIGKILL) {
            // Tests have threads, which this process has not.
            Ok(Some(_blocked)) => {
                let right = getppid() == parent && prctl::get_pdeathsig() == Ok(Some(Signal::SIGKILL));
                told(&format!("{} {right}", getpid()));
                5
            }
            Ok(None) => 0,
            Err(_) => 1,
        });
        assert_eq!(wait_in_test(elder), Exit::Code(0));
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (pid, right) = text.split_once(' ').expect("the sibling has spoken");
        assert_eq!(right, "true");
        let pid = Pid::from_raw(pid.parse().unwrap());
        assert!(is_child(pid) && !is_child(Pid::from_raw(1)) && !is_child(Pid::from_raw(0)));
        assert_eq!(wait_in_test(pid), Exit::Code(5));
        assert!(!is_child(pid));
        adopt_orphans(before).unwrap();
    }

    #[test]
    fn a_child_that_runs_is_not_collected() {
        let alone = alone_in_test();
        let pid = fork_in_test(&alone, |_| {
            loop {
                std::thread::park();
            }
        });
        assert_eq!(reap(pid).unwrap(), None);
        kill(pid, Signal::SIGKILL).unwrap();
        assert_eq!(wait_in_test(pid), Exit::Signal { number: libc::SIGKILL, core: false });
    }

    #[test]
    fn children_that_nobody_knows_are_waited_for_some_at_a_time() {
        let alone = alone_in_test();
        let pid = fork_in_test(&alone, |_| {
            let (mut reader, writer) = io::pipe().unwrap();
            for _ in 0..2 * ORPHANS_AT_ONCE {
                if split().unwrap().is_none() {
                    exit_now(0);
                }
            }
            drop(writer);
            // The pipe ends when the last child ends.
            let _ = reader.read(&mut [0]);
            if !reap_orphans(|_| false) {
                exit_now(1);
            }
            while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD) {
                reap_orphans(|_| false);
            }
            0
        });
        assert_eq!(wait_in_test(pid), Exit::Code(0));
    }

    #[test]
    fn a_process_with_threads_neither_forks_nor_changes_its_environment() {
        assert!(fork(Signal::SIGTERM, &[]).is_err(), "the test runs on a thread beside the main one");
        assert!(set_env(&[("A".into(), "b".into())]).is_err());
    }

    #[test]
    fn endings_are_put_in_words() {
        assert_eq!(Exit::Code(3).to_string(), "exited with code 3");
        assert_eq!(Exit::Signal { number: libc::SIGSEGV, core: true }.to_string(), "was killed by SIGSEGV (core dumped)");
    }
}
