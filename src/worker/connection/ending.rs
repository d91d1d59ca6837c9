//! The end of a connection: its reasons, and its order.

use std::fmt;

use crate::worker::DRAIN_IDLE_MS;
use crate::worker::app::Fate;
use crate::worker::ctx::ThreadCtx;
use crate::worker::streaming::Streaming;

use super::{Connection, Flow, Next, Phase};

/// How long a closed connection is still read, so that the client can read an answer that came before it had sent everything (RFC
/// 9112 section 9.6), in milliseconds without a byte.
const LINGER_MS: u64 = 5_000;

/// How long that lasts in all, in milliseconds (nginx has the same): a client that sends a byte now and then must not keep its
/// connection for ever.
const LINGER_TOTAL_MS: u64 = 30_000;

/// How long a thread of the application may still use a socket that it took over after the call has ended, in milliseconds: a
/// WebSocket that the server has closed is ended when the client's answer to that has come (RFC 6455 section 7.1.1).
const LAST_WORDS_MS: u64 = 1_000;

/// Bytes read and thrown away while lingering; a client that sends more is cut.
const LINGER_BYTES: u32 = 64 * 1024 * 1024;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The last answer said so.
    Done,
    /// As [`Self::Done`], and the client has the end already: only the descriptor is left.
    Ended,
    /// The client closed between requests.
    ClientClosed,
    /// The client left in the middle of a request or an answer.
    ClientGone,
    /// The answer is cut, visibly for the client.
    Cut,
    /// It does not begin with a preface as it must.
    Preface,
    /// It does not begin with a handshake of TLS as it must.
    Handshake,
    /// No request came in time.
    Idle,
    /// The client took no byte of its answer for too long.
    WriteStall,
    /// The client continued to send after a refusal, or was silent.
    Lingered,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done | Self::Ended => "done",
            Self::ClientClosed => "closed by the client",
            Self::ClientGone => "the client left",
            Self::Cut => "answer cut",
            Self::Preface => "no valid preface",
            Self::Handshake => "no valid TLS handshake",
            Self::Idle => "idle",
            Self::WriteStall => "the client does not read",
            Self::Lingered => "lingered",
        })
    }
}

/// The rest of the bounds of reading after the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Linger {
    /// Bytes. Each idle connection has room for the largest phase, so 32 bits.
    left: u32,
    /// Latest end, in milliseconds of the loop's clock.
    until: u64,
    /// Whether the writing side is closed; before that, nothing is read either.
    pub(super) shut: bool,
}

impl Connection {
    /// Ends the connection after its last answer.
    pub(super) fn end(&mut self, fate: Fate, ctx: &mut ThreadCtx) -> Flow {
        match fate {
            Fate::Hijacked { in_use: true } => {
                let now = ctx.clock.ms();
                self.phase = Phase::Linger(Linger { left: LINGER_BYTES, until: now + LINGER_TOTAL_MS, shut: false });
                self.timer.deadline = now + LAST_WORDS_MS;
                Ok(())
            }
            Fate::Hijacked { in_use: false } => self.take_back(ctx),
            // This includes a cut answer: those before it may still be on their way, and a close with unread bytes destroys them.
            Fate::Keep | Fate::Close | Fate::CloseWithFin | Fate::Cut => {
                let reason = if fate == Fate::Cut { CloseReason::Cut } else { CloseReason::Done };
                ctx.input.forget();
                if self.is_silent(ctx) {
                    return Err(Next::Close(reason));
                }
                let stream = &self.link.stream;
                let shut = if fate == Fate::Cut { stream.cut_write() } else { stream.shutdown_write() };
                if shut.is_err() {
                    return Err(Next::Close(CloseReason::ClientGone));
                }
                let now = ctx.clock.ms();
                self.phase = Phase::Linger(Linger { left: LINGER_BYTES, until: now + LINGER_TOTAL_MS, shut: true });
                // A client that has sent nothing more may keep an idle connection open, and the worker would wait for it.
                self.timer.deadline = now + if ctx.draining && !self.io.unread { DRAIN_IDLE_MS } else { LINGER_MS };
                Ok(())
            }
            Fate::Reset => {
                // Without it the close would look like the end of the body. If it fails, an orderly close is the best that
                // remains.
                let _ = self.link.stream.set_linger0();
                Err(Next::Close(CloseReason::Cut))
            }
        }
    }

    /// Whether a plain close ends the connection in order: all was read, and nothing will follow. Bytes that come after a close
    /// reset the connection, and the answer that is on its way is lost (RFC 9112 section 9.6).
    fn is_silent(&mut self, ctx: &mut ThreadCtx) -> bool {
        if self.io.unread {
            return false;
        }
        if self.has_read_all() {
            return self.io.is_last;
        }
        // A connection that was adopted with its request has not been read in this worker.
        match self.read(ctx.input.space()) {
            Ok(0) => self.io.is_last,
            Ok(_) => false,
            Err(_) => true,
        }
    }

    /// Ends a socket after the application has finished with it.
    pub(super) fn take_back(&mut self, ctx: &mut ThreadCtx) -> Flow {
        // If it stays blocking, it must not be used any more.
        if self.link.stream.set_nonblocking().is_err() {
            return Err(Next::Close(CloseReason::Cut));
        }
        // Its edges were not reported meanwhile.
        (self.io.unread, self.io.readable) = (true, true);
        self.end(Fate::Close, ctx)
    }

    /// Throws away the bytes that the client still sends.
    pub(super) fn linger(&mut self, Linger { left, until, shut }: Linger, ctx: &mut ThreadCtx) -> Flow {
        if !shut {
            return if self.io.ended { self.take_back(ctx) } else { Err(Next::Wait) };
        }
        if !self.io.readable {
            return Err(Next::Wait);
        }
        match self.read(ctx.input.space()) {
            Ok(0) => Err(Next::Wait),
            Ok(count) => {
                let left = u32::try_from(count).ok().and_then(|count| left.checked_sub(count)).filter(|left| *left > 0);
                let Some(left) = left else { return Err(Next::Close(CloseReason::Lingered)) };
                self.phase = Phase::Linger(Linger { left, until, shut });
                self.timer.deadline = until.min(ctx.clock.ms() + LINGER_MS);
                Ok(())
            }
            Err(_) => Err(Next::Close(CloseReason::Lingered)),
        }
    }

    /// Tells the client that the end is meant, where the protocol has words for that, unless something of an answer is missing or
    /// nothing reaches it.
    pub(in crate::worker) fn say_end(&self, reason: CloseReason) {
        let is_meant = match reason {
            CloseReason::Done | CloseReason::Idle | CloseReason::ClientClosed | CloseReason::Lingered => true,
            // It may still read: nothing is known but that it sends nothing more. No answer is begun.
            CloseReason::ClientGone => matches!(self.phase, Phase::Head | Phase::Body(_)),
            CloseReason::Ended | CloseReason::Cut | CloseReason::Preface | CloseReason::Handshake | CloseReason::WriteStall => {
                false
            }
        };
        let is_between = matches!(self.phase, Phase::Head | Phase::Body(_) | Phase::Closing(_));
        if is_meant && is_between && !self.has_unsent() {
            self.link.stream.say_end();
        }
    }

    /// Takes the stream out of a connection that ends in the middle of its answer.
    pub fn take_answer(&mut self) -> Option<Box<Streaming>> {
        match std::mem::replace(&mut self.phase, Phase::Closing(Fate::Cut)) {
            Phase::Streaming(answer) => Some(answer),
            Phase::Preface
            | Phase::Handshake
            | Phase::Head
            | Phase::Body(_)
            | Phase::Waiting(_)
            | Phase::Serving(_)
            | Phase::File(_)
            | Phase::Closing(_)
            | Phase::Linger(_) => None,
        }
    }
}
