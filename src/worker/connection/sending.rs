//! Sending on a connection's socket: what the seat has rendered, behind what the socket has not taken before.

use crate::worker::app::Gone;
use crate::worker::job::deliver;
use crate::worker::output::Sent;
use crate::worker::seat::Seat;

use super::{CloseReason, Connection, Flow, Next, Phase};

impl Connection {
    /// Whether what follows is sent, or read to the end, without the outbox.
    pub(super) fn sends_now(&self) -> bool {
        let apart = match self.phase {
            Phase::Head | Phase::Waiting(_) | Phase::Serving => false,
            Phase::Body(_) | Phase::Answer(_) | Phase::Closing(_) | Phase::Linger(_) => true,
        };
        apart || self.output.is_some()
    }

    /// Sends all there is, in order. What waits may never have been tried ([`crate::worker::job::SocketOutlet`]): no edge would ask
    /// for it.
    pub(super) fn send_all(&mut self, seat: &mut Seat) -> Flow {
        if self.held {
            self.recall(seat)?;
        }
        self.send_waiting(seat)?;
        self.flush(seat)
    }

    /// Sends what waits from earlier; stops when the socket is full.
    #[inline]
    pub(super) fn send_waiting(&mut self, seat: &mut Seat) -> Flow {
        if self.output.is_some() { self.send_output(seat) } else { Ok(()) }
    }

    #[inline(never)]
    fn send_output(&mut self, seat: &mut Seat) -> Flow {
        let Some(output) = &mut self.output else { return Ok(()) };
        match output.send(&self.link.stream) {
            Ok(Sent::All) => {
                self.output = None;
                self.link.precede(false);
                Ok(())
            }
            Ok(Sent::Blocked { progress }) => {
                if progress {
                    self.await_reader(seat);
                }
                // What the seat has rendered for this connection must not meet the next one there.
                self.flush(seat)?;
                Err(Next::Wait)
            }
            Err(_) => Err(Next::Close(CloseReason::ClientGone)),
        }
    }

    /// Sends what the seat has rendered for this connection; what the socket does not take is kept here.
    pub(in crate::worker) fn flush(&mut self, seat: &mut Seat) -> Flow {
        if self.held {
            self.recall(seat)?;
        }
        if seat.out.is_empty() {
            return Ok(());
        }
        let result = deliver(&self.link, &mut self.output, &mut seat.out);
        self.after_send(result, seat)
    }

    /// Keeps bytes that the socket did not take.
    pub(in crate::worker) fn keep_waiting(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.output.get_or_insert_default().push(bytes, &self.link.disk).map_err(Gone::Storage)
    }

    /// From now on the client has the write timeout to read on. A request of it that waits for a slot keeps its own time: it is
    /// refused in time whatever becomes of the answers before it.
    fn await_reader(&mut self, seat: &Seat) {
        if !self.is_waiting() {
            self.deadline = seat.clock.ms() + seat.rules.write_timeout;
        }
    }

    /// What follows an attempt to send.
    pub(in crate::worker) fn after_send(&mut self, result: Result<(), Gone>, seat: &Seat) -> Flow {
        match result {
            Ok(()) if self.output.is_none() => Ok(()),
            Ok(()) => {
                self.await_reader(seat);
                Err(Next::Wait)
            }
            Err(Gone::Client) => Err(Next::Close(CloseReason::ClientGone)),
            Err(Gone::Storage(error)) => {
                seat.log.error(format_args!("cannot keep the output that {} has not read: {error}", self.link.peer));
                Err(Next::Close(CloseReason::Cut))
            }
        }
    }
}
