//! The directories of `--static-map`, and what is found in them. What a request means, and the heads of the answers, are in
//! [`crate::files`].
//!
//! A directory is opened when the worker boots, and files are opened below it. A deployment may put another one in its place, so the
//! name is looked at again once a second while files are asked for. Nothing else is remembered: an opened file costs a microsecond,
//! and what is remembered would be stale.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::channel::BootError;
use crate::config::{Level, LinkPolicy, Settings, StaticMap};
use crate::files::cache::CachePolicy;
use crate::files::coding::{AcceptedCodings, ContentCoding};
use crate::files::media::{MediaType, MediaTypes};
use crate::files::paths::{MappedName, Maps, decode};
use crate::files::validator::Validator;
use crate::http::head::HeadView;
use crate::http::target::{Target, below};
use crate::log::count;
use crate::log::error::Log;
use crate::sys::entry;
use crate::sys::fd::{FileId, forget, identity};
use crate::sys::open::{Links, Opening};
use crate::sys::read::read_at_behind;

use super::tally::{Reminder, Tally};

/// How often the name of a directory is looked at again, in milliseconds: so long an old directory is served after another one has
/// taken its place.
const LOOK_MS: u64 = 1_000;

/// Least time between two lines of the log about files that cannot be opened, in milliseconds.
const SUMMARY_MS: u64 = 10_000;

/// The files that a worker sends, as one of its threads has them; clones share the directories.
#[derive(Clone, Debug)]
pub struct FileServer {
    site: Arc<StaticSite>,
    /// The decoded path of the request in hand, which becomes the name that is looked for.
    path: Vec<u8>,
}

#[derive(Debug)]
struct StaticSite {
    maps: Maps,
    index: Option<String>,
    types: MediaTypes,
    cache: CachePolicy,
    precompressed: bool,
    root_path: Vec<u8>,
    opening: Opening,
    /// In the order of the settings. Only the owner of the loop takes the lock.
    directories: Mutex<Vec<MappedDirectory>>,
    /// Files for which there was no descriptor.
    starved: Tally,
    /// Files that cannot be read.
    unreadable: Tally,
}

/// One of the directories.
#[derive(Debug)]
struct MappedDirectory {
    /// Absolute.
    name: PathBuf,
    opened: OwnedFd,
    identity: FileId,
    /// When its name is looked at again, in milliseconds of the loop's clock.
    next: u64,
}

/// What there is for a request.
#[derive(Debug)]
pub enum FoundFile {
    /// A regular file.
    File(OpenedFile),
    /// A directory with an index, asked for without its slash.
    Directory,
    /// Nothing that can be sent.
    Nothing,
    /// There is no descriptor for it at present.
    Busy,
    /// It cannot be read.
    Unreadable,
}

/// A regular file.
#[derive(Debug)]
pub struct OpenedFile {
    /// The file.
    pub file: File,
    /// Its state.
    pub state: Validator,
    /// Whether other requests may get another form of it.
    pub varies: bool,
}

impl FileServer {
    /// Opens the directories; `None`: there are none. Called before the application is loaded, which may change the working
    /// directory. `tells`: whether this worker speaks for all of them.
    pub fn open(settings: &Settings, tells: bool, (log, reminder): (&Log, &Reminder)) -> Result<Option<Self>, BootError> {
        let options = &settings.static_files;
        let failed = |text: String| BootError { app: false, text };
        let open = |map: &StaticMap| {
            MappedDirectory::open(&map.directory).map_err(|error| {
                failed(format!("--static-map {}={}: cannot be opened: {error}", map.shown(), map.directory.display()))
            })
        };
        let directories = options.maps.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = directories.first() else { return Ok(None) };
        let links = match options.links {
            LinkPolicy::Follow => Links::Followed,
            LinkPolicy::Beneath => Links::Beneath,
            LinkPolicy::Deny => Links::Refused,
        };
        let opening = Opening::new(first.opened.as_fd(), links);
        if opening.is_stricter() && tells {
            log.warning(format_args!(
                "--static-symlinks beneath: this kernel, or the filter of this container, has no openat2, so no link is followed"
            ));
        }
        let cache = CachePolicy::new(options).map_err(|error| failed(format!("--static-immutable: {error}")))?;
        let site = StaticSite {
            maps: Maps::new(&options.maps),
            index: options.index.clone(),
            types: MediaTypes::new(&options.mime_types),
            cache,
            precompressed: options.precompressed,
            root_path: settings.root_path.clone().into_bytes(),
            opening,
            directories: Mutex::new(directories),
            starved: Tally::new(SUMMARY_MS, reminder),
            unreadable: Tally::new(SUMMARY_MS, reminder),
        };
        Ok(Some(Self { site: Arc::new(site), path: Vec::new() }))
    }

    /// What the path of a request means; `None`: the application has it.
    pub fn locate(&mut self, head: HeadView<'_>) -> Option<MappedName> {
        self.path.clear();
        let root = &self.site.root_path;
        let (from, is_sound) = if head.head.is_from_gateway() {
            let parts = &head.head.gateway;
            self.path.extend_from_slice(parts.script.of(head.bytes));
            let script = self.path.len();
            self.path.extend_from_slice(parts.path.of(head.bytes));
            let from = if root.is_empty() { script } else { self.path.len() - below(&self.path, root).len() };
            (from, true)
        } else {
            let target = Target::of(head.head, head.bytes).ok()?;
            let is_sound = decode(target.path(head.bytes), &mut self.path);
            (self.path.len() - below(&self.path, root).len(), is_sound)
        };
        self.site.maps.locate(&self.path, from, is_sound)
    }

    /// The decoded path of the request that was located last, until a file was found for it.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Goes back to the decoded path, which has so many bytes, before the place is looked for once more.
    pub fn rewind(&mut self, len: usize) {
        self.path.truncate(len);
    }

    /// Type and value of Cache-Control of the file that was found last, asked for with this query.
    pub fn marks(&self, place: &MappedName, query: &[u8]) -> (MediaType<'_>, &[u8]) {
        let name = place.name.as_ref().map_or(&[][..], |name| &self.path[name.start..]);
        (self.site.types.of(name), self.site.cache.value(name, query))
    }

    /// Looks for the file of a place, in the form that is wanted most. `wanted` is asked only where there may be several forms.
    /// `now`: milliseconds of the loop's clock.
    pub fn find(&mut self, place: &MappedName, wanted: impl FnOnce() -> AcceptedCodings, now: u64, log: &Log) -> FoundFile {
        let site = self.site.clone();
        let Some(Range { start, .. }) = place.name else { return FoundFile::Nothing };
        let whole = self.path.len();
        match &site.index {
            Some(index) if place.is_directory => self.path.extend_from_slice(index.as_bytes()),
            None if place.is_directory => return FoundFile::Nothing,
            // The directory of the map itself.
            _ if start == whole => return self.find_index(&site, place, start, (now, log)),
            Some(_) | None => {}
        }
        let end = self.path.len();
        let (file, stat) = match self.open_name(&site, place, start, (now, log)) {
            Ok(opened) => opened,
            Err(found) => return found,
        };
        if entry::is(&stat, SFlag::S_IFDIR) && !place.is_directory {
            drop(file);
            self.path.truncate(whole);
            return self.find_index(&site, place, start, (now, log));
        }
        if !entry::is(&stat, SFlag::S_IFREG) {
            return FoundFile::Nothing;
        }
        let plain = OpenedFile { file, state: state(&stat, None), varies: false };
        if !site.precompressed || !site.types.of(&self.path[start..end]).is_compressible {
            return FoundFile::File(plain);
        }
        for coding in wanted().iter() {
            self.path.truncate(end);
            self.path.extend_from_slice(coding.suffix().as_bytes());
            let coded = self.open_coded(&site, place, start, (coding, &stat));
            self.path.truncate(end);
            if let Some(coded) = coded {
                return FoundFile::File(coded);
            }
        }
        FoundFile::File(OpenedFile { varies: true, ..plain })
    }

    /// Looks whether a directory without its slash has an index.
    fn find_index(&mut self, site: &StaticSite, place: &MappedName, start: usize, told: (u64, &Log)) -> FoundFile {
        let Some(index) = &site.index else { return FoundFile::Nothing };
        let whole = self.path.len();
        if start < whole {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(index.as_bytes());
        let opened = self.open_name(site, place, start, told);
        self.path.truncate(whole);
        match opened {
            Ok((_, stat)) if entry::is(&stat, SFlag::S_IFREG) => FoundFile::Directory,
            Ok(_) => FoundFile::Nothing,
            Err(found) => found,
        }
    }

    /// Opens the name that begins at `start` of the path; otherwise says what that means.
    fn open_name(
        &mut self,
        site: &StaticSite,
        place: &MappedName,
        start: usize,
        (now, log): (u64, &Log),
    ) -> Result<(File, FileStat), FoundFile> {
        let opened = {
            let mut directories = site.directories.lock().unwrap_or_else(PoisonError::into_inner);
            let directory = &mut directories[place.directory];
            if directory.next <= now {
                directory.look_again(now);
            }
            self.open_at(site, directory, start)
        };
        opened.map_err(|error| {
            let found = meaning(&error);
            let is_denied = error.raw_os_error() == Some(libc::EACCES);
            let (tally, level, what) = match found {
                FoundFile::Busy => (
                    &site.starved,
                    Level::Error,
                    "no descriptor is left for a static file; raise the limit of open files (ulimit -n)",
                ),
                FoundFile::Unreadable => (&site.unreadable, Level::Error, "a static file cannot be read"),
                // It is not found for the client, and the operator should know.
                FoundFile::Nothing if is_denied => (
                    &site.unreadable,
                    Level::Warning,
                    "a static file is answered 404, since the user of the workers may not read it",
                ),
                FoundFile::File(_) | FoundFile::Directory | FoundFile::Nothing => return found,
            };
            if let Some(times) = tally.count(now) {
                let name = self.path[start..].escape_ascii();
                log.write(level, format_args!("{what}: {name} ({error}){}", others(times)));
            }
            found
        })
    }

    fn open_at(&mut self, site: &StaticSite, directory: &MappedDirectory, start: usize) -> io::Result<(File, FileStat)> {
        self.path.push(0);
        let name = CStr::from_bytes_with_nul(&self.path[start..]).map_err(|_| io::Error::from_raw_os_error(libc::ENOENT));
        let opened = name.and_then(|name| site.opening.open(directory.opened.as_fd(), name));
        self.path.pop();
        let file = opened?;
        let stat = fstat(&file)?;
        Ok((file, stat))
    }

    /// Opens a compressed form, if it may stand for the plain file: one that is older was made of another state, and one that is
    /// larger saves nothing.
    fn open_coded(
        &mut self,
        site: &StaticSite,
        place: &MappedName,
        start: usize,
        (coding, plain): (ContentCoding, &FileStat),
    ) -> Option<OpenedFile> {
        let directories = site.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, stat) = self.open_at(site, &directories[place.directory], start).ok()?;
        let is_new = (stat.st_mtime, stat.st_mtime_nsec) >= (plain.st_mtime, plain.st_mtime_nsec);
        let fits = entry::is(&stat, SFlag::S_IFREG) && is_new && stat.st_size <= plain.st_size;
        fits.then(|| OpenedFile { file, state: state(&stat, Some(coding)), varies: true })
    }

    /// Logs what no line has, of which one is due at `now`.
    pub fn tell_rest(&self, now: u64, log: &Log) {
        if let Some(times) = self.site.starved.rest(now) {
            log.error(format_args!("no descriptor was left for {}", count(times, "static file")));
        }
        if let Some(times) = self.site.unreadable.rest(now) {
            log.error(format_args!("{} could not be read", count(times, "static file")));
        }
    }
}

fn others(times: u64) -> String {
    if times > 1 { format!(" ({} others since the last record)", times - 1) } else { String::new() }
}

impl MappedDirectory {
    fn open(name: &Path) -> io::Result<Self> {
        let name = std::path::absolute(name)?;
        let opened = open_directory(&name)?;
        let identity = identity(opened.as_raw_fd())?;
        Ok(Self { name, opened, identity, next: 0 })
    }

    /// Opens the directory again if another one has its name, or its descriptor another file.
    #[cold]
    fn look_again(&mut self, now: u64) {
        self.next = now + LOOK_MS;
        let own = identity(self.opened.as_raw_fd()).is_ok_and(|found| found == self.identity);
        let named = fs::metadata(&self.name).ok().map(|found| (found.dev(), found.ino()));
        if own && (named == Some(self.identity) || named.is_none()) {
            return;
        }
        let Ok(opened) = open_directory(&self.name) else { return };
        let Ok(identity) = identity(opened.as_raw_fd()) else { return };
        let old = std::mem::replace(&mut self.opened, opened);
        self.identity = identity;
        if !own {
            // The application has closed it, and the number may be somebody else's.
            forget(old);
        }
    }
}

/// O_PATH: to open files below a directory one need not be able to list it.
fn open_directory(name: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(name)?.into())
}

/// What an error of an opening means for the request.
fn meaning(error: &io::Error) -> FoundFile {
    match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::ENOENT
        | Errno::ENOTDIR
        | Errno::ENAMETOOLONG
        | Errno::ELOOP
        | Errno::EXDEV
        | Errno::EISDIR
        | Errno::EACCES
        | Errno::ENXIO
        | Errno::ENODEV
        | Errno::EINVAL => FoundFile::Nothing,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN => FoundFile::Busy,
        _ => FoundFile::Unreadable,
    }
}

/// The state of a file.
pub fn state(stat: &FileStat, coding: Option<ContentCoding>) -> Validator {
    Validator { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32, size: stat.st_size as u64, coding }
}

/// Reads a part of a file behind the contents of `out`; `false`: the file is shorter, or there is no memory for it.
pub fn read_whole(file: &File, out: &mut Vec<u8>, (mut offset, len): (u64, u64)) -> bool {
    let Ok(mut left) = usize::try_from(len) else { return false };
    if out.try_reserve(left).is_err() {
        return false;
    }
    while left > 0 {
        match read_at_behind(file.as_fd(), out, left, offset) {
            Ok(0) => return false,
            Ok(count) => (left, offset) = (left - count, offset + count as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}
