//! Which answers may leave with the end of their connection ([`crate::worker::send::fin`]).

use crate::http::framing::Length;
use crate::worker::app::Fate;
use crate::worker::threads::pace::TICK_NS;

use super::ThreadCtx;

impl ThreadCtx {
    /// The fate of the connection after the whole answer to the job in hand.
    #[inline]
    pub(in crate::worker) fn last_fate(&self, fate: Fate) -> Fate {
        let Self { job, clock, .. } = self;
        let is_last = fate == Fate::Close
            && !job.framing.persistent
            && job.framing.length == Length::None
            // The head was read just before the call.
            && job.own.is_empty()
            && clock.ns().saturating_sub(job.began) < TICK_NS;
        if is_last { Fate::CloseWithFin } else { fate }
    }
}
