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
        // The request was read just before the call. One of HTTP has no body: old clients send a line end behind one (RFC 9112
        // section 2.2). A front server has said where its request ends.
        let is_over = || job.is_fresh && (job.framing.length == Length::None || job.head.is_from_gateway());
        let is_last =
            fate == Fate::Close && !job.framing.persistent && is_over() && clock.ns().saturating_sub(job.began) < TICK_NS;
        if is_last { Fate::CloseWithFin } else { fate }
    }
}
