//! Temporary files, for bodies beyond the memory and for output that clients do not read: unlinked, so that they end with the
//! processes that have them open, and bounded by `--limit-spool` for all workers together.
//!
//! Each worker counts its own bytes in its slot of the scoreboard, and a worker that wants more adds up all slots. So nothing
//! must be given back for a worker that dies: its count is forgotten with it, as its files are.
//!
//! Where the temporary directory cannot be written, as in a container whose root is read-only, the files are in memory, with a
//! limit of their own.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::log::count;
use crate::log::error::Log;
use crate::scoreboard::Scoreboard;
use crate::sys::memory;

use crate::worker::app::{BodyFile, StorageError};
use crate::worker::tally::{Reminder, Tally};

/// Least time between two records of bodies that could not be stored, in milliseconds: the disk is full already.
const SUMMARY_MS: u64 = 1_000;

/// Most bytes in files that are in memory, of all workers together: they count as memory of the container, which is a few hundred
/// MiB as a rule, and the workers need most of that.
pub const MEMORY_FILES_MAX: u64 = 64 << 20;

/// Where the files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In the temporary directory (TMPDIR).
    Directory,
    /// In memory.
    Memory,
}

impl Storage {
    /// The directory if a file can be made there. The error says why none can be; a disk that is full just now is no reason.
    pub fn find() -> Result<Self, io::Error> {
        match tempfile::tempfile() {
            Err(error) if !in_words(&error).passing => Err(error),
            Ok(_) | Err(_) => Ok(Self::Directory),
        }
    }
}

/// The temporary directory of one worker.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    scoreboard: Arc<Scoreboard>,
    slot: usize,
    storage: Storage,
    /// Bytes of all workers (u64::MAX: no limit).
    limit: u64,
    /// The worker's process id. A file that a forked child of the application drops still belongs to the worker.
    process: u32,
    refused: Tally,
}

impl Disk {
    /// The place for the files of the worker of this slot; `limit` is in bytes.
    pub fn new(scoreboard: Arc<Scoreboard>, slot: usize, storage: Storage, limit: u64, reminder: &Reminder) -> Self {
        let refused = Tally::new(SUMMARY_MS, reminder);
        Self(Arc::new(Inner { scoreboard, slot, storage, limit, process: std::process::id(), refused }))
    }

    /// Whether so many bytes more would fit now, by the limit alone.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.0.limit == u64::MAX || self.0.scoreboard.spooled().saturating_add(bytes) <= self.0.limit
    }

    /// The error when there is no room for so many bytes.
    pub fn full(&self) -> StorageError {
        let (limit, dir) = (self.0.limit, env::temp_dir());
        if self.0.storage == Storage::Memory {
            let text = format!(
                "{} cannot be written, and the files in memory of all workers have their limit ({limit} bytes): name a directory (TMPDIR)",
                dir.display()
            );
            return StorageError { text, passing: true };
        }
        let text = format!(
            "the temporary files of all workers have --limit-spool ({limit} bytes) together: raise it if {} has more space, or lower \
             --limit-request-body (TMPDIR names another directory)",
            dir.display()
        );
        StorageError { text, passing: true }
    }

    /// A new file.
    pub fn file(&self) -> Result<TempFile, StorageError> {
        let file = match self.0.storage {
            Storage::Directory => tempfile::tempfile(),
            Storage::Memory => memory::file_of(c"tapster-body", b""),
        };
        let file = file.map_err(|error| in_words(&error))?;
        Ok(TempFile { file, len: 0, share: SpoolShare { disk: self.clone(), bytes: 0 } })
    }

    /// Counts a request that was refused because there was no room. Returns how many there were since the last record, if a
    /// record is due.
    pub fn count_refusal(&self, now: u64) -> Option<u64> {
        self.0.refused.count(now)
    }

    /// Logs the refusals that no record has, if one is due.
    #[cold]
    pub fn tell_rest(&self, now: u64, log: &Log) {
        if let Some(refused) = self.0.refused.rest(now) {
            log.warning(format_args!(
                "the bodies of {} more could not be spooled since the last record",
                count(refused, "request")
            ));
        }
    }

    /// Counts so many bytes more; returns whether there was room for them.
    fn take(&self, bytes: u64) -> bool {
        let slot = self.0.scoreboard.slot(self.0.slot);
        // It adds first and checks then: two workers at the limit may both be refused, but never both succeed.
        slot.add_spooled(bytes);
        let fits = self.has_room(0);
        if !fits {
            slot.remove_spooled(bytes);
        }
        fits
    }
}

/// A file's part of the limit; given back when dropped.
#[derive(Debug)]
struct SpoolShare {
    disk: Disk,
    bytes: u64,
}

impl Drop for SpoolShare {
    fn drop(&mut self) {
        let Inner { scoreboard, slot, process, .. } = &*self.disk.0;
        if self.bytes > 0 && *process == std::process::id() {
            scoreboard.slot(*slot).remove_spooled(self.bytes);
        }
    }
}

/// A temporary file that is written from its start to its end.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    len: u64,
    share: SpoolShare,
}

impl TempFile {
    /// Appends. The position of the file stays at its start.
    pub fn append(&mut self, data: &[u8]) -> Result<(), StorageError> {
        let bytes = data.len() as u64;
        if !self.share.disk.take(bytes) {
            return Err(self.share.disk.full());
        }
        self.share.bytes += bytes;
        self.file.write_all_at(data, self.len).map_err(|error| in_words(&error))?;
        self.len += bytes;
        Ok(())
    }

    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file as a complete body.
    pub fn into_body(self) -> BodyFile {
        BodyFile { file: self.file, len: self.len, guard: Box::new(self.share) }
    }
}

/// An error that names what failed, where, and the cure.
fn in_words(error: &io::Error) -> StorageError {
    let dir = env::temp_dir();
    let dir = dir.display();
    let few_files = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space, or set --limit-spool to what it has",
        io::ErrorKind::FileTooLarge => "raise the limit of file sizes (ulimit -f, LimitFSIZE=), or lower --limit-request-body",
        io::ErrorKind::OutOfMemory => "raise the limit of memory",
        _ if few_files => "raise the limit of open files (ulimit -n, LimitNOFILE=)",
        _ => "check its rights",
    };
    let passing = few_files
        || matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge | io::ErrorKind::OutOfMemory
        );
    let text = format!("{error}, in the temporary directory {dir}: {advice}; another directory can be named (TMPDIR)");
    StorageError { text, passing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_slots_share_the_limit_and_files_give_back_what_they_had() {
        let board = Arc::new(Scoreboard::new(2, 1).unwrap());
        let disks = [0, 1].map(|slot| Disk::new(board.clone(), slot, Storage::Directory, 100, &Reminder::default()));
        let (mut first, mut second) = (disks[0].file().unwrap(), disks[1].file().unwrap());
        first.append(&[b'x'; 60]).unwrap();
        second.append(&[b'y'; 40]).unwrap();
        assert!(first.append(b"x").unwrap_err().passing && !disks[1].has_room(1) && disks[1].has_room(0));
        assert_eq!((board.spooled(), first.len()), (100, 60), "what was refused counts for nothing");
        let body = first.into_body();
        assert_eq!(board.spooled(), 100);
        drop(body);
        assert_eq!(board.spooled(), 40);
        assert!(second.append(&[b'y'; 60]).is_ok());
        board.reset(1, 5);
        assert_eq!(board.spooled(), 0, "a worker that died has no files");
    }

    #[test]
    fn files_in_memory_are_files_with_a_limit_and_another_cure() {
        let disk = Disk::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0, Storage::Memory, 8, &Reminder::default());
        let mut file = disk.file().unwrap();
        file.append(b"abcdef").unwrap();
        let error = file.append(b"ghi").unwrap_err();
        assert!(error.passing && error.text.contains("in memory") && error.text.contains("(TMPDIR)"), "{error}");
        let mut text = String::new();
        io::Read::read_to_string(&mut file.into_body().file, &mut text).unwrap();
        assert_eq!(text, "abcdef");
    }

    #[test]
    fn refusals_are_reported_once_a_second_with_their_number() {
        let disk = Disk::new(Arc::new(Scoreboard::new(1, 1).unwrap()), 0, Storage::Directory, 1, &Reminder::default());
        assert_eq!(disk.count_refusal(5_000), Some(1));
        assert_eq!((disk.count_refusal(5_001), disk.count_refusal(5_999)), (None, None));
        assert_eq!((disk.count_refusal(6_000), disk.count_refusal(6_001)), (Some(3), None));
    }

    #[test]
    fn errors_of_the_disk_pass_and_others_do_not() {
        for code in [libc::ENOSPC, libc::EDQUOT, libc::EFBIG, libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            let error = in_words(&io::Error::from_raw_os_error(code));
            assert!(error.passing && error.text.contains("(TMPDIR)"), "{error}");
        }
        for code in [libc::EACCES, libc::ENOENT, libc::EROFS, libc::EIO] {
            assert!(!in_words(&io::Error::from_raw_os_error(code)).passing);
        }
    }
}
