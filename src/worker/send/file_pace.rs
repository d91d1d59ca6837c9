//! How much of a file one call may send: the loop waits while the kernel reads it from the disk, and for how long is known only
//! afterwards. So a thread begins carefully, and asks for more at once while files come from memory.

/// Bytes of a call after one that was slow.
const CAREFUL: u64 = 256 * 1024;

/// Bytes of a static file that are sent before others proceed, and so the most of one call.
pub const TURN: u64 = 1024 * 1024;

/// A call that took longer for each [`CAREFUL`] bytes has read from the disk, or had no processor, in nanoseconds. From memory so many
/// bytes take a fifth of it, a third with encryption.
const QUICK_NS: u64 = 250_000;

/// What a thread expects of the next call.
#[derive(Debug)]
pub struct FilePace {
    call: u64,
}

impl Default for FilePace {
    fn default() -> Self {
        Self { call: CAREFUL }
    }
}

impl FilePace {
    /// Bytes that the first call of a turn may send.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Notes that so many bytes took so many nanoseconds; returns whether that was quick.
    pub fn note(&mut self, bytes: u64, ns: u64) -> bool {
        let is_quick = ns <= QUICK_NS * bytes.div_ceil(CAREFUL).max(1);
        if !is_quick {
            self.call = CAREFUL;
        } else if bytes >= self.call {
            self.call = (self.call * 2).min(TURN);
        }
        is_quick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_from_memory_are_sent_by_one_call_and_a_slow_one_ends_that() {
        let mut pace = FilePace::default();
        assert_eq!(pace.call(), CAREFUL);
        for expected in [CAREFUL * 2, TURN, TURN] {
            assert!(pace.note(pace.call(), 60_000));
            assert_eq!(pace.call(), expected);
        }
        // As long as a quarter of it may take four times.
        assert!(pace.note(TURN, QUICK_NS * 4));
        assert!(!pace.note(TURN, QUICK_NS * 4 + 1));
        assert_eq!(pace.call(), CAREFUL);
    }

    #[test]
    fn small_files_say_nothing_of_large_ones_unless_they_are_slow() {
        let mut pace = FilePace::default();
        for _ in 0..10 {
            assert!(pace.note(CAREFUL - 1, 1_000));
            assert!(pace.note(0, 1_000));
        }
        assert_eq!(pace.call(), CAREFUL);
        assert!(pace.note(CAREFUL, 1_000));
        assert!(!pace.note(1, QUICK_NS + 1));
        assert_eq!(pace.call(), CAREFUL);
    }
}
