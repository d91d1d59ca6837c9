//! An iteration of the loop. It has one fixed order:
//!
//! 1. the nearest deadline is the poll's timeout (none while a connection waits to be driven),
//! 2. poll, without holding back the application's threads,
//! 3. the clock, once,
//! 4. orders of the master and signals,
//! 5. connections that other workers hand over,
//! 6. completions of threads that were in the application; while calls are slow, answers wait until the next requests have been
//!    handed out,
//! 7. work that waited for a permit, then those answers,
//! 8. listening sockets,
//! 9. sockets of connections,
//! 10. connections whose budget was used up,
//! 11. deadlines,
//! 12. results of the iteration: held answers, descriptors of ended connections, the scoreboard, the access log; listeners,
//!     hand-off and leaving.

use std::collections::VecDeque;
use std::io;

use crate::worker::accept::Accepted;
use crate::worker::connection::{Edge, Token};
use crate::worker::ctx::ThreadCtx;
use crate::worker::threads::thread_id::{MAIN, ThreadId};
use crate::worker::work::{Completion, Work};

use super::{COMPLETIONS, CONTROL, EventLoop, HANDOFF, LISTENERS, borrow};

/// How often a worker looks whether there is room for lines of a log whose reader is late, in milliseconds.
const LATE_LOG_MS: u64 = 50;

/// How far the iteration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Poll,
    Adopted,
    Completions,
    Parked,
    Answers,
    Accept,
    Sockets,
    Yielded,
    Deadlines,
    End,
}

/// One iteration of the loop, kept between two pieces of work.
#[derive(Debug)]
pub(super) struct Iteration {
    pub(super) stage: Stage,
    /// Completions whose answers wait, in order.
    pub(super) opened: VecDeque<Completion>,
    /// Number of parked pieces of work that were not tried yet in this iteration.
    pub(super) parked: usize,
    /// Listeners that were ready, each with the connections that may still be taken from it.
    pub(super) accepting: Vec<(usize, usize)>,
    /// Sockets that were ready, in reverse order.
    sockets: Vec<(Token, Edge)>,
    /// Connections whose budget was used up in the last iteration and that were not driven since.
    yielded: usize,
    /// Connections whose timer entry has fired.
    due: Vec<Token>,
}

impl Iteration {
    /// The state before the first one: as at the end of one.
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::End,
            opened: VecDeque::new(),
            parked: 0,
            accepting: Vec::new(),
            sockets: Vec::new(),
            yielded: 0,
            due: Vec::new(),
        }
    }
}

/// The next task of the thread.
#[derive(Debug)]
pub enum Step {
    /// Work in the application for this connection, then [`EventLoop::resume`].
    Work(Token, Work),
    /// Give the loop to this thread.
    HandOver(ThreadId),
    /// The worker is done.
    Leave,
}

impl EventLoop {
    /// Continues the iteration until the application is needed or the worker is done.
    #[inline(never)]
    pub fn next(&mut self, ctx: &mut ThreadCtx) -> io::Result<Step> {
        loop {
            let work = match self.iteration.stage {
                Stage::Poll => {
                    self.wait(ctx)?;
                    self.sort_events(ctx);
                    self.reclaim(ctx);
                    self.iteration.stage = if self.handoff.adopted.is_empty() { self.first_stage(ctx) } else { Stage::Adopted };
                    continue;
                }
                Stage::Adopted => match self.handoff.adopted.pop() {
                    Some(token) => self.take_up(token, ctx),
                    None => {
                        self.iteration.stage = self.first_stage(ctx);
                        continue;
                    }
                },
                Stage::Completions => match self.completed.try_recv() {
                    Ok(completion) => self.open_completion(completion, ctx),
                    Err(_) => {
                        self.iteration.parked = self.parked.len();
                        self.iteration.stage = Stage::Parked;
                        if !ctx.may_call && self.outside.is_empty() {
                            self.send_held(ctx);
                            // This thread may run no other iteration for long.
                            ctx.end_iteration();
                            return Ok(Step::HandOver(MAIN));
                        }
                        continue;
                    }
                },
                Stage::Parked => self.unpark(ctx),
                Stage::Answers => match self.iteration.opened.pop_front() {
                    Some(completion) => self.follow_completion(completion, ctx),
                    None => {
                        self.iteration.stage = Stage::Accept;
                        continue;
                    }
                },
                Stage::Accept => match self.accept_next(ctx)? {
                    Some(accepted) => self.open(accepted, ctx),
                    None => continue,
                },
                Stage::Sockets => match self.iteration.sockets.pop() {
                    Some((token, edge)) => {
                        if let Some(connection) = self.find(token) {
                            connection.ready(edge);
                        }
                        self.begin_turn(token, ctx)
                    }
                    None => {
                        self.send_held(ctx);
                        self.iteration.yielded = self.runnable.len();
                        self.iteration.stage = Stage::Yielded;
                        continue;
                    }
                },
                Stage::Yielded if self.iteration.yielded > 0 => {
                    self.iteration.yielded -= 1;
                    self.runnable.pop_front().and_then(|token| self.begin_turn(token, ctx))
                }
                Stage::Yielded => {
                    self.timers.fire(ctx.clock.ms(), &mut self.iteration.due);
                    self.meet_deadlines(ctx);
                    self.iteration.stage = if self.iteration.due.is_empty() { Stage::End } else { Stage::Deadlines };
                    continue;
                }
                Stage::Deadlines => match self.iteration.due.pop() {
                    Some(token) => self.expire(token, ctx),
                    None => {
                        self.iteration.stage = Stage::End;
                        continue;
                    }
                },
                Stage::End => {
                    self.send_held(ctx);
                    self.close_ended();
                    let slot = ctx.slot();
                    slot.set_connections(self.connections.len() as u32);
                    slot.set_waiting(self.parked.len() as u32);
                    slot.beat(ctx.clock.ns());
                    self.overload.tell(ctx.clock.ms(), &ctx.log);
                    if self.reminder.take(ctx.clock.ms()) {
                        self.tell_rest(ctx.clock.ms(), ctx);
                    }
                    ctx.end_iteration();
                    if ctx.is_log_behind() {
                        self.look_after_logs(ctx);
                    }
                    self.iteration.stage = Stage::Poll;
                    if self.is_done(ctx)? {
                        self.finish(ctx);
                        return Ok(Step::Leave);
                    }
                    continue;
                }
            };
            if let Some((token, work)) = work
                && let Some(work) = self.admit(token, work, ctx)
            {
                return Ok(Step::Work(token, work));
            }
        }
    }

    /// The reader of a log is late: looks again soon, and counts what is lost.
    #[cold]
    fn look_after_logs(&mut self, ctx: &ThreadCtx) {
        let lost = ctx.lost_lines();
        ctx.slot().count_lost_lines(lost - std::mem::replace(&mut self.lost_lines, lost));
        self.reminder.remind(ctx.clock.ms() + LATE_LOG_MS);
    }

    /// Whether sockets that are ready wait for the thread.
    pub(super) fn is_crowded(&self) -> bool {
        self.iteration.stage == Stage::Sockets && !self.iteration.sockets.is_empty()
    }

    /// The first stage of an iteration.
    fn first_stage(&self, ctx: &ThreadCtx) -> Stage {
        // A thread that owes no completion has sent none, and work is parked only while permits are taken.
        let calm = ctx.may_call && self.is_quiet() && self.parked.is_empty();
        if calm { Stage::Accept } else { Stage::Completions }
    }

    /// Sorts the events of the poll, and follows orders at once.
    fn sort_events(&mut self, ctx: &mut ThreadCtx) {
        let (mut ordered, mut handed_over) = (false, false);
        for event in &self.events {
            match event.token().0 {
                CONTROL => ordered = true,
                COMPLETIONS => {}
                HANDOFF => handed_over = true,
                token if token >= LISTENERS => {
                    if let Some(index) = self.acceptor.index(token) {
                        self.iteration.accepting.push((index, self.acceptor.batch(self.connections.len(), self.limit)));
                    }
                }
                _ => {
                    let edge = match (event.is_read_closed() || event.is_error(), event.is_readable()) {
                        (true, _) => Edge::Ended,
                        (false, true) => Edge::Readable,
                        (false, false) => Edge::Writable,
                    };
                    self.iteration.sockets.push((event.token().into(), edge));
                }
            }
        }
        self.iteration.sockets.reverse();
        self.acceptor.polled(!self.iteration.accepting.is_empty());
        if ordered {
            self.obey(ctx);
        }
        if handed_over {
            self.adopt(ctx);
        }
    }

    /// Takes the next connection of this iteration.
    fn accept_next(&mut self, ctx: &mut ThreadCtx) -> io::Result<Option<Accepted>> {
        let Some((index, left)) = self.iteration.accepting.last_mut() else {
            self.iteration.stage = Stage::Sockets;
            return Ok(None);
        };
        let index = *index;
        let open = self.connections.len();
        let accepted = if *left > 0 && open < self.limit && self.acceptor.may_take(open) {
            *left -= 1;
            self.acceptor.accept(index, ctx.clock.ms(), borrow(&self.poll), &ctx.log)
        } else {
            None
        };
        if accepted.is_none() {
            self.iteration.accepting.pop();
            self.acceptor.woken(open, ctx.clock.ms(), borrow(&self.poll))?;
        }
        Ok(accepted)
    }
}
