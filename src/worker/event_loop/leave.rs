//! How a worker leaves.
//!
//! ```text
//! No ──Retire, Vacate─────────────────────────▶ Drained ──no connection is left──▶ gone
//!  │                                            ▲
//!  ├──Drain──▶ LastCall ──its time is over──────┘        (any) ──Quit──▶ Now ──no call runs──▶ gone
//! ```
//! At a retirement others go on accepting from the same sockets; at a drain nobody does, so this worker takes what still comes to
//! them. Who retires hands its connections over between two requests ([`super::lend`]). Without anybody to take them (`Drain`,
//! `Vacate`, `--no-lending`) no answer keeps its connection open from the first moment, and idle connections have the time of a
//! request that is already on its way.

use std::io;

use crate::channel::{Order, Report};

use super::{EventLoop, Seat, borrow, taken};
use crate::sys::process::exit_now;
use crate::worker::descriptors::is_taken;
use crate::worker::{DRAIN_IDLE_MS, EXIT_FAILED};

/// How long a listener that nobody shares any more is served on at the end, in milliseconds: time for the handshakes that were under
/// way, and for the first bytes of connections that the kernel holds back for them (TCP_DEFER_ACCEPT). New ones are held off by then.
const LAST_CALL_MS: u64 = 200;

/// Connections taken at once from each listener that is left to others. More can only wait when more keep coming, and those wake the
/// others.
const RETIRE_TAKE: usize = 64;

/// How the worker leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It does not.
    No,
    /// It will, and takes until then (milliseconds of the loop's clock) what still comes to the listeners.
    LastCall(u64),
    /// When every connection has ended.
    Drained,
    /// Now.
    Now,
}

impl Leaving {
    /// When something is to be done without an event, in milliseconds of the loop's clock.
    pub(super) fn wants(self) -> Option<u64> {
        match self {
            Self::LastCall(until) => Some(until),
            Self::No | Self::Drained | Self::Now => None,
        }
    }
}

impl EventLoop {
    /// The loop has failed, and the worker ends: what is answered goes to its clients as far as their sockets take it, and to the log;
    /// the master gets the reason. Nothing is dropped: by then other files may be behind the numbers that would be closed.
    #[cold]
    pub fn close_up(&mut self, why: &io::Error, seat: &mut Seat) {
        while let Ok(letter) = self.letters.try_recv() {
            // What it asks for next is for nobody any more, and a stream belongs to another thread.
            std::mem::forget(self.open_letter(letter, seat));
        }
        self.send_held(seat);
        seat.end_turn();
        // The last three are those of a poll that is asked for what is not in it, or cannot be (epoll_ctl(2)).
        let is_taken = is_taken(why) || matches!(why.raw_os_error(), Some(libc::EPERM | libc::ENOENT | libc::EEXIST));
        let why =
            if is_taken { taken(&format_args!("the event loop cannot go on ({why})")).to_string() } else { why.to_string() };
        if self.control.report(&Report::Failed(why.clone())).is_err() {
            seat.log.critical(format_args!("worker failed: {why}"));
        }
        exit_now(EXIT_FAILED);
    }

    /// Looks whether the worker's descriptors are its own. One that leaves has closed some.
    #[cold]
    fn look_at_descriptors(&mut self) -> io::Result<()> {
        if self.control.has_new_logs() {
            self.descriptors.renew_logs();
        }
        if self.leaving == Leaving::No { self.descriptors.look() } else { Ok(()) }
    }

    /// The end of a turn: looks after the listeners; whether the worker has nothing left to do.
    pub(super) fn is_done(&mut self, seat: &mut Seat) -> io::Result<bool> {
        let now = seat.clock.ms();
        if self.looked != seat.clock.wall() {
            self.looked = seat.clock.wall();
            self.look_at_descriptors()?;
        }
        if let Leaving::LastCall(until) = self.leaving
            && until <= now
        {
            self.close_listeners(usize::MAX, seat);
        }
        self.lend_on(seat)?;
        match self.leaving {
            Leaving::No => {
                if self.quota.is_some_and(|quota| seat.requests() >= quota) {
                    self.quota = None;
                    // Fails only when the master is gone, which the channel tells at the next turn.
                    let _ = self.control.report(&Report::Worn);
                }
                self.adjust_listeners(now)?;
                Ok(false)
            }
            Leaving::LastCall(_) => self.adjust_listeners(now).map(|()| false),
            Leaving::Drained => {
                if self.is_blocked(now) && !self.lending.hands_over {
                    self.turn_waiting_away(seat);
                }
                let is_done =
                    self.only_late_ones() && self.has_left(now) && self.connections.is_empty() && self.is_queue_empty(seat);
                debug_assert!(!is_done || seat.memory.is_whole(), "without a connection nothing is kept");
                Ok(is_done)
            }
            Leaving::Now => Ok(self.has_left(now)),
        }
    }

    /// Whether nothing of the worker is in the application; tells the master when only what never ends is.
    fn has_left(&mut self, now: u64) -> bool {
        if !self.is_quiet() {
            self.tell_if_stranded(now);
            return false;
        }
        true
    }

    /// While all its slots are taken, other workers are the better place for new connections.
    fn adjust_listeners(&mut self, now: u64) -> io::Result<()> {
        let full = (self.acceptor.is_shared() && self.is_full()) || self.is_blocked(now);
        let limit = if full { 0 } else { self.limit };
        self.acceptor.adjust(self.connections.len(), limit, now, borrow(&self.poll))
    }

    /// Follows the master and the signals.
    pub(super) fn obey(&mut self, seat: &mut Seat) {
        if self.control.has_signals() {
            self.note_signals();
        }
        let order = self.control.orders();
        if let Some(error) = self.control.take_failure() {
            let why = taken(&format_args!("the channel to the master cannot be read ({error})"));
            seat.log.error(format_args!("{why}; the worker leaves"));
        }
        match order {
            Some(order @ (Order::Retire | Order::Vacate)) if self.leaving == Leaving::No => {
                self.lending.leave(order == Order::Retire);
                self.begin_to_leave(Leaving::Drained, seat);
            }
            Some(Order::Vacate | Order::Drain) if self.lending.hands_over => {
                // Those who took connections over leave too.
                self.lending.leave(false);
                seat.draining = true;
                self.hurry_idle(seat);
            }
            Some(Order::Drain) if self.leaving == Leaving::No => {
                self.lending.leave(false);
                let wait = if self.acceptor.has_handshakes() { LAST_CALL_MS } else { 0 };
                self.begin_to_leave(Leaving::LastCall(seat.clock.ms() + wait), seat);
            }
            Some(Order::Quit) => {
                self.leaving = Leaving::Now;
                self.empty_tray(seat);
                self.end_taken();
            }
            Some(Order::Ping | Order::Retire | Order::Vacate | Order::Drain) | None => {}
        }
    }

    /// Begins to leave.
    fn begin_to_leave(&mut self, leaving: Leaving, seat: &mut Seat) {
        self.leaving = leaving;
        seat.draining = self.is_draining();
        match leaving {
            // Others accept on, but the kernel has woken this worker, and nobody else, for some that wait now. One whose slots
            // are taken is off the listeners, and would keep from others what it cannot serve.
            Leaving::Drained => {
                let wakes = self.acceptor.is_open() && !self.is_blocked(seat.clock.ms());
                self.close_listeners(if wakes { RETIRE_TAKE } else { 0 }, seat);
            }
            Leaving::LastCall(_) | Leaving::No | Leaving::Now => self.hurry_idle(seat),
        }
    }

    /// Takes up to so many connections that wait to be accepted, then accepts no more.
    fn close_listeners(&mut self, most: usize, seat: &mut Seat) {
        self.turn.accepting.clear();
        self.acceptor.pause(borrow(&self.poll));
        for index in 0..self.acceptor.len() {
            for _ in 0..most {
                if self.connections.len() >= self.limit {
                    break;
                }
                let now = seat.clock.ms();
                let Some((stream, peer)) = self.acceptor.accept(index, now, borrow(&self.poll), &seat.log) else { break };
                let token = self.insert(stream, peer, index, seat);
                self.runnable.push_back(token);
            }
        }
        if most == usize::MAX && self.connections.len() >= self.limit {
            // Some may still wait; there will be room for them.
            self.leaving = Leaving::LastCall(seat.clock.ms() + LAST_CALL_MS);
            return;
        }
        self.leaving = Leaving::Drained;
        self.acceptor.leave(borrow(&self.poll));
        self.hurry_idle(seat);
        // Fails only when the master is gone, which the channel tells at the next turn.
        let _ = self.control.report(&Report::Draining);
    }

    /// Leaves idle connections the time of a request that is already on its way, unless they are handed over.
    fn hurry_idle(&mut self, seat: &Seat) {
        if self.lending.hands_over {
            return;
        }
        let deadline = seat.clock.ms() + DRAIN_IDLE_MS;
        let idle: Vec<usize> = self.connections.iter().filter(|(_, c)| c.is_idle()).map(|(key, _)| key).collect();
        for key in idle {
            self.connections[key].hurry(deadline);
            self.arm(key);
        }
    }
}
