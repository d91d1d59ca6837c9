//! Small blocks of a stream that leave together.
//!
//! PEP 3333 ("Buffering and Streaming") forbids to delay a block, unless its transmission continues while the application makes
//! the next one: the server sends it before it asks again, or another thread sends it meanwhile. The first way costs a system
//! call for each block. So a stream's first block goes the first way, with the head, and the next ones go the second: they are
//! put into the stream's [`BlockBuffer`], and the stream is asked again at once. As long as it answers quickly, many blocks leave
//! in one system call. When it does not, the watcher takes the loop after one to two ticks, as from every call that lasts
//! ([`crate::worker::threads::executor`]), and the new owner sends the contents of the block buffer before anything else.
//!
//! Bytes of `write()` go the same ways while the application is asked for a block ([`Coalescing`]).
//!
//! A block buffer is open only while the loop is on the table, since only then somebody watches. A stream that is asked by a
//! thread without the loop has no open block buffer, and its blocks are sent by that thread, each at once.

use crate::worker::threads::sync::{Mutex, PoisonError};

/// When a block buffer has so many bytes they are sent, whatever the stream does: memory for one stream while it is asked. A
/// system call for so many costs little compared with the copy.
pub const COALESCE_MAX: usize = 64 * 1024;

/// Room for the block that exceeds that: the most that an answer copies, with its framing.
const ROOM: usize = 17 * 1024;

/// Blocks of one stream on their way to the client.
#[derive(Debug, Default)]
pub struct BlockBuffer(Mutex<Buffered>);

#[derive(Debug, Default)]
struct Buffered {
    state: BufferState,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BufferState {
    /// Nobody would send its contents.
    #[default]
    Closed,
    /// The thread that takes the loop sends it.
    Open,
    /// A thread has taken the loop and the contents. The next blocks must go after those, by the loop.
    Flushed,
}

/// The result of putting a block into the buffer.
pub enum Put {
    /// It is in the block buffer, which has so many bytes now.
    Buffered(usize),
    /// It is not: there is no room.
    Full,
    /// It is not: the buffer is closed.
    Closed,
    /// It is not: the contents were taken.
    Flushed,
}

impl BlockBuffer {
    fn with<T>(&self, act: impl FnOnce(&mut Buffered) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens it: the loop is about to be put on the table.
    pub fn open(&self) {
        self.with(|buffered| buffered.state = BufferState::Open);
    }

    /// Takes the bytes out of `out` if it is open and has room. The buffer never grows: the application decides how much it gives
    /// to `write()`.
    pub fn put(&self, out: &mut Vec<u8>) -> Put {
        self.with(|buffered| match buffered.state {
            BufferState::Open if out.len() > buffered.bytes.capacity() - buffered.bytes.len() => Put::Full,
            BufferState::Open => {
                buffered.bytes.append(out);
                Put::Buffered(buffered.bytes.len())
            }
            BufferState::Closed => Put::Closed,
            BufferState::Flushed => Put::Flushed,
        })
    }

    /// Closes it and puts its contents before those of `out`, unless they were taken.
    fn withdraw(&self, out: &mut Vec<u8>) -> WritePath {
        self.with(|buffered| {
            if buffered.state == BufferState::Flushed {
                return WritePath::Flushed;
            }
            buffered.state = BufferState::Closed;
            buffered.bytes.append(out);
            std::mem::swap(&mut buffered.bytes, out);
            WritePath::Free
        })
    }

    /// Closes it and takes its contents, which go before the bytes that have no room.
    fn clear(&self) -> WritePath {
        self.with(|buffered| {
            if buffered.state == BufferState::Flushed {
                return WritePath::Flushed;
            }
            buffered.state = BufferState::Closed;
            WritePath::After(std::mem::take(&mut buffered.bytes))
        })
    }

    /// Closes it and puts its contents before those of `out`; `spare` is the memory for the next time.
    pub fn collect(&self, out: &mut Vec<u8>, spare: &mut Vec<u8>) {
        self.with(|buffered| {
            buffered.state = BufferState::Closed;
            if !buffered.bytes.is_empty() {
                buffered.bytes.append(out);
                std::mem::swap(&mut buffered.bytes, out);
            }
            if buffered.bytes.capacity() > 0 {
                *spare = std::mem::take(&mut buffered.bytes);
                spare.clear();
            }
        });
    }

    /// Takes the contents; nothing more is added until it is opened again.
    pub fn take(&self) -> Vec<u8> {
        self.with(|buffered| {
            buffered.state = BufferState::Flushed;
            std::mem::take(&mut buffered.bytes)
        })
    }

    /// Gives it memory. Without any it is closed, and each block is sent at once.
    pub fn supply(&self, spare: &mut Vec<u8>) {
        self.with(|buffered| {
            if buffered.state == BufferState::Open && buffered.bytes.capacity() == 0 {
                buffered.bytes = std::mem::take(spare);
                if buffered.bytes.try_reserve_exact(COALESCE_MAX + ROOM).is_err() {
                    buffered.state = BufferState::Closed;
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

/// The way of the bytes of `write()`.
pub enum WritePath {
    /// They are in the block buffer, and the loop will send them.
    Coalesced,
    /// The caller sends them: nothing is before them.
    Free,
    /// The caller sends these first, and then the new ones.
    After(Vec<u8>),
    /// They go after the bytes that the thread with the loop has taken from the block buffer.
    Flushed,
}

impl Coalescing<'_> {
    /// Takes the bytes out of `out` if they may wait; otherwise puts the earlier contents before them in it. When the caller has
    /// to keep bytes then, the block buffer stays empty, since nothing more is added to it.
    pub fn coalesce(&mut self, out: &mut Vec<u8>) -> WritePath {
        if !std::mem::replace(self.begun, true) {
            return WritePath::Free;
        }
        match self.block_buffer.put(out) {
            Put::Buffered(bytes) if bytes < COALESCE_MAX => WritePath::Coalesced,
            Put::Buffered(_) => self.block_buffer.withdraw(out),
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
    fn a_block_buffer_never_grows_and_gives_its_contents_before_bytes_without_room() {
        let block_buffer = BlockBuffer::default();
        block_buffer.open();
        block_buffer.supply(&mut Vec::new());
        let room = block_buffer.with(|buffered| buffered.bytes.capacity());
        let mut large = vec![b'x'; 2 * room];
        assert!(matches!(block_buffer.put(&mut b"first".to_vec()), Put::Buffered(5)));
        let mut begun = true;
        let way = Coalescing { block_buffer: &block_buffer, begun: &mut begun }.coalesce(&mut large);
        assert!(matches!(way, WritePath::After(before) if before == b"first"));
        assert_eq!(large.len(), 2 * room, "the caller sends it from where it is");
        assert!(matches!(block_buffer.put(&mut large), Put::Closed));
    }
}
