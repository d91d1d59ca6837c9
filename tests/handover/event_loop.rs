//! A loop that admits work as the worker's loop does, over requests that are all there from the beginning.

use std::collections::VecDeque;
use std::io;

use super::connection::Token;
use super::job::{Letter, Parcel, Served, Work};
use super::letter_box::LetterBox;
use super::member::{MAIN, Member, Members};
use super::seat::{Seat, World};
use super::sync::Arc;
use super::tray::{TRAY, Tray};

#[derive(Debug)]
pub enum Step {
    Work(Token, Work),
    HandOver(Member),
    Leave,
}

/// No request.
pub const NONE: Token = Token(usize::MAX);

pub struct EventLoop {
    world: Arc<World>,
    arriving: VecDeque<Token>,
    parked: VecDeque<Token>,
    streams: VecDeque<(Token, Member)>,
    answered: Vec<usize>,
    pub outside: Members,
    calling: Token,
    owner: Member,
    letters: LetterBox,
    tray: Tray,
    laid: usize,
    /// Handlers that were not begun.
    signals: usize,
    /// Written by whoever has the loop: loom sees two owners that are not ordered, even if they do not meet.
    touched: loom::cell::Cell<usize>,
}

impl EventLoop {
    pub fn new(world: Arc<World>, members: usize, letters: LetterBox, tray: Tray) -> Self {
        Self {
            arriving: (0..world.calls.len()).map(Token).collect(),
            answered: vec![0; world.calls.len()],
            signals: world.plan.handlers.len(),
            world,
            parked: VecDeque::new(),
            streams: VecDeque::new(),
            outside: Members::none(members),
            calling: NONE,
            owner: MAIN,
            letters,
            tray,
            laid: 0,
            touched: loom::cell::Cell::new(0),
        }
    }

    fn touch(&self) {
        self.touched.set(self.touched.get() + 1);
    }

    pub fn own(&mut self, seat: &mut Seat) {
        self.touch();
        self.owner = seat.member;
    }

    pub fn lay_down(&mut self, token: Token, _: &Work, _: &mut Seat) {
        self.calling = token;
        self.touch();
    }

    pub fn close_up(&mut self, _: &mut Seat) {
        self.world.sent.set(true);
    }

    pub fn taken(&mut self) {
        self.touch();
        self.outside.insert(self.owner);
        self.world.tell_taken(self.calling);
    }

    pub fn send_out(&mut self, member: Member, _: Token, _: &Seat) {
        self.touch();
        self.outside.insert(member);
    }

    pub fn wants_help(&self) -> bool {
        self.touch();
        self.world.plan.slots > 1 && self.world.plan.slow
    }

    pub fn has_helpers(&self) -> bool {
        self.world.plan.slots > 1
    }

    pub fn pack(&mut self, token: Token, seat: &mut Seat) -> Box<Parcel> {
        assert_eq!(seat.job.take(), Some(token));
        Box::new(Parcel(token))
    }

    pub fn next(&mut self, seat: &mut Seat) -> io::Result<Step> {
        if self.world.plan.fails {
            return Err(io::ErrorKind::Other.into());
        }
        loop {
            self.touch();
            assert_eq!(self.owner, seat.member);
            if let Some(letter) = self.letters.take() {
                match self.open(letter, seat) {
                    Some((token, work)) => return Ok(Step::Work(token, work)),
                    None => continue,
                }
            }
            if !seat.may_call && self.outside.is_empty() {
                return Ok(Step::HandOver(MAIN));
            }
            let awaited = self.world.plan.handlers_first && self.signals > 0;
            if !awaited && let Some((token, work)) = self.find_work(seat) {
                return Ok(Step::Work(token, work));
            }
            if self.signals > 0 && !self.outside.contains(MAIN) {
                self.signals -= 1;
                return Ok(Step::Work(NONE, Work::Signals));
            }
            self.fill_tray();
            if self.answered.iter().all(|&count| count > 0) && self.outside.is_empty() && self.signals == 0 {
                assert!(self.answered.iter().all(|&count| count == 1), "answered twice: {:?}", self.answered);
                return Ok(Step::Leave);
            }
            self.letters.wait();
        }
    }

    fn find_work(&mut self, seat: &mut Seat) -> Option<(Token, Work)> {
        if self.has_slot(None, seat)
            && self.laid > 0
            && let Some((token, _)) = self.tray.take()
        {
            self.laid -= 1;
            return Some(self.call(token, seat));
        }
        if let Some(index) = self.streams.iter().position(|&(_, member)| self.has_slot(Some(member), seat)) {
            return self.streams.remove(index).map(|(token, member)| (token, Work::Advance(member)));
        }
        while let Some(token) = self.arriving.pop_front() {
            self.parked.push_back(token);
        }
        if !self.has_slot(None, seat) {
            return None;
        }
        self.parked.pop_front().map(|token| self.call(token, seat))
    }

    fn call(&self, token: Token, seat: &mut Seat) -> (Token, Work) {
        seat.job = Some(token);
        (token, Work::Call)
    }

    fn fill_tray(&mut self) {
        if self.outside.len() < self.world.plan.slots || !self.wants_help() || !self.streams.is_empty() {
            return;
        }
        while self.laid < TRAY.min(self.world.plan.slots)
            && let Some(token) = self.parked.pop_front()
        {
            self.laid += 1;
            self.tray.lay(token, Box::new(Parcel(token)));
        }
    }

    fn has_slot(&self, member: Option<Member>, seat: &Seat) -> bool {
        let able = match member {
            Some(member) if member != seat.member => !self.outside.contains(member),
            Some(_) | None => seat.may_call,
        };
        able && self.outside.len() < self.world.plan.slots
    }

    fn open(&mut self, letter: Letter, seat: &mut Seat) -> Option<(Token, Work)> {
        match letter.next {
            Some(_) => self.laid -= 1,
            None => self.outside.remove(letter.from),
        }
        self.go_on(letter.token, letter.served, seat)
    }

    pub fn resume(&mut self, token: Token, served: Served, seat: &mut Seat) -> Option<(Token, Work)> {
        self.touch();
        assert_eq!(self.owner, seat.member);
        self.go_on(token, served, seat)
    }

    fn go_on(&mut self, token: Token, served: Served, seat: &mut Seat) -> Option<(Token, Work)> {
        match served {
            Served::Whole => {
                self.answered[token.0] += 1;
                None
            }
            Served::Begun(member) if self.has_slot(Some(member), seat) => Some((token, Work::Advance(member))),
            Served::Begun(member) => {
                self.streams.push_back((token, member));
                None
            }
            Served::Handled => None,
        }
    }
}
