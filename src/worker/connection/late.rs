//! A call that outlasts its deadline, as its connection sees it.

use crate::http::head::Head;
use crate::scoreboard::InFlight;
use crate::worker::app::Fate;
use crate::worker::ctx::ThreadCtx;
use crate::worker::ctx::journal::LogEntry;
use crate::worker::deadline::claim::AlreadySent;
use crate::worker::deadline::late::LateAnswer;
use crate::worker::rules::Rules;

use super::{Connection, Next, Phase};

/// The status of a request that the application did not answer in time (RFC 9110 section 15.6.5).
const TIMED_OUT: u16 = 504;

impl Connection {
    /// The call that it waits for is given up: whatever that still makes will not reach the client. `None`: it is in the middle of
    /// sending, and to be looked at again.
    pub fn give_up(&mut self, call: &InFlight, ctx: &mut ThreadCtx) -> Option<(Next, LateAnswer)> {
        let sent = self.link.claim.give_up()?;
        self.renew_turn(ctx);
        let bytes = head_bytes(call);
        let head = parse(&bytes, &ctx.rules);
        let head = head.as_ref().map(|head| (head, bytes.as_slice()));
        let (outcome, sent) = match sent {
            AlreadySent::Nothing => {
                let sent = self.render_ourselves(TIMED_OUT, "the application did not answer in time", &[], head, ctx);
                (LateAnswer::Answered, sent)
            }
            AlreadySent::Something => {
                // Without a reset the end of an answer in HTTP/1.0 could pass for its whole.
                let fate = if call.line.ends_with(b"HTTP/1.1") { Fate::Cut } else { Fate::Reset };
                self.phase = Phase::Closing(fate);
                (LateAnswer::Cut, 0)
            }
        };
        ctx.record(&LogEntry {
            peer: &self.link.peer,
            head,
            status: TIMED_OUT,
            sent,
            response_head: &[],
            began: Some(call.since),
            queued: 0,
            environ: &[],
        });
        Some((self.drive(ctx), outcome))
    }

    /// The connection ends. A call that was given up keeps the socket open for as long as it runs, so the client is told by other means
    /// than the close.
    pub fn sever(&self, ctx: &ThreadCtx) {
        // Nor does one whose bytes go behind some that will not be sent: nothing of it may come behind the gap.
        if self.is_serving() && self.link.precedence.is_set() {
            let _ = self.link.stream.shutdown_all();
            ctx.passage.free(&self.link.precedence);
        }
        if self.link.claim.is_late() {
            let stream = &self.link.stream;
            // Fails only when the client is gone.
            let _ = if matches!(self.phase, Phase::Closing(Fate::Reset)) { stream.reset_all() } else { stream.shutdown_all() };
        }
    }
}

/// A head with what the flight recorder knows of it: the real one is in the hands of the thread that does not come back.
fn head_bytes(call: &InFlight) -> Vec<u8> {
    let mut bytes = call.line.clone();
    if !call.id.is_empty() {
        bytes.extend_from_slice(b"\r\nX-Request-ID: ");
        bytes.extend_from_slice(&call.id);
    }
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

/// `None` for a request line that the recorder had to cut.
fn parse(bytes: &[u8], rules: &Rules) -> Option<Head> {
    let mut head = Head::default();
    head.parse(bytes, &rules.head).ok().filter(|_| head.len == bytes.len()).map(|_| head)
}
