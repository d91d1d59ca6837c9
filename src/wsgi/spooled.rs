//! Reading a body that is in a temporary file, by bytes or by lines, with a buffer for short reads.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::worker::app::BodyFile;

/// Buffer in bytes: big enough that short lines cost few system calls.
const BUFFER: usize = 64 * 1024;

/// The part of a long line that is searched at once, in bytes.
const LOOK: usize = 16 * 1024;

/// The body, read so far.
pub struct Spooled {
    body: BodyFile,
    /// Made at the first short read.
    buffer: Vec<u8>,
    /// The part of the buffer that was not taken yet.
    ready: Range<usize>,
    /// Where in the file the next read begins, after the bytes of the buffer.
    next: u64,
}

impl Spooled {
    /// A body of which nothing was read.
    pub fn new(body: BodyFile) -> Self {
        Self { body, buffer: Vec::new(), ready: 0..0, next: 0 }
    }

    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.body.len - self.next + self.ready.len() as u64
    }

    /// Takes as many bytes as `into` holds; there must be as many.
    pub fn read(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        loop {
            let count = into.len().min(self.ready.len());
            let (part, rest) = into.split_at_mut(count);
            part.copy_from_slice(&self.buffer[self.ready.start..][..count]);
            self.ready.start += count;
            into = rest;
            if into.is_empty() {
                return Ok(());
            }
            if into.len() >= BUFFER || !self.has_buffer() {
                self.body.file.read_exact_at(into, self.next).map_err(named)?;
                self.next += into.len() as u64;
                return Ok(());
            }
            let count = self.buffer.len().min(usize::try_from(self.body.len - self.next).unwrap_or(usize::MAX));
            self.body.file.read_exact_at(&mut self.buffer[..count], self.next).map_err(named)?;
            self.next += count as u64;
            self.ready = 0..count;
        }
    }

    /// Length of the line that comes next, with its end; at most `max` bytes.
    pub fn line(&self, max: u64) -> io::Result<u64> {
        let max = max.min(self.left());
        let ready = &self.buffer[self.ready.clone()];
        if let Some(end) = memchr::memchr(b'\n', ready) {
            return Ok(max.min(end as u64 + 1));
        }
        let mut len = ready.len() as u64;
        let mut block = [0; LOOK];
        while len < max {
            let at = self.next + len - ready.len() as u64;
            let count = LOOK.min(usize::try_from(max - len).unwrap_or(LOOK));
            self.body.file.read_exact_at(&mut block[..count], at).map_err(named)?;
            if let Some(end) = memchr::memchr(b'\n', &block[..count]) {
                return Ok(len + end as u64 + 1);
            }
            len += count as u64;
        }
        Ok(max)
    }

    /// Whether there is a buffer, or memory for one.
    fn has_buffer(&mut self) -> bool {
        if self.buffer.is_empty() && self.buffer.try_reserve_exact(BUFFER).is_ok() {
            self.buffer.resize(BUFFER, 0);
        }
        !self.buffer.is_empty()
    }
}

/// A spooled body is complete, so a read that ends early means that the file was damaged.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the spooled request body ended early"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn spooled(bytes: &[u8]) -> Spooled {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Spooled::new(BodyFile { file, len: bytes.len() as u64, guard: Box::new(()) })
    }

    #[test]
    fn reads_of_every_size_give_the_bytes_in_their_order() {
        let bytes: Vec<u8> = (0..300_000_usize).map(|number| (number % 251) as u8).collect();
        for size in [1, 7, 1000, BUFFER - 1, BUFFER, BUFFER + 1, 200_000] {
            let mut body = spooled(&bytes);
            let mut got = Vec::new();
            while body.left() > 0 {
                let mut part = vec![0; size.min(body.left() as usize)];
                body.read(&mut part).unwrap();
                got.extend(part);
            }
            assert!(got == bytes, "{size}");
        }
    }

    #[test]
    fn lines_end_after_their_line_end_at_the_limit_or_with_the_body() {
        let lengths = [1, 2, 50, LOOK - 1, LOOK, LOOK + 1, BUFFER - 1, BUFFER, BUFFER + 1, 150_000, 3];
        let mut bytes: Vec<u8> = lengths.iter().flat_map(|&len| [vec![b'x'; len - 1], vec![b'\n']].concat()).collect();
        bytes.extend(b"rest");
        for first in [0, 1, 20_000] {
            let mut body = spooled(&bytes);
            body.read(&mut vec![0; first]).unwrap();
            let mut got = vec![b'-'; first];
            while body.left() > 0 {
                let (len, cut) = (body.line(u64::MAX).unwrap(), body.line(3).unwrap());
                assert_eq!(cut, len.min(3));
                let mut line = vec![0; len as usize];
                body.read(&mut line).unwrap();
                let end = line.iter().position(|&byte| byte == b'\n').map_or(line.len(), |end| end + 1);
                assert!(end == line.len() && (line.ends_with(b"\n") || body.left() == 0));
                got.extend(line);
            }
            assert!(got[first..] == bytes[first..]);
        }
    }

    #[test]
    fn a_file_that_was_cut_is_an_error() {
        let mut body = spooled(b"abc");
        body.body.len = 5;
        assert_eq!(body.line(u64::MAX).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(body.read(&mut [0; 5]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
