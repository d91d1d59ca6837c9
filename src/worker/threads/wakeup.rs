//! The wake-ups of idle threads: a timer that is put off as long as calls are quick, and a bell for each thread.
//!
//! The timer is a timerfd(2) and not a wait with a timeout, because another thread must be able to put it off: one system call in
//! a tick instead of an interrupt and two context switches. And it stays ready until it is cleared, so nothing is lost when
//! another thread becomes the watcher. A thread that waits for a descriptor cannot wait for a condition too, hence the bells
//! (eventfd(2)).
//!
//! A child that the application forks has the same timer, and must leave it alone; it has no watcher, so it needs none of its
//! own.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::sys::time::monotonic;

use super::thread_id::ThreadId;
use crate::worker::descriptors::replaced;

/// The timer and the bells of a worker's threads.
#[derive(Debug)]
pub struct Wakeups {
    timer: TimerFd,
    bells: Vec<EventFd>,
    process: u32,
    /// Whether a descriptor was found to be something else.
    broken: AtomicBool,
}

impl Wakeups {
    /// The timer, which is not set, and the bells of so many threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let bell = |_| EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let bells = (0..threads).map(bell).collect::<Result<_, Errno>>()?;
        Ok(Self { timer, bells, process: std::process::id(), broken: AtomicBool::new(false) })
    }

    /// Nanoseconds of the timer's clock: the monotonic one.
    pub fn now(&self) -> u64 {
        monotonic()
    }

    /// Sets the timer to this time; a time that was set before no longer counts.
    pub fn set(&self, at: u64) {
        if std::process::id() == self.process {
            let at = Expiration::OneShot(Duration::from_nanos(at).into());
            if self.timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME).is_err() {
                self.fail();
            }
        }
    }

    /// Ends the present wait of this thread, or else its next one.
    pub fn ring(&self, thread: ThreadId) {
        // EAGAIN: it has been rung 2^64 - 2 times.
        if self.bells[thread.index()].write(1).is_err_and(|error| error != Errno::EAGAIN) {
            self.fail();
        }
    }

    /// The application has closed or replaced a descriptor: a waiting thread gets an error, and ends the worker.
    #[cold]
    fn fail(&self) {
        self.broken.store(true, SeqCst);
        for bell in &self.bells {
            // A bell whose descriptor is gone too wakes nobody; the others do.
            let _ = bell.write(1);
        }
    }

    /// Waits for the timer and for this thread's bell. Returns whether the timer has fired, which every waiter sees until the
    /// timer is cleared or set; may return for no reason.
    ///
    /// # Errors
    /// When the application has closed the descriptors.
    pub fn wait(&self, thread: ThreadId) -> io::Result<bool> {
        let bell = &self.bells[thread.index()];
        let mut fds = [self.timer.as_fd(), bell.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        if let Err(error) = poll(&mut fds, PollTimeout::NONE) {
            return if error == Errno::EINTR { Ok(false) } else { Err(error.into()) };
        }
        let closed = fds.iter().any(|fd| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL)));
        if closed || self.broken.load(SeqCst) {
            return Err(replaced(&"a thread cannot be woken any more"));
        }
        let [fired, rung] = fds.map(|fd| fd.any() == Some(true));
        if rung {
            bell.read()?;
        }
        Ok(fired)
    }

    /// Clears the timer; returns whether it had fired and nobody had cleared it.
    ///
    /// # Errors
    /// As above.
    pub fn clear(&self) -> io::Result<bool> {
        match self.timer.wait() {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ThreadId = ThreadId::new(0);
    const OTHER: ThreadId = ThreadId::new(1);

    #[test]
    fn the_timer_is_ready_for_everybody_until_one_clears_it() {
        let watch = Wakeups::new(2).expect("descriptors");
        watch.set(watch.now());
        assert!(watch.wait(ME).expect("it waits"));
        assert!(watch.wait(OTHER).expect("it waits"));
        assert!(watch.clear().expect("it is there"));
        assert!(!watch.clear().expect("it is there"));
        watch.ring(ME);
        assert!(!watch.wait(ME).expect("it waits"));
    }

    #[test]
    fn a_timer_that_is_put_off_does_not_fire_before() {
        let watch = Wakeups::new(1).expect("descriptors");
        watch.set(1);
        let later = watch.now() + 20_000_000;
        watch.set(later);
        assert!(!watch.clear().expect("it is there"));
        assert!(watch.wait(ME).expect("it waits"));
        assert!(watch.now() >= later);
    }

    #[test]
    fn a_bell_rings_once_and_for_one() {
        let watch = Wakeups::new(2).expect("descriptors");
        watch.ring(ME);
        watch.ring(ME);
        assert!(!watch.wait(ME).expect("it waits"));
        watch.ring(OTHER);
        assert!(!watch.wait(OTHER).expect("it waits"));
        watch.set(1);
        assert!(watch.wait(ME).expect("it waits"));
    }

    #[test]
    fn a_child_process_leaves_the_timer_alone() {
        let watch = Wakeups { process: std::process::id() + 1, ..Wakeups::new(1).expect("descriptors") };
        watch.set(1);
        watch.ring(ME);
        assert!(!watch.wait(ME).expect("it waits"));
    }
}
