//! Reads a file of text that the operator names. It may be anything that its path names by now: a pipe must not be waited for, and
//! nothing endless be read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::named;

/// Largest file in bytes: all authorities that a system trusts are 220 KB.
const FILE_MAX: u64 = 1 << 20;

/// First byte of everything in DER that can stand here: a sequence.
const DER_SEQUENCE: u8 = 0x30;

/// How a file is, so that a change shows: a write, another file in its place, another link on the way to it, other rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// Of the file at this path; `None`: there is none, or nobody may look.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = path.metadata().ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// A file that was read.
pub(super) struct PemFile {
    option: &'static str,
    path: PathBuf,
    pub(super) text: String,
    mode: u32,
}

impl PemFile {
    /// Reads a file of text; `option` names it.
    pub(super) fn read(option: &'static str, path: &Path) -> Result<Self, String> {
        let failed = |why: &str| format!("{}: {why}", named(option, path, None));
        let (meta, bytes) = bytes(path).map_err(|error| failed(&reason(&error)))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(failed(&format!("it has more than {FILE_MAX} bytes, which no file of certificates has")));
        }
        if bytes.first() == Some(&DER_SEQUENCE) {
            return Err(failed(&format!(
                "it is in DER and not in PEM, which is text; openssl {} -inform DER -in {path} -out NEW.pem makes that of it (of \
                 PKCS #12: openssl pkcs12 -nodes -in {path} -out NEW.pem)",
                if option == "--keyfile" { "pkey" } else { "x509" },
                path = path.display()
            )));
        }
        let text = String::from_utf8(bytes).map_err(|_| failed("it is no text, so not in PEM"))?;
        Ok(Self { option, path: path.into(), text, mode: meta.mode() })
    }

    /// An error in it, or in a line of it, counted from 1.
    pub(super) fn fault(&self, line: Option<usize>, why: &str) -> String {
        format!("{}: {why}", named(self.option, &self.path, line))
    }

    /// Its path, for commands that mend it.
    pub(super) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// A warning if others can read a key in it, or replace it.
    pub(super) fn exposure(&self) -> Option<String> {
        let what = match self.mode & 0o006 {
            0 => return None,
            0o004 => "read",
            _ => "write",
        };
        Some(
            self.fault(None, &format!("every user of this machine can {what} the key; chmod o= {} takes that away", self.path())),
        )
    }
}

fn bytes(path: &Path) -> io::Result<(Metadata, Vec<u8>)> {
    // A pipe without a writer must not keep this process.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let irregular = || io::Error::other("it is no regular file");
    // A socket cannot be opened, nor the terminal of a process that has none: the error would say no more than that.
    let is_other = || path.metadata().is_ok_and(|meta| !meta.is_file());
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file: File = opened.map_err(|error| if is_other() { irregular() } else { error })?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(irregular());
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok((meta, bytes))
}

/// An error of the system without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; the user that starts the server reads it (with --user that is root, with User= of systemd it is not)".into()
        }
        io::ErrorKind::NotFound => "no such file".into(),
        kind => kind.to_string(),
    }
}
