//! What the loop does with the desks of its threads ([`super::super::desk`]): puts requests there, and takes back those that wait for
//! the interpreter for too long.

use crate::worker::connection::Token;
use crate::worker::desk::Look;
use crate::worker::job::Parcel;
use crate::worker::member::Member;
use crate::worker::seat::Seat;

use super::EventLoop;

/// How long a request waits for the interpreter before another worker may have it, in milliseconds: threads of Python let go of it
/// that often (`sys.getswitchinterval`).
const PATIENCE_MS: u64 = 5;

/// Pause between two looks at what waits, in milliseconds.
const AGAIN_MS: u64 = 5;

impl EventLoop {
    /// The request that this connection has submitted is for another thread, which is about to be sent for it.
    pub fn hand_out(&mut self, member: Member, token: Token, seat: &mut Seat) {
        self.send_held(seat);
        let parcel = self.pack(token, seat);
        self.lay_on_desk(member, token, parcel, seat);
        self.outside.insert(member);
        self.calls.add(member, token, seat.clock.ms(), true);
        self.look_at_desks(seat.clock.ms());
        if let Some(connection) = self.find(token) {
            let key = connection.token.key();
            self.arm(key);
        }
    }

    /// The same for the owner of the loop itself, which is about to call without having the interpreter. Its answers may lie in the
    /// outbox, and its cache knows the block of the request.
    pub fn keep_back(&mut self, token: Token, seat: &mut Seat) {
        let (block, behind) = (seat.job.block, seat.job.behind);
        let mut parcel = self.pack(token, seat);
        (parcel.block, parcel.behind) = (block, behind);
        self.lay_on_desk(seat.member, token, parcel, seat);
    }

    fn lay_on_desk(&mut self, member: Member, token: Token, mut parcel: Box<Parcel>, seat: &Seat) {
        parcel.given = seat.clock.ns();
        if let Some(connection) = self.find(token) {
            connection.lie_on_desk(member, &parcel, seat);
        }
        self.desks.lay(member, token, parcel);
    }

    /// A thread of this worker may wait for the interpreter from now on: somebody is to look whether it still does.
    pub(super) fn look_at_desks(&mut self, now: u64) {
        if self.lending.has_others() {
            self.lending.desks.get_or_insert(now + PATIENCE_MS);
        }
    }

    /// Gives requests that wait for the interpreter to workers that are free.
    pub(super) fn lend_desks(&mut self, now: u64, seat: &mut Seat) {
        if self.lending.desks.is_none_or(|at| at > now) {
            return;
        }
        for (member, token) in self.calls.on_desks(now.saturating_sub(PATIENCE_MS)) {
            let is_wanted = self.lending.has_others() && seat.scoreboard.others_adopt(seat.slot);
            // A connection that is gone is for its thread to find.
            let connection = self.connections.get(token.key()).filter(|connection| connection.token == token);
            let may = |parcel: &Parcel| is_wanted && connection.is_some_and(|connection| connection.may_lend(parcel));
            match self.desks.take_back(member, token, may) {
                Look::Begun => self.calls.begun(member, token),
                Look::Back(parcel) => self.lend_from_desk((member, token), parcel, seat),
                // As for one that waits for a slot.
                Look::Lies if is_wanted && self.lending.hands_over && self.is_blocked(now) => self.refuse_soon(token, now),
                Look::Lies => {}
            }
        }
        self.lending.desks = (self.lending.has_others() && self.calls.has_desks()).then_some(now + AGAIN_MS);
    }

    /// Looks which requests have left their desks.
    pub(super) fn note_begun(&mut self, now: u64) {
        for (member, token) in self.calls.on_desks(now) {
            if matches!(self.desks.take_back(member, token, |_| false), Look::Begun) {
                self.calls.begun(member, token);
            }
        }
    }

    fn lend_from_desk(&mut self, (member, token): (Member, Token), parcel: Box<Parcel>, seat: &mut Seat) {
        self.calls.took_back(member, token);
        let Some(connection) = self.find(token) else { return };
        connection.leave_desk(parcel, seat);
        if !self.offers(token, seat) {
            // The queue has no room for it just now: it waits for its turn here.
            self.connections[token.key()].queued = true;
            self.parked.push_front(token);
            self.arm(token.key());
        }
    }

    /// The request of this connection has waited for too long: it is the connection's again, unless its thread has begun it.
    pub(super) fn clear_desk(&mut self, member: Member, token: Token, seat: &Seat) {
        let Look::Back(parcel) = self.desks.take_back(member, token, |_| true) else { return };
        self.calls.took_back(member, token);
        if let Some(connection) = self.find(token) {
            connection.leave_desk(parcel, seat);
        }
    }
}
