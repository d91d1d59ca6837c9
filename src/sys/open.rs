//! Opening files below a directory, with a rule for symbolic links (openat2(2), Linux 5.6).
//!
//! The kernel applies the rule while it walks, so nothing can change between a check and the opening. Filters of old containers know
//! nothing of the call: they answer EPERM, old kernels ENOSYS. There each directory is opened by itself, and none may be a link,
//! unless all are followed.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

/// Symbolic links on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Followed.
    Followed,
    /// Followed as long as they stay below the directory; where openat2 is missing they are refused.
    Beneath,
    /// Refused.
    Refused,
}

/// How files are opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    links: Links,
    /// Whether openat2 can be called.
    by_openat2: bool,
}

/// A pipe must not wait for its writer, and a terminal must not become this process's.
const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// How often a walk is repeated that a rename elsewhere has disturbed (openat2(2), EAGAIN).
const ATTEMPTS: usize = 8;

impl Opening {
    /// Tries on this directory what the kernel offers.
    pub fn new(dir: BorrowedFd<'_>, links: Links) -> Self {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve(links));
        let by_openat2 = !matches!(openat2(dir, c".", how), Err(Errno::ENOSYS | Errno::EPERM));
        Self { links, by_openat2 }
    }

    /// Whether links are refused that would be followed with a newer kernel, or outside a container.
    pub fn is_stricter(&self) -> bool {
        !self.by_openat2 && self.links == Links::Beneath
    }

    /// Opens a file for reading by its name below `dir`, which is not absolute and has no `..`. It may be anything but a socket: who
    /// calls has to look what it is.
    pub fn open(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
        let opened = match (self.by_openat2, self.links) {
            (true, links) => by_openat2(dir, name, links),
            (false, Links::Followed) => openat(dir, name, FLAGS, Mode::empty()),
            (false, Links::Beneath | Links::Refused) => by_steps(dir, name),
        };
        Ok(opened?.into())
    }
}

fn resolve(links: Links) -> ResolveFlag {
    let more = match links {
        Links::Followed => ResolveFlag::empty(),
        Links::Beneath => ResolveFlag::RESOLVE_BENEATH,
        Links::Refused => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
    };
    // Those of /proc lead out of every rule.
    more | ResolveFlag::RESOLVE_NO_MAGICLINKS
}

fn by_openat2(dir: BorrowedFd<'_>, name: &CStr, links: Links) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(FLAGS).resolve(resolve(links));
    for _ in 1..ATTEMPTS {
        match openat2(dir, name, how) {
            Err(Errno::EAGAIN) => {}
            result => return result,
        }
    }
    openat2(dir, name, how)
}

fn by_steps(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    let mut steps = name.to_bytes().split(|&b| b == b'/').peekable();
    loop {
        let step = CString::new(steps.next().unwrap_or_default()).map_err(|_| Errno::ENOENT)?;
        let dir = at.as_ref().map_or(dir, AsFd::as_fd);
        if steps.peek().is_none() {
            return openat(dir, step.as_c_str(), FLAGS | OFlag::O_NOFOLLOW, Mode::empty());
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        at = Some(openat(dir, step.as_c_str(), flags, Mode::empty())?);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is read of each name with and without the kernel's call: the content, or the error.
    fn tried(links: Links, name: &str) -> [Result<String, i32>; 2] {
        let tree = tempfile::tempdir().unwrap();
        let (root, outside) = (tree.path().join("root"), tree.path().join("outside"));
        fs::create_dir_all(root.join("dir")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(root.join("dir/file"), "inside").unwrap();
        fs::write(outside.join("file"), "outside").unwrap();
        symlink("dir/file", root.join("link")).unwrap();
        symlink("dir", root.join("dirlink")).unwrap();
        symlink("../outside/file", root.join("out")).unwrap();
        symlink(root.join("dir/file"), root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let dir = File::open(&root).unwrap();
        [true, false].map(|by_openat2| {
            let opening = Opening { links, ..Opening::new(dir.as_fd(), links) };
            assert!(opening.by_openat2, "this kernel has the call");
            let opening = Opening { by_openat2, ..opening };
            let mut file =
                opening.open(dir.as_fd(), &CString::new(name).unwrap()).map_err(|error| error.raw_os_error().unwrap())?;
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            Ok(text)
        })
    }

    #[test]
    fn links_are_followed_as_the_rule_says() {
        let text = |text: &str| Ok(text.to_owned());
        for (links, name, expected) in [
            (Links::Followed, "dir/file", text("inside")),
            (Links::Followed, "link", text("inside")),
            (Links::Followed, "dirlink/file", text("inside")),
            (Links::Followed, "out", text("outside")),
            (Links::Followed, "absolute", text("inside")),
            (Links::Followed, "loop", Err(libc::ELOOP)),
            (Links::Followed, "none", Err(libc::ENOENT)),
            (Links::Beneath, "dir/file", text("inside")),
            (Links::Beneath, "out", Err(libc::EXDEV)),
            (Links::Beneath, "absolute", Err(libc::EXDEV)),
            (Links::Refused, "dir/file", text("inside")),
            (Links::Refused, "link", Err(libc::ELOOP)),
            (Links::Refused, "dirlink/file", Err(libc::ELOOP)),
            (Links::Refused, "out", Err(libc::ELOOP)),
        ] {
            let [with, without] = tried(links, name);
            assert_eq!(with, expected, "{links:?} {name}");
            match expected {
                Ok(_) => assert_eq!(without, expected, "{links:?} {name} by steps"),
                Err(_) => assert!(without.is_err(), "{links:?} {name} by steps"),
            }
        }
        assert_eq!(tried(Links::Beneath, "link"), [text("inside"), Err(libc::ELOOP)], "stricter where the call is missing");
    }

    #[test]
    fn a_pipe_without_a_writer_does_not_wait() {
        let tree = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&tree.path().join("pipe"), Mode::S_IRWXU).unwrap();
        let dir = File::open(tree.path()).unwrap();
        let opened = Opening::new(dir.as_fd(), Links::Followed).open(dir.as_fd(), c"pipe").unwrap();
        assert!(!opened.metadata().unwrap().is_file());
    }
}
