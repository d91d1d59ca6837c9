//! Small blocks of a stream that leave together.
//!
//! PEP 3333 ("Buffering and Streaming") forbids to delay a block, unless its transmission goes on while the application
//! makes the next one: the server sends it before it asks again, or another thread sends it meanwhile. The first way costs a system
//! call for each block. So a stream's first block goes the first way, with the head; what follows goes the second: blocks are
//! laid on the stream's [`BlockBuffer`] and the stream is asked again at once. As long as it answers quickly, many blocks leave in one
//! system call. When it does not, the watcher takes the loop after one to two ticks, as from every call that lasts
//! ([`crate::worker::threads::executor`]), and the new owner sends what lies in the block buffer before anything else.
//!
//! What the application gives to `write()` while it is asked for a block goes the same ways ([`Coalescing`]).
//!
//! A block buffer is open only while the loop lies on the table, since only then somebody watches. A stream that is asked by a thread
//! without the loop has no open block buffer, and its blocks are sent by that thread, each at once.

use crate::worker::threads::sync::{Mutex, PoisonError};

/// Bytes on a block buffer from which on they are sent, whatever the stream does: memory for one stream while it is asked. A system call
/// for so many costs little beside the copy.
pub const GATHER_MAX: usize = 64 * 1024;

/// Room for the block that goes beyond that: what an answer copies at most, with its framing.
const ROOM: usize = 17 * 1024;

/// Blocks of one stream on their way to the client.
#[derive(Debug, Default)]
pub struct BlockBuffer(Mutex<Lying>);

#[derive(Debug, Default)]
struct Lying {
    state: BufferState,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BufferState {
    /// Nobody would send what lies there.
    #[default]
    Closed,
    /// Whoever takes the loop sends it.
    Open,
    /// That has happened. What follows must go behind it, by the loop.
    Flushed,
}

/// Where a block went.
pub enum Put {
    /// On the block buffer, where so many bytes lie now.
    Lies(usize),
    /// Nowhere: there is no room.
    Full,
    /// Nowhere: closed.
    Closed,
    /// Nowhere: taken.
    Flushed,
}

impl BlockBuffer {
    fn with<T>(&self, act: impl FnOnce(&mut Lying) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The loop is about to be laid on the table.
    pub fn open(&self) {
        self.with(|lying| lying.state = BufferState::Open);
    }

    /// Takes the bytes out of `out` if it is open and has room. It never grows: the application decides how much it gives to `write()`.
    pub fn put(&self, out: &mut Vec<u8>) -> Put {
        self.with(|lying| match lying.state {
            BufferState::Open if out.len() > lying.bytes.capacity() - lying.bytes.len() => Put::Full,
            BufferState::Open => {
                lying.bytes.append(out);
                Put::Lies(lying.bytes.len())
            }
            BufferState::Closed => Put::Closed,
            BufferState::Flushed => Put::Flushed,
        })
    }

    /// Closes it and brings what lies there in front of `out`, unless it was taken.
    fn withdraw(&self, out: &mut Vec<u8>) -> WritePath {
        self.with(|lying| {
            if lying.state == BufferState::Flushed {
                return WritePath::Flushed;
            }
            lying.state = BufferState::Closed;
            lying.bytes.append(out);
            std::mem::swap(&mut lying.bytes, out);
            WritePath::Free
        })
    }

    /// Closes it and takes what lies there, which goes before what has no room.
    fn clear(&self) -> WritePath {
        self.with(|lying| {
            if lying.state == BufferState::Flushed {
                return WritePath::Flushed;
            }
            lying.state = BufferState::Closed;
            WritePath::After(std::mem::take(&mut lying.bytes))
        })
    }

    /// Closes it and brings what lies there in front of `out`; `spare` is the memory for the next time.
    pub fn collect(&self, out: &mut Vec<u8>, spare: &mut Vec<u8>) {
        self.with(|lying| {
            lying.state = BufferState::Closed;
            if !lying.bytes.is_empty() {
                lying.bytes.append(out);
                std::mem::swap(&mut lying.bytes, out);
            }
            if lying.bytes.capacity() > 0 {
                *spare = std::mem::take(&mut lying.bytes);
                spare.clear();
            }
        });
    }

    /// Takes what lies there; nothing more is laid there until it is opened again.
    pub fn take(&self) -> Vec<u8> {
        self.with(|lying| {
            lying.state = BufferState::Flushed;
            std::mem::take(&mut lying.bytes)
        })
    }

    /// Hands over it memory. Without any it is closed, and each block is sent at once.
    pub fn supply(&self, spare: &mut Vec<u8>) {
        self.with(|lying| {
            if lying.state == BufferState::Open && lying.bytes.capacity() == 0 {
                lying.bytes = std::mem::take(spare);
                if lying.bytes.try_reserve_exact(GATHER_MAX + ROOM).is_err() {
                    lying.state = BufferState::Closed;
                }
            }
        });
    }
}

/// The block buffer of the stream that is asked, for `write()`.
pub struct Coalescing<'a> {
    pub block_buffer: &'a BlockBuffer,
    /// Whether the first block is sent, or may wait as the others do.
    pub begun: &'a mut bool,
}

/// How bytes of `write()` go on.
pub enum WritePath {
    /// They lie in the block buffer, and somebody sees to it that they are sent.
    Coalesced,
    /// The caller sends them: nothing is before them.
    Free,
    /// The caller sends these, and then them.
    After(Vec<u8>),
    /// Behind what the thread that has taken the block buffer sends.
    Flushed,
}

impl Coalescing<'_> {
    /// Takes the bytes out of `out` if they may lie; else what lay there is before them in it. With bytes that the caller then keeps the
    /// block buffer stays as empty as it is, since nothing more is laid there.
    pub fn lay(&mut self, out: &mut Vec<u8>) -> WritePath {
        if !std::mem::replace(self.begun, true) {
            return WritePath::Free;
        }
        match self.block_buffer.put(out) {
            Put::Lies(bytes) if bytes < GATHER_MAX => WritePath::Coalesced,
            Put::Lies(_) => self.block_buffer.withdraw(out),
            Put::Full => self.block_buffer.clear(),
            Put::Closed => WritePath::Free,
            Put::Flushed => WritePath::Flushed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_never_grows_and_gives_what_lies_there_before_what_has_no_room() {
        let block_buffer = BlockBuffer::default();
        block_buffer.open();
        block_buffer.supply(&mut Vec::new());
        let room = block_buffer.with(|lying| lying.bytes.capacity());
        let mut large = vec![b'x'; 2 * room];
        assert!(matches!(block_buffer.put(&mut b"first".to_vec()), Put::Lies(5)));
        let mut begun = true;
        let way = Coalescing { block_buffer: &block_buffer, begun: &mut begun }.lay(&mut large);
        assert!(matches!(way, WritePath::After(before) if before == b"first"));
        assert_eq!(large.len(), 2 * room, "the caller sends it from where it is");
        assert!(matches!(block_buffer.put(&mut large), Put::Closed));
    }
}
