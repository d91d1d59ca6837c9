//! read(2) to memory that nobody has written yet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads up to `max` bytes after the contents of `buffer`, without zeroing the memory first; `buffer` grows if it has no room.
/// Returns how many came; 0 is the end.
pub fn read_behind(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
    buffer.reserve(max);
    // SAFETY: the kernel writes at most `len` bytes to `room`.
    into_spare(buffer, max, |room, len| unsafe { libc::read(fd.as_raw_fd(), room, len) })
}

/// The same of a file from `offset` (pread(2)), whose own position stays as it is. `buffer` must have room for `max` bytes.
pub fn read_at_behind(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>, max: usize, offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: as above.
    into_spare(buffer, max, |room, len| unsafe { libc::pread(fd.as_raw_fd(), room, len, offset) })
}

/// Has `read` write to the memory behind the contents of `buffer`, whose capacity has `max` bytes there.
fn into_spare(buffer: &mut Vec<u8>, max: usize, read: impl FnOnce(*mut libc::c_void, usize) -> isize) -> io::Result<usize> {
    let room = &mut buffer.spare_capacity_mut()[..max];
    // `room` is memory of `buffer` that this function alone can reach.
    let count = read(room.as_mut_ptr().cast(), room.len());
    let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
    let len = buffer.len() + count;
    // SAFETY: both callers have the kernel write to `room`, and it has written `count` bytes there, as it has returned.
    unsafe { buffer.set_len(len) };
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_part_of_a_file_comes_from_its_place() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abcdef").unwrap();
        let mut buffer = Vec::with_capacity(10);
        buffer.push(b'x');
        assert_eq!(read_at_behind(file.as_fd(), &mut buffer, 3, 2).unwrap(), 3);
        assert_eq!(read_at_behind(file.as_fd(), &mut buffer, 3, 5).unwrap(), 1);
        assert_eq!(read_at_behind(file.as_fd(), &mut buffer, 3, 6).unwrap(), 0);
        assert_eq!((buffer.as_slice(), file.stream_position().unwrap()), (&b"xcdef"[..], 6));
    }

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
