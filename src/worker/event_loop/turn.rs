//! A turn of the loop. It has one fixed order:
//!
//! 1. the nearest deadline is the poll's timeout (none while a connection waits for its turn),
//! 2. poll, without holding back the application's threads,
//! 3. the clock, once,
//! 4. orders of the master and signals,
//! 5. connections that other workers lend,
//! 6. letters of threads that were in the application,
//! 7. work that waited for a free application slot,
//! 8. listening sockets,
//! 9. sockets of connections,
//! 10. connections that gave up their turn for others,
//! 11. deadlines,
//! 12. what the turn has put together: held answers, descriptors of ended connections, the tray, the scoreboard, the access log;
//!     listeners, lending and leaving.

use std::io;

use crate::worker::connection::{Edge, Token};
use crate::worker::job::Work;
use crate::worker::member::{MAIN, Member};
use crate::worker::seat::Seat;

use super::{CONTROL, EventLoop, LENDING, LETTERS, LISTENERS, borrow};

/// Where the turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Poll,
    Adopted,
    Letters,
    Parked,
    Accept,
    Sockets,
    Yielded,
    Deadlines,
    End,
}

/// One turn of the loop, kept between two pieces of work.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) stage: Stage,
    /// Parked work that was not looked at in this turn.
    pub(super) parked: usize,
    /// Listeners that were ready, each with the connections that may still be taken from it.
    pub(super) accepting: Vec<(usize, usize)>,
    /// Sockets that were ready, in reverse order.
    sockets: Vec<(Token, Edge)>,
    /// Connections of the last turn that still have theirs.
    yielded: usize,
    /// Connections whose timer entry has fired.
    due: Vec<Token>,
}

impl Turn {
    /// Before the first one: as at the end of one.
    pub(super) fn new() -> Self {
        Self { stage: Stage::End, parked: 0, accepting: Vec::new(), sockets: Vec::new(), yielded: 0, due: Vec::new() }
    }
}

/// What the thread does next.
#[derive(Debug)]
pub enum Step {
    /// Work in the application for this connection, then [`EventLoop::resume`].
    Work(Token, Work),
    /// Give the loop to this thread.
    HandOver(Member),
    /// The worker is done.
    Leave,
}

impl EventLoop {
    /// Goes on with the turn until the application is needed or the worker is done.
    pub fn next(&mut self, seat: &mut Seat) -> io::Result<Step> {
        loop {
            let work = match self.turn.stage {
                Stage::Poll => {
                    self.wait(seat)?;
                    self.sort_events(seat);
                    self.reclaim(seat);
                    self.turn.stage = if self.lending.adopted.is_empty() { self.first_stage(seat) } else { Stage::Adopted };
                    None
                }
                Stage::Adopted => match self.lending.adopted.pop() {
                    Some(token) => self.take_up(token, seat),
                    None => {
                        self.turn.stage = self.first_stage(seat);
                        None
                    }
                },
                Stage::Letters => match self.letters.try_recv() {
                    Ok(letter) => self.open_letter(letter, seat),
                    Err(_) => {
                        self.turn.parked = self.parked.len();
                        self.turn.stage = Stage::Parked;
                        if !seat.may_call && self.outside.is_empty() {
                            self.send_held(seat);
                            // This thread may have no other turn for long.
                            seat.end_turn();
                            return Ok(Step::HandOver(MAIN));
                        }
                        None
                    }
                },
                Stage::Parked => self.unpark(seat),
                Stage::Accept => self.accept_next(seat)?,
                Stage::Sockets => match self.turn.sockets.pop() {
                    Some((token, edge)) => {
                        if let Some(connection) = self.find(token) {
                            connection.ready(edge);
                        }
                        self.begin_turn(token, seat)
                    }
                    None => {
                        self.send_held(seat);
                        self.turn.yielded = self.runnable.len();
                        self.turn.stage = Stage::Yielded;
                        None
                    }
                },
                Stage::Yielded if self.turn.yielded > 0 => {
                    self.turn.yielded -= 1;
                    self.runnable.pop_front().and_then(|token| self.begin_turn(token, seat))
                }
                Stage::Yielded => {
                    self.timers.fire(seat.clock.ms(), &mut self.turn.due);
                    self.meet_deadlines(seat);
                    self.turn.stage = if self.turn.due.is_empty() { Stage::End } else { Stage::Deadlines };
                    None
                }
                Stage::Deadlines => match self.turn.due.pop() {
                    Some(token) => self.expire(token, seat),
                    None => {
                        self.turn.stage = Stage::End;
                        None
                    }
                },
                Stage::End => {
                    self.send_held(seat);
                    self.close_ended();
                    self.fill_tray();
                    let slot = seat.slot();
                    slot.set_connections(self.connections.len() as u32);
                    slot.beat(seat.clock.ns());
                    self.overload.tell(seat.clock.ms(), &seat.log);
                    seat.end_turn();
                    self.turn.stage = Stage::Poll;
                    if self.is_done(seat)? {
                        return Ok(Step::Leave);
                    }
                    None
                }
            };
            if let Some((token, work)) = work
                && let Some(work) = self.admit(token, work, seat)
            {
                return Ok(Step::Work(token, work));
            }
        }
    }

    /// Whether sockets that are ready wait for the thread.
    pub(super) fn is_crowded(&self) -> bool {
        self.turn.stage == Stage::Sockets && !self.turn.sockets.is_empty()
    }

    /// Where a turn begins.
    fn first_stage(&self, seat: &Seat) -> Stage {
        // Who owes no letter has sent none, and work is parked only while slots are taken.
        let calm = seat.may_call && self.is_quiet() && self.parked.is_empty();
        if calm { Stage::Accept } else { Stage::Letters }
    }

    /// Sorts what the poll brought, and follows orders at once.
    fn sort_events(&mut self, seat: &mut Seat) {
        let (mut ordered, mut lent) = (false, false);
        for event in &self.events {
            match event.token().0 {
                CONTROL => ordered = true,
                LETTERS => {}
                LENDING => lent = true,
                token if token >= LISTENERS => {
                    if let Some(index) = self.acceptor.index(token) {
                        self.turn.accepting.push((index, self.acceptor.batch(self.connections.len(), self.limit)));
                    }
                }
                _ => {
                    let edge = match (event.is_read_closed() || event.is_error(), event.is_readable()) {
                        (true, _) => Edge::Ended,
                        (false, true) => Edge::Readable,
                        (false, false) => Edge::Writable,
                    };
                    self.turn.sockets.push((event.token().into(), edge));
                }
            }
        }
        self.turn.sockets.reverse();
        self.acceptor.polled(!self.turn.accepting.is_empty());
        if ordered {
            self.obey(seat);
        }
        if lent {
            self.adopt(seat);
        }
    }

    /// Takes the next connection of this turn.
    fn accept_next(&mut self, seat: &mut Seat) -> io::Result<Option<(Token, Work)>> {
        let Some((index, left)) = self.turn.accepting.last_mut() else {
            self.turn.stage = Stage::Sockets;
            return Ok(None);
        };
        let index = *index;
        let open = self.connections.len();
        let accepted = if *left > 0 && open < self.limit && self.acceptor.may_take(open) {
            *left -= 1;
            self.acceptor.accept(index, seat.clock.ms(), borrow(&self.poll), &seat.log)
        } else {
            None
        };
        match accepted {
            Some((stream, peer)) => Ok(self.open(stream, peer, index, seat)),
            None => {
                self.turn.accepting.pop();
                self.acceptor.woken(open, seat.clock.ms(), borrow(&self.poll))?;
                Ok(None)
            }
        }
    }
}
