//! What a connection keeps of its input between two turns, and takes to the seat for its turn ([`crate::worker::kept`]).

use crate::worker::kept::Kept;
use crate::worker::seat::Seat;

use super::{Connection, Phase};

impl Connection {
    /// Takes to the seat what may be a request, at the begin of a turn or behind an answer. Without memory it was lost: it is refused.
    #[inline]
    pub(super) fn take_kept(&mut self, seat: &mut Seat) {
        // Most connections keep nothing.
        if self.kept.is_some() {
            self.use_kept(seat);
        }
    }

    #[inline(never)]
    fn use_kept(&mut self, seat: &mut Seat) {
        match self.kept.take_if(|kept| !kept.is_partial()).map(|kept| *kept) {
            Some(Kept::Rest(bytes)) => seat.take_in(&bytes),
            Some(Kept::Refused) => self.refuse_kept(None, seat),
            Some(Kept::Head(..)) | None => {}
        }
    }

    /// Keeps what another seat has had of its input.
    pub fn keep(&mut self, rest: Option<Box<Kept>>) {
        if rest.is_some() {
            debug_assert!(self.kept.is_none(), "input is in one place");
            self.kept = rest;
        }
    }

    /// Keeps what the seat has left of the input; behind the last answer nothing is.
    #[inline]
    pub(super) fn stow(&mut self, seat: &mut Seat) {
        if seat.has_input() {
            self.keep_rest(seat);
        }
        seat.take_in(&[]);
    }

    #[inline(never)]
    fn keep_rest(&mut self, seat: &Seat) {
        debug_assert!(self.kept.is_none(), "input is in one place");
        self.kept = match self.phase {
            Phase::Closing(_) | Phase::Linger(_) => None,
            Phase::Head | Phase::Body(_) | Phase::Waiting(_) | Phase::Serving | Phase::Answer(_) => {
                Some(Kept::rest(seat.rest(), &seat.memory))
            }
        };
    }
}
