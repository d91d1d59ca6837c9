//! Signal masks and dispositions.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// All signals of the calling thread are blocked while this lives; dropping it restores the earlier mask, and signals that have
/// arrived meanwhile are delivered.
#[derive(Debug)]
#[must_use = "dropping it unblocks the signals"]
pub struct Blocked {
    before: SigSet,
}

impl Blocked {
    /// Blocks every signal that can be blocked.
    pub fn all() -> io::Result<Self> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        Ok(Self { before })
    }

    /// Blocks only these from now on.
    pub fn narrow(&self, signals: &[Signal]) -> io::Result<()> {
        Ok(signals.iter().copied().collect::<SigSet>().thread_set_mask()?)
    }

    /// What the program that this process ran before exec has blocked, for a new program that blocks nothing itself.
    pub fn before_exec() -> Self {
        Self { before: SigSet::empty() }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.before.thread_set_mask().expect("a mask that was in force is valid");
    }
}

thread_local! {
    /// Whether a [`WithoutSigpipe`] of this thread lives.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// SIGPIPE is blocked in the calling thread while this lives, for system calls that have no MSG_NOSIGNAL; one of [`without_sigpipe`] is
/// discarded, whatever its action is. It must not live while code of the application runs, whose children would inherit the mask.
#[derive(Debug)]
#[must_use = "dropping it unblocks the signal"]
pub struct WithoutSigpipe {
    /// `None`: another one lives, or the signal was blocked before.
    before: Option<SigSet>,
    /// It belongs to the thread.
    _thread: PhantomData<*const ()>,
}

impl WithoutSigpipe {
    /// Blocks it.
    pub fn hold() -> io::Result<Self> {
        let mut held = Self { before: None, _thread: PhantomData };
        if !HELD.get() {
            let before = sigpipe().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
            held.before = Some(before).filter(|before| !before.contains(Signal::SIGPIPE));
            HELD.set(held.before.is_some());
        }
        Ok(held)
    }
}

impl Drop for WithoutSigpipe {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            HELD.set(false);
            before.thread_set_mask().expect("a mask that was in force is valid");
        }
    }
}

fn sigpipe() -> SigSet {
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    pipe
}

/// Runs a system call that has no MSG_NOSIGNAL: a SIGPIPE of it is discarded, whatever its action is. Several of them share a
/// [`WithoutSigpipe`] that lives meanwhile.
pub(super) fn without_sigpipe<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let held = WithoutSigpipe::hold()?;
    let result = call();
    if HELD.get() && result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        // The signal is for this thread (signal(7)): it is taken here, or it would be delivered as soon as it is unblocked.
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time outlive the call, which only reads them; no information is asked for.
        unsafe { libc::sigtimedwait(sigpipe().as_ref(), std::ptr::null_mut(), &raw const now) };
    }
    drop(held);
    result
}

/// The signal with this name, which is without SIG: `TERM`.
pub fn named(name: &str) -> Option<Signal> {
    format!("SIG{name}").parse().ok()
}

/// Unblocks every signal of the calling thread: a mask survives exec, and some supervisors leave one set.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// The name of a signal: `SIGSEGV`; `signal 35` for those without one.
pub fn name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {number}"),
    }
}

/// Signals that mean an error of write(2), which must stay an error and not end the process: a closed socket or pipe, and a file
/// beyond the limit of file sizes (RLIMIT_FSIZE), such as a log or the spooled body of a request. Python ignores both, and so its
/// `subprocess` gives both their default action again in the programs that it starts.
const WRITE_ERRORS: [i32; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

/// Ignores the signals that mean an error of write(2): SIGPIPE and SIGXFSZ.
pub fn ignore_write_errors() {
    for number in WRITE_ERRORS {
        // SAFETY: SIG_IGN runs no code of this process.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// Gives every signal but those in `keep` its default action, and ignores those that mean an error of write(2).
pub(super) fn reset_all(keep: &[Signal]) {
    for number in 1..=libc::SIGRTMAX() {
        if keep.iter().any(|&kept| kept as i32 == number) {
            continue;
        }
        let action = if WRITE_ERRORS.contains(&number) { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: SIG_DFL and SIG_IGN run no code of this process. The call fails without effect for SIGKILL, SIGSTOP and the two
        // signals that the C library keeps to itself.
        unsafe { libc::signal(number, action) };
    }
}

/// The actions of some signals, as they were at one time.
pub struct Actions(Vec<(i32, libc::sigaction)>);

impl Actions {
    /// What they are now.
    pub fn now(signals: &[Signal]) -> Self {
        let action = |signal: &Signal| {
            let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
            // SAFETY: nothing is set; the present action is written to a place of the right size, unless the call fails.
            let read = unsafe { libc::sigaction(*signal as i32, std::ptr::null(), action.as_mut_ptr()) };
            // SAFETY: it was written.
            (read == 0).then(|| (*signal as i32, unsafe { action.assume_init() }))
        };
        Self(signals.iter().filter_map(action).collect())
    }

    /// Makes them that again.
    pub fn set(&self) {
        for (number, action) in &self.0 {
            // SAFETY: the handler was one before in this process, and nothing of it was unloaded since. The call fails for no
            // signal whose action could be read.
            unsafe { libc::sigaction(*number, action, std::ptr::null_mut()) };
        }
    }
}

/// Whether a process has sent SIGWINCH since the last [`take_sent_winch`].
static WINCH_SENT: AtomicBool = AtomicBool::new(false);

/// The action of SIGWINCH before [`watch_winch`].
static WINCH_BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// From now on [`take_sent_winch`] knows a SIGWINCH of a process from one of a terminal whose window has got another size, which the
/// kernel sends to all in the foreground. To be called before others catch it, who run this handler as the earlier one; itself it
/// runs the one before.
pub fn watch_winch() -> io::Result<()> {
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is set; the present action is written to a place of the right size.
    Errno::result(unsafe { libc::sigaction(libc::SIGWINCH, null(), before.as_mut_ptr()) })?;
    // SAFETY: it was written, since the call has not failed.
    if WINCH_BEFORE.set(unsafe { before.assume_init() }).is_err() {
        return Ok(());
    }
    // SAFETY: zeros are an action: no handler, no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = note_winch as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler has the arguments that go with SA_SIGINFO, and does what a handler may: it loads and stores atomics, and
    // calls what was a handler.
    Errno::result(unsafe { libc::sigaction(libc::SIGWINCH, &raw const action, null_mut()) })?;
    Ok(())
}

extern "C" fn note_winch(number: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes the information, for the time of the call. What it sends itself has a code above 0
    // (sigaction(2)).
    if unsafe { (*info).si_code } <= 0 {
        WINCH_SENT.store(true, Ordering::Relaxed);
    }
    let Some(before) = WINCH_BEFORE.get() else { return };
    if matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
        return;
    }
    if before.sa_flags & libc::SA_SIGINFO == 0 {
        // SAFETY: an action that is neither of these, without the flag, is the address of such a function.
        let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(before.sa_sigaction) };
        handler(number);
    } else {
        // SAFETY: with the flag, of such a one.
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(before.sa_sigaction) };
        handler(number, info, context);
    }
}

/// Whether a process has sent SIGWINCH since the last call.
pub fn take_sent_winch() -> bool {
    WINCH_SENT.swap(false, Ordering::Relaxed)
}

/// The action of a signal: SIG_DFL, SIG_IGN or the address of a handler.
#[cfg(test)]
pub(super) fn disposition(number: i32) -> libc::sighandler_t {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is set; the present action is written to a place of the right size.
    unsafe {
        assert_eq!(libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()), 0);
        action.assume_init().sa_sigaction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_is_undone_by_drop() {
        let before = SigSet::thread_get_mask().unwrap();
        let blocked = Blocked::all().unwrap();
        assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
        drop(blocked);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[test]
    fn names_are_the_usual_ones() {
        assert_eq!(name(libc::SIGSEGV), "SIGSEGV");
        assert_eq!(name(40), "signal 40");
    }
}
