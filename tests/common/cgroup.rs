//! Control groups, where the tests may make some.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How many this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A control group with a limit of memory, removed at the end.
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// A new one in that of this process; `None` where none can be made.
    pub fn of(bytes: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let v1 = own.lines().find_map(|line| line.split(':').nth(1)?.split(',').any(|name| name == "memory").then_some(line));
        let (line, mount, limit) = match v1 {
            Some(line) => (line, "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            None => (own.lines().find(|line| line.starts_with("0::"))?, "/sys/fs/cgroup", "memory.max"),
        };
        let parent = line.rsplit(':').next()?.trim_start_matches('/');
        let path =
            PathBuf::from(mount).join(parent).join(format!("tapster-test-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed)));
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }

    /// What starts a program in it, before the program's own words.
    pub fn launcher(&self) -> [String; 4] {
        let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        ["/bin/sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()]
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let began = Instant::now();
        while fs::remove_dir(&self.0).is_err() && began.elapsed() < super::SOON {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
