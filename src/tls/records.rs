//! Records on their way: memory that sessions of a thread share, and what a session keeps for its writer.

use std::io;
use std::mem::take;

use rustls::unbuffered::InsufficientSizeError;

use super::server::RECORD_MAX;

/// Bytes of the header of a record (RFC 8446 section 5.1).
pub const HEADER: usize = 5;

/// Memory for records that the sessions of a thread use one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    /// For those that come.
    input: Vec<u8>,
    /// For those that leave, while no session has it.
    spare: Vec<u8>,
}

impl Scratch {
    /// So many bytes for those that come; what is in them means nothing.
    pub fn input(&mut self, len: usize) -> &mut [u8] {
        if self.input.len() < len {
            self.input.resize(len, 0);
        }
        &mut self.input[..len]
    }
}

/// Records that are sealed and not sent.
#[derive(Debug, Default)]
pub struct Unsent {
    /// Memory, and in the middle of it the records.
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Unsent {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Bytes of its memory.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes the thread's memory, if it has none of its own.
    pub fn borrow(&mut self, scratch: &mut Scratch) {
        if self.bytes.is_empty() {
            self.bytes = take(&mut scratch.spare);
        }
    }

    /// Gives it back, and keeps what is unsent.
    pub fn give_back(&mut self, scratch: &mut Scratch) {
        if self.bytes.is_empty() {
            return;
        }
        let kept = self.bytes[self.from..self.to].to_vec();
        (self.from, self.to) = (0, kept.len());
        let bytes = std::mem::replace(&mut self.bytes, kept);
        if bytes.len() > scratch.spare.len() {
            scratch.spare = bytes;
        }
    }

    /// Makes room for so many bytes more.
    pub fn reserve(&mut self, more: usize) {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
        if self.bytes.len() < self.to + more {
            self.bytes.resize(self.to + more, 0);
        }
    }

    /// Adds what `render` writes to the room that it gets, which is larger when it asks for that.
    pub fn put(&mut self, mut render: impl FnMut(&mut [u8]) -> Result<usize, InsufficientSizeError>) {
        loop {
            match render(&mut self.bytes[self.to..]) {
                Ok(count) => {
                    self.to += count;
                    return;
                }
                Err(InsufficientSizeError { required_size }) => self.reserve(required_size),
            }
        }
    }

    /// Sends until none is left.
    ///
    /// # Errors
    /// Those of `writer`.
    pub fn send(&mut self, mut writer: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while self.from < self.to {
            match writer(&self.bytes[self.from..self.to]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.from += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.from, self.to) = (0, 0);
        Ok(())
    }
}

/// A reader, and whether it has no more now.
pub struct RecordSource<R> {
    /// The reader.
    pub reader: R,
    /// Whether the last read was short, or brought nothing.
    pub is_drained: bool,
}

impl<R: FnMut(&mut [u8]) -> io::Result<usize>> RecordSource<R> {
    /// One read.
    pub fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            match (self.reader)(space) {
                Ok(count) => {
                    // The end comes with no bytes, and again whenever it is asked for.
                    self.is_drained = count < space.len();
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_drained = true;
                    return Err(error);
                }
            }
        }
    }
}

/// Whether these bytes begin with a whole record.
pub fn has_record(bytes: &[u8]) -> bool {
    let Some([.., high, low]) = bytes.first_chunk::<HEADER>() else { return false };
    bytes.len() - HEADER >= usize::from(u16::from_be_bytes([*high, *low]))
}

/// Where opened bytes go.
pub trait PlainSink {
    /// Bytes for which there is room.
    fn room(&self) -> usize;

    /// Adds bytes for which there is room.
    fn put(&mut self, bytes: &[u8]);
}

/// No place at all.
pub struct NoSink;

impl PlainSink for NoSink {
    fn room(&self) -> usize {
        0
    }

    fn put(&mut self, _: &[u8]) {}
}

/// The beginning of memory.
pub struct SliceSink<'a> {
    space: &'a mut [u8],
    at: usize,
}

impl<'a> SliceSink<'a> {
    /// Nothing is there yet.
    pub fn of(space: &'a mut [u8]) -> Self {
        Self { space, at: 0 }
    }
}

impl PlainSink for SliceSink<'_> {
    fn room(&self) -> usize {
        self.space.len() - self.at
    }

    fn put(&mut self, bytes: &[u8]) {
        self.space[self.at..][..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

/// The end of a vector, which grows by so many bytes at most.
pub struct VecSink<'a> {
    /// The vector.
    pub bytes: &'a mut Vec<u8>,
    /// Bytes.
    pub left: usize,
}

impl PlainSink for VecSink<'_> {
    fn room(&self) -> usize {
        self.left
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.left -= bytes.len();
    }
}

/// Bytes of a record beside its contents at most (RFC 5246 section 6.2.3, RFC 8446 section 5.2).
pub const AROUND: usize = HEADER + 256;

/// Bytes that are sealed, or read, at once: so many are kept at most when the writer takes none.
pub const AT_ONCE: usize = 4 * RECORD_MAX;
