//! Asks a stream for small blocks that leave together ([`crate::worker::send::coalesce`]).

use crate::worker::app::Produced;
use crate::worker::send::coalesce::{COALESCE_MAX, Coalescing, Put};
use crate::worker::send::outlet::SocketOutlet;
use crate::worker::send::output::{self, Output};
use crate::worker::streaming::Streaming;

use super::ThreadCtx;

/// How long one stream is asked before others proceed, in nanoseconds: a quarter of the executor's tick.
const COALESCE_NS: u64 = 250_000;

impl ThreadCtx {
    /// Asks a stream for blocks as long as they are small and come quickly; bytes that could not be sent meanwhile are in
    /// `output`, and the later ones in `out`.
    pub(in crate::worker) fn coalesce(&mut self, answer: &mut Streaming, output: &mut Option<Box<Output>>) -> Produced {
        let until = self.clock.ns() + COALESCE_NS;
        answer.block_buffer.supply(&mut self.coalesced);
        self.app.enter();
        // While others wait, the first block may as well: see `outbox`.
        answer.begun |= self.send.crowded;
        let mut step = Produced::Rendered;
        self.app.together()(&mut || step = self.ask(answer, output, until));
        answer.block_buffer.collect(&mut self.out, &mut self.coalesced);
        step
    }

    /// Asks for one block after the other, until the time is over or something is to be sent.
    fn ask(&mut self, answer: &mut Streaming, output: &mut Option<Box<Output>>, until: u64) -> Produced {
        let wants_head = self.wants_response_head();
        loop {
            let coalescing = Coalescing { block_buffer: &answer.block_buffer, begun: &mut answer.begun };
            let mut outlet = SocketOutlet {
                link: &answer.link,
                passage: &self.passage,
                output,
                behind: false,
                used: false,
                coalescing: Some(coalescing),
                head: wants_head.then_some(&mut answer.response_head),
            };
            let step = answer.stream.advance(&mut self.out, &mut outlet);
            self.clock.tick();
            if answer.response_head.is_empty() {
                answer.response_head = self.copy_response_head(&*answer.stream);
            }
            if step != Produced::Rendered || answer.link.has_unsent(output) || self.clock.ns() >= until || !self.pass_on(answer) {
                return step;
            }
        }
    }

    /// Puts the block in `out` into the block buffer, or sends it; returns whether the stream may be asked for the next one.
    fn pass_on(&mut self, answer: &mut Streaming) -> bool {
        if self.out.is_empty() {
            return true;
        }
        let claim = &answer.link.claim;
        if std::mem::replace(&mut answer.begun, true) {
            match answer.block_buffer.put(&mut self.out) {
                Put::Buffered(bytes) => return bytes < COALESCE_MAX,
                Put::Full | Put::Flushed => return false,
                Put::Closed => {}
            }
        }
        if !claim.begin_to_send() {
            return false;
        }
        // The loop will meet a failure again.
        let sent = output::send_parts(&answer.link.stream, [&self.out, &[], &[]]).unwrap_or(0);
        claim.has_sent();
        self.out.drain(..sent);
        self.out.is_empty() && !answer.link.stream.has_unsent()
    }
}
