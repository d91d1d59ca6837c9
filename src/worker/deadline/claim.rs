//! Who may write to a connection while its request is in the application: the thread that runs the call, until the loop answers
//! in its place because the deadline has passed. From then on nothing of the call reaches the socket.
//!
//! ```text
//! Untouched ──the call sends──▶ Sending ──▶ Begun
//!     ├──────────── the loop gives up ─────────┼──▶ Late, for good
//!     └──────────── the answer is whole ───────┴──▶ Whole ──the loop has it──▶ Untouched
//! ```
//! So each answer is either whole or given up, and the side that has decided this logs it.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

const UNTOUCHED: u8 = 0;
const SENDING: u8 = 1;
const BEGUN: u8 = 2;
const LATE: u8 = 3;
const WHOLE: u8 = 4;

/// The claim on one connection.
#[derive(Debug, Default)]
pub struct Claim(AtomicU8);

/// What the client had got when the loop gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlreadySent {
    /// Nothing of the answer.
    Nothing,
    /// A part of it, or something before it still waits to be sent.
    Something,
}

impl Claim {
    /// Claims the connection for a call that is about to send; `false` when the loop has answered.
    pub fn begin_to_send(&self) -> bool {
        self.0.fetch_update(AcqRel, Acquire, |state| (state != LATE).then_some(SENDING)).is_ok()
    }

    /// Notes that the call has sent its bytes.
    pub fn has_sent(&self) {
        self.0.store(BEGUN, Release);
    }

    /// Notes that a part of the answer was sent, or waits after other bytes.
    pub fn begin(&self) {
        // Late stays late.
        let _ = self.0.compare_exchange(UNTOUCHED, BEGUN, AcqRel, Relaxed);
    }

    /// Notes that the answer is whole, and on its way to the loop; `false` when the loop has given it up.
    #[inline]
    pub fn complete(&self) -> bool {
        self.0.fetch_update(AcqRel, Acquire, |state| (state != LATE).then_some(WHOLE)).is_ok()
    }

    /// Notes that the loop has all that was sent or made so far: the next bytes belong to another answer, unless this one is
    /// late.
    #[inline]
    pub fn end(&self) {
        if matches!(self.0.load(Acquire), BEGUN | WHOLE) {
            self.0.store(UNTOUCHED, Release);
        }
    }

    /// Makes the loop the one that answers. `None` while the call is in the middle of sending, which never takes long, and when
    /// the answer is whole.
    pub fn give_up(&self) -> Option<AlreadySent> {
        let before = self.0.fetch_update(AcqRel, Acquire, |state| (state != SENDING && state != WHOLE).then_some(LATE)).ok()?;
        Some(if before == UNTOUCHED { AlreadySent::Nothing } else { AlreadySent::Something })
    }

    /// Whether the loop has given up.
    pub fn is_late(&self) -> bool {
        self.0.load(Acquire) == LATE
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_loop_knows_whether_anything_was_sent() {
        let claim = Claim::default();
        claim.begin();
        claim.end();
        assert_eq!(claim.give_up(), Some(AlreadySent::Nothing), "the earlier answer is whole");
        let claim = Claim::default();
        assert!(claim.begin_to_send());
        assert_eq!(claim.give_up(), None, "in the middle");
        claim.has_sent();
        assert_eq!(claim.give_up(), Some(AlreadySent::Something));
    }

    #[test]
    fn an_answer_is_either_whole_or_given_up() {
        for _ in 0..2_000 {
            let claim = Claim::default();
            let (whole, late) = std::thread::scope(|scope| {
                let call = scope.spawn(|| claim.complete());
                let late = claim.give_up().is_some();
                (call.join().unwrap(), late)
            });
            assert!(whole != late, "each of them would log it: {whole}");
        }
        let claim = Claim::default();
        assert!(claim.begin_to_send());
        claim.has_sent();
        assert!(claim.complete() && claim.give_up().is_none());
        claim.end();
        assert_eq!(claim.give_up(), Some(AlreadySent::Nothing), "the next call can be given up");
    }

    #[test]
    fn a_late_call_sends_nothing_and_cannot_become_timely_again() {
        let claim = Claim::default();
        claim.give_up();
        assert!(!claim.begin_to_send());
        claim.begin();
        claim.end();
        assert!(claim.is_late() && !claim.begin_to_send());
    }

    #[test]
    fn nothing_is_sent_after_the_answer_of_the_loop() {
        for _ in 0..200 {
            let (claim, answered, after) = (Claim::default(), AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while claim.begin_to_send() {
                        after.fetch_add(u64::from(answered.load(Ordering::SeqCst)), Ordering::SeqCst);
                        claim.has_sent();
                    }
                });
                while claim.give_up().is_none() {}
                answered.store(true, Ordering::SeqCst);
            });
            assert_eq!(after.load(Ordering::SeqCst), 0);
        }
    }
}
