//! Whether a socket is bound to a file, listening or not: what connect(2) says of one that does not listen yet is what it says of
//! one that a dead process has left.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::entry::Mark;
use super::unix_diag::{ANSWER, BY_FAMILY, DONE, HEADER, Sockets, UnixDiag, attributes, u16_at, u32_at};

/// UDIAG_SHOW_NAME and UDIAG_SHOW_VFS of linux/unix_diag.h.
const SHOW: u32 = 1 | 2;
/// UNIX_DIAG_NAME of linux/unix_diag.h: the path by which it was bound.
const NAME: u16 = 0;
/// UNIX_DIAG_VFS of linux/unix_diag.h: inode and device of the file.
const VFS: u16 = 1;

/// Bytes taken in at once; the kernel sends at most so many.
const PIECE: usize = 32 * 1024;

/// Most pieces of an answer: a million sockets.
const PIECES_MAX: usize = 4096;

/// Whether any socket of this network namespace is bound to this file, which has this absolute path. The kernel answers at once.
pub fn is_bound(file: Mark, path: &Path) -> io::Result<bool> {
    let kernel = UnixDiag::open()?;
    kernel.ask(Sockets::All, SHOW)?;
    let mut piece = vec![0; PIECE];
    for _ in 0..PIECES_MAX {
        let heard = kernel.hear(&mut piece)?;
        match find(heard, file, path) {
            Some(found) => return Ok(found),
            None if heard.is_empty() => break,
            None => {}
        }
    }
    Err(io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether the file is in a piece of the answer; `None`: not in this one, and there are more.
fn find(piece: &[u8], file: Mark, path: &Path) -> Option<bool> {
    let mut rest = piece;
    while rest.len() >= HEADER {
        let len = u32_at(rest, 0)? as usize;
        match u16_at(rest, 4)? {
            BY_FAMILY => {}
            DONE => return Some(false),
            // An error is no answer, and the next call fails.
            _ => return None,
        }
        let message = rest.get(..len.max(HEADER))?;
        if is_of(message.get(HEADER + ANSWER..).unwrap_or_default(), file, path) {
            return Some(true);
        }
        rest = rest.get(len.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// Whether these attributes are those of a socket that is bound to the file. The device of some file systems has another number
/// in metadata than in the kernel (btrfs, overlayfs); there the path decides.
fn is_of(found: &[u8], file: Mark, path: &Path) -> bool {
    let device = (major(file.device) << 20 | minor(file.device)) as u32;
    let (mut same_inode, mut same_device, mut same_path) = (false, false, false);
    for (kind, value) in attributes(found) {
        match kind {
            NAME => same_path = value.strip_suffix(&[0]).unwrap_or(value) == path.as_os_str().as_bytes(),
            VFS => {
                // The kernel tells the low half of an inode's number.
                same_inode = u32_at(value, 0) == Some(file.inode as u32);
                same_device = u32_at(value, 4) == Some(device);
            }
            _ => {}
        }
    }
    same_inode && (same_device || same_path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;
    use crate::sys::entry::Entry;
    use crate::sys::process::FORKS;

    #[test]
    fn a_file_is_bound_as_long_as_its_socket_is_there() {
        let _undisturbed = FORKS.read();
        let dir = tempfile::tempdir().unwrap();
        // Enough for several pieces.
        let others: Vec<_> = (0..600).map(|n| UnixDatagram::bind(dir.path().join(format!("other-{n:0>40}"))).unwrap()).collect();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mark = Mark::of(&Entry::of(&path).unwrap().look().unwrap().unwrap());
        assert!(is_bound(mark, &path).unwrap());
        assert!(is_bound(mark, Path::new("/another/name")).unwrap(), "by device and inode");
        assert!(is_bound(Mark { device: 0, ..mark }, &path).unwrap(), "by path and inode");
        assert!(!is_bound(Mark { device: 0, ..mark }, Path::new("/another/name")).unwrap());
        drop(others);
        drop(listener);
        assert!(!is_bound(mark, &path).unwrap());
    }

    #[test]
    fn a_damaged_answer_ends() {
        let mark = Mark { device: 1, inode: 1 };
        for len in 0..100 {
            assert_eq!(find(&vec![0; len], mark, Path::new("/x")), None);
            let mut piece = vec![0; 16 + len];
            piece[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
            assert_eq!(find(&piece, mark, Path::new("/x")), None);
        }
    }
}
