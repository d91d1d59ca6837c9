//! The slab of connections: how one is added, found, driven when its deadline has passed, and removed, and what the loop does for
//! it.
//!
//! Sockets are registered once, edge-triggered, for reading and writing, and only when they have blocked: a short request on a
//! new connection is read, answered and closed without the poll ever knowing of it.

use std::io;
use std::sync::Arc;

use crate::net::stream::PeerAddr;
use crate::protocol::Protocol;
use crate::worker::accept::Accepted;
use crate::worker::app::Peer;
use crate::worker::connection::{CloseReason, Connection, Next, Token};
use crate::worker::ctx::ThreadCtx;
use crate::worker::link::Link;
use crate::worker::overload::Refusal;
use crate::worker::preface::Gate;
use crate::worker::trust;
use crate::worker::wire::Wire;
use crate::worker::work::Work;

use super::EventLoop;

/// Keeps tokens of connections out of the range of the others.
const GENERATION_MAX: u32 = 0x7fff_ffff;

impl EventLoop {
    /// Reads a new connection at once, since its request is usually there already.
    pub(super) fn open(&mut self, accepted: Accepted, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        let token = self.welcome(accepted, ctx)?;
        self.begin_turn(token, ctx)
    }

    /// Adds a connection that was just accepted; `None`: its peer may not connect, and it is closed.
    #[inline]
    pub(super) fn welcome(&mut self, accepted: Accepted, ctx: &ThreadCtx) -> Option<Token> {
        ctx.slot().count_accepted();
        // Apart, so that the ordinary way is compiled as if there were no other.
        match (&ctx.gate, accepted.protocol) {
            (None, Protocol::Http) if ctx.tls.is_none() => Some(self.insert(accepted, ctx)),
            (None, Protocol::Http) => Some(self.insert_encrypted(accepted, ctx)),
            (Some(gate), Protocol::Http) => self.admit_by(gate, accepted, ctx),
            (_, Protocol::FastCgi | Protocol::Scgi | Protocol::Uwsgi | Protocol::Ajp) => self.admit_gateway(accepted, ctx),
        }
    }

    /// A gateway names the client with each request: no preface of the PROXY protocol precedes them.
    #[inline(never)]
    fn admit_gateway(&mut self, accepted: Accepted, ctx: &ThreadCtx) -> Option<Token> {
        if ctx.gateways.admits(&accepted.peer) {
            return Some(self.insert(accepted, ctx));
        }
        ctx.gateways.note_stranger(&self.peer(accepted.peer), ctx.clock.ms(), &ctx.log);
        None
    }

    /// Adds a connection that may be of an encrypted listener.
    #[inline(never)]
    fn insert_encrypted(&mut self, accepted: Accepted, ctx: &ThreadCtx) -> Token {
        let token = self.insert(accepted, ctx);
        self.connections[token.key()].await_handshake(ctx);
        token
    }

    #[cold]
    #[inline(never)]
    fn admit_by(&mut self, gate: &Gate, accepted: Accepted, ctx: &ThreadCtx) -> Option<Token> {
        if !gate.admits(&accepted.peer) {
            self.note_stranger(gate, accepted.peer, ctx);
            return None;
        }
        let token = self.insert(accepted, ctx);
        self.connections[token.key()].await_preface();
        Some(token)
    }

    /// Notes that a connection is closed because its peer may not connect.
    pub(super) fn note_stranger(&self, gate: &Gate, peer: PeerAddr, ctx: &ThreadCtx) {
        gate.note_closed(&self.peer(peer), &"it is not in --proxy-allow-from", ctx.clock.ms(), &ctx.log);
    }

    /// Drives this connection, unless it is gone.
    pub(super) fn begin_turn(&mut self, token: Token, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        ctx.send.set_crowded(self.is_crowded());
        let next = self.find(token)?.begin_turn(ctx);
        self.follow(token, next, ctx)
    }

    /// Adds a new connection.
    pub(super) fn insert(&mut self, accepted: Accepted, ctx: &ThreadCtx) -> Token {
        let Accepted { stream, peer, listener, protocol } = accepted;
        self.generation = self.generation % GENERATION_MAX + 1;
        let link = Link::new(stream, self.peer(peer), listener, ctx.bodies.disk.clone());
        let entry = self.connections.vacant_entry();
        let token = Token::new(entry.key() as u32, self.generation);
        let connection =
            entry.insert(Connection::new(token, link, Wire::new(protocol), ctx.clock.ms() + ctx.rules.header_timeout));
        connection.arrival.waited = self.acceptor.is_late();
        // This comes before its first byte is parsed, so that the master knows whether a client was there when the worker dies.
        ctx.slot().set_connections(self.connections.len() as u32);
        token
    }

    pub(super) fn peer(&self, peer: PeerAddr) -> Peer {
        let (addr, port) = peer.text();
        Peer { addr, port, trusted: trust::is_trusted(&self.trusted, &peer), proxy: None }
    }

    /// The connection of a token, unless it is gone.
    pub(in crate::worker) fn find(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections.get_mut(token.key()).filter(|connection| connection.token == token)
    }

    /// Handles a timer entry that has fired; it may be older than the connection's deadline, or than the connection.
    pub(super) fn expire(&mut self, token: Token, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        let now = ctx.clock.ms();
        let connection = self.find(token)?;
        let due = connection.timer.fire(now)?;
        if due && let Some(thread) = connection.desk {
            self.clear_desk(thread, token, ctx);
        }
        let connection = self.find(token)?;
        let waited = due && connection.is_waiting();
        let next = if due { connection.expire(ctx) } else { Next::Wait };
        if waited {
            self.overload.count(Refusal::Waited);
        }
        self.follow(token, next, ctx)
    }

    /// Logs that the poll does not take a connection: there are too many (fs.epoll.max_user_watches), or it is there already, since
    /// somebody who has it as well has handed it over before.
    #[cold]
    fn note_unwatched(&self, error: &io::Error, ctx: &ThreadCtx) {
        match self.unwatched.count(ctx.clock.ms()) {
            None => {}
            Some(1) => ctx.log.error(format_args!("cannot watch a connection: {error}; it is closed")),
            Some(count) => ctx.log.error(format_args!("cannot watch {count} connections: {error}; they are closed")),
        }
    }

    /// Does what a connection asked for in its last step; returns work that only the application can do.
    pub(in crate::worker) fn follow(&mut self, token: Token, next: Next, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        match next {
            Next::Wait => {
                let connection = &mut self.connections[token.key()];
                if !connection.io.registered && (!connection.is_serving() || connection.has_unsent()) {
                    connection.io.registered = true;
                    if let Err(error) = connection.link.stream.watch(self.poll.registry(), token.into()) {
                        self.note_unwatched(&error, ctx);
                        return self.close(token, CloseReason::Cut, ctx);
                    }
                }
                self.arm(token.key());
                None
            }
            Next::Yield => {
                self.runnable.push_back(token);
                None
            }
            Next::Work(work) => {
                if matches!(work, Work::Call) {
                    if ctx.job.behind && (ctx.job.framing.upgrade || ctx.send.writes) {
                        self.clear_way(token, ctx)?;
                    }
                    if ctx.job.framing.upgrade {
                        self.unwatch(token);
                    }
                }
                Some((token, work))
            }
            Next::Abandon(answer) => {
                self.runnable.push_back(token);
                self.arm(token.key());
                Some((Token::NONE, Work::Drop(answer)))
            }
            Next::Close(reason) => self.close(token, reason, ctx),
        }
    }

    /// Makes sure that a timer entry fires not later than the connection's deadline needs it.
    pub(super) fn arm(&mut self, key: usize) {
        let connection = &mut self.connections[key];
        let token = connection.token;
        connection.timer.arm(|deadline| self.timers.arm(token, deadline));
    }

    /// Ends a connection; a stream that it still had is dropped by the application's side.
    pub(super) fn close(&mut self, token: Token, reason: CloseReason, ctx: &mut ThreadCtx) -> Option<(Token, Work)> {
        if self.connections[token.key()].held {
            // The requests that the client sent before it closed its end.
            self.send_held(ctx);
            self.find(token)?;
        }
        if self.connections[token.key()].link.is_hijacked() {
            self.take_away(token);
        }
        let mut connection = self.connections.remove(token.key());
        connection.say_end(reason);
        connection.sever(ctx);
        if reason == CloseReason::Ended {
            self.close_later(connection.link);
            return None;
        }
        self.acceptor.freed();
        connection.forget(ctx);
        let answer = connection.take_answer()?;
        ctx.log.debug(format_args!("the answer to {} is not complete: {reason}", answer.line()));
        Some((Token::NONE, Work::Drop(answer)))
    }

    /// Ends a connection whose client has its end already: the descriptor is closed with those of others.
    fn close_later(&mut self, link: Arc<Link>) {
        let Some(Link { stream, .. }) = Arc::into_inner(link) else { return };
        if self.ended.add(stream.into()) {
            self.close_ended();
        }
    }

    /// Closes the descriptors that wait for it.
    #[inline]
    pub(super) fn close_ended(&mut self) {
        if self.ended.close() {
            self.acceptor.freed();
        }
    }
}
