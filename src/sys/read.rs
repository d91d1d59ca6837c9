//! read(2) to memory that nobody has written yet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads up to `max` bytes after the contents of `buffer`, without zeroing the memory first; `buffer` grows if it has no room.
/// Returns how many came; 0 is the end.
pub fn read_behind(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
    buffer.reserve(max);
    let room = &mut buffer.spare_capacity_mut()[..max];
    // SAFETY: `room` is memory of `buffer` that this function alone can reach; the kernel writes at most its length.
    let count = unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
    let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
    let len = buffer.len() + count;
    // SAFETY: the kernel has written `count` bytes after the old length, as it has returned.
    unsafe { buffer.set_len(len) };
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn bytes_come_after_those_that_are_there() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"abcdef").unwrap();
        let mut buffer = b"x".to_vec();
        assert_eq!(read_behind(reader.as_fd(), &mut buffer, 4).unwrap(), 4);
        assert_eq!(buffer, b"xabcd");
        drop(writer);
        assert_eq!(read_behind(reader.as_fd(), &mut buffer, 4).unwrap(), 2);
        assert_eq!(read_behind(reader.as_fd(), &mut buffer, 4).unwrap(), 0);
        assert_eq!(buffer, b"xabcdef");
    }
}
