//! How the loop waits, and whether it releases the application's runtime meanwhile.
//!
//! Releasing and taking it again costs as much as parsing a request, and under load most waits are over at once. So a wait begins
//! without it when the last one was short and no other thread is known that could want the runtime; after a moment it is
//! released. A block of SIGPIPE that calls share is given back in the same moment, with or without the runtime: a signal that somebody
//! sends to the process, and the application handles, waits for it no longer.

use std::io;
use std::time::Duration;

use super::{EventLoop, ThreadCtx, replaced};

/// How long a wait lasts before it releases the runtime. A thread that another language starts in this moment waits as long, and
/// the interpreter makes it wait as long for a thread that computes (`sys.getswitchinterval`). It is longer than the scheduler's
/// tick of most kernels (4 ms), because the kernel sets its timer for a wait that ends before the tick, at the wait's begin and
/// at its end: 2.7 us more for a wait of 1 ms than for one of 5, on a virtual machine, where the timer is the hypervisor's.
const HOLD: Duration = Duration::from_millis(5);

impl EventLoop {
    /// Polls until something happens or the nearest deadline, then reads the clock.
    pub(super) fn wait(&mut self, ctx: &mut ThreadCtx) -> io::Result<()> {
        let before = ctx.clock.ns();
        let patience = self.patience(ctx.clock.ms());
        self.wait_for_events(patience, ctx)?;
        ctx.clock.tick();
        self.brisk = ctx.clock.ns() - before < HOLD.as_nanos() as u64;
        self.calls.woken(before, patience, ctx.clock.ns());
        Ok(())
    }

    fn wait_for_events(&mut self, timeout: Option<Duration>, ctx: &mut ThreadCtx) -> io::Result<()> {
        let is_long = timeout.is_none_or(|timeout| timeout > HOLD);
        let keeps_runtime = self.brisk && is_long && ctx.app.is_alone();
        if !keeps_runtime {
            ctx.app.release();
            if !is_long || !ctx.blocks_sigpipe() {
                return self.poll(timeout);
            }
        }
        self.poll(Some(HOLD))?;
        if !self.events.is_empty() || !self.errands.is_empty() {
            return Ok(());
        }
        ctx.unblock_sigpipe();
        if keeps_runtime {
            ctx.app.release();
        }
        self.poll(timeout.map(|timeout| timeout - HOLD))
    }

    /// How long there is nothing to do without an event; `None`: for ever.
    fn patience(&self, now: u64) -> Option<Duration> {
        if !self.runnable.is_empty() {
            return Some(Duration::ZERO);
        }
        let wishes = [
            self.timers.next(),
            self.calls.next(),
            self.acceptor.wants(),
            self.overload.wants(),
            self.reminder.due(),
            self.handoff.wants(),
            self.leaving.wants(now),
        ];
        let first = wishes.into_iter().fold(u64::MAX, |first, wish| first.min(wish.unwrap_or(u64::MAX)));
        (first != u64::MAX).then(|| Duration::from_millis(first.saturating_sub(now)))
    }

    #[inline]
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => Ok(()),
            Err(error) => self.poll_failed(&error),
        }
    }

    #[cold]
    fn poll_failed(&mut self, error: &io::Error) -> io::Result<()> {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(replaced(&format_args!("the loop cannot wait for events ({error})")));
        }
        self.events.clear();
        self.note_signals();
        Ok(())
    }
}
