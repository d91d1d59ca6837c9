//! The watcher's loop: orders, events and looks in, reports out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::names::{Interest, is_package};
use super::pending::PendingChange;
use super::place::{Means, WatchedDir, changes, later, look};
use super::{WatchOrder, WatchReport, hear, tell};
use crate::config::WatchEngine;

/// Most directories that are watched: workers name them, and each costs memory of the kernel. A large project has some hundred.
const DIRECTORIES_MAX: usize = 1024;

/// Time between two looks at the directories of which no events come, and at those that are missing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pause before a report is sent again that the master had no room for.
const AGAIN: Duration = Duration::from_millis(50);

/// Most reads of events in one round.
const READS_MAX: usize = 64;

/// The generation of directories that the operator has named: they are never forgotten.
const OPERATOR: u64 = u64::MAX;

/// A time after which nothing has changed.
const NEVER: u64 = u64::MAX;

/// The clock of a file system may be behind that of the system by a tick of the kernel (at most 10 ms), in nanoseconds.
const CLOCK_SLACK: u64 = 10_000_000;

struct Watcher {
    socket: OwnedFd,
    /// `None`: no events are to be had.
    inotify: Option<Inotify>,
    directories: BTreeMap<PathBuf, WatchedDir>,
    pending: Option<PendingChange>,
    /// When the master had no room for a report.
    blocked: Option<Instant>,
    /// What is to be said, once each.
    troubles: Vec<String>,
    said: Vec<&'static str>,
    /// When directories are looked at again.
    look_at: Instant,
    /// Whether the last load has failed.
    failed: bool,
}

/// Watches until the other end of the socket is closed.
pub fn run(socket: OwnedFd, engine: WatchEngine) -> io::Result<()> {
    let mut watcher = Watcher {
        socket,
        inotify: None,
        directories: BTreeMap::new(),
        pending: None,
        blocked: None,
        troubles: Vec::new(),
        said: Vec::new(),
        look_at: Instant::now(),
        failed: false,
    };
    if engine == WatchEngine::Events {
        match Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) {
            Ok(inotify) => watcher.inotify = Some(inotify),
            Err(errno) => watcher.say(
                "init",
                format!(
                    "the kernel tells of no changes ({errno}), so the sources are looked at each second; raise \
                     fs.inotify.max_user_instances, or give --reload=poll"
                ),
            ),
        }
    }
    loop {
        watcher.wait()?;
        if !watcher.obey()? {
            return Ok(());
        }
        watcher.read_events();
        let now = Instant::now();
        if now >= watcher.look_at {
            watcher.look_around();
            watcher.look_at = Instant::now() + LOOK_EVERY;
        }
        watcher.report(now)?;
    }
}

impl Watcher {
    fn wait(&self) -> io::Result<()> {
        let looks = self.directories.values().any(|dir| !matches!(dir.means, Means::Events(_)));
        let pending = self.blocked.map(|at| at + AGAIN).or_else(|| self.pending.as_ref().map(PendingChange::due));
        let next = [looks.then_some(self.look_at), pending].into_iter().flatten().min();
        let wait = next.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_micros(999));
        let timeout = wait.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX));
        let mut fds = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.inotify.as_ref().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Follows the master's orders; `false`: it is gone.
    fn obey(&mut self) -> io::Result<bool> {
        loop {
            match hear(&self.socket) {
                Ok(WatchOrder::Sources { generation, since, list }) => self.take_list(generation, since, &list),
                Ok(WatchOrder::Named { files, code }) => {
                    self.forget(|dir| dir.generation == OPERATOR);
                    files.iter().for_each(|file| self.add_extra(Path::new(file)));
                    for dir in &code {
                        self.add(Path::new(dir), Interest { code: true, ..Interest::default() }, OPERATOR, NEVER);
                    }
                }
                Ok(WatchOrder::Adopted(serving)) => {
                    self.failed = false;
                    self.forget(|dir| dir.generation < serving);
                }
                Ok(WatchOrder::Failed) => self.failed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_list(&mut self, generation: u64, since: u64, list: &str) {
        for entry in list.split('\0') {
            let Some((kind, path)) = entry.split_at_checked(1) else { continue };
            // Its load has failed.
            self.failed |= kind == "f";
            let path = Path::new(path);
            if path.is_absolute() {
                let interest = Interest { code: kind == "c", all: kind == "t", ..Interest::default() };
                self.add(path, interest, generation, since.saturating_sub(CLOCK_SLACK));
            }
        }
    }

    fn add_extra(&mut self, file: &Path) {
        if file.is_dir() {
            return self.add(file, Interest { all: true, ..Interest::default() }, OPERATOR, NEVER);
        }
        // The file itself, and what it is if it is a link.
        for file in [Some(file.to_owned()), fs::canonicalize(file).ok()].into_iter().flatten() {
            if let (Some(dir), Some(name)) = (file.parent(), file.file_name()) {
                self.add(dir, Interest { files: [name.to_owned()].into(), ..Interest::default() }, OPERATOR, NEVER);
            }
        }
    }

    /// Watches a directory. What has changed in it since then is a change now, if it was not watched.
    fn add(&mut self, path: &Path, interest: Interest, generation: u64, since: u64) {
        if let Some(dir) = self.directories.get_mut(path) {
            dir.generation = dir.generation.max(generation);
            let missed = dir.widen(path, interest, since);
            let missed: Vec<_> = missed.into_iter().chain(dir.begin_earlier(path, since)).collect();
            missed.into_iter().for_each(|(file, written)| self.note(file, written));
            return self.renew(path, since);
        }
        if self.directories.len() >= DIRECTORIES_MAX {
            let shown = path.to_string_lossy().escape_debug().to_string();
            return self.say(
                "many",
                format!(
                    "the application has more than {DIRECTORIES_MAX} directories: changes in {shown} and others are not noticed"
                ),
            );
        }
        let means = self.begin(path, &interest);
        let from = since.min(now());
        self.note_missed(path, &interest, since);
        self.directories.insert(path.to_owned(), WatchedDir { interest, generation, from, means });
    }

    /// Watches what has this name now: no event tells when a directory above it is renamed and another one takes its place.
    fn renew(&mut self, path: &Path, since: u64) {
        let Some(WatchedDir { interest, means: Means::Events(before), .. }) = self.directories.get(path) else { return };
        let (interest, before) = (interest.clone(), *before);
        let means = self.begin(path, &interest);
        if matches!(means, Means::Events(now) if now == before) {
            return;
        }
        self.note_missed(path, &interest, since);
        if let Some(dir) = self.directories.get_mut(path) {
            dir.means = means;
        }
        self.release(before);
    }

    /// What has changed since then, before the directory was watched.
    fn note_missed(&mut self, path: &Path, interest: &Interest, since: u64) {
        let files = look(path, interest).unwrap_or_default();
        let missed: Vec<PathBuf> = later(&files, since).map(|name| path.join(name)).collect();
        missed.into_iter().for_each(|file| self.note(file, true));
    }

    /// Begins to watch a directory.
    fn begin(&mut self, path: &Path, interest: &Interest) -> Means {
        let shown = path.to_string_lossy().escape_debug().to_string();
        if let Some(inotify) = &self.inotify {
            match inotify.add_watch(path, events()) {
                Ok(watch) => return Means::Events(watch),
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Means::None,
                Err(Errno::ENOSPC) => self.say(
                    "watches",
                    format!(
                        "the kernel watches no more directories for this user, so {shown} and others are looked at each second; raise \
                         fs.inotify.max_user_watches"
                    ),
                ),
                Err(Errno::EACCES) => {
                    self.say("access", format!("changes in {shown} are not noticed: the user of the workers cannot read it"));
                    return Means::None;
                }
                Err(errno) => self.say("watch", format!("the kernel does not watch {shown} ({errno}): it is looked at each second")),
            }
        }
        look(path, interest).map_or(Means::None, Means::Looks)
    }

    /// Stops to watch some directories.
    fn forget(&mut self, which: impl Fn(&WatchedDir) -> bool) {
        let gone: Vec<PathBuf> = self.directories.iter().filter(|(_, dir)| which(dir)).map(|(path, _)| path.clone()).collect();
        for path in gone {
            if let Some(WatchedDir { means: Means::Events(watch), .. }) = self.directories.remove(&path) {
                self.release(watch);
            }
        }
    }

    /// Wants no events of a watch any more.
    fn release(&self, watch: WatchDescriptor) {
        // The same directory may be known by two names.
        let shared = self.directories.values().any(|dir| matches!(dir.means, Means::Events(other) if other == watch));
        if let (false, Some(inotify)) = (shared, &self.inotify) {
            // It fails for a directory that is gone.
            let _ = inotify.rm_watch(watch);
        }
    }

    fn read_events(&mut self) {
        for _ in 0..READS_MAX {
            let Some(Ok(events)) = self.inotify.as_ref().map(Inotify::read_events) else { return };
            events.into_iter().for_each(|event| self.take_event(&event));
        }
    }

    fn take_event(&mut self, event: &InotifyEvent) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return self.note("files too many to be counted".into(), true);
        }
        let is_it = |dir: &WatchedDir| matches!(dir.means, Means::Events(watch) if watch == event.wd);
        let places: Vec<PathBuf> = self.directories.iter().filter(|(_, dir)| is_it(dir)).map(|(path, _)| path.clone()).collect();
        for path in places {
            match &event.name {
                Some(name) => self.take_change(&path, name, event.mask),
                None if event.mask.intersects(gone()) => self.lose(&path),
                None => {}
            }
        }
        if event.mask.contains(AddWatchFlags::IN_ISDIR) && event.mask.intersects(arrived()) {
            self.find_missing();
        }
    }

    fn take_change(&mut self, dir: &Path, name: &OsStr, mask: AddWatchFlags) {
        let Some(WatchedDir { interest, .. }) = self.directories.get(dir) else { return };
        let path = dir.join(name);
        if mask.contains(AddWatchFlags::IN_ISDIR) {
            // The package that was missing. Otherwise an application may make directories as it likes.
            if self.failed && interest.code && mask.intersects(arrived()) && is_package(name) {
                self.note(path, true);
            }
            return;
        }
        if !interest.has(name) {
            return;
        }
        if mask.contains(AddWatchFlags::IN_CREATE) {
            // A new file is still to be written, and the end of that is another event. A link is complete.
            let complete = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink() || meta.nlink() > 1);
            if !complete {
                return;
            }
        }
        let written = !mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM);
        self.note(path, written);
    }

    /// A directory is gone, or is another one now, and with it those below, of which no event tells.
    fn lose(&mut self, path: &Path) {
        let below: Vec<PathBuf> = self
            .directories
            .range(path.to_owned()..)
            .map(|(other, _)| other)
            .take_while(|other| other.starts_with(path))
            .cloned()
            .collect();
        for lost in &below {
            let Some(dir) = self.directories.get_mut(lost) else { continue };
            // The watch is still there for one that was moved.
            if let Means::Events(watch) = std::mem::replace(&mut dir.means, Means::None) {
                self.release(watch);
            }
        }
        if !below.is_empty() {
            self.note(path.to_owned(), false);
        }
    }

    /// Looks at the directories of which no events come.
    fn look_around(&mut self) {
        let paths: Vec<PathBuf> = self
            .directories
            .iter()
            .filter(|(_, dir)| matches!(dir.means, Means::Looks(_)))
            .map(|(path, _)| path.clone())
            .collect();
        for path in paths {
            let Some(dir) = self.directories.get_mut(&path) else { continue };
            let Means::Looks(before) = &mut dir.means else { continue };
            match look(&path, &dir.interest) {
                Ok(now) => {
                    let changed: Vec<(PathBuf, bool)> =
                        changes(before, &now).map(|name| (path.join(name), now.contains_key(name))).collect();
                    *before = now;
                    changed.into_iter().for_each(|(file, written)| self.note(file, written));
                }
                Err(_) => self.lose(&path),
            }
        }
        self.find_missing();
    }

    /// Watches directories again that are back.
    fn find_missing(&mut self) {
        let missing: Vec<PathBuf> =
            self.directories.iter().filter(|(_, dir)| matches!(dir.means, Means::None)).map(|(path, _)| path.clone()).collect();
        for path in missing {
            let Some(interest) = self.directories.get(&path).map(|dir| dir.interest.clone()) else { continue };
            let means = self.begin(&path, &interest);
            if matches!(means, Means::None) {
                continue;
            }
            let found: Option<PathBuf> = look(&path, &interest).unwrap_or_default().keys().next().map(|name| path.join(name));
            if let Some(dir) = self.directories.get_mut(&path) {
                dir.means = means;
            }
            found.into_iter().for_each(|file| self.note(file, true));
        }
    }

    /// Remembers a change.
    fn note(&mut self, file: PathBuf, written: bool) {
        match &mut self.pending {
            Some(pending) => pending.add(&file, written),
            None => self.pending = Some(PendingChange::new(file, written)),
        }
    }

    /// Remembers what is to be said once.
    fn say(&mut self, which: &'static str, text: String) {
        if !self.said.contains(&which) {
            self.said.push(which);
            self.troubles.push(text);
        }
    }

    /// Sends what is due, as far as the master has room for it.
    fn report(&mut self, now: Instant) -> io::Result<()> {
        self.blocked = None;
        while let Some(text) = self.troubles.first() {
            if !self.send(&WatchReport::Trouble(text.clone()))? {
                self.blocked = Some(now);
                return Ok(());
            }
            self.troubles.remove(0);
        }
        if let Some(pending) = self.pending.take_if(|pending| pending.due() <= now)
            && !self.send(&pending.report())?
        {
            self.pending = Some(pending);
            self.blocked = Some(now);
        }
        Ok(())
    }

    fn send(&self, report: &WatchReport) -> io::Result<bool> {
        match tell(&self.socket, report) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // The next read says that the master is gone.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The clock of the system, in nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// What of a directory the kernel is asked to tell.
fn events() -> AddWatchFlags {
    let files = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE;
    files | arrived() | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR
}

/// Something has a new name in the directory.
fn arrived() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO
}

/// The directory itself is gone or elsewhere.
fn gone() -> AddWatchFlags {
    AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED
}
