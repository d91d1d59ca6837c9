//! Answers of one turn of the loop that leave together.
//!
//! An answer that is sent at once wakes its client, and the next call begins with the caches full of the kernel. While other
//! requests wait for the same thread, a finished answer therefore lies here for a moment, and a few leave one after the other;
//! answers to pipelined requests leave in one send. This is only for answers that are whole and whose connection stays open, and
//! never for long: they are sent before a call that may end later than [`HOLD_NS`] after the first was laid here, as far as the
//! last one tells, and at the end of the turn. When a call lasts so long that another thread takes the loop, that one sends
//! them before anything else ([`crate::worker::threads::executor`]).
//!
//! The outbox is the thread's while its thread has the loop, so that connections can reach it, and lies on the table with the loop
//! during a call.

use super::output;
use crate::worker::app::Gone;
use crate::worker::connection::{CloseReason, Connection, Flow, Next, Phase, Token};
use crate::worker::ctx::ThreadCtx;
use crate::worker::event_loop::EventLoop;
use crate::worker::job::Work;
use crate::worker::threads::pace::TICK_NS;

/// How long an answer may lie here while quick calls go on, in nanoseconds: a turn of 25 clients that ask for a Django page of 80 us. A
/// third of it makes such a page 2 % dearer and its clients wait as long.
const HOLD_NS: u64 = 3_000_000;

/// Quicker calls send their answers at once although others wait, in nanoseconds: such clients are awake anyhow, and workers that share
/// cores with them stay evenly busy.
const HOLD_FROM_NS: u64 = 20_000;

/// Larger answers are sent at once, in bytes: copying them costs more than it saves.
const HOLD_MAX: usize = 16 * 1024;

/// Bytes from which on all that lies here is sent.
const FULL: usize = 64 * 1024;

/// What lies there.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Whose bytes they are, each with the end of its part.
    parts: Vec<(Token, usize)>,
    /// Since when the first part is here, in nanoseconds of the loop's clock.
    since: u64,
}

impl Outbox {
    /// Whether nothing lies there.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether an answer to this connection, of which something lies here already or not (`follows`), may be laid behind all others:
    /// each has one part, which is sent or kept as a whole.
    fn has_place(&self, token: Token, follows: bool) -> bool {
        !follows || self.parts.last().is_some_and(|&(last, _)| last == token)
    }

    /// Lays a whole answer there and leaves `out` empty; `false`: there is no memory for it.
    fn put(&mut self, token: Token, out: &mut Vec<u8>, now: u64) -> bool {
        if self.bytes.try_reserve(out.len()).is_err() {
            return false;
        }
        if self.parts.is_empty() {
            self.since = now;
        }
        self.bytes.extend_from_slice(out);
        out.clear();
        match self.parts.last_mut() {
            Some((last, end)) if *last == token => *end = self.bytes.len(),
            _ => self.parts.push((token, self.bytes.len())),
        }
        true
    }

    /// What belongs to this connection, and does not any more.
    fn disown(&mut self, token: Token) -> &[u8] {
        let Some(index) = self.parts.iter().position(|(owner, _)| *owner == token) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.parts[before].1);
        let (owner, end) = &mut self.parts[index];
        *owner = Token::NONE;
        &self.bytes[start..*end]
    }

    /// Whether a call that takes as long as the last one would keep it waiting too long.
    fn is_due(&self, now: u64, call: u64) -> bool {
        now.saturating_sub(self.since) + call > HOLD_NS || self.bytes.len() > FULL
    }
}

impl ThreadCtx {
    /// Other requests wait for this thread, or none does.
    #[inline]
    pub(in crate::worker) fn set_crowded(&mut self, crowded: bool) {
        self.crowded = crowded && self.spent >= HOLD_FROM_NS;
    }

    /// A piece of work in the application took so many nanoseconds. A request may take several, and a quick one says little about
    /// the next request.
    #[inline]
    pub(in crate::worker) fn note_time(&mut self, took: u64) {
        self.spent = took.max(self.spent - self.spent / 8);
    }

    /// Whether the answer in `out` may wait: another request waits for this thread and calls are so quick that they keep the loop.
    /// `follows`: earlier answers to the same client wait already.
    #[inline]
    fn may_hold(&self, follows: bool) -> bool {
        let waits = self.crowded || (self.has_input() && !self.writes);
        (follows || (waits && self.spent < TICK_NS)) && self.out.len() <= HOLD_MAX
    }
}

impl Connection {
    /// Sends what the thread context has rendered for this connection, or lays it in the outbox: in the head phase it is a whole answer.
    #[inline]
    pub(in crate::worker) fn pass_on(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let held = !ctx.out.is_empty() && matches!(self.phase, Phase::Head) && ctx.may_hold(self.held);
        if held && ctx.outbox.has_place(self.token, self.held) {
            let now = ctx.clock.ns();
            if ctx.outbox.put(self.token, &mut ctx.out, now) {
                self.held = true;
                return Ok(());
            }
        }
        if ctx.out.is_empty() { Ok(()) } else { self.flush(ctx) }
    }

    /// Sends what lay in the outbox; `None`: all of it is on its way.
    fn send_part(&mut self, part: &[u8], ctx: &ThreadCtx) -> Option<Next> {
        self.held = false;
        let Ok(sent) = output::send(&self.link.stream, part) else { return Some(Next::Close(CloseReason::ClientGone)) };
        if sent == part.len() {
            ctx.passage.free(&self.link.precedence);
            return None;
        }
        let kept = self.keep_waiting(&part[sent..]);
        Some(self.after_send(kept, ctx).err().unwrap_or(Next::Wait))
    }

    /// Takes back what lies in the outbox: something else is to be sent, which must go behind it.
    pub(in crate::worker) fn recall(&mut self, ctx: &mut ThreadCtx) -> Flow {
        self.held = false;
        let bytes = ctx.outbox.disown(self.token);
        let disk = &self.link.disk;
        let kept = match &mut self.output {
            Some(output) => output.put_first(bytes, disk).map_err(Gone::Storage),
            None if ctx.out.try_reserve(bytes.len()).is_ok() => {
                ctx.out.splice(..0, bytes.iter().copied());
                Ok(())
            }
            None => match output::send(&self.link.stream, bytes) {
                Ok(sent) if sent == bytes.len() => Ok(()),
                Ok(sent) => self.output.get_or_insert_default().push(&bytes[sent..], disk).map_err(Gone::Storage),
                Err(_) => Err(Gone::Client),
            },
        };
        if kept.is_err() { self.after_send(kept, ctx) } else { Ok(()) }
    }
}

impl EventLoop {
    /// The loop is about to be laid on the table for this work.
    #[inline]
    pub fn lay_down(&mut self, token: Token, work: &Work, ctx: &mut ThreadCtx) {
        if !ctx.outbox.is_empty() {
            // While handlers of signals run, nobody may be there to take the loop.
            if matches!(work, Work::Signals) || ctx.outbox.is_due(ctx.clock.ns(), ctx.spent) {
                self.send_held(ctx);
            }
            std::mem::swap(&mut self.outbox, &mut ctx.outbox);
        }
        // Whoever takes the loop writes them: the call may last, or never end.
        ctx.give_lines(&mut self.lines);
        self.calling = token;
        self.kept_back = matches!(work, Work::Desk);
        self.pulled.begin(token, work);
    }

    /// The loop is this thread's: what lay on the table with it.
    #[inline]
    pub(in crate::worker) fn take_outbox(&mut self, ctx: &mut ThreadCtx) {
        if !self.outbox.is_empty() {
            std::mem::swap(&mut self.outbox, &mut ctx.outbox);
        }
        if !self.lines.is_empty() {
            ctx.take_lines(&mut self.lines);
        }
    }

    /// Sends what lies in the outbox before a call that wants to send by itself; what the socket does not take goes along with the
    /// request. `None`: its client is gone.
    pub(in crate::worker) fn clear_way(&mut self, token: Token, ctx: &mut ThreadCtx) -> Option<()> {
        self.send_held(ctx);
        let Some(connection) = self.find(token) else {
            ctx.forget_input();
            return None;
        };
        connection.send_along(&mut ctx.job);
        Some(())
    }

    /// Sends what lies in the outbox.
    #[inline]
    pub(in crate::worker) fn send_held(&mut self, ctx: &mut ThreadCtx) {
        if !ctx.outbox.is_empty() {
            self.send_parts(ctx);
        }
    }

    #[inline(never)]
    fn send_parts(&mut self, ctx: &mut ThreadCtx) {
        let mut outbox = std::mem::take(&mut ctx.outbox);
        let mut start = 0;
        for (token, end) in outbox.parts.drain(..) {
            let part = &outbox.bytes[start..end];
            start = end;
            let Some(next) = self.find(token).and_then(|connection| connection.send_part(part, ctx)) else { continue };
            let work = self.follow(token, next, ctx);
            debug_assert!(work.is_none(), "it has no stream");
        }
        outbox.bytes.clear();
        ctx.outbox = outbox;
    }
}
