//! Answers of one turn of the loop that leave together.
//!
//! An answer that is sent at once wakes its client, and the next call begins with the caches full of the kernel. While other
//! requests wait for the same thread, a finished answer therefore lies here for a moment, and a few leave one after the other;
//! answers to pipelined requests leave in one send. This is only for answers that are whole and whose connection stays open, and
//! never for long: they are sent before a call that may end later than [`HOLD_NS`] after the first was laid here, as far as the
//! last one tells, and at the end of the turn. When a call lasts so long that another thread takes the loop, that one sends
//! them before anything else ([`crate::worker::threads::executor`]).
//!
//! The outbox is the thread's while its thread has the loop, so that connections can reach it, and lies on the table with the loop
//! during a call.

use crate::worker::connection::Token;

/// How long an answer may lie here while quick calls go on, in nanoseconds: a turn of 25 clients that ask for a Django page of 80 us. A
/// third of it makes such a page 2 % dearer and its clients wait as long.
const HOLD_NS: u64 = 3_000_000;

/// Bytes from which on all that lies here is sent.
const FULL: usize = 64 * 1024;

/// What lies there.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Whose bytes they are, each with the end of its part.
    parts: Vec<(Token, usize)>,
    /// Since when the first part is here, in nanoseconds of the loop's clock.
    since: u64,
}

impl Outbox {
    /// Whether nothing lies there.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether an answer to this connection, of which something lies here already or not (`follows`), may be laid behind all others:
    /// each has one part, which is sent or kept as a whole.
    pub fn has_place(&self, token: Token, follows: bool) -> bool {
        !follows || self.parts.last().is_some_and(|&(last, _)| last == token)
    }

    /// Lays a whole answer there and leaves `out` empty; `false`: there is no memory for it.
    pub fn put(&mut self, token: Token, out: &mut Vec<u8>, now: u64) -> bool {
        if self.bytes.try_reserve(out.len()).is_err() {
            return false;
        }
        if self.parts.is_empty() {
            self.since = now;
        }
        self.bytes.extend_from_slice(out);
        out.clear();
        match self.parts.last_mut() {
            Some((last, end)) if *last == token => *end = self.bytes.len(),
            _ => self.parts.push((token, self.bytes.len())),
        }
        true
    }

    /// What belongs to this connection, and does not any more.
    pub fn disown(&mut self, token: Token) -> &[u8] {
        let Some(index) = self.parts.iter().position(|(owner, _)| *owner == token) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.parts[before].1);
        let (owner, end) = &mut self.parts[index];
        *owner = Token::NONE;
        &self.bytes[start..*end]
    }

    /// Gives each part with its connection to `send`, in their order, and is empty then.
    pub fn drain(&mut self, mut send: impl FnMut(Token, &[u8])) {
        let mut start = 0;
        for (token, end) in self.parts.drain(..) {
            send(token, &self.bytes[start..end]);
            start = end;
        }
        self.bytes.clear();
    }

    /// Whether a call that takes as long as the last one would keep it waiting too long.
    pub fn is_due(&self, now: u64, call: u64) -> bool {
        now.saturating_sub(self.since) + call > HOLD_NS || self.bytes.len() > FULL
    }
}
