//! A connection whose request, or whose stream, waits for a free application slot.

use crate::sys::time::NS_PER_MS;
use crate::worker::job::{Parcel, Work};
use crate::worker::member::Member;
use crate::worker::overload::Refusal;
use crate::worker::seat::Seat;

use super::{Connection, Next, Phase};

impl Connection {
    /// No slot is free for the work that the connection asked for: it is kept until one is.
    pub fn park(&mut self, work: Work, seat: &mut Seat) {
        match work {
            Work::Call => {
                let parcel = self.pack(seat);
                self.queue(parcel, seat);
            }
            Work::Advance(answer) | Work::Drop(answer) => {
                self.phase = Phase::Answer(answer);
                self.deadline = u64::MAX;
            }
            // No connection asks for it.
            Work::Signals | Work::Desk => {}
        }
    }

    fn queue(&mut self, mut parcel: Box<Parcel>, seat: &Seat) {
        // It goes out while the request waits.
        self.keep_behind(parcel.output.take());
        self.link.claim.end();
        parcel.since = seat.clock.ns();
        self.deadline = time_of(parcel.since, &parcel, seat);
        self.phase = Phase::Waiting(parcel);
    }

    /// Its request is given to this thread, which may have to wait for the interpreter: for as long as for a slot.
    pub fn lie_on_desk(&mut self, member: Member, parcel: &Parcel, seat: &Seat) {
        self.desk = Some(member);
        self.deadline = time_of(parcel.given, parcel, seat);
    }

    /// Its request comes back from a desk: it waits on for a slot.
    pub fn leave_desk(&mut self, mut parcel: Box<Parcel>, seat: &Seat) {
        self.desk = None;
        parcel.leave_desk(seat.clock.ns());
        parcel.block = None;
        self.queue(parcel, seat);
    }

    /// Its request was parked and may not wait: 503.
    pub fn turn_away(&mut self, refusal: Refusal, seat: &mut Seat) -> Next {
        if let Phase::Waiting(parcel) = std::mem::replace(&mut self.phase, Phase::Head) {
            self.refuse_overload(refusal, &parcel, seat);
        }
        self.kept = None;
        self.begin_turn(seat)
    }

    /// Whether its complete request waits for a free slot.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_))
    }

    /// Whether it waits for a free slot, for its request or its stream.
    pub fn is_parked(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_) | Phase::Answer(_))
    }

    /// The thread that must do what the connection waits for, if only one can.
    pub fn waits_for(&self) -> Option<Member> {
        match &self.phase {
            Phase::Answer(answer) => Some(answer.member()),
            Phase::Head | Phase::Body(_) | Phase::Waiting(_) | Phase::Serving | Phase::Closing(_) | Phase::Linger(_) => None,
        }
    }

    /// A slot is free: asks again for the work that was parked.
    pub fn unpark(&mut self, seat: &mut Seat) -> Next {
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Waiting(mut parcel) => {
                self.renew_turn(seat);
                parcel.output = self.give_output();
                parcel.stop_waiting(seat.clock.ns());
                seat.job.unpack(*parcel);
                Next::Work(Work::Call)
            }
            phase => {
                self.phase = phase;
                self.begin_turn(seat)
            }
        }
    }

    /// Gives its request away for the tray; `None` when it does not wait for any slot, or has earlier output to send meanwhile.
    pub fn lay(&mut self) -> Option<Box<Parcel>> {
        if self.output.is_some() {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Waiting(parcel) => {
                (self.queued, self.laid) = (false, true);
                Some(parcel)
            }
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    /// Its request comes back from the tray.
    pub fn wait_again(&mut self, parcel: Box<Parcel>) {
        self.laid = false;
        self.phase = Phase::Waiting(parcel);
    }
}

/// When a request that waits since `since` is refused, in milliseconds of the loop's clock. Rounded up: not before its time.
fn time_of(since: u64, parcel: &Parcel, seat: &Seat) -> u64 {
    since.saturating_sub(parcel.queued).div_ceil(NS_PER_MS).saturating_add(seat.rules.queue_timeout)
}
