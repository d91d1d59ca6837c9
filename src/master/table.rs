//! What the master knows of its workers: process, channel, birth and death.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::{Breach, Conduct, Heard, MasterEnd, REPORTS_MAX, Report};
use crate::scoreboard::Scoreboard;
use crate::sys::memory;
use crate::sys::process::{self, Exit, Pid};

use super::event::SlotIndex;
use super::logs::Logs;

/// A worker as its parent sees it.
#[derive(Debug)]
pub struct Child {
    /// Process id, until it has ended.
    pub pid: Pid,
    /// When it was forked.
    pub born: Instant,
    /// How many workers the server had started with it; 0: unknown.
    pub age: u64,
    /// Which edition of certificates and secrets it has ([`super::renewal::RenewalKeeper::edition`]).
    pub edition: u64,
    /// `None` once its end is closed.
    pub channel: Option<MasterEnd>,
    /// How long the application may run for one step; 0: no limit.
    pub timeout: Duration,
    /// Memory in bytes above which it is replaced, resident, or its own if it has a mold; 0: no limit.
    pub max_memory: u64,
    /// What its interpreter writes when a signal ends it.
    pub stacks: File,
    /// The logs of its generation.
    pub logs: Option<Arc<Logs>>,
    /// The mold that has forked it; `None`: the master.
    pub mold: Option<Pid>,
    /// Whether it hands its connections over through another queue than the server's.
    pub other_queue: bool,
    /// What it has said.
    conduct: Conduct,
    ready: bool,
    /// When it was waited for, nanoseconds of the monotonic clock.
    ended: Option<u64>,
    /// Whether the kernel has killed because memory ran out, if it was killed; `None`: the system does not say.
    pub oom: Option<bool>,
    /// What the workers of the slot before it had served, and taken over from others. Of one that was forked before exec both are
    /// 0: it counts as one that had served.
    before: (u64, u64),
}

/// Most reports of one worker taken in one turn of the master's loop, so that no worker keeps it from its duties.
const REPORTS_PER_TURN: usize = 4;

/// Room for stacks in bytes: a hundred threads.
pub const STACKS_MAX: usize = 40 * 1024;

/// The file for the stacks of a new worker. It cannot grow, for it lives as long as the master remembers the worker.
pub fn stacks_file() -> io::Result<File> {
    memory::file_of_size(c"stacks", STACKS_MAX as u64)
}

impl Child {
    /// A worker just forked, without limits.
    pub fn new(pid: Pid, born: Instant, channel: MasterEnd, stacks: File) -> Self {
        Self::adopted(pid, born, Some(channel), stacks)
    }

    /// A worker that was forked before exec, without limits; its channel may be closed already.
    pub fn adopted(pid: Pid, born: Instant, channel: Option<MasterEnd>, stacks: File) -> Self {
        let (timeout, max_memory) = (Duration::ZERO, 0);
        let conduct = Conduct::default();
        Self {
            edition: 0,
            pid,
            born,
            age: 0,
            channel,
            timeout,
            max_memory,
            stacks,
            logs: None,
            mold: None,
            other_queue: false,
            conduct,
            ready: false,
            ended: None,
            oom: None,
            before: (0, 0),
        }
    }

    /// What the slot shows now was there before this worker.
    pub fn count_from(&mut self, scoreboard: &Scoreboard, slot: SlotIndex) {
        self.before = (scoreboard.requests(slot.0), scoreboard.slot(slot.0).adopted());
    }

    /// Whether a client had reached this worker, which has died: it had served a request, or had a connection or a request.
    pub fn was_reached(&self, scoreboard: &Scoreboard, slot: SlotIndex) -> bool {
        let row = scoreboard.slot(slot.0);
        let counts = (scoreboard.requests(slot.0), row.adopted());
        counts != self.before || row.connections() > 0 || !scoreboard.in_flight(slot.0).is_empty()
    }

    /// When it was waited for, nanoseconds of the monotonic clock; `None`: it was not.
    pub fn ended_at(&self) -> Option<u64> {
        self.ended
    }

    /// The stacks of its threads as its interpreter wrote them at its end; empty if it did not.
    pub fn stacks(&self) -> String {
        let mut text = vec![0; STACKS_MAX];
        let mut len = 0;
        while len < STACKS_MAX {
            match self.stacks.read_at(&mut text[len..], len as u64) {
                Ok(count) if count > 0 => len += count,
                Ok(_) | Err(_) => break,
            }
        }
        // What was not written is zero.
        let len = text[..len].iter().position(|byte| *byte == 0).unwrap_or(len);
        String::from_utf8_lossy(&text[..len]).trim_end().to_owned()
    }
}

/// The last worker of each slot, dead or alive: its death is reported after it has happened.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Option<Child>>,
}

impl Table {
    /// No workers.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new worker has the slot.
    pub fn put(&mut self, slot: SlotIndex, child: Child) {
        if slot.0 >= self.rows.len() {
            self.rows.resize_with(slot.0 + 1, || None);
        }
        if let Some(channel) = self.rows[slot.0].replace(child).and_then(|old| old.channel) {
            channel.close();
        }
    }

    /// The slot's worker has said that it is ready.
    pub fn set_ready(&mut self, slot: SlotIndex) {
        if let Some(Some(child)) = self.rows.get_mut(slot.0) {
            child.ready = true;
        }
    }

    /// The slot's worker had said that it is ready to the program that this process was before.
    pub fn set_ready_before(&mut self, slot: SlotIndex) {
        if let Some(Some(child)) = self.rows.get_mut(slot.0) {
            (child.ready, child.conduct) = (true, Conduct::of_ready());
        }
    }

    /// Workers that were ready and have not ended.
    pub fn serving(&self) -> impl Iterator<Item = (SlotIndex, &Child)> {
        self.living_ones().filter(|(_, child)| child.ready)
    }

    /// The last worker of the slot.
    pub fn child(&self, slot: SlotIndex) -> Option<&Child> {
        self.rows.get(slot.0)?.as_ref()
    }

    /// As [`Self::child`].
    pub fn child_mut(&mut self, slot: SlotIndex) -> Option<&mut Child> {
        self.rows.get_mut(slot.0)?.as_mut()
    }

    /// The worker of the slot if it has not been waited for, so that its process id is still its own.
    pub fn living(&self, slot: SlotIndex) -> Option<&Child> {
        self.child(slot).filter(|child| child.ended.is_none())
    }

    /// Whether this is a worker that has not been waited for.
    pub fn is_own(&self, pid: Pid) -> bool {
        self.rows.iter().flatten().any(|child| child.pid == pid && child.ended.is_none())
    }

    /// Workers that have not been waited for.
    pub fn living_ones(&self) -> impl Iterator<Item = (SlotIndex, &Child)> {
        let rows = self.rows.iter().enumerate();
        rows.filter_map(|(index, row)| Some((SlotIndex(index), row.as_ref()?))).filter(|(_, child)| child.ended.is_none())
    }

    /// The open channels.
    pub fn channels(&self) -> impl Iterator<Item = (SlotIndex, &MasterEnd)> {
        self.rows.iter().enumerate().filter_map(|(index, row)| Some((SlotIndex(index), row.as_ref()?.channel.as_ref()?)))
    }

    /// The channel of the slot's worker.
    pub fn channel(&self, slot: SlotIndex) -> Option<&MasterEnd> {
        self.child(slot)?.channel.as_ref()
    }

    /// What the worker has said since the last call, [`REPORTS_PER_TURN`] reports at most: the rest waits for the next round of
    /// the loop. A closed or broken channel is forgotten: the end of the process says the rest. A worker that says what no worker
    /// does is not listened to any more; how it did so comes after its reports.
    pub fn reports(&mut self, slot: SlotIndex) -> (Vec<Report>, Option<Breach>) {
        self.hear(slot, REPORTS_PER_TURN)
    }

    /// What a worker that is dead has said since the last call.
    pub fn last_words(&mut self, slot: SlotIndex) -> (Vec<Report>, Option<Breach>) {
        self.hear(slot, REPORTS_MAX as usize + 1)
    }

    fn hear(&mut self, slot: SlotIndex, most: usize) -> (Vec<Report>, Option<Breach>) {
        let mut reports = Vec::new();
        let Some(Some(child)) = self.rows.get_mut(slot.0) else { return (reports, None) };
        let mut breach = None;
        while reports.len() < most
            && let Some(channel) = &child.channel
        {
            breach = match channel.receive() {
                Heard::Report(report) => match child.conduct.take(&report) {
                    Ok(()) => {
                        reports.push(report);
                        continue;
                    }
                    Err(breach) => Some(breach),
                },
                Heard::Breach(breach) => Some(breach),
                Heard::Nothing => break,
                Heard::End => None,
            };
            if let Some(channel) = child.channel.take() {
                channel.close();
            }
        }
        (reports, breach)
    }

    /// Workers that have ended since the last call, and how much processor time they have used; `now` is in nanoseconds of the
    /// monotonic clock. Only known processes are waited for, so that others (orphans that PID 1
    /// inherits, [`process::reap_orphans`]) are never taken for workers.
    pub fn reap(&mut self, now: u64) -> Vec<(SlotIndex, Exit, Duration)> {
        let mut ended = Vec::new();
        for (index, row) in self.rows.iter_mut().enumerate() {
            let Some(child) = row.as_mut().filter(|child| child.ended.is_none()) else { continue };
            // It cannot fail: the process is a child that was not waited for.
            if let Ok(Some((exit, cpu))) = process::reap(child.pid) {
                child.ended = Some(now);
                ended.push((SlotIndex(index), exit, cpu));
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::pair;
    use crate::sys::process::{alone_in_test, fork_in_test, wait_in_test};
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    #[test]
    fn a_dead_worker_is_found_once_and_its_last_words_are_heard() {
        let alone = alone_in_test();
        let mut table = Table::new();
        let (master, worker) = pair().unwrap();
        let pid = fork_in_test(&alone, |_| worker.send(&Report::Ready(String::new())).map_or(1, |()| 3));
        drop(worker);
        table.put(SlotIndex(1), Child::new(pid, Instant::now(), master, tempfile::tempfile().unwrap()));
        let stranger = fork_in_test(&alone, |_| 0);
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        let ended: Vec<_> = table.reap(5).into_iter().map(|(slot, exit, _)| (slot, exit)).collect();
        assert_eq!(ended, [(SlotIndex(1), Exit::Code(3))]);
        assert_eq!((table.reap(6), table.child(SlotIndex(1)).and_then(Child::ended_at)), (vec![], Some(5)));
        assert!(table.living(SlotIndex(1)).is_none() && table.child(SlotIndex(1)).is_some());
        assert_eq!(table.last_words(SlotIndex(1)), (vec![Report::Ready(String::new())], None));
        assert!(table.channel(SlotIndex(1)).is_none(), "the other end is closed");
        assert_eq!(table.channels().count(), 0);
        assert_eq!(wait_in_test(stranger), Exit::Code(0), "a stranger is left to others");
    }
}
