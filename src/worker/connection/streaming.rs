//! Sends the blocks that a stream has given, and has it asked for more.

use crate::worker::app::Produced;
use crate::worker::ctx::ThreadCtx;
use crate::worker::send::output;
use crate::worker::streaming::{Pending, Streaming};
use crate::worker::work::Work;

use super::file_body::SentPart;
use super::{CloseReason, Connection, Flow, Next, Phase};

/// Bytes of a file sent before others proceed.
const FILE_BURST: u64 = 4 * 1024 * 1024;

/// Bytes of a block that are sealed and sent before others proceed: half a millisecond of work.
const SEALED_BURST: usize = 1024 * 1024;

impl Connection {
    /// Sends the blocks that the stream has given, and asks it for more.
    pub(in crate::worker) fn go_on_answering(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let Phase::Streaming(mut answer) = std::mem::replace(&mut self.phase, Phase::Head) else {
            unreachable!("called in the answer phase only");
        };
        self.phase = Phase::Serving(answer.terms);
        let sent = match answer.pending {
            // Its blocks are sent before it is asked again (PEP 3333, "Buffering and Streaming").
            Pending::Nothing => match self.flush(ctx) {
                Ok(()) => return Err(self.ask(answer, ctx)),
                stopped => stopped,
            },
            // An empty block sends nothing, so no send shows that the client is gone.
            Pending::Empty if self.link.is_reset() => Err(Next::Close(CloseReason::ClientGone)),
            Pending::Empty => return Err(self.ask(answer, ctx)),
            Pending::Block(at) => self.send_block(&mut answer, at, ctx),
            Pending::File { offset, left } => self.send_file(&mut answer, offset, left, ctx),
        };
        self.phase = Phase::Streaming(answer);
        sent
    }

    /// Has a stream asked for more, unless nobody wants that any more.
    fn ask(&mut self, answer: Box<Streaming>, ctx: &mut ThreadCtx) -> Next {
        match self.is_aborted(ctx) {
            Ok(false) => Next::Work(Work::Advance(answer)),
            Ok(true) => self.abort(answer, ctx),
            Err(reason) => {
                self.phase = Phase::Streaming(answer);
                Next::Close(reason)
            }
        }
    }

    /// Takes back a stream that was asked for a block.
    pub(in crate::worker) fn take_step(&mut self, mut answer: Box<Streaming>, step: Produced, ctx: &ThreadCtx) {
        answer.pending = match step {
            Produced::Rendered if ctx.out.is_empty() && !self.has_unsent() => Pending::Empty,
            Produced::Rendered | Produced::End(_) => Pending::Nothing,
            Produced::LargeBlock => Pending::Block(0),
            Produced::File { offset, len } => Pending::File { offset, left: len },
        };
        self.phase = Phase::Streaming(answer);
    }

    /// Sends the rendered bytes, the held block and its tail in one call as far as the socket takes them.
    fn send_block(&mut self, answer: &mut Streaming, at: usize, ctx: &mut ThreadCtx) -> Flow {
        let (block, tail) = answer.stream.large_block();
        let total = block.len() + tail.len();
        let (mut block, mut tail) = (&block[at.min(block.len())..], &tail[at.saturating_sub(block.len())..]);
        // One call of the kernel fills its buffer. Records are sealed a few at a time, and a client that keeps pace would have them all.
        if self.link.stream.is_encrypted() && block.len() > SEALED_BURST {
            (block, tail) = (&block[..SEALED_BURST], &[]);
        }
        let offered = ctx.out.len() + block.len() + tail.len();
        let Ok(sent) = output::send_parts(&self.link.stream, [&ctx.out, block, tail]) else {
            return Err(Next::Close(CloseReason::ClientGone));
        };
        if sent < ctx.out.len() {
            let kept = self.keep_waiting(&ctx.out[sent..]);
            ctx.out.clear();
            return self.after_send(kept, ctx);
        }
        let at = at + sent - ctx.out.len();
        ctx.out.clear();
        if at == total {
            answer.pending = Pending::Nothing;
            return Ok(());
        }
        answer.pending = Pending::Block(at);
        if sent > 0 {
            self.timer.deadline = ctx.clock.ms() + ctx.rules.write_timeout;
        }
        Err(if sent == offered { Next::Yield } else { Next::Wait })
    }

    /// Sends the rendered bytes, then the file.
    fn send_file(&mut self, answer: &mut Streaming, mut offset: u64, mut left: u64, ctx: &mut ThreadCtx) -> Flow {
        self.flush(ctx)?;
        let mut batch = FILE_BURST;
        let Some(file) = answer.stream.file() else {
            return self.cut_file(answer, "was closed", ctx);
        };
        let part = self.send_part_of_file(file, (&mut offset, &mut left), &mut batch, ctx);
        answer.pending = Pending::File { offset, left };
        match part {
            SentPart::Done => {
                answer.pending = Pending::Nothing;
                Ok(())
            }
            SentPart::Spent => Err(Next::Yield),
            SentPart::Full => Err(Next::Wait),
            SentPart::Gone => Err(Next::Close(CloseReason::ClientGone)),
            SentPart::Short => self.cut_file(answer, &format!("ended {left} bytes early"), ctx),
            SentPart::Broken(error) => self.cut_file(answer, &format!("cannot be read: {error}"), ctx),
        }
    }

    /// The file does not give the bytes that its length promised.
    fn cut_file(&self, answer: &Streaming, what: &str, ctx: &ThreadCtx) -> Flow {
        let line = answer.line();
        ctx.log.error(format_args!("the file that answers {line} {what}; the answer is cut"));
        Err(Next::Close(CloseReason::Cut))
    }
}
