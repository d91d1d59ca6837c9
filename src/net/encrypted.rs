//! A stream whose bytes are TLS records on their socket.
//!
//! The session is behind a lock: the loop and the thread that serves a request have the connection together. They use it one after
//! the other (`worker::deadline::claim`), so nobody waits for the lock but for moments.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use super::socket::{Got, PlainSocket};
use crate::sys::read::read_at_behind;
use crate::tls::facts::TlsFacts;
use crate::tls::records::{AT_ONCE, PlainSink, Scratch, SliceSink, VecSink};
use crate::tls::server::{ClientRules, TlsServer};
use crate::tls::session::{OpenedBytes, Session};

/// Parts that are sent at once at most.
const PARTS_MAX: usize = 4;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// A part of a file on its way.
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The TLS of a connection.
#[derive(Debug)]
pub struct Encryption {
    session: Mutex<Session>,
    /// Whether records are sealed and not sent.
    has_unsent: AtomicBool,
    facts: Option<TlsFacts>,
    /// Whether another process can go on with it.
    may_travel: bool,
}

// None of what does something is inlined: streams without encryption are compiled as if there were no other.
impl Encryption {
    /// Of a connection on which these bytes have come.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(server: TlsServer, begun: &[u8]) -> Result<Self, rustls::Error> {
        let session = Mutex::new(Session::new(server, begun)?);
        Ok(Self { session, has_unsent: AtomicBool::new(false), facts: None, may_travel: false })
    }

    /// Of a connection that comes from another process, where it was packed ([`Session::pack`]).
    ///
    /// # Errors
    /// `InvalidData`: it was not.
    pub fn unpack(packed: &[u8]) -> io::Result<Self> {
        let session = Session::unpack(packed)?;
        let (facts, may_travel) = (Some(session.facts()), session.may_travel());
        Ok(Self { session: Mutex::new(session), has_unsent: AtomicBool::new(false), facts, may_travel })
    }

    /// As [`Session::is_let_in_by`].
    pub fn is_let_in_by(&self, rules: &ClientRules) -> bool {
        self.with(|session, _| session.is_let_in_by(rules))
    }

    /// As [`Session::pack`].
    pub fn pack(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.with(|session, _| session.pack())
    }

    /// As [`Stream::can_travel`].
    pub fn can_travel(&self) -> bool {
        self.may_travel
    }

    /// As [`Session::is_resumed`].
    pub fn is_resumed(&self) -> bool {
        self.with(|session, _| session.is_resumed())
    }

    /// As [`Session::kept`].
    pub fn kept(&self) -> usize {
        self.with(|session, _| session.kept())
    }

    /// What is known of it when the handshake is over.
    pub fn facts(&self) -> Option<&TlsFacts> {
        self.facts.as_ref()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Session, &mut Scratch) -> T) -> T {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let result = SCRATCH.with_borrow_mut(|scratch| act(&mut session, scratch));
        self.has_unsent.store(session.has_unsent(), Release);
        result
    }

    /// As [`Session::shake_hands`]. `Got` has a count when it is over. `may_read`: the socket may have bytes.
    #[inline(never)]
    pub fn shake_hands(&mut self, socket: &PlainSocket, may_read: bool) -> io::Result<Got> {
        let from_socket = |space: &mut [u8]| if may_read { read(socket, space) } else { Err(io::ErrorKind::WouldBlock.into()) };
        let more = self.with(|session, scratch| session.shake_hands(from_socket, |bytes| socket.send(bytes), scratch))?;
        let session = self.session.get_mut().unwrap_or_else(PoisonError::into_inner);
        (self.facts, self.may_travel) = (Some(session.facts()), session.may_travel());
        Ok(Got { count: 1, more })
    }

    /// As [`Stream::receive`].
    #[inline(never)]
    pub fn receive(&self, socket: &PlainSocket, buffer: &mut [u8]) -> io::Result<Got> {
        self.receive_to(socket, &mut SliceSink::of(buffer))
    }

    /// As [`Stream::receive_behind`].
    #[inline(never)]
    pub fn receive_behind(&self, socket: &PlainSocket, memory: &mut Vec<u8>, max: usize) -> io::Result<Got> {
        memory.try_reserve(max)?;
        self.receive_to(socket, &mut VecSink { bytes: memory, left: max })
    }

    fn receive_to(&self, socket: &PlainSocket, place: &mut impl PlainSink) -> io::Result<Got> {
        self.with(|session, scratch| {
            let opened = session.receive(|space| read(socket, space), place, scratch);
            if session.has_unsent() {
                // An answer to what has come. If it fails, the next send does too.
                let _ = session.flush(|records| socket.send(records));
                session.shrink(scratch);
            }
            let OpenedBytes { count, more } = opened?;
            Ok(Got { count, more })
        })
    }

    /// As [`Stream::send`].
    #[inline(never)]
    pub fn send(&self, socket: &PlainSocket, bytes: &[u8]) -> io::Result<usize> {
        self.with(|session, scratch| session.send(&[bytes], |records| socket.send(records), scratch))
    }

    /// As [`Stream::send_slices`].
    #[inline(never)]
    pub fn send_slices(&self, socket: &PlainSocket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut parts: [&[u8]; PARTS_MAX] = [&[]; PARTS_MAX];
        for (part, slice) in parts.iter_mut().zip(slices) {
            *part = slice;
        }
        self.with(|session, scratch| session.send(&parts, |records| socket.send(records), scratch))
    }

    /// As [`Stream::send_last`].
    #[inline(never)]
    pub fn send_last(&self, socket: &PlainSocket, bytes: &[u8]) -> io::Result<usize> {
        self.with(|session, scratch| session.send(&[bytes], |records| socket.send_last(records), scratch))
    }

    /// As [`Stream::send_file`]; 64 KiB at most.
    #[inline(never)]
    pub fn send_file(&self, socket: &PlainSocket, file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<u64> {
        // Before the file is read for nothing.
        self.flush(socket)?;
        let len = usize::try_from(len).unwrap_or(AT_ONCE).min(AT_ONCE);
        BLOCK.with_borrow_mut(|block| {
            block.clear();
            block.reserve(len);
            if read_at_behind(file, block, len, offset)? == 0 {
                return Ok(0);
            }
            self.send(socket, block).map(|sent| sent as u64)
        })
    }

    /// As [`Stream::has_unsent`].
    #[inline]
    pub fn has_unsent(&self) -> bool {
        self.has_unsent.load(Acquire)
    }

    /// As [`Stream::flush`].
    #[inline(never)]
    pub fn flush(&self, socket: &PlainSocket) -> io::Result<()> {
        if !self.has_unsent() {
            return Ok(());
        }
        self.with(|session, scratch| {
            let result = session.flush(|records| socket.send(records));
            session.shrink(scratch);
            result
        })
    }

    /// Whether the client has said that it sends nothing more.
    #[inline(never)]
    pub fn is_ended(&self) -> bool {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).is_ended()
    }

    /// Says that nothing more is sent, as far as the socket takes that at once.
    #[inline(never)]
    pub fn say_end(&self, socket: &PlainSocket) {
        self.with(|session, scratch| {
            session.end();
            // One that has no room, or no reader, is not sent.
            let _ = session.flush(|records| socket.send(records));
            session.shrink(scratch);
        });
    }
}

fn read(socket: &PlainSocket, space: &mut [u8]) -> io::Result<usize> {
    socket.receive(space).map(|got| got.count)
}
