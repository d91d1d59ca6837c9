//! Descriptors given by the parent process, and descriptors that get another file.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Takes over descriptor `number`, which was inherited from the parent process, and marks it close-on-exec. Each can be taken
/// once.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptors 0 to 2 are the standard streams"));
    }
    // SAFETY: F_GETFD touches nothing but the flags of whatever the number names, and fails if it names nothing.
    let flags = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })
        .map_err(|_| io::Error::new(io::ErrorKind::NotFound, "no such descriptor is open"))?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor was not inherited, or is used twice"));
    }
    // SAFETY: as above; the number is open.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) })?;
    // SAFETY: it came through exec, since it was not close-on-exec and this program opens nothing without that flag; so no other
    // value owns it. It has the flag now: a second call is refused.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes over what this process has as standard input, under a number of its own: /dev/null takes its place.
pub fn take_input() -> io::Result<OwnedFd> {
    let taken = nix::fcntl::fcntl(io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(libc::STDERR_FILENO + 1))?;
    // SAFETY: the number is new.
    let taken = unsafe { OwnedFd::from_raw_fd(taken) };
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(taken)
}

/// Takes over what this process has as standard output, under a number of its own: standard error takes its place.
pub fn take_output() -> io::Result<OwnedFd> {
    let taken = nix::fcntl::fcntl(io::stdout(), FcntlArg::F_DUPFD_CLOEXEC(libc::STDERR_FILENO + 1))?;
    // SAFETY: the number is new.
    let taken = unsafe { OwnedFd::from_raw_fd(taken) };
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok(taken)
}

/// Takes over standard error under its own number, for the rest of the process: who drops it closes what std and Python print to.
pub fn take_error() -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD touches nothing but the flags of whatever the number names, and fails if it names nothing.
    Errno::result(unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_GETFD) })?;
    // SAFETY: the number is open, and std's handle of it owns and closes nothing.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::STDERR_FILENO) })
}

/// Opens /dev/null under the numbers of standard streams that are closed: otherwise the next files get them, and what is printed goes
/// there. It stays across exec.
pub fn open_streams() -> io::Result<()> {
    for number in libc::STDIN_FILENO..=libc::STDERR_FILENO {
        // SAFETY: F_GETFD touches nothing but the flags of whatever the number names, and fails if it names nothing.
        if Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) }).is_err() {
            // The lowest number that is free is this one.
            forget(nix::fcntl::open("/dev/null", OFlag::O_RDWR, nix::sys::stat::Mode::empty())?);
        }
    }
    Ok(())
}

/// Puts the file of `with` under the number of `target`, in one step (dup3(2)): what another thread writes to the number at the
/// same time goes to the old file or to the new one, whole. The number stays close-on-exec.
pub fn replace(target: &impl AsFd, with: &impl AsFd) -> io::Result<()> {
    let (with, target) = (with.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    // SAFETY: both numbers are open as long as they are borrowed. The owner of `target` still owns its number, which is never
    // free in between, and its file may be any one that takes the same calls.
    Errno::result(unsafe { libc::dup3(with, target, libc::O_CLOEXEC) })?;
    Ok(())
}

/// Device and number of a file, which distinguish it from others.
pub type FileId = (u64, u64);

/// Which file descriptor `number` has (fstat(2)).
pub fn identity(number: i32) -> io::Result<FileId> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the call reads nothing of this process and fails for a number that names nothing; it writes one `stat` to a place
    // of its size.
    Errno::result(unsafe { libc::fstat(number, stat.as_mut_ptr()) })?;
    // SAFETY: it was written, since the call has not failed.
    let stat = unsafe { stat.assume_init() };
    Ok((stat.st_dev, stat.st_ino))
}

/// Puts /dev/null under `number`, whatever is there, in a process that is about to end or has no part in what was there: later
/// writes of its owner are discarded.
pub fn silence(number: i32) {
    let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") else { return };
    // SAFETY: dup3 takes any numbers. The owner of this one still owns it, and does not need the old file in this process.
    unsafe { libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC) };
}

/// Marks the inherited descriptor `number` close-on-exec, without taking it over.
pub fn keep_from_programs(number: i32) -> io::Result<()> {
    // SAFETY: F_SETFD changes nothing but the flags of whatever the number names, and fails if it names nothing.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

/// Adds flags to those of an open file, for everybody who has it.
pub fn add_flags(fd: &impl AsFd, flags: OFlag) -> io::Result<()> {
    let present = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    if !present.contains(flags) {
        fcntl(fd.as_fd(), FcntlArg::F_SETFL(present | flags))?;
    }
    Ok(())
}

/// Writes as much as possible without waiting, whatever the flags of the open file: `WouldBlock` when nothing can. Where the
/// kernel does not offer that for the kind of file (a terminal; a pipe before Linux 6.4), it asks first and writes `piece` bytes
/// at most, so it waits only if somebody else fills the room in between.
pub fn write_now(fd: &impl AsFd, bytes: &[u8], piece: usize) -> io::Result<usize> {
    let fd = fd.as_fd();
    let slice = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the one slice is memory that outlives the call, which only reads it; offset -1 means the file's own.
    let count = unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const slice, 1, -1, libc::RWF_NOWAIT) };
    match Errno::result(count) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::ESPIPE) => {}
        count => return Ok(count.map(|count| count as usize)?),
    }
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO)? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(nix::unistd::write(fd, &bytes[..bytes.len().min(piece)])?)
}

/// Closes every descriptor of this process but `kept`, and puts /dev/null under the standard streams, in a process that has just
/// been forked, uses nothing but `kept` from now on and ends by `_exit`.
pub fn close_all_but(kept: &OwnedFd) -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for number in libc::STDIN_FILENO..=libc::STDERR_FILENO {
        // SAFETY: dup3 takes any numbers; the streams are used by nobody here.
        Errno::result(unsafe { libc::dup3(null.as_raw_fd(), number, 0) })?;
    }
    drop(null);
    let kept = kept.as_raw_fd();
    for (first, last) in [(libc::STDERR_FILENO + 1, kept - 1), (kept + 1, i32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: values that own these numbers are neither used nor dropped in this process.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if Errno::result(result).is_err() {
            // A kernel before 5.9, or a container's filter that does not know the call.
            let open = std::fs::read_dir("/proc/self/fd")?;
            let numbers: Vec<i32> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
            for number in numbers.into_iter().filter(|number| (first..=last).contains(number)) {
                // SAFETY: as above.
                unsafe { libc::close(number) };
            }
        }
    }
    Ok(())
}

/// Leaves a descriptor open for good; its number is never used again.
pub fn forget(fd: OwnedFd) {
    let _ = fd.into_raw_fd();
}

/// Closes all of them, those whose numbers follow each other by one call (close_range(2)); leaves the list empty.
pub fn close_all(fds: &mut Vec<OwnedFd>) {
    if fds.len() == 1 {
        return fds.clear();
    }
    fds.sort_unstable_by_key(AsRawFd::as_raw_fd);
    let mut rest = fds.drain(..).peekable();
    while let Some(fd) = rest.next() {
        let first = fd.as_raw_fd();
        let mut last = first;
        while let Some(next) = rest.next_if(|next| next.as_raw_fd() == last + 1) {
            last = next.into_raw_fd();
        }
        if last == first {
            continue;
        }
        let _ = fd.into_raw_fd();
        // SAFETY: the list owned each of these numbers, none is left out between them, and nothing owns them any more.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if Errno::result(result).is_err() {
            // A kernel before 5.9, or a container's filter that does not know the call: none was closed. SAFETY: as above; each
            // number gets one owner again.
            (first..=last).for_each(|number| drop(unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::fcntl::FdFlag;

    use super::*;

    #[test]
    fn a_descriptor_is_taken_once() {
        let file = File::open("/dev/null").unwrap();
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = file.into_raw_fd();
        let taken = inherited(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(inherited(number).is_err());
    }

    #[test]
    fn a_number_keeps_its_owner_and_gets_another_file() {
        use std::io::{Read, Write};
        let (mut old, writer) = io::pipe().unwrap();
        let (mut new, other) = io::pipe().unwrap();
        let mut writer = File::from(OwnedFd::from(writer));
        writer.write_all(b"old").unwrap();
        replace(&writer, &other).unwrap();
        drop(other);
        writer.write_all(b"new").unwrap();
        let flags = fcntl(writer.as_fd(), FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        drop(writer);
        let mut text = String::new();
        old.read_to_string(&mut text).unwrap();
        new.read_to_string(&mut text).unwrap();
        assert_eq!(text, "oldnew");
    }

    #[test]
    fn all_are_closed_and_nothing_between_them() {
        use std::io::{Read, Write};
        // Where nobody else takes numbers, so that they follow each other.
        let from = crate::sys::process::descriptor_limit().min(1024) as i32 - 64;
        let (mut readers, mut fds) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let (reader, writer) = io::pipe().unwrap();
            let number = fcntl(&writer, FcntlArg::F_DUPFD_CLOEXEC(from)).unwrap();
            // SAFETY: the number is new.
            fds.push(unsafe { OwnedFd::from_raw_fd(number) });
            readers.push(reader);
        }
        assert_eq!(fds[5].as_raw_fd() - fds[0].as_raw_fd(), 5);
        let (mut between, mut reader) = (File::from(fds.remove(2)), readers.remove(2));
        fds.swap(0, 3);
        close_all(&mut fds);
        assert!(fds.is_empty());
        for mut reader in readers {
            assert_eq!(reader.read(&mut [0]).unwrap(), 0, "its writer is open");
        }
        between.write_all(b"x").unwrap();
        assert_eq!(reader.read(&mut [0; 2]).unwrap(), 1);
    }

    #[test]
    fn what_this_process_opened_is_not_inherited() {
        let file = File::open("/dev/null").unwrap();
        assert!(inherited(file.as_raw_fd()).is_err());
        assert!(inherited(1).is_err());
        assert_eq!(inherited(1_000_000).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
