//! The deadline of a connection and its live entry in the loop's timers.

/// Times in milliseconds of the loop's clock.
#[derive(Debug)]
pub struct Timer {
    /// The deadline.
    pub(super) deadline: u64,
    /// When the live entry fires; `u64::MAX` when there is none.
    armed: u64,
}

impl Timer {
    /// A timer without an entry.
    pub(super) fn new(deadline: u64) -> Self {
        Self { deadline, armed: u64::MAX }
    }

    /// Notes that an entry has fired; returns whether the deadline has passed. `None`: this is not the live entry, which is still
    /// in the wheel.
    pub fn fire(&mut self, now: u64) -> Option<bool> {
        if self.armed > now {
            return None;
        }
        self.armed = u64::MAX;
        Some(self.deadline <= now)
    }

    /// Makes sure that an entry fires not later than the deadline needs it; `arm` adds one and returns its time.
    #[inline]
    pub fn arm(&mut self, arm: impl FnOnce(u64) -> u64) {
        if self.deadline < self.armed {
            self.armed = arm(self.deadline);
        }
    }
}
