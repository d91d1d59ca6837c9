//! What the system says of memory: a worker's resident size, and whether the kernel has killed because memory ran out.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};

use crate::sys::process::Pid;

/// Resident memory of a process in bytes (proc(5), statm); `None` when it is gone.
pub fn resident(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok())?;
    pages.checked_mul(page)
}

/// Memory in bytes that a process shares with no other (proc(5), smaps_rollup). Where that must not be read, as by root without
/// CAP_SYS_PTRACE, what it has more than the process that it was forked from; `None` when it is gone.
pub fn own(pid: Pid, origin: Pid) -> Option<u64> {
    let shared = || Some(resident(pid)?.saturating_sub(resident(origin).unwrap_or(0)));
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| private(&text)).or_else(shared)
}

fn private(text: &str) -> Option<u64> {
    let sizes = text.lines().filter_map(|line| line.strip_prefix("Private_"));
    let sizes = sizes.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let sum = sizes.reduce(|sum, size| sum.saturating_add(size))?;
    sum.checked_mul(1024)
}

/// The count of processes that the kernel has killed in the control group of this process because memory ran out, whether that of
/// the group or of the machine (memory.events of cgroup v2, memory.oom_control of v1).
#[derive(Debug)]
pub struct Kills {
    file: Option<PathBuf>,
    seen: u64,
}

impl Kills {
    /// Counts from now on.
    pub fn new() -> Self {
        let file = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| counter(&text, Path::new("/sys/fs/cgroup")));
        let seen = file.as_deref().and_then(read).unwrap_or(0);
        Self { file, seen }
    }

    /// Whether there were kills since the last question; `None` when the system does not say.
    pub fn happened(&mut self) -> Option<bool> {
        let now = read(self.file.as_deref()?)?;
        let before = std::mem::replace(&mut self.seen, now);
        Some(now > before)
    }
}

/// The file that counts, for a process with this /proc/self/cgroup.
fn counter(groups: &str, mount: &Path) -> Option<PathBuf> {
    let file = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_start_matches('/');
        let file = match controllers {
            "" => mount.join(path).join("memory.events"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                mount.join("memory").join(path).join("memory.oom_control")
            }
            _ => return None,
        };
        read(&file).map(|_| file)
    };
    groups.lines().find_map(file)
}

fn read(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_size_of_this_process_is_known() {
        let size = resident(nix::unistd::getpid()).expect("it lives");
        assert!(size > 1 << 20 && size < 1 << 40, "{size}");
        assert_eq!(resident(Pid::from_raw(i32::MAX)), None);
    }

    #[test]
    fn only_private_memory_is_a_process_s_own() {
        let text = "00400000-7fff0000 ---p 00000000 00:00 0  [rollup]\nRss:  9000 kB\nPss:  500 kB\nPrivate_Clean:  3 kB\n\
                    Private_Dirty:  40 kB\nPrivate_Hugetlb:  0 kB\n";
        assert_eq!(private(text), Some(43 * 1024));
        assert_eq!(private("Rss: 1 kB\n"), None);
        let size = own(nix::unistd::getpid(), nix::unistd::getpid()).expect("it lives");
        assert!(size <= resident(nix::unistd::getpid()).unwrap() + (64 << 20), "{size}");
        assert_eq!(own(Pid::from_raw(i32::MAX), Pid::from_raw(1)), None);
    }

    #[test]
    fn kills_are_counted_in_either_version_of_control_groups() {
        let dir = tempfile::tempdir().unwrap();
        for (groups, file) in [
            ("0::/site/web\n", "site/web/memory.events"),
            ("11:cpu,cpuacct:/x\n4:memory:/site\n1:name=systemd:/\n", "memory/site/memory.oom_control"),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "low 0\noom 3\noom_kill 2\noom_group_kill 9\n").unwrap();
            assert_eq!(counter(groups, dir.path()), Some(path.clone()));
            let mut kills = Kills { file: Some(path.clone()), seen: 2 };
            assert_eq!(kills.happened(), Some(false));
            fs::write(&path, "oom_kill 3\n").unwrap();
            assert_eq!(kills.happened(), Some(true));
            assert_eq!(kills.happened(), Some(false));
        }
        assert_eq!(counter("0::/nowhere\n", dir.path()), None);
        assert_eq!(Kills { file: None, seen: 0 }.happened(), None);
    }
}
