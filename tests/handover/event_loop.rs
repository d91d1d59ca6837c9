//! A loop that admits work as the worker's loop does, over requests that are all there from the beginning.

use std::collections::VecDeque;
use std::io;

use super::connection::Token;
use super::desk::{Desks, Look};
use super::job::{Letter, Parcel, Served, Work};
use super::letter_box::LetterBox;
use super::member::{MAIN, Member, Members};
use super::seat::{Desked, Seat, World};
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
    desks: Desks,
    /// Requests that may lie on desks.
    given: Vec<(Member, Token)>,
    /// Those that were taken back.
    requeued: Vec<Token>,
    /// Whether the request that the owner calls with lies on its desk.
    kept_back: bool,
    /// Handlers that were not begun.
    signals: usize,
    /// Written by whoever has the loop: loom sees two owners that are not ordered, even if they do not meet.
    touched: loom::cell::Cell<usize>,
}

impl EventLoop {
    pub fn new(world: Arc<World>, members: usize, letters: LetterBox, tray: Tray, desks: Desks) -> Self {
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
            desks,
            given: Vec::new(),
            requeued: Vec::new(),
            kept_back: false,
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

    pub fn lay_down(&mut self, token: Token, work: &Work, _: &mut Seat) {
        self.calling = token;
        self.kept_back = matches!(work, Work::Desk);
        self.touch();
    }

    pub fn close_up(&mut self, _: &io::Error, _: &mut Seat) {
        self.world.sent.set(true);
    }

    pub fn taken(&mut self) {
        self.touch();
        self.outside.insert(self.owner);
        if self.kept_back {
            self.given.push((self.owner, self.calling));
        }
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

    pub fn detach(&mut self, _: Token, _: &mut Seat) -> bool {
        self.touch();
        self.world.plan.memory
    }

    pub fn hand_out(&mut self, member: Member, token: Token, seat: &mut Seat) {
        self.lay_on_desk(member, token, seat);
        self.outside.insert(member);
        self.given.push((member, token));
    }

    pub fn keep_back(&mut self, token: Token, seat: &mut Seat) {
        self.lay_on_desk(seat.member, token, seat);
    }

    fn lay_on_desk(&mut self, member: Member, token: Token, seat: &mut Seat) {
        self.touch();
        assert_eq!(seat.job.take(), Some(token));
        self.desks.lay(member, token, Box::new(Parcel(token)));
    }

    /// What waits for the interpreter is another worker's, or waits for a slot again; says whether anything was.
    fn clear_desks(&mut self) -> bool {
        let mut cleared = false;
        for (member, token) in std::mem::take(&mut self.given) {
            let wanted = match self.world.plan.desks {
                Desked::Wait => false,
                Desked::Lent => true,
                Desked::Requeued => !self.requeued.contains(&token),
            };
            match self.desks.take_back(member, token, |_| wanted) {
                Look::Begun => {}
                Look::Lies => self.given.push((member, token)),
                Look::Back(_) if self.world.plan.desks == Desked::Lent => (cleared, _) = (true, self.lend(token)),
                Look::Back(parcel) => {
                    self.requeued.push(token);
                    self.parked.push_front(parcel.0);
                    cleared = true;
                }
            }
        }
        if self.world.plan.desks == Desked::Lent && self.outside.len() == self.world.plan.slots {
            while let Some((token, _)) = self.tray.take_last() {
                self.laid -= 1;
                self.parked.push_front(token);
            }
            while let Some(token) = self.parked.pop_front() {
                self.lend(token);
                cleared = true;
            }
        }
        cleared
    }

    fn lend(&mut self, token: Token) {
        self.world.lend(token);
        self.answer(token);
    }

    fn answer(&mut self, token: Token) {
        self.answered[token.0] += 1;
        self.world.tell_answered(&self.answered);
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
            if self.clear_desks() {
                continue;
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
            Some(next) => {
                self.laid -= 1;
                self.given.push((letter.from, next));
            }
            None => self.outside.remove(letter.from),
        }
        self.go_on(letter.token, letter.served, seat)
    }

    pub fn resume(&mut self, token: Token, served: Served, _: bool, seat: &mut Seat) -> Option<(Token, Work)> {
        self.touch();
        assert_eq!(self.owner, seat.member);
        self.go_on(token, served, seat)
    }

    fn go_on(&mut self, token: Token, served: Served, seat: &mut Seat) -> Option<(Token, Work)> {
        match served {
            Served::Whole => {
                self.answer(token);
                None
            }
            Served::Begun(member) if self.has_slot(Some(member), seat) => Some((token, Work::Advance(member))),
            Served::Begun(member) => {
                self.streams.push_back((token, member));
                None
            }
            Served::Handled | Served::TakenBack => None,
        }
    }
}
