//! The hand-off's taker: connections come out of the queue and go on here.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::handoff::{HandoffKind, HandoffMessage};
use crate::net::stream::{PeerAddr, Stream};
use crate::sys::time::NS_PER_MS;

use super::super::{EventLoop, ThreadCtx, Token, Work, borrow};
use crate::worker::DRAIN_IDLE_MS;
use crate::worker::accept::Accepted;
use crate::worker::descriptors::is_replaced;
use crate::worker::kept::Leased;
use crate::worker::overload::Refusal;

/// Connections taken from the queue at once; the next iteration takes more.
const BATCH: usize = 16;

/// How long a worker with more than its share leaves idle connections in the queue to others, in milliseconds; they have been
/// woken.
const ASIDE_MS: u64 = 2;

impl EventLoop {
    /// Takes back a request that has waited in the queue for too long, if nobody else is there to take it.
    pub(in crate::worker::event_loop) fn reclaim(&mut self, ctx: &mut ThreadCtx) {
        let now = ctx.clock.ms();
        if self.handoff.overdue.is_some_and(|at| at <= now) {
            self.handoff.overdue = None;
            if self.is_full() {
                self.adopt(ctx);
            }
        }
    }

    /// Takes connections from the queue: one request, or some that are idle.
    pub(in crate::worker::event_loop) fn adopt(&mut self, ctx: &mut ThreadCtx) {
        let mut packet = std::mem::take(&mut self.handoff.packet);
        let mut has_keys = false;
        for _ in 0..BATCH {
            if self.connections.len() >= self.handoff.room {
                break;
            }
            // A connection that is taken without one is lost (unix(7)).
            if !self.acceptor.has_descriptor(ctx.clock.ms(), borrow(&self.poll), &ctx.log) {
                break;
            }
            match self.handoff.queue.receive(&mut packet) {
                Ok(Some((message, descriptor))) => {
                    let kind = message.kind;
                    has_keys |= !message.session.0.is_empty();
                    self.take_in(message, descriptor, ctx);
                    if kind == HandoffKind::Request {
                        break;
                    }
                    if self.acceptor.is_above_share(self.connections.len()) {
                        self.handoff.aside = Some(ctx.clock.ms() + ASIDE_MS);
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) if is_replaced(&error) => {
                    self.handoff.failure = Some(error);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    if !std::mem::replace(&mut self.handoff.ended, true) {
                        ctx.log.error(format_args!(
                            "the hand-off queue was shut down, by the application as a rule; this worker keeps its own \
                             until it is replaced (SIGHUP)"
                        ));
                    }
                    self.handoff.leave(false);
                    break;
                }
                Err(error) => self.handoff.lose(&error, ctx),
            }
        }
        if has_keys {
            packet.wipe();
        }
        self.handoff.packet = packet;
        self.handoff.adopted.reverse();
    }

    fn take_in(&mut self, message: HandoffMessage<'_>, descriptor: OwnedFd, ctx: &mut ThreadCtx) {
        ctx.slot().count_adopted();
        let listener = usize::from(message.listener);
        let Some(&protocol) = self.handoff.protocols.get(listener) else {
            return self.handoff.lose(&"it came from a socket that is not listened on", ctx);
        };
        let peer = message.peer.map_or(PeerAddr::Unix, |(ip, port)| PeerAddr::Tcp(SocketAddr::new(ip, port)));
        let mut stream = match Stream::adopt(descriptor, peer) {
            Ok(stream) => stream,
            Err(error) => return self.handoff.lose(&error, ctx),
        };
        let mut is_let_in = true;
        if !message.session.0.is_empty() {
            let tls = ctx.tls.as_ref().filter(|tls| message.kind != HandoffKind::Preface && tls.covers(listener));
            let Some(tls) = tls else {
                return self.handoff.lose(&"it has a TLS session where there is none", ctx);
            };
            is_let_in = match stream.unpack(&message.session.0, &tls.server().rules) {
                Ok(is_let_in) => is_let_in,
                Err(error) => return self.handoff.lose(&error, ctx),
            };
            if !is_let_in {
                self.handoff.note_changed(ctx);
                if message.kind != HandoffKind::Request {
                    return stream.say_end();
                }
            }
        }
        let is_encrypted = stream.is_encrypted();
        let preface = match &ctx.gate {
            Some(gate) if message.kind == HandoffKind::Preface => {
                if !gate.admits(&peer) {
                    return self.note_stranger(gate, peer, ctx);
                }
                let Some(bytes) = Leased::copy(&message.input, &ctx.memory) else {
                    return self.handoff.lose(&"there is no memory for its first bytes", ctx);
                };
                Some(bytes)
            }
            // Without a gate nobody is asked for a preface.
            Some(_) | None => None,
        };
        if protocol.is_gateway() && !ctx.gateways.admits(&peer) {
            return ctx.gateways.note_stranger(&self.peer(peer), ctx.clock.ms(), &ctx.log);
        }
        let token = self.insert(Accepted { stream, peer, listener, protocol }, ctx);
        let hurry = self.is_draining() && message.kind != HandoffKind::Request;
        let connection = &mut self.connections[token.key()];
        if let Some((ip, port)) = message.client {
            connection.name_client(SocketAddr::new(ip, port));
        }
        connection.adopt(message, ctx.clock.ns(), &ctx.rules, &ctx.memory);
        if ctx.tls.is_some() && !is_encrypted {
            connection.await_handshake(ctx);
        }
        if let Some(bytes) = preface {
            connection.await_rest_of_preface(bytes);
        }
        if !is_let_in {
            let next = connection.refuse_by_rules(ctx);
            let more = self.follow(token, next, ctx);
            debug_assert!(more.is_none(), "a refusal needs no application");
            return;
        }
        if hurry {
            connection.hurry(ctx.clock.ms() + DRAIN_IDLE_MS);
        }
        self.handoff.adopted.push(token);
    }

    /// Drives an adopted connection.
    #[inline(never)]
    pub(in crate::worker::event_loop) fn take_up(&mut self, token: Token, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        let (token, work) = self.begin_turn(token, ctx)?;
        let waited = ctx.job.queued / NS_PER_MS;
        if !matches!(work, Work::Call) || waited < ctx.rules.queue_timeout {
            return Some((token, work));
        }
        // Those after it in the queue are about as old.
        self.handoff.overdue = Some(ctx.clock.ms());
        self.refuse(token, Refusal::Waited, ctx);
        None
    }

    /// Whether nothing is left in the queue, for a worker that may be the last: takes out the connections that are there.
    pub(in crate::worker::event_loop) fn is_queue_empty(&mut self, ctx: &mut ThreadCtx) -> bool {
        if self.handoff.hands_over {
            return true;
        }
        self.adopt(ctx);
        self.runnable.extend(self.handoff.adopted.drain(..).rev());
        self.runnable.is_empty()
    }
}
