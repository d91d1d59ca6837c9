//! Random numbers of the kernel.

use std::time::{SystemTime, UNIX_EPOCH};

/// 128 random bits. Where a sandbox forbids getrandom(2), they are made of what no other thread has at this moment: they are then
/// unique, but can be guessed.
pub fn seed() -> [u8; 16] {
    let mut seed = [0; 16];
    loop {
        // SAFETY: the kernel writes at most so many bytes to an array that is as long.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if usize::try_from(got) == Ok(seed.len()) {
            return seed;
        }
        // A read of at most 256 bytes is never cut, but a signal may come before the kernel has gathered its first entropy.
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return unique();
        }
    }
}

#[cold]
fn unique() -> [u8; 16] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    // SAFETY: it has no arguments and cannot fail.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) } as u64;
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&now.to_ne_bytes());
    seed[8..].copy_from_slice(&thread.to_ne_bytes());
    seed
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_seeds_differ() {
        assert_ne!(super::seed(), super::seed());
        assert_ne!(super::unique(), super::seed());
    }
}
