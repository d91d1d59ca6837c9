//! A directory that is watched, and what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::inotify::WatchDescriptor;

use super::names::Interest;

/// Most files of a directory that are looked at: a directory with more is no package, and looking takes time.
const FILES_MAX: usize = 10_000;

/// A directory.
#[derive(Debug)]
pub struct WatchedDir {
    /// Which of its files matter.
    pub interest: Interest,
    /// The last generation that has named it.
    pub generation: u64,
    /// Since when its changes are known, in nanoseconds since 1970.
    pub from: u64,
    /// How it is watched.
    pub means: Means,
}

impl WatchedDir {
    /// More of its files matter. Returns those that have changed: since then, or, of the files that mattered before, since the last
    /// look; and whether each is there.
    pub fn widen(&mut self, path: &Path, interest: Interest, since: u64) -> Vec<(PathBuf, bool)> {
        let before = self.interest.clone();
        if !self.interest.add(interest) {
            return Vec::new();
        }
        let now = look(path, &self.interest).unwrap_or_default();
        let new = later(&now, since).filter(|name| !before.has(name)).map(|name| (path.join(name), true));
        let mut changed: Vec<_> = new.collect();
        if let Means::Looks(files) = &mut self.means {
            let old = changes(files, &now).filter(|name| before.has(name));
            changed.extend(old.map(|name| (path.join(name), now.contains_key(name))));
            *files = now;
        }
        changed
    }

    /// Its changes matter since then. Returns the files that have changed between then and the time since when changes are known: a
    /// load may have begun before the directory was watched for the operator.
    pub fn begin_earlier(&mut self, path: &Path, since: u64) -> Vec<(PathBuf, bool)> {
        if since >= self.from {
            return Vec::new();
        }
        let now = look(path, &self.interest).unwrap_or_default();
        let known: BTreeSet<_> = later(&now, self.from).collect();
        self.from = since;
        later(&now, since).filter(|name| !known.contains(name)).map(|name| (path.join(name), true)).collect()
    }
}

/// How a directory is watched.
#[derive(Debug)]
pub enum Means {
    /// The kernel tells.
    Events(WatchDescriptor),
    /// It is looked at now and then; what was there at the last time.
    Looks(FileMarks),
    /// It is not there, or cannot be read; this is tried now and then.
    None,
}

/// The files of a directory that matter, with what tells that one has changed.
pub type FileMarks = BTreeMap<OsString, Stamp>;

/// What tells that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    changed: i64,
    written: i64,
}

/// What is in a directory now, of what matters.
pub fn look(path: &Path, interest: &Interest) -> io::Result<FileMarks> {
    let mut files = FileMarks::new();
    for entry in fs::read_dir(path)?.take(FILES_MAX) {
        let name = entry?.file_name();
        if !interest.has(&name) {
            continue;
        }
        // A link counts as what it names. One that has vanished is not there.
        if let Ok(meta) = fs::metadata(path.join(&name)) {
            let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
            let (changed, written) = (nanos(meta.ctime(), meta.ctime_nsec()), nanos(meta.mtime(), meta.mtime_nsec()));
            files.insert(name, Stamp { inode: meta.ino(), size: meta.size(), changed, written });
        }
    }
    Ok(files)
}

/// The files that differ.
pub fn changes<'a>(before: &'a FileMarks, now: &'a FileMarks) -> impl Iterator<Item = &'a OsString> {
    let new = now.iter().filter(|(name, stamp)| before.get(*name) != Some(*stamp));
    let gone = before.iter().filter(|(name, _)| !now.contains_key(*name));
    new.chain(gone).map(|(name, _)| name)
}

/// The files that have changed since then, in nanoseconds since 1970.
pub fn later(files: &FileMarks, since: u64) -> impl Iterator<Item = &OsString> {
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    files.iter().filter(move |(_, stamp)| stamp.changed > since).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_was_saved_replaced_and_removed_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let interest = Interest { code: true, ..Interest::default() };
        for name in ["a.py", "b.py", "c.py", "d.txt"] {
            fs::write(path(name), "1").unwrap();
        }
        let before = look(dir.path(), &interest).unwrap();
        assert_eq!(before.len(), 3);
        assert_eq!(changes(&before, &look(dir.path(), &interest).unwrap()).count(), 0);
        fs::write(path("new"), "1").unwrap();
        fs::rename(path("new"), path("a.py")).unwrap();
        fs::remove_file(path("b.py")).unwrap();
        fs::write(path("d.txt"), "12").unwrap();
        let now = look(dir.path(), &interest).unwrap();
        let mut changed: Vec<_> = changes(&before, &now).map(|name| name.to_str().unwrap()).collect();
        changed.sort_unstable();
        assert_eq!(changed, ["a.py", "b.py"]);
    }

    #[test]
    fn a_change_after_the_load_began_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let interest = Interest { code: true, ..Interest::default() };
        fs::write(dir.path().join("a.py"), "1").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let files = look(dir.path(), &interest).unwrap();
        assert_eq!(later(&files, now - 1_000_000_000).count(), 1);
        assert_eq!(later(&files, now + 1_000_000_000).count(), 0);
    }
}
