//! The molds as the master keeps them (`--preload`): processes that have loaded the application of a generation and fork its workers
//! ([`crate::mold`]).
//!
//! ```text
//! Booting ──Ready──▶ Ready ──its generation is over, and its last worker gone──▶ Ending ─▶ gone
//!    ├─BootFailed──▶ Failed ─┐ └──died──▶ gone: another one is made, the workers serve on
//!    └─died──────────────────┴──▶ gone: so the workers that waited for it could not boot
//! ```
//! Workers that are to be forked while their mold loads wait here, without a process. For the policy they boot.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::channel::{BootError, Breach, Conduct, Heard, MasterEnd, Report};
use crate::log::error::Log;
use crate::mold::OrderEnd;
use crate::sys::process::{self, Exit, Pid};
use crate::sys::{fd, process::close_elsewhere};

use super::event::{Generation, SlotIndex};
use super::logs::Logs;
use super::notes::About;
use super::table::STACKS_MAX;

/// Pause before a mold that has died soon after its start, or could not load, is made again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A mold that has lived so long was well.
const STEADY: Duration = Duration::from_secs(10);

/// How long a mold has to run its exit handlers.
const ENDING_MAX: Duration = Duration::from_secs(2);

/// How much longer than its workers may boot a mold may load: they are ended first, and it with them, so that its interpreter says
/// where it is.
const BOOT_EXTRA: Duration = Duration::from_secs(3);

/// How long a mold has to end after it has said that it cannot load.
const FAILED_GRACE: Duration = Duration::from_secs(1);

/// Pause between two looks at a process that is about to end, where nothing tells of its end.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Most reports taken in one turn: no mold sends more than two.
const REPORTS_PER_TURN: usize = 4;

/// How far a mold is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MoldStage {
    /// It loads.
    Booting,
    /// It forks workers.
    Ready,
    /// It is to end.
    Ending,
}

/// A mold as its parent sees it.
#[derive(Debug)]
pub struct Mold {
    /// Whose application it has.
    pub generation: Generation,
    /// Process id, until it has ended.
    pub pid: Pid,
    channel: Option<MasterEnd>,
    orders: Option<OrderEnd>,
    stacks: File,
    /// The logs of its generation.
    pub logs: Option<Arc<Logs>>,
    born: Instant,
    conduct: Conduct,
    stage: MoldStage,
    /// Why it could not load.
    failure: Option<BootError>,
    /// Whether workers may not be forked from it any more, though its generation serves: what they share is another one now.
    stale: bool,
    /// Whether it was killed, and its end is to be reported.
    killed: bool,
    /// When it is killed.
    kill_at: Option<Instant>,
}

/// What has happened to molds.
#[derive(Debug)]
pub enum MoldEvent {
    /// The one of this generation can fork; the interpreter.
    Ready(Generation, String),
    /// One has ended, in this way.
    Ended(Mold, Exit),
}

/// Keeps the molds.
#[derive(Debug, Default)]
pub struct MoldKeeper {
    molds: Vec<Mold>,
    /// Workers that wait for a mold.
    unborn: Vec<(SlotIndex, Generation)>,
    /// A worker of which a mold had to do with the end: what is known of it.
    pub ghost: Option<(SlotIndex, About)>,
    pause: Duration,
    /// When the next one of this generation is made, after one has died.
    due: Option<(Generation, Instant)>,
    /// Orders so far.
    orders: u64,
    /// Whether this process adopts orphans because of them.
    adopts: bool,
}

impl Mold {
    /// One that was just forked, with the master's ends.
    pub fn new(
        (generation, pid): (Generation, Pid),
        channel: MasterEnd,
        orders: OrderEnd,
        stacks: File,
        limit: Option<Duration>,
    ) -> Self {
        let born = Instant::now();
        Self {
            generation,
            pid,
            channel: Some(channel),
            orders: Some(orders),
            stacks,
            logs: None,
            born,
            conduct: Conduct::default(),
            stage: MoldStage::Booting,
            failure: None,
            stale: false,
            killed: false,
            kill_at: limit.map(|limit| born + limit + BOOT_EXTRA),
        }
    }

    /// One from before this program: it only lives on for its workers.
    pub fn adopted(generation: Generation, pid: Pid, channel: MasterEnd, stacks: File) -> Self {
        Self {
            generation,
            pid,
            channel: Some(channel),
            orders: None,
            stacks,
            logs: None,
            born: Instant::now(),
            conduct: Conduct::of_ready(),
            stage: MoldStage::Ready,
            failure: None,
            stale: true,
            killed: false,
            kill_at: None,
        }
    }

    /// Whether workers can be forked from it, now or when it is ready.
    fn is_usable(&self) -> bool {
        !self.stale && self.stage != MoldStage::Ending && self.failure.is_none()
    }

    /// Why it could not load, if it has said so.
    pub fn failure(&self) -> Option<&BootError> {
        self.failure.as_ref()
    }

    /// Whether it never was ready.
    pub fn was_booting(&self) -> bool {
        self.stage == MoldStage::Booting
    }

    /// Whether it was told to end.
    pub fn was_dismissed(&self) -> bool {
        self.stage == MoldStage::Ending
    }

    /// What is known of it, for a note about a worker.
    pub fn about(&self) -> About {
        let mut text = vec![0; STACKS_MAX];
        let read = self.stacks.read_at(&mut text, 0).unwrap_or(0);
        let len = text[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
        About {
            pid: self.pid.as_raw(),
            age: self.born.elapsed(),
            serving: Vec::new(),
            stacks: String::from_utf8_lossy(&text[..len]).trim_end().to_owned(),
            oom: None,
        }
    }

    /// The master's end of its channel, and the file for its stacks, while the channel is open.
    pub fn descriptors(&self) -> Option<(BorrowedFd<'_>, BorrowedFd<'_>)> {
        Some((self.channel.as_ref()?.as_fd(), self.stacks.as_fd()))
    }

    /// The master's end of its channel.
    pub fn channel(&self) -> Option<&MasterEnd> {
        self.channel.as_ref()
    }

    fn signal(&self, signal: Signal) {
        // It was not waited for, so that the number is still its own.
        let _ = kill(self.pid, signal);
    }

    /// Closes its ends; then it ends by itself.
    fn dismiss(&mut self) {
        self.stage = MoldStage::Ending;
        self.kill_at = Some(Instant::now() + ENDING_MAX);
        if let Some(channel) = self.channel.take() {
            channel.close();
        }
        if let Some(orders) = self.orders.take()
            && let Err((orders, _)) = close_elsewhere(orders.into_fd())
        {
            // No process could be made: losing one descriptor is better than waiting.
            fd::forget(orders);
        }
    }

    /// Takes in what it says.
    fn hear(&mut self) -> (Option<String>, Option<Breach>) {
        let mut ready = None;
        for _ in 0..REPORTS_PER_TURN {
            let Some(channel) = &self.channel else { break };
            let breach = match channel.receive() {
                Heard::Report(report) => match (self.conduct.take(&report), report) {
                    (Ok(()), Report::Ready(python)) => {
                        (self.stage, self.kill_at) = (MoldStage::Ready, None);
                        ready = Some(python);
                        continue;
                    }
                    (Ok(()), Report::BootFailed(why)) => {
                        self.failure = Some(why);
                        self.kill_at = Some(Instant::now() + FAILED_GRACE);
                        continue;
                    }
                    (Ok(()), _) => Some(Breach::OutOfOrder),
                    (Err(breach), _) => Some(breach),
                },
                Heard::Breach(breach) => Some(breach),
                Heard::Nothing => break,
                Heard::End => None,
            };
            if let Some(channel) = self.channel.take() {
                channel.close();
            }
            if breach.is_some() {
                return (ready, breach);
            }
            // Its end is about to be reported.
            self.kill_at.get_or_insert(Instant::now() + FAILED_GRACE);
        }
        (ready, None)
    }
}

impl MoldKeeper {
    /// With those from before this program.
    pub fn adopt(molds: Vec<Mold>) -> Self {
        Self { molds, ..Self::default() }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Mold> {
        self.molds.iter()
    }

    /// A mold was made.
    pub fn put(&mut self, mold: Mold) {
        self.molds.push(mold);
    }

    /// The worker waits until a mold of its generation is ready.
    pub fn wait_for(&mut self, slot: SlotIndex, generation: Generation) {
        self.unborn.push((slot, generation));
    }

    /// Whether the worker waits.
    pub fn has_unborn(&self, slot: SlotIndex) -> bool {
        self.unborn.iter().any(|(unborn, _)| *unborn == slot)
    }

    /// The worker is not wanted any more; whether it waited.
    pub fn forget(&mut self, slot: SlotIndex) -> bool {
        let before = self.unborn.len();
        self.unborn.retain(|(unborn, _)| *unborn != slot);
        self.unborn.len() < before
    }

    /// This generation serves: the workers that wait for an earlier one become its.
    pub fn adopt_unborn(&mut self, current: Generation) {
        self.unborn.iter_mut().for_each(|(_, generation)| *generation = current);
    }

    /// Makes this process the parent of workers that molds fork.
    pub fn adopt_orphans(&mut self) -> io::Result<()> {
        self.adopts |= process::adopt_orphans(true)?;
        Ok(())
    }

    /// Takes out a worker that waits for this generation.
    pub fn take_unborn(&mut self, generation: Generation) -> Option<SlotIndex> {
        let index = self.unborn.iter().position(|(_, other)| *other == generation)?;
        Some(self.unborn.remove(index).0)
    }

    /// A worker that waits is given up because that takes too long: the mold that it waits for is to say where it is. Whether there is
    /// one, whose end is to be waited for.
    pub fn abort(&self, slot: SlotIndex) -> bool {
        let Some((_, generation)) = self.unborn.iter().find(|(unborn, _)| *unborn == slot) else { return false };
        let booting = |mold: &&Mold| mold.generation == *generation && mold.is_usable() && mold.stage == MoldStage::Booting;
        let Some(mold) = self.molds.iter().find(booting) else { return false };
        mold.signal(Signal::SIGABRT);
        // A stopped process gets it only when it continues.
        mold.signal(Signal::SIGCONT);
        true
    }

    /// The mold of which workers of this generation can be forked now.
    pub fn ready(&self, generation: Generation) -> Option<&Mold> {
        self.molds.iter().find(|mold| {
            mold.generation == generation && mold.is_usable() && mold.stage == MoldStage::Ready && mold.orders.is_some()
        })
    }

    /// Where orders for this mold go, and the number of the next one.
    pub fn next_order(&mut self, pid: Pid) -> Option<(&OrderEnd, u64)> {
        self.orders += 1;
        let mold = self.molds.iter().find(|mold| mold.pid == pid)?;
        Some((mold.orders.as_ref()?, self.orders))
    }

    /// The mold does not do what molds do: it is killed.
    pub fn kill(&mut self, pid: Pid) {
        for mold in self.molds.iter_mut().filter(|mold| mold.pid == pid) {
            (mold.stale, mold.killed) = (true, true);
            mold.signal(Signal::SIGKILL);
        }
    }

    /// What workers share is another one now: those that are forked from now on need new molds.
    pub fn renew(&mut self) {
        self.molds.iter_mut().for_each(|mold| mold.stale = true);
    }

    /// For which generation a mold is to be made, and when: for one that has workers which wait, or for the `current` one, if it uses
    /// molds. `exists`: whether a generation may still get workers.
    pub fn wanted(
        &self,
        current: Option<Generation>,
        exists: impl Fn(Generation) -> bool,
    ) -> Option<(Generation, Option<Instant>)> {
        let waiting = self.unborn.iter().map(|(_, generation)| *generation);
        // One that never had a mold gets it with its first worker.
        let current = current.filter(|current| self.due.is_some_and(|(due, _)| due == *current));
        // The end of one that is at fault decides when the next one is made.
        let serves = |mold: &Mold| mold.is_usable() || mold.killed || mold.failure.is_some();
        let lacks = |generation: &Generation| !self.molds.iter().any(|mold| mold.generation == *generation && serves(mold));
        let generation = waiting.chain(current).filter(|generation| exists(*generation)).find(lacks)?;
        Some((generation, self.due.filter(|(due, _)| *due == generation).map(|(_, at)| at)))
    }

    /// The next mold of this generation is made later, or at once if the last one was well.
    pub fn delay(&mut self, generation: Generation, lived: Duration) -> Duration {
        if lived >= STEADY {
            self.pause = Duration::ZERO;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.due = Some((generation, Instant::now() + pause));
        pause
    }

    /// Whether this is its process.
    pub fn owns(&self, pid: Pid) -> bool {
        self.molds.iter().any(|mold| mold.pid == pid)
    }

    /// What to wait for, besides SIGCHLD.
    pub fn channels(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.molds.iter().filter_map(|mold| mold.channel.as_ref()).map(AsFd::as_fd)
    }

    /// When one is to be killed.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.molds.iter().filter_map(|mold| mold.kill_at).min()
    }

    /// Dismisses molds that are not needed: `exists` says whether a generation may still get workers, `has_workers` whether some of a
    /// mold live.
    pub fn dismiss(&mut self, exists: impl Fn(Generation) -> bool, has_workers: impl Fn(Pid) -> bool) {
        for mold in &mut self.molds {
            let over = mold.stale || !exists(mold.generation);
            // The end of one that is at fault is reported, and not taken for one that was asked for.
            let is_at_fault = mold.killed || mold.failure.is_some();
            if !over || mold.stage == MoldStage::Ending || is_at_fault || has_workers(mold.pid) {
                continue;
            }
            if mold.stage == MoldStage::Booting {
                // It reads no channel yet, and nothing of it is wanted.
                mold.signal(Signal::SIGKILL);
            }
            mold.dismiss();
        }
    }

    /// Takes in what molds say, their ends, and deadlines.
    pub fn tick(&mut self, log: &Log) -> Vec<MoldEvent> {
        let now = Instant::now();
        let mut events = Vec::new();
        for mold in &mut self.molds {
            let (ready, breach) = mold.hear();
            events.extend(ready.map(|python| MoldEvent::Ready(mold.generation, python)));
            if let Some(breach) = breach {
                log.error(format_args!(
                    "the mold of {} (pid {}) is killed, because it sends the master what no mold sends: {breach}; the application, or who \
                     has broken into it, writes to descriptors that are the server's",
                    mold.generation, mold.pid
                ));
                (mold.stale, mold.killed) = (true, true);
                mold.signal(Signal::SIGKILL);
            }
            if mold.kill_at.is_some_and(|at| at <= now) {
                mold.kill_at = None;
                mold.signal(Signal::SIGKILL);
            }
        }
        let mut index = 0;
        while index < self.molds.len() {
            match process::reap(self.molds[index].pid) {
                Ok(Some((exit, _))) => {
                    let mut mold = self.molds.remove(index);
                    // What it said before.
                    let (ready, _) = mold.hear();
                    drop(ready);
                    events.push(MoldEvent::Ended(mold, exit));
                }
                Ok(None) => index += 1,
                // It cannot be: the process is a child that was not waited for.
                Err(_) => drop(self.molds.remove(index)),
            }
        }
        events
    }

    /// The server ends: so do the molds.
    pub fn end(&mut self) {
        self.unborn.clear();
        let mut molds = std::mem::take(&mut self.molds);
        // One that loads reads no channel yet.
        molds.iter().filter(|mold| mold.was_booting()).for_each(|mold| mold.signal(Signal::SIGKILL));
        molds.iter_mut().for_each(Mold::dismiss);
        if std::mem::take(&mut self.adopts) {
            // A program that has called the server goes on. It fails for no argument that was valid before.
            let _ = process::adopt_orphans(false);
        }
        let until = Instant::now() + ENDING_MAX;
        // There is nothing to wait by but SIGCHLD, and the loop that takes it in is over.
        loop {
            molds.retain(|mold| matches!(process::reap(mold.pid), Ok(None)));
            if molds.is_empty() {
                return;
            }
            if Instant::now() >= until {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // Where one sleeps in the kernel, its end may last: nobody waits for that.
        molds.iter().for_each(|mold| mold.signal(Signal::SIGKILL));
    }
}

/// The error of a birth, as a reason for a fork that failed; `None`: the mold is of no use any more.
pub fn reason(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::TimedOut => Some("does not answer"),
        io::ErrorKind::InvalidData => Some("sends what no mold sends"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
