//! What the owner of the loop does about calls that last longer than `--timeout`: an exception in the call first, then an answer
//! without it. It needs no lock of the interpreter for either.

use crate::channel::Report;

use super::{EventLoop, Seat, Token};
use crate::worker::alarm::{self, Target};
use crate::worker::calls::{Overdue, Verdict};
use crate::worker::late::Outcome;

impl EventLoop {
    /// Looks after calls that last too long.
    #[inline]
    pub(super) fn meet_deadlines(&mut self, seat: &mut Seat) {
        // Without a call outside of the loop not even the time is looked at.
        if self.calls.next().is_some_and(|next| next <= seat.clock.ms()) {
            self.look_after_calls(seat);
        }
    }

    fn look_after_calls(&mut self, seat: &mut Seat) {
        let now = seat.clock.ms();
        let (board, slot) = (seat.scoreboard.clone(), seat.slot);
        for overdue in self.calls.overdue(now, |member| board.call(slot, member.0).entered()) {
            match overdue.verdict {
                Verdict::Interrupt => interrupt(&overdue, seat),
                Verdict::GiveUp => self.give_up(&overdue, seat),
            }
        }
    }

    /// Answers a client without the call that it waits for; the worker is to be replaced.
    fn give_up(&mut self, overdue: &Overdue, seat: &mut Seat) {
        let call = seat.scoreboard.call(seat.slot, overdue.member.0).in_flight();
        // It has just ended otherwise; its letter is on its way.
        let Some(call) = call.filter(|call| call.entered == overdue.entered) else { return };
        let outcome = match self.find(overdue.token) {
            Some(connection) => match connection.give_up(&call, seat) {
                Some((next, outcome)) => {
                    let more = self.follow(overdue.token, next, seat);
                    debug_assert!(more.is_none(), "an answer of our own needs no application");
                    outcome
                }
                None => return,
            },
            None => Outcome::NoClient,
        };
        self.calls.gave_up(overdue.member, overdue.token);
        if self.lending.hands_over {
            // What cannot be lent may have nobody now.
            self.lending.retry.get_or_insert(seat.clock.ms());
        }
        let request = seat.describe(&call);
        let stacks = seat.alarms[overdue.member.0].stacks();
        let stacks = if stacks.is_empty() { stacks } else { format!("\nwhen it was interrupted:\n{stacks}") };
        seat.log.error(format_args!("a request does not end within --timeout; {outcome}: {request}{stacks}"));
        if !std::mem::replace(&mut self.reported.0, true) {
            // Fails only when the master is gone, which the channel tells at the next turn.
            let _ = self.control.report(&Report::Stuck);
        }
    }

    /// Whether every slot is taken by a call that was given up, or one of those keeps the interpreter from the others: nothing that
    /// waits can be served here.
    #[inline]
    pub(super) fn is_blocked(&mut self, now: u64) -> bool {
        let late = self.calls.late();
        late > 0 && (late >= self.slots || self.is_locked(now))
    }

    /// Whether nothing that is in the application, or waits for it with a thread, will go on.
    #[cold]
    fn is_locked(&mut self, now: u64) -> bool {
        if self.calls.late() == 0 {
            return false;
        }
        self.note_begun(now);
        self.calls.is_locked(now)
    }

    /// Whether there are no connections but those whose call was given up: they have their answers, and at most linger.
    pub(super) fn only_late_ones(&self) -> bool {
        self.connections.is_empty() || (self.calls.late() > 0 && self.connections.iter().all(|(_, c)| c.link.claim.is_late()))
    }

    /// When the application has only calls that were given up, the worker cannot leave by itself: the master, told once, ends it.
    pub(super) fn tell_if_stranded(&mut self, now: u64) {
        let waits = self.errands.iter().any(|work| work.member().is_some_and(|member| !self.calls.is_late(member)));
        let stranded = self.is_locked(now) && !waits;
        if stranded && !std::mem::replace(&mut self.reported.1, true) {
            // As above.
            let _ = self.control.report(&Report::Stranded);
        }
    }

    /// Complete requests that wait for a slot that will not be free any more are answered 503 at once, so that the worker can leave.
    pub(super) fn turn_waiting_away(&mut self, seat: &Seat) {
        let now = seat.clock.ms();
        let waiting: Vec<Token> =
            self.connections.iter().filter(|(_, c)| c.is_waiting() || c.laid || c.desk.is_some()).map(|(_, c)| c.token).collect();
        waiting.into_iter().for_each(|token| self.refuse_soon(token, now));
    }

    /// The wait of this connection's request is over.
    pub(super) fn refuse_soon(&mut self, token: Token, now: u64) {
        if let Some(connection) = self.find(token) {
            connection.hurry(now);
            self.arm(token.key());
        }
    }
}

fn interrupt(overdue: &Overdue, seat: &Seat) {
    let Some(call) = seat.scoreboard.call(seat.slot, overdue.member.0).in_flight() else { return };
    let target = Target {
        member: overdue.member,
        entered: overdue.entered,
        board: (seat.scoreboard.clone(), seat.slot),
        request: seat.describe(&call),
    };
    if let Err(error) = alarm::ring(&seat.alarms, target) {
        // It is given up after the grace all the same.
        seat.log.warning(format_args!("cannot start the thread that interrupts a request: {error}"));
    }
}
