//! Making files that are right from their first moment: with this mode, and with this owner instead of the process's own. If they
//! were set by a path after the creation, anybody who may write to the directory could redirect them to another file.

use std::io;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

use super::privileges::{CapabilitySets, capabilities, set_capabilities};

/// The id of nobody: setfsuid(2) changes nothing for it and returns the present id.
const NOBODY: u32 = u32::MAX;

/// Runs `create` with this file mode creation mask. The file that it makes belongs to `owner`, if one is given, which only root
/// can do; in a directory with the set-group-ID bit it has the directory's group (inode(7)). Rights to directories stay those of
/// this process.
///
/// Mask and owner hold for the whole process meanwhile (the owner for this thread), so there must be no other threads that make
/// files.
pub fn create_as<T>(owner: Option<(Uid, Gid)>, mask: u32, create: impl FnOnce() -> T) -> io::Result<T> {
    #[cfg(test)]
    let _turn = tests::Turn::take();
    let _mask = Mask(umask(Mode::from_bits_truncate(mask)));
    let Some((uid, gid)) = owner else { return Ok(create()) };
    let owner = Owner::set(uid, gid)?;
    let made = create();
    owner.restore()?;
    Ok(made)
}

struct Mask(Mode);

impl Drop for Mask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// The ids of the process before it took the file system ids of another user (setfsuid(2)). With them the kernel takes the
/// capabilities for files away, forgets the parent-death signal and makes the process undumpable.
struct Owner {
    capabilities: CapabilitySets,
    death: Option<Signal>,
    dumpable: bool,
}

impl Owner {
    fn set(uid: Uid, gid: Gid) -> io::Result<Self> {
        let before = Self { capabilities: capabilities()?, death: prctl::get_pdeathsig()?, dumpable: prctl::get_dumpable()? };
        setfsgid(gid);
        setfsuid(uid);
        let taken = (setfsuid(Uid::from_raw(NOBODY)), setfsgid(Gid::from_raw(NOBODY))) == (uid, gid);
        // The owner need not have access to the directory.
        let allowed = set_capabilities(&before.capabilities);
        if !taken || allowed.is_err() {
            before.restore()?;
            allowed?;
            return Err(io::Error::other(format!("files cannot be made as user {uid} and group {gid}")));
        }
        Ok(before)
    }

    fn restore(&self) -> io::Result<()> {
        let (uid, gid) = (geteuid(), getegid());
        setfsuid(uid);
        setfsgid(gid);
        set_capabilities(&self.capabilities)?;
        prctl::set_dumpable(self.dumpable)?;
        prctl::set_pdeathsig(self.death)?;
        if (setfsuid(Uid::from_raw(NOBODY)), setfsgid(Gid::from_raw(NOBODY))) == (uid, gid) {
            Ok(())
        } else {
            Err(io::Error::other("the process makes files as another user still"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::process;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};

    /// The process in which a thread makes a file, or 0: tests are threads of one process. A forked child waits for no other
    /// process.
    static BUSY: AtomicU32 = AtomicU32::new(0);

    pub(super) struct Turn;

    impl Turn {
        pub(super) fn take() -> Self {
            let own = process::id();
            while let Err(busy) = BUSY.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire) {
                if busy != own {
                    BUSY.store(own, Ordering::Release);
                    break;
                }
                std::thread::yield_now();
            }
            Self
        }
    }

    impl Drop for Turn {
        fn drop(&mut self) {
            BUSY.store(0, Ordering::Release);
        }
    }

    #[test]
    fn a_file_belongs_to_its_owner_from_the_first_moment_and_the_process_is_who_it_was() {
        if !geteuid().is_root() {
            return;
        }
        let alone = alone_in_test();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        // Closed to the owner.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let owner = (Uid::from_raw(12345), Gid::from_raw(12346));
        let (theirs, ours) = (path("theirs"), path("ours"));
        let child = fork_in_test(&alone, |_| {
            umask(Mode::from_bits_truncate(0o077));
            let _ = prctl::set_dumpable(true).and_then(|()| prctl::set_pdeathsig(Signal::SIGUSR1));
            let before = capabilities().unwrap_or_default();
            let made = create_as(Some(owner), 0o002, || File::create(&theirs)).is_ok_and(|made| made.is_ok());
            let same = capabilities().is_ok_and(|after| after == before)
                && prctl::get_pdeathsig() == Ok(Some(Signal::SIGUSR1))
                && prctl::get_dumpable() == Ok(true);
            i32::from(!(made && same && File::create(&ours).is_ok()))
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
        let facts = |name: &str| fs::metadata(path(name)).map(|meta| (meta.uid(), meta.gid(), meta.mode() & 0o777)).unwrap();
        assert_eq!(facts("theirs"), (12345, 12346, 0o664));
        assert_eq!(facts("ours"), (0, getegid().as_raw(), 0o600));
    }

    #[test]
    fn the_mask_is_put_back_also_without_an_owner() {
        let alone = alone_in_test();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let child = fork_in_test(&alone, |_| {
            umask(Mode::from_bits_truncate(0o027));
            let made = create_as(None, 0, || File::create(&path)).is_ok_and(|made| made.is_ok());
            i32::from(!(made && umask(Mode::empty()) == Mode::from_bits_truncate(0o027)))
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
    }
}
