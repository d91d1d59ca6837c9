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

use super::output::{self, Output};
use crate::worker::app::Produced;
use crate::worker::connection::{Connection, Next, Token};
use crate::worker::ctx::{ThreadCtx, copy_of_head};
use crate::worker::event_loop::EventLoop;
use crate::worker::job::{SentHead, SocketOutlet, Work, deliver};
use crate::worker::streaming::Streaming;
use crate::worker::threads::sync::{Arc, Mutex, PoisonError};

/// Bytes on a block buffer from which on they are sent, whatever the stream does: memory for one stream while it is asked. A system call
/// for so many costs little beside the copy.
pub const GATHER_MAX: usize = 64 * 1024;

/// Room for the block that goes beyond that: what an answer copies at most, with its framing.
const ROOM: usize = 17 * 1024;

/// How long one stream is asked before others have their turn, in nanoseconds: a quarter of the executor's tick.
const GATHER_NS: u64 = 250_000;

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
enum Put {
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
    fn open(&self) {
        self.with(|lying| lying.state = BufferState::Open);
    }

    /// Takes the bytes out of `out` if it is open and has room. It never grows: the application decides how much it gives to `write()`.
    fn put(&self, out: &mut Vec<u8>) -> Put {
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
    fn collect(&self, out: &mut Vec<u8>, spare: &mut Vec<u8>) {
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
    fn take(&self) -> Vec<u8> {
        self.with(|lying| {
            lying.state = BufferState::Flushed;
            std::mem::take(&mut lying.bytes)
        })
    }

    /// Hands over it memory. Without any it is closed, and each block is sent at once.
    fn supply(&self, spare: &mut Vec<u8>) {
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
    block_buffer: &'a BlockBuffer,
    /// Whether the first block is sent, or may wait as the others do.
    begun: &'a mut bool,
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

impl ThreadCtx {
    /// Asks a stream for blocks as long as they are small and come quickly; what could not be sent meanwhile is in `output` and behind
    /// that in `out`.
    pub(in crate::worker) fn coalesce(&mut self, answer: &mut Streaming, output: &mut Option<Box<Output>>) -> Produced {
        let until = self.clock.ns() + GATHER_NS;
        let before = self.out.len();
        answer.block_buffer.supply(&mut self.coalesced);
        self.app.enter();
        // While others wait, the first block may as well: see `outbox`.
        answer.begun |= self.crowded;
        let wants_head = self.wants_response_head();
        let step = loop {
            let coalescing = Coalescing { block_buffer: &answer.block_buffer, begun: &mut answer.begun };
            let head = wants_head.then_some(SentHead { copy: &mut answer.response_head, from: before });
            let mut outlet = SocketOutlet {
                link: &answer.link,
                passage: &self.passage,
                output,
                behind: false,
                used: false,
                coalescing: Some(coalescing),
                head,
            };
            let step = answer.stream.advance(&mut self.out, &mut outlet);
            self.clock.tick();
            if answer.response_head.is_empty() {
                answer.response_head = copy_of_head(self.response_head(&self.out[before.min(self.out.len())..]));
            }
            if step != Produced::Rendered || output.is_some() || self.clock.ns() >= until || !self.pass_on(answer) {
                break step;
            }
        };
        answer.block_buffer.collect(&mut self.out, &mut self.coalesced);
        step
    }

    /// Lays the block in `out` in the block buffer, or sends it; says whether the stream may be asked for the next one.
    fn pass_on(&mut self, answer: &mut Streaming) -> bool {
        if self.out.is_empty() {
            return true;
        }
        let claim = &answer.link.claim;
        if std::mem::replace(&mut answer.begun, true) {
            match answer.block_buffer.put(&mut self.out) {
                Put::Lies(bytes) => return bytes < GATHER_MAX,
                Put::Full | Put::Flushed => return false,
                Put::Closed => {}
            }
        }
        if !claim.begin_to_send() {
            return false;
        }
        // A failure is found again by the loop.
        let sent = output::send_parts(&answer.link.stream, [&self.out, &[], &[]]).unwrap_or(0);
        claim.has_sent();
        self.out.drain(..sent);
        self.out.is_empty()
    }
}

/// The stream that is asked while the loop lies on the table.
#[derive(Debug, Default)]
pub struct Pulled(Option<(Token, Arc<BlockBuffer>)>);

impl Pulled {
    /// The loop will be laid on the table for this work.
    pub fn begin(&mut self, token: Token, work: &Work) {
        self.0 = match work {
            Work::Advance(answer) => {
                answer.block_buffer.open();
                Some((token, answer.block_buffer.clone()))
            }
            Work::Call | Work::Desk | Work::Drop(_) | Work::Signals => None,
        };
    }

    /// The loop is back.
    pub fn end(&mut self) {
        self.0 = None;
    }
}

impl EventLoop {
    /// The loop was taken while a stream was asked for its next block: sends the blocks that it has given.
    pub(in crate::worker) fn send_gathered(&mut self, ctx: &mut ThreadCtx) {
        let Some((token, block_buffer)) = self.pulled.0.take() else { return };
        let Some(connection) = self.find(token) else { return };
        // Before the block buffer is empty: what `write()` sends from then on must not overtake what lay there.
        connection.link.precedence.set();
        let mut bytes = block_buffer.take();
        let next = connection.send_gathered(&mut bytes, ctx);
        let work = self.follow(token, next, ctx);
        debug_assert!(work.is_none(), "its stream is with the application");
    }
}

impl Connection {
    fn send_gathered(&mut self, bytes: &mut Vec<u8>, ctx: &ThreadCtx) -> Next {
        if bytes.is_empty() {
            ctx.passage.free(&self.link.precedence);
            return Next::Wait;
        }
        self.link.claim.begin();
        let result = deliver(&self.link, &mut self.output, bytes);
        let sent = self.after_send(result, ctx);
        if sent.is_ok() {
            ctx.passage.free(&self.link.precedence);
        }
        sent.err().unwrap_or(Next::Wait)
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
