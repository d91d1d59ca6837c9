//! Application slots: whether one is free, and the queue of those who wait for one.

use super::turn::Stage;
use super::{Connection, EventLoop, Member, Seat, Token, Work};
use crate::worker::overload::Refusal;

impl EventLoop {
    /// Whether the work can be done now; parks it otherwise.
    pub(super) fn admit(&mut self, token: Token, work: Work, seat: &mut Seat) -> Option<Work> {
        if self.is_ready(&work, seat) {
            return Some(work);
        }
        self.send_held(seat);
        self.note_taken(seat);
        match work {
            Work::Drop(_) | Work::Signals => self.errands.push_back(work),
            Work::Call | Work::Desk | Work::Advance(_) => {
                let too_many = matches!(work, Work::Call) && self.queue_is_full();
                let Some(connection) = self.find(token) else {
                    // What waited to be sent to it has just found its client gone.
                    seat.forget_input();
                    return None;
                };
                if matches!(work, Work::Call) && !seat.job.detach(&seat.input) {
                    seat.memory.starve();
                    let next = connection.refuse_job(seat);
                    let more = self.follow(token, next, seat);
                    debug_assert!(more.is_none(), "a refusal needs no application");
                    return None;
                }
                connection.park(work, seat);
                if self.lend(token, !too_many, seat) {
                    return None;
                }
                let connection = self.find(token)?;
                if too_many {
                    let next = connection.turn_away(Refusal::QueueFull, seat);
                    self.overload.count(Refusal::QueueFull);
                    let more = self.follow(token, next, seat);
                    debug_assert!(more.is_none(), "a refusal needs no application");
                    return None;
                }
                // An edge on the socket of a parked stream asks for its work again; one place in the queue is enough.
                if !std::mem::replace(&mut connection.queued, true) {
                    self.parked.push_back(token);
                }
                self.arm(token.key());
            }
        }
        None
    }

    /// Whether as many requests wait for a slot as may.
    fn queue_is_full(&self) -> bool {
        // Streams wait in the same queue and do not count.
        let waits = |token: &&Token| self.connections.get(token.key()).is_some_and(Connection::is_waiting);
        let most = self.max_queue.saturating_sub(self.laid);
        self.parked.len() >= most && self.parked.iter().filter(waits).count() >= most
    }

    /// Whether a slot is free for work of this member (`None`: of the owner).
    pub(super) fn has_slot(&self, member: Option<Member>, seat: &Seat) -> bool {
        let able = match member {
            Some(member) if member != seat.member => !self.outside.contains(member),
            Some(_) | None => seat.may_call,
        };
        able && self.outside.len() < self.slots
    }

    /// Takes up the next piece of work that waits for a slot, each once a turn.
    pub(super) fn unpark(&mut self, seat: &mut Seat) -> Option<(Token, Work)> {
        let ready = self.errands.iter().position(|work| self.is_ready(work, seat));
        if let Some(work) = ready.and_then(|index| self.errands.remove(index)) {
            return Some((Token::NONE, work));
        }
        if self.has_slot(None, seat)
            && let Some(token) = self.clear_tray()
        {
            let next = self.find(token)?.unpark(seat);
            return self.follow(token, next, seat);
        }
        while self.turn.parked > 0 {
            self.turn.parked -= 1;
            let token = self.parked.pop_front()?;
            let Some(connection) = self.find(token) else { continue };
            let (is_parked, member) = (connection.is_parked(), connection.waits_for());
            if is_parked && !self.has_slot(member, seat) {
                self.parked.push_back(token);
                continue;
            }
            let connection = self.find(token)?;
            connection.queued = false;
            if is_parked {
                let next = connection.unpark(seat);
                return self.follow(token, next, seat);
            }
        }
        self.turn.stage = Stage::Accept;
        None
    }

    /// Whether nothing is left to do in the application.
    pub(super) fn is_quiet(&self) -> bool {
        self.outside.is_empty() && self.errands.is_empty()
    }
}
