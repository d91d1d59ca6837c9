//! Deadlines of connections: a hashed wheel with lazy entries.
//!
//! A connection keeps its deadline in itself and at most one live entry here. Moving a deadline further away touches only the
//! connection: when the entry fires too early it is put back. That makes the common case (every request on a kept connection
//! moves its idle deadline) free.

use super::connection::Token;

/// Length of a tick in milliseconds: deadlines are seconds, so a delay of a sixteenth of a second does not matter.
const TICK_MS: u64 = 64;

/// Slots of the wheel, a power of two. Deadlines beyond `SLOTS * TICK_MS` (65 s) wait in the last slot and are put back.
const SLOTS: usize = 1024;

/// The wheel. Times are milliseconds of the loop's clock.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<Token>>,
    occupied: [u64; SLOTS / 64],
    /// The next tick that has not been fired.
    tick: u64,
    /// The tick of the first entry; `u64::MAX` when there is none.
    first: u64,
}

impl Wheel {
    /// An empty wheel that starts at `now`.
    pub fn new(now: u64) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: [0; SLOTS / 64], tick: now / TICK_MS, first: u64::MAX }
    }

    /// Adds an entry that fires not before `at`, or earlier when `at` is beyond the wheel's horizon.
    /// Returns the time at which it will fire.
    pub fn arm(&mut self, token: Token, at: u64) -> u64 {
        let tick = at.div_ceil(TICK_MS).clamp(self.tick, self.tick + SLOTS as u64 - 1);
        let slot = (tick % SLOTS as u64) as usize;
        self.slots[slot].push(token);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.first = self.first.min(tick);
        tick * TICK_MS
    }

    /// When the next entry fires; `None` when there is none.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        (self.first != u64::MAX).then(|| self.first * TICK_MS)
    }

    /// Finds the tick of the first entry.
    fn search(&self) -> u64 {
        let first = (self.tick % SLOTS as u64) as usize;
        let words = SLOTS / 64;
        // One word more than there are: the first word is read twice, its upper bits first, its lower bits last.
        for step in 0..=words {
            let index = (first / 64 + step) % words;
            let mask = match step {
                0 => !0 << (first % 64),
                _ if step == words => !(!0 << (first % 64)),
                _ => !0,
            };
            let word = self.occupied[index] & mask;
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - first) % SLOTS;
                return self.tick + ahead as u64;
            }
        }
        u64::MAX
    }

    /// Moves every entry that is due at `now` to `due`.
    #[inline]
    pub fn fire(&mut self, now: u64, due: &mut Vec<Token>) {
        let last = now / TICK_MS;
        if last < self.first {
            self.tick = self.tick.max(last + 1);
        } else {
            self.take(last, due);
        }
    }

    /// Moves every entry up to the tick `last`.
    fn take(&mut self, last: u64, due: &mut Vec<Token>) {
        // After a suspend the clock may have jumped over the whole wheel: one round is enough.
        let turns = (last + 1).saturating_sub(self.tick).min(SLOTS as u64);
        for step in 0..turns {
            let slot = ((self.tick + step) % SLOTS as u64) as usize;
            if self.occupied[slot / 64] & 1 << (slot % 64) != 0 {
                due.append(&mut self.slots[slot]);
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
        self.tick = self.tick.max(last + 1);
        if self.first < self.tick {
            self.first = self.search();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u32) -> Token {
        Token::new(n, 1)
    }

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<Token> {
        let mut due = Vec::new();
        wheel.fire(now, &mut due);
        due
    }

    #[test]
    fn an_entry_fires_at_its_time_and_not_before() {
        let mut wheel = Wheel::new(10_000);
        let at = wheel.arm(token(1), 15_000);
        assert!((15_000..15_000 + TICK_MS).contains(&at));
        assert_eq!(wheel.next(), Some(at));
        assert_eq!(fired(&mut wheel, 14_999), []);
        assert_eq!(fired(&mut wheel, at), [token(1)]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_deadline_beyond_the_horizon_fires_early_so_that_it_can_be_put_back() {
        let mut wheel = Wheel::new(0);
        let at = wheel.arm(token(1), 10_000_000);
        assert!(at < TICK_MS * SLOTS as u64);
        assert_eq!(fired(&mut wheel, at), [token(1)]);
    }

    #[test]
    fn a_past_deadline_fires_at_the_next_look() {
        let mut wheel = Wheel::new(100_000);
        fired(&mut wheel, 100_000);
        wheel.arm(token(7), 5);
        assert_eq!(fired(&mut wheel, 100_000 + TICK_MS), [token(7)]);
    }

    #[test]
    fn a_clock_that_jumped_over_the_wheel_fires_everything_once() {
        let mut wheel = Wheel::new(0);
        for n in 0..50 {
            wheel.arm(token(n), u64::from(n) * 1_000);
        }
        assert_eq!(fired(&mut wheel, 100_000_000).len(), 50);
        assert_eq!(fired(&mut wheel, 200_000_000), []);
    }

    #[test]
    fn the_next_entry_is_found_after_the_wheel_wraps() {
        let start = TICK_MS * (SLOTS as u64 - 3);
        let mut wheel = Wheel::new(start);
        let at = wheel.arm(token(1), start + 5 * TICK_MS);
        assert_eq!(wheel.next(), Some(at));
        let far = wheel.arm(token(2), start + (SLOTS as u64 - 1) * TICK_MS);
        assert_eq!(fired(&mut wheel, at), [token(1)]);
        assert_eq!(wheel.next(), Some(far));
    }
}
