//! What the master knows of its workers: process, channel, birth and death.

use std::time::Instant;

use crate::channel::{MasterEnd, Report};
use crate::sys::process::{self, Exit, Pid};

use super::event::Slot;

/// A worker as its parent sees it.
#[derive(Debug)]
pub struct Child {
    /// Process id, until it has ended.
    pub pid: Pid,
    /// When it was forked.
    pub born: Instant,
    /// `None` once its end is closed.
    channel: Option<MasterEnd>,
    ended: bool,
}

impl Child {
    /// A worker just forked.
    pub fn new(pid: Pid, born: Instant, channel: MasterEnd) -> Self {
        Self::adopted(pid, born, Some(channel))
    }

    /// A worker that was forked before exec; its channel may be closed already.
    pub fn adopted(pid: Pid, born: Instant, channel: Option<MasterEnd>) -> Self {
        Self { pid, born, channel, ended: false }
    }

    /// Its channel, until that is closed.
    pub fn channel(&self) -> Option<&MasterEnd> {
        self.channel.as_ref()
    }
}

/// The last worker of each slot, dead or alive: its death is told after it has happened.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Option<Child>>,
}

impl Table {
    /// Empty slots.
    pub fn new(slots: usize) -> Self {
        Self { rows: (0..slots).map(|_| None).collect() }
    }

    /// A new worker has the slot.
    pub fn put(&mut self, slot: Slot, child: Child) {
        self.rows[slot.0] = Some(child);
    }

    /// The last worker of the slot.
    pub fn child(&self, slot: Slot) -> Option<&Child> {
        self.rows[slot.0].as_ref()
    }

    /// The worker of the slot if it has not been waited for, so that its process id is still its own.
    pub fn living(&self, slot: Slot) -> Option<&Child> {
        self.child(slot).filter(|child| !child.ended)
    }

    /// Every worker that has not been waited for.
    pub fn alive(&self) -> impl Iterator<Item = (Slot, &Child)> {
        self.rows.iter().enumerate().filter_map(|(index, row)| Some((Slot(index), row.as_ref().filter(|child| !child.ended)?)))
    }

    /// The open channels.
    pub fn channels(&self) -> impl Iterator<Item = (Slot, &MasterEnd)> {
        self.rows.iter().enumerate().filter_map(|(index, row)| Some((Slot(index), row.as_ref()?.channel.as_ref()?)))
    }

    /// The channel of the slot's worker.
    pub fn channel(&self, slot: Slot) -> Option<&MasterEnd> {
        self.child(slot)?.channel.as_ref()
    }

    /// What the worker has said since the last call. A closed or broken channel is forgotten: the end of the process tells the rest.
    pub fn reports(&mut self, slot: Slot) -> Vec<Report> {
        let Some(child) = &mut self.rows[slot.0] else { return Vec::new() };
        let mut reports = Vec::new();
        while let Some(channel) = &child.channel {
            match channel.receive() {
                Ok(Some(report)) => reports.push(report),
                Ok(None) => break,
                Err(_) => child.channel = None,
            }
        }
        reports
    }

    /// Workers that have ended since the last call. Only known processes are waited for, so that others (orphans that a process
    /// group leader or PID 1 inherits) are never taken for workers.
    pub fn reap(&mut self) -> Vec<(Slot, Exit)> {
        let mut ended = Vec::new();
        for (index, row) in self.rows.iter_mut().enumerate() {
            let Some(child) = row.as_mut().filter(|child| !child.ended) else { continue };
            // It cannot fail: the process is a child that was not waited for.
            if let Ok(Some(exit)) = process::reap(child.pid) {
                child.ended = true;
                ended.push((Slot(index), exit));
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
        let mut table = Table::new(2);
        let (master, worker) = pair().unwrap();
        let pid = fork_in_test(&alone, |_| worker.send(&Report::Draining).map_or(1, |()| 3));
        drop(worker);
        table.put(Slot(1), Child::new(pid, Instant::now(), master));
        let stranger = fork_in_test(&alone, |_| 0);
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert_eq!(table.reap(), [(Slot(1), Exit::Code(3))]);
        assert_eq!(table.reap(), []);
        assert!(table.living(Slot(1)).is_none() && table.child(Slot(1)).is_some());
        assert_eq!(table.reports(Slot(1)), [Report::Draining]);
        assert!(table.channel(Slot(1)).is_none(), "the other end is closed");
        assert_eq!(table.channels().count(), 0);
        assert_eq!(wait_in_test(stranger), Exit::Code(0), "a stranger is left to others");
    }
}
