//! What keeps this process from a file. The kernel says only that something does, and where a path leads through symbolic links
//! the one who reads that looks at the wrong directory.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, access, getuid};

/// So many symbolic links are followed, as by the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;

/// What a process wants of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Read its content.
    Read,
    /// Start it as a program.
    Execute,
}

/// A file that this process must have, and what does not let it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    file: PathBuf,
    /// The directory on the way, or the file.
    barrier: PathBuf,
    verb: &'static str,
    /// What `chmod` would have to add.
    bit: char,
    mode: u32,
    owner: Uid,
    user: Uid,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, barrier, verb, bit, mode, owner, user } = self;
        let (file, barrier, way) = (file.display(), barrier.display(), file != barrier);
        write!(f, "user {user} cannot {verb} {barrier} (mode {mode:04o}, owner {owner})")?;
        if way {
            write!(f, " on the way to {file}")?;
        }
        write!(
            f,
            ": install Python and its packages where that user may read them, such as /opt, or let it in: chmod o+{bit} {barrier}"
        )
    }
}

/// What keeps this process from the file, by its real user and groups; `None` if nothing does, and also where something else than
/// permissions is wrong with it, such as that there is none.
pub fn closed(file: &Path, wish: Wish) -> Option<Closed> {
    let mut todo: VecDeque<OsString> = parts(file).collect();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let barrier = |at: &Path, verb, bit| {
        let of = fs::metadata(at).ok()?;
        let (mode, owner) = (of.mode() & PERMISSIONS, Uid::from_raw(of.uid()));
        Some(Closed { file: file.to_owned(), barrier: at.to_owned(), verb, bit, mode, owner, user: getuid() })
    };
    while let Some(name) = todo.pop_front() {
        if access(&at, AccessFlags::X_OK) == Err(Errno::EACCES) {
            return barrier(&at, "enter", 'x');
        }
        let next = at.join(&name);
        if let Ok(target) = fs::read_link(&next) {
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                todo.push_front(part);
            }
        } else if name == ".." {
            at.pop();
        } else {
            at = next;
        }
    }
    let (flag, verb, bit) = match wish {
        Wish::Read => (AccessFlags::R_OK, "read", 'r'),
        Wish::Execute => (AccessFlags::X_OK, "execute", 'x'),
    };
    (access(&at, flag) == Err(Errno::EACCES)).then(|| barrier(&at, verb, bit)).flatten()
}

/// The names in a path, without the root and what means "here".
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Files with code of this process whose name begins like this, such as a library that the loader has found.
pub fn loaded(name: &str) -> Vec<PathBuf> {
    let maps = fs::read("/proc/self/maps").unwrap_or_default();
    let mut found = Vec::new();
    for line in maps.split(|&byte| byte == b'\n') {
        // Address, permissions, offset, device, inode, path (proc_pid_maps(5)).
        let Some(start) = line.iter().position(|&byte| byte == b'/') else { continue };
        let path = PathBuf::from(OsString::from_vec(line[start..].to_vec()));
        let begins = path.file_name().is_some_and(|file| file.as_encoded_bytes().starts_with(name.as_bytes()));
        if begins && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::sys::privileges::{Gid, Ids, become_for_good, is_root};
    use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};

    #[test]
    fn the_directory_behind_the_links_is_named_and_what_is_open_is_not() {
        if !is_root() {
            return;
        }
        let alone = alone_in_test();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(dir.path(), 0o755);
        fs::create_dir_all(at("shut/below")).unwrap();
        fs::create_dir(at("open")).unwrap();
        fs::write(at("shut/below/file"), "").unwrap();
        fs::write(at("open/secret"), "").unwrap();
        symlink("../shut/below", at("open/link")).unwrap();
        symlink(at("open/link/../below/file"), at("open/second")).unwrap();
        symlink("circle", at("circle")).unwrap();
        mode(&at("shut"), 0o700);
        mode(&at("open/secret"), 0o600);
        let said = |path: PathBuf, wish| closed(&path, wish).map(|closed| closed.to_string()).unwrap_or_default();
        assert_eq!(said(at("open/second"), Wish::Read), "", "root may");
        let child = fork_in_test(&alone, |_| {
            let (uid, gid) = (Uid::from_raw(4242), Gid::from_raw(4242));
            become_for_good(&Ids { uid, gid, groups: vec![gid] }).unwrap();
            let shut = at("shut");
            let begin = format!("user 4242 cannot enter {} (mode 0700, owner 0) on the way to ", shut.display());
            let second = said(at("open/second"), Wish::Read);
            let secret = format!("user 4242 cannot read {0} (mode 0600, owner 0): ", at("open/secret").display());
            let right = second.starts_with(&begin)
                && second.ends_with(&format!("chmod o+x {}", shut.display()))
                && said(at("open/link/file"), Wish::Execute).starts_with(&begin)
                && said(at("open/secret"), Wish::Read).starts_with(&secret)
                && said(at("open/none"), Wish::Read).is_empty()
                && said(at("circle"), Wish::Read).is_empty()
                && said("/bin/sh".into(), Wish::Execute).is_empty();
            i32::from(!right)
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
    }

    #[test]
    fn the_libraries_of_this_process_are_found_once() {
        let found = loaded("libc.so");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].is_file());
        assert_eq!(loaded("no such library"), Vec::<PathBuf>::new());
    }
}
