//! How many connections to try for at one wake.
//!
//! A failed accept4 is the most expensive call on this path: the kernel makes a descriptor, an inode and a file before it reads
//! the queue (3.3 us, compared with 0.16 us for a poll that finds nothing; `ab` and four workers: one for every third to fifth
//! connection). The sockets are in the poll level-triggered, so a worker that takes fewer connections than there are gets another
//! event in its next iteration, which costs a quarter as much. So a worker tries for another connection as long as four out of
//! five of these tries bring one. Later it tests from time to time whether more tries are worth it again.

/// Connections taken at one wake at most.
const MOST: usize = 16;

/// Wakes with exactly one connection after which a worker tries for two.
const PROBE: i32 = 16;

/// The cost of a failed try, in iterations of the loop.
const FAILED_COST: i32 = 4;

/// When savings exceed costs by this, or costs exceed savings, the number changes; in iterations of the loop.
const ENOUGH: i32 = 8;

/// The number to try for.
#[derive(Debug)]
pub struct AcceptBatch {
    size: usize,
    /// Iterations of the loop that the tries after the first have saved since the last change, less the cost of the failed ones;
    /// while the size is 1, the number of single connections.
    saved: i32,
}

impl Default for AcceptBatch {
    fn default() -> Self {
        Self { size: MOST, saved: 0 }
    }
}

impl AcceptBatch {
    /// Connections to try for at the next wake.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Notes a wake with `accepted` connections; `failed`: one more try failed.
    pub fn note(&mut self, accepted: usize, failed: bool) {
        if self.size == 1 {
            self.saved = if failed { 0 } else { self.saved + 1 };
            if self.saved >= PROBE {
                // One failed try is enough to go back.
                *self = Self { size: 2, saved: FAILED_COST - ENOUGH };
            }
            return;
        }
        let others = i32::try_from(accepted).unwrap_or(i32::MAX).saturating_sub(1);
        self.saved = (self.saved + others - if failed { FAILED_COST } else { 0 }).min(ENOUGH);
        if self.saved <= -ENOUGH {
            *self = Self { size: self.size / 2, saved: 0 };
        } else if self.saved >= ENOUGH && self.size < MOST {
            *self = Self { size: self.size * 2, saved: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Failed tries and wakes of a worker whose wakes find so many connections each, after it has adapted to them.
    fn tries(waiting: usize, wakes: u32) -> (u32, usize) {
        let mut batch = AcceptBatch::default();
        let (mut failed, mut accepted) = (0, 0);
        for wake in 0..2 * wakes {
            let took = batch.size().min(waiting);
            let vain = took < batch.size();
            batch.note(took, vain);
            if wake >= wakes {
                failed += u32::from(vain);
                accepted += took;
            }
        }
        (failed, accepted)
    }

    #[test]
    fn connections_that_come_one_by_one_cost_few_failed_tries() {
        let (failed, accepted) = tries(1, 1_000);
        assert!((1..=1_000 / PROBE as u32).contains(&failed), "{failed}");
        assert_eq!(accepted, 1_000);
    }

    #[test]
    fn connections_that_come_in_crowds_are_taken_many_at_a_time() {
        assert_eq!(tries(100, 1_000), (0, 1_000 * MOST));
    }

    #[test]
    fn after_lonely_ones_a_crowd_is_noticed() {
        let mut batch = AcceptBatch::default();
        (0..20).for_each(|_| batch.note(1, true));
        assert_eq!(batch.size(), 1);
        (0..PROBE + 4 * ENOUGH).for_each(|_| batch.note(batch.size(), false));
        assert_eq!(batch.size(), MOST);
    }

    #[test]
    fn crowds_that_now_and_then_are_small_are_still_tried_for() {
        let mut batch = AcceptBatch::default();
        for wake in 0..1_000 {
            let waiting = [16, 16, 9, 16, 3, 16, 15][wake % 7];
            batch.note(batch.size().min(waiting), waiting < batch.size());
        }
        assert_eq!(batch.size(), MOST);
    }

    #[test]
    fn a_wake_cut_short_says_nothing() {
        let mut batch = AcceptBatch::default();
        batch.note(1, false);
        assert_eq!(batch.size(), MOST, "the worker has stepped aside");
    }
}
