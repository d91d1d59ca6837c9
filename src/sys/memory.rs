//! Memory shared with the processes forked later.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file without a place, in memory, close-on-exec; `name` shows in /proc. Two processes that share it exchange more than a pipe
/// holds, and nobody has to read in time.
pub fn anonymous_file(name: &CStr) -> io::Result<File> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into())
}

/// Types that can live in memory shared by processes.
///
/// # Safety
/// All-zero bytes are a valid value; every access through `&Self` is atomic; no pointers, no destructor.
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

/// A fixed number of zeroed values in a mapping that every process forked later shares.
#[derive(Debug)]
pub struct SharedSlice<T: Shared> {
    /// Start of a mapping of `len` values, which lives as long as `self`.
    start: NonNull<T>,
    len: usize,
}

impl<T: Shared> SharedSlice<T> {
    /// Maps `len` values (at least one).
    pub fn new(len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0 unasked");
        Ok(Self { start, len })
    }

    fn bytes(len: usize) -> Option<usize> {
        const { assert!(align_of::<T>() <= 4096, "a mapping starts on a page") };
        len.checked_mul(size_of::<T>())
    }
}

impl<T: Shared> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` values, page-aligned, zeroed at first and since then changed only atomically (`Shared`);
        // it lives until `self` is dropped, which the returned borrow prevents.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Shared` values may be used from any thread.
unsafe impl<T: Shared> Send for SharedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for SharedSlice<T> {}

impl<T: Shared> Drop for SharedSlice<T> {
    fn drop(&mut self) {
        let bytes = Self::bytes(self.len).expect("checked when mapped");
        // SAFETY: exactly the mapping made by `new`, to which no borrow is left.
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
    fn more_than_the_address_space_is_refused() {
        assert!(SharedSlice::<AtomicU64>::new(usize::MAX / 4).is_err());
    }
}
