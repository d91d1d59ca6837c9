//! The stacks of the workers' threads, for operators. Each worker writes into a file in memory that the master has made for it; who
//! has not written within a second cannot, and that is an answer too.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::channel::STACKS_READY;
use crate::master::event::SlotIndex;
use crate::master::status::VisitorId;
use crate::master::status::reply::DoorReply;
use crate::sys::{memory, time};

use super::Server;

/// How long workers have to write their stacks. It takes them a millisecond, unless C code keeps the interpreter.
const TIME: Duration = Duration::from_secs(1);

/// Pause between two looks at their files.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Room for the stacks of one worker, in bytes: some hundred threads of ordinary depth.
const SIZE: usize = 256 * 1024;

/// Inquiries at a time: each has a file for each worker.
const INQUIRIES_MAX: usize = 4;

/// Somebody waits for stacks.
#[derive(Debug)]
pub(in crate::master) struct Inquiry {
    visitor: VisitorId,
    asked: Vec<(SlotIndex, Option<File>)>,
    until: Instant,
    /// When the files are looked at again.
    pub(super) look: Instant,
}

/// The stacks of a worker.
#[derive(Debug, Serialize)]
struct WorkerStacks {
    worker: usize,
    pid: i32,
    /// `None`: it did not answer.
    stacks: Option<String>,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Server {
    /// Asks the workers, or one of them; the answer comes later, or is returned where there is nobody to ask.
    pub(super) fn ask_stacks(&mut self, visitor: VisitorId, worker: Option<usize>) -> Option<DoorReply> {
        let wanted = |slot: SlotIndex| worker.is_none_or(|worker| worker == slot.0);
        let asked: Vec<_> = self
            .table
            .living_ones()
            .filter(|(slot, _)| wanted(*slot))
            .map(|(slot, child)| {
                let file = memory::file_of_size(c"tapster-stacks", SIZE as u64).ok();
                let sent =
                    file.filter(|file| child.channel.as_ref().is_some_and(|channel| channel.ask_stacks(file.as_fd()).is_ok()));
                (slot, sent)
            })
            .collect();
        match worker {
            Some(worker) if asked.is_empty() => {
                return Some(DoorReply::failed(404, format!("there is no worker {worker}"), None));
            }
            _ if self.inquiries.len() >= INQUIRIES_MAX => {
                return Some(DoorReply::failed(503, "others wait for stacks already; try again", None));
            }
            _ => {}
        }
        let now = Instant::now();
        self.inquiries.push(Inquiry { visitor, asked, until: now + TIME, look: now });
        None
    }

    /// Answers those whose workers have all written, or whose time is over.
    pub(super) fn tell_stacks(&mut self, now: Instant) {
        self.inquiries.retain(|inquiry| self.doors.has(inquiry.visitor));
        for mut inquiry in std::mem::take(&mut self.inquiries) {
            let done = inquiry.asked.iter().all(|(_, file)| file.as_ref().is_none_or(|file| length(file).is_some()));
            if !done && inquiry.until > now {
                inquiry.look = now + LOOK_EVERY;
                self.inquiries.push(inquiry);
                continue;
            }
            let found: Vec<WorkerStacks> =
                inquiry.asked.iter().map(|(slot, file)| self.stacks_of(*slot, file.as_ref())).collect();
            self.doors.answer(inquiry.visitor, &DoorReply::json(200, &found), now);
        }
    }

    fn stacks_of(&self, slot: SlotIndex, file: Option<&File>) -> WorkerStacks {
        let pid = self.table.child(slot).map_or(0, |child| child.pid.as_raw());
        let stacks = file.and_then(read);
        let why = stacks.is_none().then(|| self.silence(slot, pid));
        WorkerStacks { worker: slot.0, pid, stacks, why }
    }

    /// Why a worker does not tell its stacks.
    fn silence(&self, slot: SlotIndex, pid: i32) -> String {
        if !self.table.serving().any(|(other, _)| other == slot) {
            return "it is not ready yet".to_owned();
        }
        if std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T ")) {
            return "it is stopped (SIGSTOP)".to_owned();
        }
        let now = time::monotonic();
        let calls = self.scoreboard.in_flight(slot.0);
        let calls: Vec<String> =
            calls.iter().map(|call| call.describe(Duration::from_nanos(now.saturating_sub(call.since)))).collect();
        let serving = if calls.is_empty() { String::new() } else { format!(" ({})", calls.join("; ")) };
        format!("code in it keeps the interpreter's lock{serving}; py-spy dump --pid {pid} shows where")
    }
}

/// The length of the text in a file, once it is there. The worker may write anything.
fn length(file: &File) -> Option<usize> {
    let mut length = [0; STACKS_READY as usize];
    file.read_exact_at(&mut length, 0).ok()?;
    let length = usize::try_from(u64::from_le_bytes(length)).ok()?;
    (length > 0).then_some(length.min(SIZE - STACKS_READY as usize))
}

fn read(file: &File) -> Option<String> {
    let mut text = vec![0; length(file)?];
    file.read_exact_at(&mut text, STACKS_READY).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
