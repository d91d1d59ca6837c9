//! Memory shared with the processes forked later, and with the program that this process becomes by exec: both are files in
//! memory (memfd_create(2)), because a mapping does not survive exec, but a descriptor does.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Seals of memory that is shared with processes which may turn against this one: its size stays, and so do the seals. A shorter
/// one would make all others fail with SIGBUS, a longer one would fill memory that outlives its process, and a seal against
/// writing would keep the next program of this process from mapping it.
const FIXED: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// A file without a name, in memory, of so many zeros, whose size nobody can change; close-on-exec. `name` shows in /proc. Two
/// processes that share it exchange more than a pipe holds, and nobody has to read in time.
pub fn file_of_size(name: &CStr, bytes: u64) -> io::Result<File> {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.set_len(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(FIXED))?;
    Ok(file)
}

/// Seals of memory that nobody can change in any way.
const CONSTANT: SealFlag = FIXED.union(SealFlag::F_SEAL_WRITE);

/// An anonymous file with these contents that nobody can change any more, close-on-exec.
pub fn constant(name: &CStr, contents: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all(contents)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(CONSTANT))?;
    Ok(file)
}

/// The contents of a file made by [`constant`], at most `max` bytes. Refused for any other file: somebody may still write to it.
pub fn read_constant(file: &File, max: u64) -> io::Result<Vec<u8>> {
    // It fails for what is no file in memory.
    let seals = SealFlag::from_bits_retain(fcntl(file, FcntlArg::F_GET_SEALS).map_err(|_| not_constant())?);
    if !seals.contains(CONSTANT) {
        return Err(not_constant());
    }
    let len = file.metadata()?.len();
    if len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has {len} bytes, more than {max}")));
    }
    let mut contents = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut contents, 0)?;
    Ok(contents)
}

fn not_constant() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no sealed file in memory")
}

/// An anonymous file with these contents, positioned at its start, close-on-exec.
pub fn file_of(name: &CStr, contents: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(contents)?;
    file.rewind()?;
    Ok(file)
}

/// Types that can live in memory shared by processes.
///
/// # Safety
/// Any bytes are a valid value; every access through `&Self` is atomic; no pointers, no destructor.
pub unsafe trait Shared: Sync {}

// SAFETY: an atomic integer of any bytes is valid, holds no pointer and needs no drop.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an array is its elements.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Declares a struct whose fields are all [`Shared`], so that it is shared itself.
macro_rules! shared_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$field_meta])* $field: $type,)* }

        const _: () = {
            const fn shared<T: $crate::sys::memory::Shared>() {}
            $(shared::<$type>();)*
            assert!(!std::mem::needs_drop::<$name>());
        };
        // SAFETY: every field is `Shared`, as just checked, and a struct of such fields is too.
        unsafe impl $crate::sys::memory::Shared for $name {}
    };
}
pub(crate) use shared_struct;

/// Name of the memory in /proc/PID/maps.
const NAME: &CStr = c"tapster-shared";

/// A fixed number of values, zeroed at first, in a mapping that every process forked later shares.
#[derive(Debug)]
pub struct SharedSlice<T: Shared> {
    /// Start of a mapping of `len` values, which lives as long as `self`.
    start: NonNull<T>,
    len: usize,
    /// The memory, sealed as [`FIXED`].
    memory: OwnedFd,
}

impl<T: Shared> SharedSlice<T> {
    /// Maps `len` values (at least one).
    pub fn new(len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len).and_then(|bytes| u64::try_from(bytes).ok());
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let memory = file_of_size(NAME, bytes.filter(|&bytes| bytes > 0).ok_or_else(invalid)?)?;
        Self::of(memory.into(), len)
    }

    /// Maps memory made by [`Self::new`] before exec, with the values that are in it, `len` of them or fewer. All processes that
    /// share it must use the same type.
    pub fn of(memory: OwnedFd, len: usize) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let bytes = Self::bytes(len).filter(|&bytes| bytes > 0).ok_or_else(|| invalid("no such size"))?;
        let seals = SealFlag::from_bits_retain(fcntl(&memory, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(FIXED) {
            return Err(invalid("its memory is not sealed"));
        }
        let file = File::from(memory);
        if usize::try_from(file.metadata()?.len()).is_ok_and(|length| length < bytes) {
            return Err(invalid("its memory is too small"));
        }
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0 unasked");
        Ok(Self { start, len, memory: file.into() })
    }

    fn bytes(len: usize) -> Option<usize> {
        const { assert!(align_of::<T>() <= 4096, "a mapping starts on a page") };
        len.checked_mul(size_of::<T>())
    }
}

impl<T: Shared> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` values, page-aligned, whose bytes are valid whatever they are, and changed only
        // atomically (`Shared`); the seal keeps its memory as long as that; the mapping lives until `self` is dropped, which the
        // returned borrow prevents.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Shared> AsFd for SharedSlice<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Shared` values may be used from any thread.
unsafe impl<T: Shared> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for SharedSlice<T> {}

impl<T: Shared> Drop for SharedSlice<T> {
    fn drop(&mut self) {
        let bytes = Self::bytes(self.len).expect("checked when mapped");
        // SAFETY: exactly the mapping made by `of`, to which no borrow is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::sys::process::{alone_in_test, fork_in_test, wait_in_test};

    #[test]
    fn what_a_child_writes_is_read_after_its_death() {
        let alone = alone_in_test();
        let slice = SharedSlice::<AtomicU64>::new(3).unwrap();
        assert!(slice.iter().all(|value| value.load(Relaxed) == 0));
        let child = fork_in_test(&alone, |_| {
            slice[2].store(42, Relaxed);
            0
        });
        wait_in_test(child);
        assert_eq!(slice[2].load(Relaxed), 42);
    }

    #[test]
    fn the_memory_can_be_mapped_again_but_not_longer() {
        let slice = SharedSlice::<AtomicU64>::new(2).unwrap();
        slice[1].store(7, Relaxed);
        let again = |len| SharedSlice::<AtomicU64>::of(slice.as_fd().try_clone_to_owned().unwrap(), len);
        let same = again(2).unwrap();
        assert_eq!(same[1].load(Relaxed), 7);
        same[0].store(8, Relaxed);
        assert_eq!(slice[0].load(Relaxed), 8);
        let shorter = again(1).unwrap();
        assert_eq!((shorter.len(), shorter[0].load(Relaxed)), (1, 8));
        assert!(again(3).unwrap_err().to_string().contains("too small"));
    }

    #[test]
    fn nobody_changes_the_size_of_the_memory_or_seals_it() {
        let slice = SharedSlice::<AtomicU64>::new(2).unwrap();
        let file = File::from(slice.as_fd().try_clone_to_owned().unwrap());
        for length in [0, 1 << 20] {
            assert_eq!(file.set_len(length).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        for seal in [libc::F_SEAL_FUTURE_WRITE, libc::F_SEAL_WRITE] {
            let seal = FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(seal));
            assert_eq!(fcntl(&file, seal), Err(nix::errno::Errno::EPERM));
        }
    }

    #[test]
    fn what_is_constant_is_read_and_nothing_else() {
        let file = constant(c"x", b"text").unwrap();
        assert_eq!(read_constant(&file, 4).unwrap(), b"text");
        assert!(read_constant(&file, 3).unwrap_err().to_string().contains("more than 3"));
        assert!(file.write_at(b"T", 0).is_err() && file.set_len(0).is_err());
        for other in [file_of(c"x", b"text").unwrap(), file_of_size(c"x", 4).unwrap(), File::open("/dev/null").unwrap()] {
            assert_eq!(read_constant(&other, 4).unwrap_err().to_string(), "it is no sealed file in memory");
        }
    }

    #[test]
    fn memory_that_is_not_sealed_is_not_mapped() {
        assert!(SharedSlice::<AtomicU64>::of(file_of(c"x", &[0; 64]).unwrap().into(), 1).is_err());
        assert!(SharedSlice::<AtomicU64>::new(0).is_err());
    }

    #[test]
    fn more_than_the_address_space_is_refused() {
        assert!(SharedSlice::<AtomicU64>::new(usize::MAX / 4).is_err());
    }
}
