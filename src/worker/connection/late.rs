//! A call that outlasts its deadline, as its connection sees it.

use crate::http::head::{Head, HeadView};
use crate::log::access::Record;
use crate::scoreboard::InFlight;
use crate::worker::app::Fate;
use crate::worker::ctx::ThreadCtx;
use crate::worker::deadline::alarm::CalledRequest;
use crate::worker::deadline::claim::AlreadySent;
use crate::worker::deadline::late::LateAnswer;

use super::{Connection, Next, Phase};

/// The status of a request that the application did not answer in time (RFC 9110 section 15.6.5).
const TIMED_OUT: u16 = 504;

impl Connection {
    /// Gives up the call that it waits for: later output of the call will not reach the client. `None`: the call is in the middle
    /// of sending, and has to be checked again.
    pub fn give_up(
        &mut self,
        call: &InFlight,
        request: Option<&CalledRequest>,
        ctx: &mut ThreadCtx,
    ) -> Option<(Next, LateAnswer)> {
        let sent = self.link.claim.give_up()?;
        self.renew_turn(ctx);
        let terms = match self.phase {
            Phase::Serving(terms) => terms,
            Phase::Preface
            | Phase::Handshake
            | Phase::Head
            | Phase::Body(_)
            | Phase::Waiting(_)
            | Phase::Streaming(_)
            | Phase::File(_)
            | Phase::Closing(_)
            | Phase::Linger(_) => self.wire.terms(None, false),
        };
        // The real head is in the hands of the thread that does not come back. Where there was no memory for a copy of it, the
        // record has what the flight recorder has.
        let id = [(b"X-Request-ID".as_slice(), call.id.as_slice())];
        let composed = || Head::compose(&call.line, terms.version, if call.id.is_empty() { &[] } else { &id });
        let noted = request.and_then(CalledRequest::head);
        let composed = if noted.is_none() { composed() } else { None };
        let noted = noted.as_ref().map(|(head, bytes)| HeadView { head, bytes });
        let head = noted.or(composed.as_ref().map(|(head, bytes)| HeadView { head, bytes }));
        let id = match head.map(HeadView::assigned_id) {
            // Where there was no memory for the head, the flight recorder has the beginning of the name.
            None | Some([]) if ctx.registrar.as_ref().is_some_and(|registrar| registrar.names()) => call.id.as_slice(),
            id => id.unwrap_or_default(),
        };
        let (outcome, sent) = match sent {
            AlreadySent::Nothing => {
                let sent = self.render_ourselves((TIMED_OUT, "the application did not answer in time"), &[], (terms, id), ctx);
                (LateAnswer::Answered, sent)
            }
            AlreadySent::Something => {
                // Without a reset a cut answer in HTTP/1.0 could pass for a whole one.
                let fate = if terms.ends_with_close() { Fate::Reset } else { Fate::Cut };
                self.phase = Phase::Closing(fate);
                (LateAnswer::Cut, 0)
            }
        };
        ctx.slot().count_given_up();
        let record = Record {
            peer: &call.client,
            socket: self.link.peer.socket(),
            head,
            id,
            status: TIMED_OUT,
            sent,
            response_head: &[],
            timing: ctx.clock.timing(Some(call.since), request.map_or(0, |request| request.queued)),
            environ: &[],
        };
        ctx.record(record, Some(ctx.clock.ns().saturating_sub(call.since)));
        Some((self.drive(ctx), outcome))
    }

    /// Ends the connection. A call that was given up keeps the socket open as long as it runs, so a close alone would not reach
    /// the client.
    pub fn sever(&self, ctx: &ThreadCtx) {
        // A call whose bytes follow some that will not be sent must not send either: nothing may come after the gap.
        if self.is_serving() && self.link.precedence.is_set() {
            let _ = self.link.stream.shutdown_all();
            ctx.passage.free(&self.link.precedence);
        }
        // A client that knows the end of the answer by that of the connection would take the cut one for a whole one.
        let hides_cut = match &self.phase {
            Phase::Streaming(answer) => answer.terms.ends_with_close(),
            Phase::File(body) => body.ends_with_close(),
            Phase::Preface
            | Phase::Handshake
            | Phase::Head
            | Phase::Body(_)
            | Phase::Waiting(_)
            | Phase::Serving(_)
            | Phase::Closing(_)
            | Phase::Linger(_) => false,
        };
        if hides_cut {
            let _ = self.link.stream.set_linger0();
        }
        if self.link.claim.is_late() {
            let stream = &self.link.stream;
            // Fails only when the client is gone.
            let _ = if matches!(self.phase, Phase::Closing(Fate::Reset)) { stream.reset_all() } else { stream.shutdown_all() };
        }
    }
}
