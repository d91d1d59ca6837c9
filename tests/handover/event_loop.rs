//! A loop that admits work as the worker's loop does, over requests that are all there from the beginning.

use std::collections::VecDeque;
use std::io;

use super::connection::Token;
use super::ctx::{Desked, ThreadCtx, World};
use super::threads::completions::Completions;
use super::threads::desk::{Desks, OnDesk};
use super::threads::sync::Arc;
use super::threads::thread_id::{MAIN, ThreadId, ThreadSet};
use super::work::{Completion, QueuedRequest, Served, Work};

#[derive(Debug)]
pub enum Step {
    Work(Token, Work),
    HandOver(ThreadId),
    Leave,
}

/// No request.
pub const NONE: Token = Token(usize::MAX);

pub struct EventLoop {
    world: Arc<World>,
    arriving: VecDeque<Token>,
    parked: VecDeque<Token>,
    streams: VecDeque<(Token, ThreadId)>,
    answered: Vec<usize>,
    pub outside: ThreadSet,
    calling: Token,
    owner: ThreadId,
    completed: Completions,
    desks: Desks,
    /// Requests that may be at desks.
    given: Vec<(ThreadId, Token)>,
    /// Those that were taken back.
    requeued: Vec<Token>,
    /// Whether the request that the owner calls with is at its desk.
    kept_back: bool,
    /// Handlers that were not begun.
    signals: usize,
    /// Only the thread that has the loop writes it: loom detects two owners that are not ordered, even if they do not overlap.
    touched: loom::cell::Cell<usize>,
}

impl EventLoop {
    pub fn new(world: Arc<World>, threads: usize, completed: Completions, desks: Desks) -> Self {
        Self {
            arriving: (0..world.calls.len()).map(Token).collect(),
            answered: vec![0; world.calls.len()],
            signals: world.plan.handlers.len(),
            world,
            parked: VecDeque::new(),
            streams: VecDeque::new(),
            outside: ThreadSet::none(threads),
            calling: NONE,
            owner: MAIN,
            completed,
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

    pub fn own(&mut self, ctx: &mut ThreadCtx) {
        self.touch();
        self.owner = ctx.thread;
    }

    pub fn prepare_publish(&mut self, token: Token, work: &Work, _: &mut ThreadCtx) {
        self.calling = token;
        self.kept_back = matches!(work, Work::Desk);
        self.touch();
    }

    pub fn close_up(&mut self, _: &io::Error, _: &mut ThreadCtx) {
        self.world.sent.set(true);
    }

    pub fn lost_loop(&mut self) {
        self.touch();
        self.outside.insert(self.owner);
        if self.kept_back {
            self.given.push((self.owner, self.calling));
        }
        self.world.tell_taken(self.calling);
    }

    pub fn send_out(&mut self, thread: ThreadId, _: Token, _: &ThreadCtx) {
        self.touch();
        self.outside.insert(thread);
    }

    pub fn wants_help(&self) -> bool {
        self.touch();
        self.world.plan.slots > 1 && self.world.plan.slow
    }

    pub fn has_helpers(&self) -> bool {
        self.world.plan.slots > 1
    }

    pub fn detach(&mut self, _: Token, _: &mut ThreadCtx) -> bool {
        self.touch();
        self.world.plan.memory
    }

    pub fn hand_out(&mut self, thread: ThreadId, token: Token, ctx: &mut ThreadCtx) {
        self.lay_on_desk(thread, token, ctx);
        self.outside.insert(thread);
        self.given.push((thread, token));
    }

    pub fn keep_back(&mut self, token: Token, ctx: &mut ThreadCtx) {
        self.lay_on_desk(ctx.thread, token, ctx);
    }

    fn lay_on_desk(&mut self, thread: ThreadId, token: Token, ctx: &mut ThreadCtx) {
        self.touch();
        assert_eq!(ctx.job.take(), Some(token));
        self.desks.put(thread, token, Box::new(QueuedRequest(token)));
    }

    /// Requests that wait for the interpreter go to another worker, or wait for a permit again; returns whether there were any.
    fn clear_desks(&mut self) -> bool {
        let mut cleared = false;
        for (thread, token) in std::mem::take(&mut self.given) {
            let wanted = match self.world.plan.desks {
                Desked::Wait => false,
                Desked::HandedOver => true,
                Desked::Requeued => !self.requeued.contains(&token),
            };
            match self.desks.take_back(thread, token, |_| wanted) {
                OnDesk::Begun => {}
                OnDesk::Waits => self.given.push((thread, token)),
                OnDesk::Back(_) if self.world.plan.desks == Desked::HandedOver => (cleared, _) = (true, self.hand_over(token)),
                OnDesk::Back(queued) => {
                    self.requeued.push(token);
                    self.parked.push_front(queued.0);
                    cleared = true;
                }
            }
        }
        if self.world.plan.desks == Desked::HandedOver && self.outside.len() == self.world.plan.slots {
            while let Some(token) = self.parked.pop_front() {
                self.hand_over(token);
                cleared = true;
            }
        }
        cleared
    }

    fn hand_over(&mut self, token: Token) {
        self.world.hand_over(token);
        self.answer(token);
    }

    fn answer(&mut self, token: Token) {
        self.answered[token.0] += 1;
        self.world.tell_answered(&self.answered);
    }

    pub fn next(&mut self, ctx: &mut ThreadCtx) -> io::Result<Step> {
        if self.world.plan.fails {
            return Err(io::ErrorKind::Other.into());
        }
        loop {
            self.touch();
            assert_eq!(self.owner, ctx.thread);
            if let Some(completion) = self.completed.take() {
                match self.open(completion, ctx) {
                    Some((token, work)) => return Ok(Step::Work(token, work)),
                    None => continue,
                }
            }
            if !ctx.may_call && self.outside.is_empty() {
                return Ok(Step::HandOver(MAIN));
            }
            let awaited = self.world.plan.handlers_first && self.signals > 0;
            if !awaited && let Some((token, work)) = self.find_work(ctx) {
                return Ok(Step::Work(token, work));
            }
            if self.signals > 0 && !self.outside.contains(MAIN) {
                self.signals -= 1;
                return Ok(Step::Work(NONE, Work::Signals));
            }
            if self.answered.iter().all(|&count| count > 0) && self.outside.is_empty() && self.signals == 0 {
                assert!(self.answered.iter().all(|&count| count == 1), "answered twice: {:?}", self.answered);
                return Ok(Step::Leave);
            }
            if self.clear_desks() {
                continue;
            }
            self.completed.wait();
        }
    }

    fn find_work(&mut self, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        if let Some(index) = self.streams.iter().position(|&(_, thread)| self.has_permit(Some(thread), ctx)) {
            return self.streams.remove(index).map(|(token, thread)| (token, Work::Advance(thread)));
        }
        while let Some(token) = self.arriving.pop_front() {
            self.parked.push_back(token);
        }
        if !self.has_permit(None, ctx) {
            return None;
        }
        self.parked.pop_front().map(|token| self.call(token, ctx))
    }

    fn call(&self, token: Token, ctx: &mut ThreadCtx) -> (Token, Work) {
        ctx.job = Some(token);
        (token, Work::Call)
    }

    fn has_permit(&self, thread: Option<ThreadId>, ctx: &ThreadCtx) -> bool {
        let able = match thread {
            Some(thread) if thread != ctx.thread => !self.outside.contains(thread),
            Some(_) | None => ctx.may_call,
        };
        able && self.outside.len() < self.world.plan.slots
    }

    fn open(&mut self, completion: Completion, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        self.outside.remove(completion.from);
        self.go_on(completion.token, completion.served, ctx)
    }

    pub fn resume(&mut self, token: Token, served: Served, _: bool, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        self.touch();
        assert_eq!(self.owner, ctx.thread);
        self.go_on(token, served, ctx)
    }

    fn go_on(&mut self, token: Token, served: Served, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        match served {
            Served::Whole => {
                self.answer(token);
                None
            }
            Served::Begun(thread) if self.has_permit(Some(thread), ctx) => Some((token, Work::Advance(thread))),
            Served::Begun(thread) => {
                self.streams.push_back((token, thread));
                None
            }
            Served::Handled | Served::Withdrawn => None,
        }
    }
}
