//! The read buffer of a thread, through which the connections that it serves pass their bytes.

use std::ops::Range;

/// Bytes read from a socket at once: a browser's request with room to spare, and an upload in few system calls.
pub const READ_SIZE: usize = 64 * 1024;

/// The bytes that were read last. Taking it out of its context leaves one without memory, for the time of a borrow.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    /// The part that the connection in hand has not used.
    unused: Range<usize>,
}

impl ReadBuffer {
    /// An empty buffer of [`READ_SIZE`] bytes.
    pub fn new() -> Self {
        Self { bytes: vec![0; READ_SIZE], unused: 0..0 }
    }

    /// The whole buffer, which spans of heads count in.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the bytes begin that are not used.
    #[inline]
    pub fn at(&self) -> usize {
        self.unused.start
    }

    /// Takes over bytes of a connection that were read before: at most [`READ_SIZE`] as a rule, the bytes of one read here or in
    /// another worker.
    #[inline]
    pub fn take_in(&mut self, bytes: &[u8]) {
        if bytes.len() > self.bytes.len() {
            self.bytes.resize(bytes.len(), 0);
        }
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.unused = 0..bytes.len();
    }

    /// Puts bytes of the connection before those that are not used. Together they may be more than [`READ_SIZE`].
    #[inline]
    pub fn put_first(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes = [bytes, self.rest(), &[0; READ_SIZE]].concat();
            self.unused = 0..bytes.len() + self.unused.len();
        }
    }

    /// Whether there are bytes that may be a request.
    #[inline]
    pub fn has_rest(&self) -> bool {
        !self.unused.is_empty()
    }

    /// The bytes that are not used.
    #[inline]
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.unused.clone()]
    }

    /// Notes that so many bytes are used.
    #[inline]
    pub fn used(&mut self, count: usize) {
        self.unused.start += count;
    }

    /// Notes that all bytes are used, or kept elsewhere.
    #[inline]
    pub fn forget(&mut self) {
        self.unused = 0..0;
    }

    /// Room for a read of [`READ_SIZE`] bytes. All that was read before is used, or kept with its connection.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        debug_assert!(self.unused.is_empty(), "what was read must not be written over");
        self.unused = 0..0;
        &mut self.bytes
    }

    /// Notes that so many bytes were read to the space.
    #[inline]
    pub fn filled(&mut self, count: usize) {
        self.unused.end += count;
    }
}
