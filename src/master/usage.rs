//! What a worker uses: processor time, the wait for a processor, memory. All of it from files of proc(5) that are cheap to read
//! and that take no lock of the worker (its proportional memory would: smaps_rollup).

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use crate::sys::process::Pid;

/// Nanoseconds in a second.
const NS_PER_SECOND: u64 = 1_000_000_000;

/// Most threads of a worker that are looked at: it may make as many as it likes.
const THREADS_MAX: usize = 256;

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all its threads in nanoseconds, to a tick of the kernel's (10 ms).
    pub cpu_ns: u64,
    /// Time that its present threads were ready to run and waited for a processor, in nanoseconds.
    pub wait_ns: u64,
    /// Resident memory in bytes.
    pub resident: u64,
}

impl Usage {
    /// That of a process; `None` when it is gone.
    pub fn of(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (cpu_ns, resident) = parse_stat(&stat, unit(SysconfVar::CLK_TCK)?, unit(SysconfVar::PAGE_SIZE)?)?;
        Some(Self { cpu_ns, wait_ns: wait_of_threads(pid), resident })
    }
}

fn unit(name: SysconfVar) -> Option<u64> {
    sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

/// Processor time in nanoseconds and resident bytes, by fields 14, 15 and 24 of proc_pid_stat(5). The second field, the name, may
/// have blanks and brackets in it.
fn parse_stat(stat: &str, ticks: u64, page: u64) -> Option<(u64, u64)> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let cpu = field(14)?.checked_add(field(15)?)?.checked_mul(NS_PER_SECOND / ticks)?;
    Some((cpu, field(24)?.checked_mul(page)?))
}

/// The second figure of schedstat is the wait; a kernel without it has none.
fn wait_of_threads(pid: Pid) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let wait = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    threads.take(THREADS_MAX).flatten().filter_map(wait).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_shifts_no_field() {
        let stat = "77 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 19 20 300 22 23\n";
        assert_eq!(parse_stat(stat, 100, 4096), Some((2 * NS_PER_SECOND, 300 * 4096)));
        for damaged in ["", "77 (a", "77 (a) S 1", "77 (a) S 1 2 3 4 5 6 7 8 9 10 x 50 13 14 15 16 17 18 19 20 300"] {
            assert_eq!(parse_stat(damaged, 100, 4096), None, "{damaged}");
        }
    }

    #[test]
    fn the_usage_of_this_process_is_known() {
        let pid = nix::unistd::getpid();
        let mut sum = 0_u64;
        while Usage::of(pid).expect("it lives").cpu_ns == 0 {
            sum = (0..1_000_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        let usage = Usage::of(pid).expect("it lives");
        assert!(usage.resident > 1 << 20 && usage.resident < 1 << 40, "{usage:?}");
        assert_eq!(Usage::of(Pid::from_raw(i32::MAX)), None);
    }
}
