//! Crowds of clients beside normal traffic: how many there can be, and what that traffic may notice.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::load::Tally;
use super::server::Running;
use super::{procfs, raise_open_files, tools};

/// Descriptors that are needed besides the crowd's.
const SPARE_FILES: u64 = 200;

/// A normal request never waits for the crowd; far above what it takes, far below any timeout.
const NEVER_SLOWER: Duration = Duration::from_secs(3);

/// One crowd at a time: each needs most of the descriptors.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Raises the limit of open files for this process and the servers it starts; returns how many a crowd may have.
pub fn most_connections(wanted: usize) -> usize {
    let hard = raise_open_files();
    let possible = (hard.saturating_sub(SPARE_FILES) as usize).min(wanted);
    if possible < wanted {
        tools::skip(&format!("{possible} instead of {wanted} connections: the hard limit of open files is {hard}"));
    }
    possible
}

/// The normal traffic was answered, and in time.
#[track_caller]
pub fn assert_untouched(tally: &Tally) {
    tally.assert_flawless();
    assert!(tally.slowest < NEVER_SLOWER, "one waited {:?}", tally.slowest);
    eprintln!("{} answered beside the crowd, slowest {:?}", tally.ok, tally.slowest);
}

/// Memory of the workers in bytes.
pub fn memory(server: &Running) -> u64 {
    server.workers().into_iter().map(procfs::memory).sum()
}
