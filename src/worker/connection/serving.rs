//! A request on its way to the application, and what comes back, as the connection sees it.

use crate::worker::DRAIN_IDLE_MS;
use crate::worker::app::{Fate, Step};
use crate::worker::job::{Job, Parcel, Served, Work};
use crate::worker::kept::{Kept, Leased, copied};
use crate::worker::output::Output;
use crate::worker::seat::Seat;

use super::{CloseReason, Connection, Flow, Next, Phase};

impl Connection {
    /// A request is complete and its body in the seat's job: whatever else its call needs goes there.
    pub(super) fn submit(&mut self, seat: &mut Seat) -> Flow {
        if seat.job.framing.upgrade {
            // A copy: what is no takeover is an ordinary request, and this is the next one. So is one without memory for it.
            match copied(seat.rest()) {
                Some(early) => seat.job.early = early,
                None => seat.job.framing.upgrade = false,
            }
        }
        let job = &mut seat.job;
        self.is_last = !job.framing.persistent;
        job.link = Some(self.link.clone());
        job.queued = match std::mem::take(&mut self.since) {
            0 => 0,
            since => seat.clock.ns().saturating_sub(since),
        };
        job.waited = std::mem::take(&mut self.waited);
        self.send_along(job);
        self.phase = Phase::Serving;
        Err(Next::Work(Work::Call))
    }

    /// What the socket has not taken goes along with the request, so that `write()` goes behind it.
    pub(in crate::worker) fn send_along(&mut self, job: &mut Job) {
        job.output = self.give_output();
        job.behind = self.held;
        if job.behind {
            self.link.precede(true);
        }
    }

    /// What the socket has not taken. The call that gets it has something to send.
    pub(super) fn give_output(&mut self) -> Option<Box<Output>> {
        let output = self.output.take();
        if output.is_some() {
            self.link.claim.begin();
        }
        output
    }

    /// Takes the input behind the request that it has submitted out of the seat. `false`: it stays there, for want of memory.
    pub fn keep_input(&mut self, seat: &mut Seat) -> bool {
        if seat.has_input() {
            let Some(rest) = Leased::copy(seat.rest(), &seat.memory) else { return false };
            self.kept = Some(Box::new(Kept::Rest(rest)));
            seat.take_in(&[]);
        }
        true
    }

    /// Takes the request that it has submitted, whose head is detached, out of the seat, and its own input too.
    pub fn pack(&mut self, seat: &mut Seat) -> Box<Parcel> {
        let mut parcel = Box::new(seat.job.pack(seat.draining));
        if let Some(output) = self.give_output() {
            parcel.output = Some(output);
        }
        self.stow(seat);
        parcel
    }

    /// Takes back what the application's side made.
    pub fn served(&mut self, served: Served, seat: &mut Seat) {
        self.deadline = seat.clock.ms() + seat.rules.write_timeout;
        self.desk = None;
        self.moves = 0;
        match served {
            Served::Whole(output, fate) | Served::Ended(output, fate) => {
                self.link.claim.end();
                self.keep_behind(output);
                self.after_answer(fate, seat);
            }
            Served::Begun(output, answer) => {
                self.keep_behind(output);
                self.phase = Phase::Answer(answer);
            }
            Served::Step(output, answer, step) => {
                self.keep_behind(output);
                self.take_step(answer, step, seat);
                if step == Step::Rendered {
                    // It has had its time: what it gave is sent, then others have theirs.
                    self.turn = 0;
                }
            }
            Served::Dropped | Served::Handled | Served::Gone | Served::TakenBack => {}
        }
    }

    /// Its client left before its request was begun: those that came with it are not begun either.
    #[cold]
    pub fn desert(&mut self, seat: &mut Seat) -> Next {
        self.phase = Phase::Head;
        self.leave(Next::Close(CloseReason::ClientGone), seat)
    }

    /// Keeps what a call has not sent, behind what waits here.
    pub(super) fn keep_behind(&mut self, output: Option<Box<Output>>) {
        match (&mut self.output, output) {
            (Some(first), Some(second)) => first.append(second),
            (first @ None, second) => *first = second,
            (Some(_), None) => {}
        }
    }

    /// The next request begins, or the connection closes.
    fn after_answer(&mut self, fate: Fate, seat: &mut Seat) {
        match fate {
            Fate::Keep => {
                self.phase = Phase::Head;
                let wait = if seat.has_input() || self.kept.is_some() {
                    seat.rules.header_timeout
                } else if seat.draining {
                    // The answer was rendered before the worker began to leave and promised to stay: a request that is already on its
                    // way must still be answered.
                    DRAIN_IDLE_MS
                } else {
                    seat.rules.keep_alive
                };
                self.deadline = seat.clock.ms() + wait;
                self.take_kept(seat);
            }
            Fate::Close | Fate::Last | Fate::Cut | Fate::Reset | Fate::Taken { .. } => {
                self.phase = Phase::Closing(fate);
                self.kept = None;
            }
        }
    }
}
