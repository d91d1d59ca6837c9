//! A worker's share of the connections.
//!
//! The kernel gives a new connection to the worker that comes first, and a worker that is awake comes first again. For short
//! connections that is right: they are gone before it matters. But kept ones stay, and 64 that are opened at once would all be
//! with one worker. So a worker compares its number of connections with those of the others, and steps aside when it has clearly
//! more than the least of them.

use std::sync::Arc;

use crate::scoreboard::Scoreboard;

/// Connections that a worker may hold beyond the least of the others: one would make it step aside after every single one.
const SLACK: u32 = 1;

/// The same in relation to the least, as a divisor: among many connections an eighth is no difference.
const SLACK_PART: u32 = 8;

/// This worker among those that accept from the same sockets.
#[derive(Debug)]
pub struct Share {
    board: Arc<Scoreboard>,
    slot: usize,
}

impl Share {
    /// The share of the worker in this slot.
    pub fn new(board: Arc<Scoreboard>, slot: usize) -> Self {
        Self { board, slot }
    }

    /// Whether a worker that accepts holds clearly fewer connections than this one, which holds `held`. A worker without
    /// connections is never above its share, and then no shared memory is read.
    #[inline]
    pub fn is_exceeded(&self, held: usize) -> bool {
        held > SLACK as usize && self.is_above(held as u32)
    }

    /// Publishes whether this worker takes connections.
    pub fn set_accepts(&self, accepts: bool) {
        self.board.slot(self.slot).set_accepts(accepts);
    }

    #[cold]
    fn is_above(&self, held: u32) -> bool {
        // The others compare themselves with this one, and the end of the iteration would be too late in a batch.
        self.board.slot(self.slot).set_connections(held);
        let others = (0..self.board.slots()).filter(|&slot| slot != self.slot).map(|slot| self.board.slot(slot));
        let least = others.filter(|other| other.accepts()).map(|other| other.connections()).min();
        least.is_some_and(|least| held - SLACK > least + least / SLACK_PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict of the worker in slot 0 with `held` connections beside others with these (`None`: one that does not accept).
    fn steps_aside(held: usize, others: &[Option<u32>]) -> bool {
        let board = Arc::new(Scoreboard::new(1 + others.len(), 1).unwrap());
        let share = Share::new(board.clone(), 0);
        share.set_accepts(true);
        for (slot, other) in others.iter().enumerate() {
            board.slot(slot + 1).set_accepts(other.is_some());
            board.slot(slot + 1).set_connections(other.unwrap_or(0));
        }
        share.is_exceeded(held)
    }

    #[test]
    fn a_worker_steps_aside_for_one_with_clearly_fewer_connections() {
        assert!(steps_aside(2, &[Some(0), Some(9)]));
        assert!(steps_aside(18, &[Some(16), Some(14), Some(16)]));
        assert!(!steps_aside(16, &[Some(16), Some(14), Some(16)]));
        assert!(!steps_aside(1_120, &[Some(1_000)]));
    }

    #[test]
    fn a_worker_that_is_alone_or_holds_little_never_does() {
        assert!(!steps_aside(10_000, &[]));
        assert!(!steps_aside(10_000, &[None, None]), "nobody else accepts");
        assert!(!steps_aside(0, &[Some(0)]));
        assert!(!steps_aside(1, &[Some(0)]));
    }
}
