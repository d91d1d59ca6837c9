//! How many connections to try for at one wake.
//!
//! An accept in vain is the dearest call of all: the kernel makes a descriptor, an inode and a file before it looks into the queue
//! (3.3 us, with 0.16 us for a poll that finds nothing; `ab` and four workers: one for every third to fifth connection). The sockets
//! are in the poll level-triggered, so whoever takes fewer connections than there are is told again at its next turn. So a worker
//! tries for as many as its wakes have lately brought, and feels its way up again.

/// Connections taken at one wake at most.
const MOST: usize = 8;

/// Connections in a row that came without a try in vain, after which twice as many are tried for: so one try in sixteen wakes is in
/// vain when connections come one by one, and a crowd is taken in crowds again after a few wakes.
const PROBE: usize = 16;

/// The number to try for.
#[derive(Debug)]
pub struct Burst {
    size: usize,
    /// Connections that came in a row.
    row: usize,
}

impl Default for Burst {
    fn default() -> Self {
        Self { size: MOST, row: 0 }
    }
}

impl Burst {
    /// Connections to try for at the next wake.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }

    /// A wake has brought `taken` connections; one try more was in vain, or not made.
    pub fn note(&mut self, taken: usize, in_vain: bool) {
        if in_vain {
            *self = Self { size: taken.max(self.size / 2).max(1), row: 0 };
        } else if taken >= self.size && self.size < MOST {
            self.row += taken;
            if self.row >= PROBE {
                *self = Self { size: MOST.min(self.size * 2), row: 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries in vain and wakes of a worker whose wakes find so many connections each, after it has got used to them.
    fn tries(waiting: usize, wakes: u32) -> (u32, usize) {
        let mut burst = Burst::default();
        let (mut in_vain, mut taken) = (0, 0);
        for wake in 0..2 * wakes {
            let took = burst.size().min(waiting);
            let vain = took < burst.size();
            burst.note(took, vain);
            if wake >= wakes {
                in_vain += u32::from(vain);
                taken += took;
            }
        }
        (in_vain, taken)
    }

    #[test]
    fn connections_that_come_one_by_one_cost_few_tries_in_vain() {
        let (in_vain, taken) = tries(1, 1_000);
        assert!((1..=1_000 / PROBE as u32).contains(&in_vain), "{in_vain}");
        assert_eq!(taken, 1_000);
    }

    #[test]
    fn connections_that_come_in_crowds_are_taken_eight_at_a_time() {
        assert_eq!(tries(100, 1_000), (0, 8_000));
    }

    #[test]
    fn after_a_lonely_one_a_crowd_is_noticed() {
        let mut burst = Burst::default();
        (0..4).for_each(|_| burst.note(0, true));
        assert_eq!(burst.size(), 1);
        (0..PROBE + PROBE / 2 + PROBE / 4).for_each(|_| burst.note(burst.size(), false));
        assert_eq!(burst.size(), MOST);
    }

    #[test]
    fn a_wake_cut_short_says_nothing() {
        let mut burst = Burst::default();
        burst.note(1, false);
        assert_eq!(burst.size(), MOST, "the worker has stepped aside");
    }
}
