//! Threads that are in the application without the loop: how they get there, and the letters that they come back with.

use crate::sys::time::{NS_PER_MS, monotonic};
use crate::worker::connection::Token;
use crate::worker::job::{Letter, Work};
use crate::worker::member::Member;

use super::{EventLoop, Seat};

impl EventLoop {
    /// The loop was taken from its owner, who is in the application.
    pub fn taken(&mut self) {
        let now = monotonic() / NS_PER_MS;
        self.outside.insert(self.owner);
        self.calls.add(self.owner, self.calling, now, self.kept_back);
        if self.kept_back
            && let Some(connection) = self.find(self.calling)
        {
            let key = connection.token.key();
            self.arm(key);
            self.look_at_desks(now);
        }
        self.pace.note(true);
    }

    /// Another thread is about to work in the application for this connection.
    pub fn send_out(&mut self, member: Member, token: Token, seat: &Seat) {
        self.outside.insert(member);
        self.calls.add(member, token, seat.clock.ms(), false);
    }

    /// Reads what a thread without the loop has done.
    pub(super) fn open_letter(&mut self, letter: Letter, seat: &mut Seat) -> Option<(Token, Work)> {
        match letter.next {
            Some(token) => self.taken_from_tray(token),
            None => self.outside.remove(letter.from),
        }
        self.calls.remove(letter.from, letter.token);
        if let Some(next) = letter.next {
            self.calls.add(letter.from, next, seat.clock.ms(), true);
            self.look_at_desks(seat.clock.ms());
            if let Some(connection) = self.find(next) {
                connection.desk = Some(letter.from);
            }
        }
        self.pace.note(letter.slow);
        if let Some(connection) = self.find(letter.token) {
            // What came with the request has waited for it.
            connection.waited = true;
            connection.keep(letter.rest);
        }
        self.renew_turn(letter.token, &letter.served, seat);
        seat.take_output(letter.out);
        self.go_on(letter.token, letter.served, seat)
    }
}
