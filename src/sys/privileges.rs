//! Becoming another user for good (credentials(7), capabilities(7)).

use std::io;

use nix::errno::Errno;
use nix::sys::prctl;
pub use nix::unistd::{Gid, Uid};
use nix::unistd::{getegid, geteuid, getgid, getuid, setgroups, setresgid, setresuid};

/// `_LINUX_CAPABILITY_VERSION_3`: capability sets of 64 bits, in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: one half of the sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The effective, permitted and inheritable capabilities of a thread.
pub(super) type CapabilitySets = [CapabilityData; 2];

/// The user that a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: Uid,
    /// Main group.
    pub gid: Gid,
    /// Further groups.
    pub groups: Vec<Gid>,
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Becomes this user: groups, group and user (real, effective and saved), no capability in any set but the bounding one. Fails if
/// any of this is not true afterwards; then the process must not continue, since it may have parts of both users.
///
/// This makes the kernel forget the parent-death signal and makes the process undumpable; see [`let_be_inspected`].
pub fn become_for_good(ids: &Ids) -> io::Result<()> {
    setgroups(&ids.groups)?;
    setresgid(ids.gid, ids.gid, ids.gid)?;
    setresuid(ids.uid, ids.uid, ids.uid)?;
    if !ids.uid.is_root() {
        drop_capabilities()?;
        if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other("the process can become root again"));
        }
    }
    if (getuid(), geteuid(), getgid(), getegid()) != (ids.uid, ids.uid, ids.gid, ids.gid) {
        return Err(io::Error::other("the process is still somebody else"));
    }
    Ok(())
}

/// Makes a process dumpable again that has become another user (prctl(2), PR_SET_DUMPABLE): without that its own /proc/self/fd
/// belongs to root, so that `/dev/stderr` cannot be opened, and no core is written. From then on processes of the same user may
/// inspect it.
pub fn let_be_inspected() -> io::Result<()> {
    Ok(prctl::set_dumpable(true)?)
}

/// Empties the effective, permitted, inheritable and ambient sets.
fn drop_capabilities() -> io::Result<()> {
    // An ambient capability needs an inheritable one, so that emptying that set empties both (capabilities(7)).
    set_capabilities(&CapabilitySets::default())
}

/// The capabilities of this thread (capget(2)).
pub(super) fn capabilities() -> io::Result<CapabilitySets> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut sets = CapabilitySets::default();
    // SAFETY: the header and the two halves are laid out as the kernel declares them for this version, and outlive the call,
    // which reads the one and writes the others; pid 0 is this thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    Ok(sets)
}

/// Gives this thread these capabilities (capset(2)).
pub(super) fn set_capabilities(sets: &CapabilitySets) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    // SAFETY: the header and the two halves are laid out as the kernel declares them for this version, and outlive the call,
    // which only reads them; pid 0 is this thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};

    #[test]
    fn whoever_becomes_another_user_has_no_way_back() {
        if !is_root() {
            return;
        }
        let alone = alone_in_test();
        let nobody = Ids { uid: Uid::from_raw(65534), gid: Gid::from_raw(65534), groups: vec![Gid::from_raw(65533)] };
        let child = fork_in_test(&alone, |_| {
            // Without this the kernel removes the capabilities by itself, unless it was asked not to.
            if prctl::set_keepcaps(true)
                .and_then(|()| become_for_good(&nobody).and_then(|()| let_be_inspected()).map_err(|_| Errno::EPERM))
                .is_err()
            {
                return 1;
            }
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let empty = |set: &str| status.contains(&format!("{set}:\t0000000000000000\n"));
            let groups = status.lines().any(|line| line.trim_end() == "Groups:\t65533");
            let gone = ["CapInh", "CapPrm", "CapEff", "CapAmb"].into_iter().all(empty);
            // As root again this would work.
            let stuck = setgroups(&[]).is_err() && setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).is_err();
            let dumpable = std::fs::File::open("/proc/self/environ").is_ok();
            i32::from(!(gone && groups && stuck && dumpable)) * 2
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
    }

    #[test]
    fn only_root_becomes_another_user() {
        if !is_root() {
            let ids = Ids { uid: Uid::from_raw(0), gid: Gid::from_raw(0), groups: vec![] };
            assert!(become_for_good(&ids).is_err());
        }
    }
}
