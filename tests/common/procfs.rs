//! The server's processes as /proc shows them (Linux only, proc(5)).

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};

use super::{LOOK_EVERY, SOON};

/// One line of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Name of the program, cut by the kernel to 15 bytes.
    pub name: String,
    /// State letter; `Z` for a zombie.
    pub state: char,
    /// Parent's process id.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// User and system time in clock ticks.
    pub ticks: u64,
    /// Threads that have not ended.
    pub threads: u64,
}

impl Process {
    /// Whether only its parent still waits for it. One whose first thread has ended is a zombie as well, but while others of its
    /// threads are on their way out they have its descriptors.
    pub fn is_gone(&self) -> bool {
        self.state == 'Z' && self.threads <= 1
    }
}

/// Reads one process; `None` when it is gone.
pub fn process(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and parentheses: the last one ends it.
    let (start, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    Some(Process {
        pid,
        name: start.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: number(1)? as i32,
        group: number(2)? as i32,
        ticks: number(11)? + number(12)?,
        threads: number(17)?,
    })
}

/// Every process that can be read.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(process).collect()
}

/// Living children of a process, oldest first, judged by process ids.
pub fn children(parent: i32) -> Vec<i32> {
    let mut found: Vec<i32> = all().iter().filter(|p| p.parent == parent && !p.is_gone()).map(|p| p.pid).collect();
    found.sort_unstable();
    found
}

/// The words that a process was started with, or its title.
pub fn command_line(pid: i32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).replace('\0', " "))
}

/// Members of a process group that are alive (a zombie awaits only its parent).
pub fn group(id: i32) -> Vec<Process> {
    all().into_iter().filter(|p| p.group == id && !p.is_gone()).collect()
}

/// Whether the process is there, with any of its threads.
pub fn alive(pid: i32) -> bool {
    process(pid).is_some_and(|p| !p.is_gone())
}

/// Resident memory in bytes that belongs to this process alone or to its share of it (PSS); 0 when it is gone.
pub fn memory(pid: i32) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { return 0 };
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The most resident memory that the process has had, in bytes (VmHWM, proc_pid_status(5)); 0 when it is gone.
pub fn peak_memory(pid: i32) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Resident memory in bytes, with what is shared (VmRSS); 0 when it is gone.
pub fn resident(pid: i32) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Time on a processor of all living threads, to the nanosecond where `ticks` counts hundredths of a second.
pub fn cpu_time(pid: i32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    Duration::from_nanos(texts.filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum())
}

/// Time that the first thread of a process (`self`, a number) was ready to run and had no processor; none where the kernel does not
/// count it. It is kept over an exec.
pub fn processor_wait(process: impl std::fmt::Display) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// The same for each thread of a process, by its id.
pub fn processor_waits(pid: i32) -> Vec<(String, Duration)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let names = threads.filter_map(|thread| thread.file_name().into_string().ok());
    names.map(|thread| (thread.clone(), processor_wait(format!("{pid}/task/{thread}")))).collect()
}

/// User and system time in milliseconds.
pub fn cpu_millis(pid: i32) -> u64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as u64;
    process(pid).map_or(0, |p| p.ticks * 1000 / per_second)
}

/// Voluntary context switches of all threads of a process since its start; 0 when it is gone.
pub fn voluntary_switches(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let count =
        |text: String| text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok());
    texts.filter_map(count).sum()
}

/// Whether the first thread of a process blocks this signal; not when it is gone.
pub fn blocks(pid: i32, signal: Signal) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = text.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigBlk:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// Number of open descriptors; 0 when the process is gone.
pub fn open_files(pid: i32) -> usize {
    fs::read_dir(PathBuf::from(format!("/proc/{pid}/fd"))).map_or(0, Iterator::count)
}

/// Waits until a process has no more than `count` open descriptors. How long that takes is the machine's, as long as something changes:
/// a worker that is behind accepts some while it closes others.
#[track_caller]
pub fn wait_for_open_files(pid: i32, count: usize) {
    let (mut last, mut at) = (usize::MAX, Instant::now());
    loop {
        let open = open_files(pid);
        if open <= count {
            return;
        }
        if open != last {
            (last, at) = (open, Instant::now());
        }
        assert!(at.elapsed() < SOON, "{pid} has {open} open descriptors for {SOON:?}; {count} are expected");
        std::thread::sleep(LOOK_EVERY);
    }
}
