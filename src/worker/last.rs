//! The last answer of a connection: it leaves together with the connection's end.
//!
//! TCP holds back what is sent with MSG_MORE (send(2)) and does not fill a segment; the shutdown that follows in the same step sends
//! it with the FIN, whoever else has the socket. That saves a segment, its acknowledgement and a wake-up of the client. It is done only
//! where nothing can come between the two, or be lost by it:
//!
//! - no call still has the connection;
//! - a close that finds unread bytes resets the connection (RFC 2525 section 2.17) and throws away what was held back. So the client
//!   has said that nothing follows its request (RFC 9112 section 9.6), nothing does, and the answer was so quick that hardly anything
//!   can have come meanwhile. For what has all the same, as the empty line of an old client, the shutdown goes before the close.
//!
//! Everything else is sent first and closed then.

use std::sync::Arc;

use crate::http::framing::Length;

use super::app::Fate;
use super::connection::{Connection, Flow};
use super::job::deliver_by;
use super::output::send_last;
use super::pace::TICK_NS;
use super::seat::Seat;

impl Seat {
    /// The fate of the connection behind the whole answer to the job in hand.
    #[inline]
    pub(super) fn last_fate(&self, fate: Fate) -> Fate {
        let Self { job, clock, .. } = self;
        let is_last = fate == Fate::Close
            && !job.framing.persistent
            && job.framing.length == Length::None
            // The head was read just before the call.
            && job.own.is_empty()
            && clock.ns().saturating_sub(job.began) < TICK_NS;
        if is_last { Fate::Last } else { fate }
    }
}

impl Connection {
    /// Sends the last answer to leave with the end of the connection, if that follows now.
    #[inline]
    pub(super) fn flush_last(&mut self, seat: &mut Seat) -> Flow {
        if !self.has_read_all() || seat.has_input() || Arc::strong_count(&self.link) > 1 {
            return Ok(());
        }
        let result = deliver_by(&mut self.output, &mut seat.out, |bytes| send_last(&self.link.stream, bytes));
        self.after_send(result, seat)?;
        // A failure is one of the client's, and the close tells it.
        let _ = self.link.stream.shutdown_write();
        Ok(())
    }
}
