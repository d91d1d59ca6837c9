//! What waits for the reader of a sink, in order and within a bound.

use std::collections::VecDeque;

/// Longest write that a pipe does not mix with those of other processes, in bytes (Linux: limits.h, pipe(7)).
pub const PIPE_BUF: usize = 4096;

/// Most bytes that wait in one sink: some thousand lines, a fifth of a second of a busy access log. Beyond that the reader is not
/// late but away.
pub(super) const BACKLOG_MAX: usize = 1024 * 1024;

/// What a piece costs besides its bytes, so that many short ones are bounded too.
const PIECE_COST: usize = 64;

/// Pieces that are written one by one: whole lines, or a record of the system log.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that are written already.
    done: usize,
    /// Bytes of all pieces, and their costs.
    size: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Takes a piece; `false`: there is no room. `joins`: lines that fit into one write may become one piece.
    pub(super) fn keep(&mut self, piece: &[u8], joins: bool) -> bool {
        if self.size + PIECE_COST + piece.len() > BACKLOG_MAX {
            return false;
        }
        if let Some(last) = self.pieces.back_mut().filter(|last| joins && last.len() + piece.len() <= PIPE_BUF)
            && last.try_reserve(piece.len()).is_ok()
        {
            last.extend_from_slice(piece);
            self.size += piece.len();
            return true;
        }
        let mut kept = Vec::new();
        if kept.try_reserve_exact(piece.len()).is_err() {
            return false;
        }
        kept.extend_from_slice(piece);
        self.size += PIECE_COST + piece.len();
        self.pieces.push_back(kept);
        true
    }

    /// The rest of the first piece.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.pieces.front().map(|piece| &piece[self.done..])
    }

    /// So many more bytes of the first piece are written.
    pub(super) fn written(&mut self, count: usize) {
        self.done += count;
        if let Some(piece) = self.pieces.front().filter(|piece| piece.len() <= self.done) {
            self.size -= PIECE_COST + piece.len();
            self.done = 0;
            self.pieces.pop_front();
        }
    }

    /// How many lines wait. `records`: each piece is one.
    pub(super) fn lines(&self, records: bool) -> u64 {
        self.pieces.iter().map(|piece| if records { 1 } else { lines(piece) }).sum()
    }

    /// Gives up all that waits; returns how many lines that were, as [`Self::lines`].
    pub(super) fn give_up(&mut self, records: bool) -> u64 {
        let lost = self.lines(records);
        *self = Self::default();
        lost
    }

    /// Whether the first piece is written in part.
    pub(super) fn is_torn(&self) -> bool {
        self.done > 0 && self.pieces.front().is_some_and(|piece| piece[self.done - 1] != b'\n')
    }
}

/// How many lines these bytes are, at least one.
pub(super) fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count().max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in_and_within_the_bound() {
        let mut backlog = Backlog::default();
        assert!(backlog.keep(b"one\n", true) && backlog.keep(b"two\n", true) && backlog.keep(b"three\n", false));
        assert_eq!(backlog.first(), Some(&b"one\ntwo\n"[..]));
        backlog.written(2);
        assert!(backlog.is_torn());
        assert_eq!(backlog.first(), Some(&b"e\ntwo\n"[..]));
        backlog.written(6);
        assert_eq!(backlog.first(), Some(&b"three\n"[..]));
        backlog.written(6);
        assert!(backlog.is_empty() && !backlog.is_torn());
        let mut count = 0;
        while backlog.keep(&[b'x'; 100], false) {
            count += 1;
        }
        assert!((5_000..BACKLOG_MAX / 100).contains(&count), "{count}");
        assert_eq!(backlog.give_up(true), count as u64);
        assert!(backlog.keep(b"again\n", true) && backlog.size < 100, "what was given up takes no room");
    }
}
