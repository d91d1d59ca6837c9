//! Answers of one iteration of the loop that leave together.
//!
//! An answer that is sent at once wakes its client, and the next call begins with the caches full of the kernel. While other
//! requests wait for the same thread, a finished answer therefore waits here for a moment, and a few leave one after the other;
//! answers to pipelined requests leave in one send. This is only for answers that are whole and whose connection stays open, and
//! never for long: they are sent before a call that may end later than [`HOLD_NS`] after the first was put here, judged by the
//! last call, and at the end of the iteration. When a call lasts so long that another thread takes the loop, that one sends them
//! before anything else ([`crate::worker::threads::executor`]).
//!
//! The outbox is in the thread context while the thread has the loop, so that connections can reach it, and on the table with the
//! loop during a call.

use crate::worker::connection::Token;

/// How long an answer may wait here while quick calls continue, in nanoseconds: an iteration of 25 clients that ask for a Django
/// page of 80 us. With a third of it such a page costs 2 % more and its clients wait as long.
const HOLD_NS: u64 = 3_000_000;

/// With so many bytes all answers are sent.
const FULL: usize = 64 * 1024;

/// The answers that wait.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// The connection of each part, with the end of the part.
    parts: Vec<(Token, usize)>,
    /// Since when the first part is here, in nanoseconds of the loop's clock.
    since: u64,
}

impl Outbox {
    /// Whether no answer waits.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether an answer to this connection may be put after all others; `follows`: another one of it waits here already. Each
    /// connection has one part, which is sent or kept as a whole.
    pub fn has_place(&self, token: Token, follows: bool) -> bool {
        !follows || self.parts.last().is_some_and(|&(last, _)| last == token)
    }

    /// Adds a whole answer and leaves `out` empty; `false`: there is no memory for it.
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

    /// Returns the bytes of this connection, which has no part from now on.
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
