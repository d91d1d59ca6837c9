//! The start of a connection from a proxy: the preface that names the client.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::protocol::proxy;
use crate::worker::ctx::ThreadCtx;
use crate::worker::kept::{Kept, Leased};

use super::{CloseReason, Connection, Flow, Next, Phase};

impl Connection {
    /// The first bytes are to be a preface.
    pub fn await_preface(&mut self) {
        self.phase = Phase::Preface;
    }

    /// The bytes after these are to be the rest of a preface: another worker has read these.
    pub fn await_rest_of_preface(&mut self, bytes: Leased) {
        self.phase = Phase::Preface;
        self.kept = (!bytes.is_empty()).then(|| Box::new(Kept::Partial(bytes)));
    }

    /// Goes on with what comes before the first request.
    #[inline(never)]
    pub(super) fn read_first_bytes(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if matches!(self.phase, Phase::Preface) { self.read_preface(ctx) } else { self.go_on_with_handshake(ctx) }
    }

    /// Reads the preface, or more of it.
    fn read_preface(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if ctx.input.has_rest() || self.read_more(ctx)? { self.take_preface(ctx) } else { Ok(()) }
    }

    /// Uses the thread's input for the preface; a request may follow it.
    fn take_preface(&mut self, ctx: &mut ThreadCtx) -> Flow {
        let Some(gate) = &ctx.gate else { unreachable!("there is no such phase without a gate") };
        let mut bytes = match self.kept.take().map(|kept| *kept) {
            Some(Kept::Partial(bytes)) => bytes,
            _ => Leased::default(),
        };
        let (before, rest) = (bytes.len(), ctx.input.rest());
        // A preface that comes whole needs no memory, and neither does what follows it: only its own bytes are copied.
        let mut verdict = if before == 0 { gate.read(rest) } else { Ok(None) };
        while matches!(verdict, Ok(None)) && bytes.len() - before < rest.len() {
            let more = &rest[bytes.len() - before..];
            if !bytes.push(&more[..more.len().min(proxy::left(&bytes))], &ctx.memory) {
                return self.close_preface(&"has no room in the memory for unfinished requests", ctx);
            }
            verdict = gate.read(&bytes);
        }
        match verdict {
            Ok(Some(preface)) => {
                ctx.input.used(preface.len - before);
                if let Some(client) = preface.client {
                    self.name_client(client);
                }
                self.phase = self.first_phase(ctx);
                self.timer.deadline = ctx.clock.ms() + ctx.rules.header_timeout;
                Ok(())
            }
            Ok(None) => {
                self.kept = Some(Box::new(Kept::Partial(bytes)));
                ctx.input.forget();
                Ok(())
            }
            Err(broken) => self.close_preface(&broken, ctx),
        }
    }

    /// Its peer is a proxy that has named its client. No request of it has begun.
    pub fn name_client(&mut self, client: SocketAddr) {
        let link = Arc::get_mut(&mut self.link).expect("nothing else has its ends before its first request");
        link.name_client(client);
    }

    /// Closes the connection without an answer: a proxy would take it for one to its client.
    fn close_preface(&mut self, why: &dyn fmt::Display, ctx: &mut ThreadCtx) -> Flow {
        ctx.input.forget();
        self.note_preface(why, ctx);
        Err(Next::Close(CloseReason::Preface))
    }

    /// Ends a connection whose preface is not complete. One that has not begun is not logged, as an idle connection is not.
    pub(super) fn miss_preface(&self, why: &str, ctx: &ThreadCtx) {
        if self.kept.is_some() {
            self.note_preface(&why, ctx);
        }
    }

    fn note_preface(&self, why: &dyn fmt::Display, ctx: &ThreadCtx) {
        if let Some(gate) = &ctx.gate {
            let why = format_args!("the PROXY protocol preface {why}");
            gate.note_closed(&self.link.peer, &why, ctx.clock.ms(), &ctx.log);
        }
    }
}
