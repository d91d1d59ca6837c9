//! One connection and its state machine.
//!
//! ```text
//! Preface ── names the client ──▶ Handshake | Head        (from a proxy only)
//! Handshake ── is over ──▶ Head        (on an encrypted listener only)
//!
//! Head ── complete, nothing more to come ─────────▶ Serving ── whole answer rendered ──▶ Head | Closing
//!   │ └── complete, body to come ──▶ Body ── done ──▶ │ ▲ └──── blocks follow ──▶ Streaming ──▶ Head | Closing
//!   │                                │                │ └── next block ───────────┘
//!   └── refused ──▶ Closing ◀────────┘                └── (the application runs, the connection is left alone)
//!                      └──▶ Linger ──▶ gone
//!
//! Head ── for a static file ──▶ (whole answer rendered) | File ──▶ Head | Closing
//! ```
//!
//! Whatever the phase, unsent output goes first. [`Connection::drive`] runs until the socket blocks, the application is needed,
//! the connection ends, or its budget is used up; it returns which, and never calls up.

use std::sync::Arc;

use crate::http::terms::Terms;

use super::app::Fate;
use super::ctx::ThreadCtx;
use super::job::QueuedRequest;
use super::kept::Kept;
use super::streaming::Streaming;
use crate::worker::body::upload::Upload;
use crate::worker::link::Link;
use crate::worker::send::output::Output;
use crate::worker::threads::thread_id::ThreadId;
use crate::worker::wire::Wire;
use crate::worker::work::Work;

mod abort;
mod coalesce;
mod ending;
mod file_body;
mod files;
mod fin;
mod handoff;
mod handshake;
mod keeping;
mod late;
mod outbox;
mod preface;
mod reading;
mod refusal;
mod request;
mod sending;
mod serving;
mod streaming;
mod timer;
mod uploading;
mod waiting;

use ending::Linger;
use file_body::FileBody;
use handoff::Arrival;
use reading::Io;
use timer::Timer;

pub use super::token::Token;
pub use ending::CloseReason;
pub use reading::Edge;
pub(super) use refusal::CLIENT_CLOSED_REQUEST;

/// Steps that one connection may take before others proceed: each is at most a read, a call or a send.
const BUDGET: u8 = 48;

/// The next action of the loop for the connection.
#[derive(Debug)]
pub enum Next {
    /// Wait for its socket or its deadline.
    Wait,
    /// Let others proceed, then drive it again.
    Yield,
    /// Let the application work, then give the connection the result.
    Work(Work),
    /// Drop this stream, whose request has ended without it, then drive the connection again.
    Abandon(Box<Streaming>),
    /// Drop it.
    Close(CloseReason),
}

/// How a step ended: the next one follows, or the drive ends.
pub(super) type Flow = Result<(), Next>;

/// The phase of a connection.
#[derive(Debug)]
pub(super) enum Phase {
    /// Before the first request: a proxy is to name the client.
    Preface,
    /// Before the first request: TLS begins.
    Handshake,
    /// Idle, or in the middle of a head.
    Head,
    /// In the middle of a body.
    Body(Box<Upload>),
    /// Its request is complete and waits for a permit.
    Waiting(Box<QueuedRequest>),
    /// The application has its request or its stream.
    Serving(Terms),
    /// The application's answer has more blocks.
    Streaming(Box<Streaming>),
    /// The rest of a static file is to be sent.
    File(Box<FileBody>),
    /// The output is the last one.
    Closing(Fate),
    /// Its last answer is sent. Later bytes are thrown away, or for a moment belong to the application if it had taken the socket
    /// over.
    Linger(Linger),
}

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its token.
    pub token: Token,
    /// Its socket and client.
    pub link: Arc<Link>,
    pub(super) wire: Wire,
    pub(super) phase: Phase,
    /// Bytes that were read and not used, while they are not in the thread context. In a box: most connections keep nothing.
    pub(super) kept: Option<Box<Kept>>,
    /// Bytes that the socket did not take.
    pub(super) output: Option<Box<Output>>,
    /// What is known of the socket.
    pub io: Io,
    /// Whether bytes of it are in the outbox.
    pub(super) held: bool,
    /// Steps left of its budget.
    pub(super) budget: u8,
    /// How its next request has come to its turn.
    pub(super) arrival: Arrival,
    /// Whether it has a place in the loop's queue for permits. It keeps the place when its request is refused meanwhile, so its
    /// next request may be at a desk at the same time.
    pub queued: bool,
    /// The thread at whose desk its request is, as far as the loop knows.
    pub desk: Option<ThreadId>,
    /// Its deadline and its entry in the loop's timers.
    pub timer: Timer,
}

impl Connection {
    /// A connection that was just accepted, whose requests come so.
    pub fn new(token: Token, link: Link, wire: Wire, deadline: u64) -> Self {
        Self {
            token,
            link: Arc::new(link),
            wire,
            phase: Phase::Head,
            kept: None,
            output: None,
            io: Io::new(),
            held: false,
            budget: BUDGET,
            arrival: Arrival::default(),
            queued: false,
            desk: None,
            timer: Timer::new(deadline),
        }
    }

    /// Whether it waits for a request of which nothing has come.
    pub fn is_idle(&self) -> bool {
        let waits = match self.phase {
            Phase::Preface | Phase::Handshake => true,
            Phase::Head => !self.link.stream.has_part(),
            _ => false,
        };
        waits && self.kept.is_none() && !self.has_unsent()
    }

    /// Whether it waits for a request, of which a part may have come.
    pub fn is_between_requests(&self) -> bool {
        let waits = matches!(self.phase, Phase::Preface | Phase::Handshake | Phase::Head);
        waits && self.kept.as_ref().is_none_or(|kept| kept.is_partial()) && !self.has_unsent()
    }

    /// Whether the application has its request or its stream.
    pub fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving(_))
    }

    /// Whether a part of an answer is still to be sent.
    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Streaming(_) | Phase::File(_)) || self.held || self.has_unsent()
    }

    /// Whether its handshake has begun and is not over.
    pub fn shakes_hands(&self) -> bool {
        matches!(self.phase, Phase::Handshake) && !self.is_untouched()
    }

    /// Shortens the wait of an idle connection, when the worker leaves.
    pub fn hurry(&mut self, deadline: u64) {
        self.timer.deadline = self.timer.deadline.min(deadline);
    }

    /// Drives it with a new budget.
    pub fn begin_turn(&mut self, ctx: &mut ThreadCtx) -> Next {
        self.renew_turn(ctx);
        self.drive(ctx)
    }

    /// Takes its bytes to the thread context, if they can be used now.
    pub(super) fn renew_turn(&mut self, ctx: &mut ThreadCtx) {
        self.budget = BUDGET;
        ctx.input.forget();
        if matches!(self.phase, Phase::Head) {
            self.take_kept(ctx);
        }
    }

    /// Drives it until the socket blocks, the application is needed, the connection ends or its budget is used up.
    #[inline]
    pub fn drive(&mut self, ctx: &mut ThreadCtx) -> Next {
        loop {
            if let Err(next) = self.advance(ctx) {
                return next;
            }
        }
    }

    /// The next step, and the end of the drive behind the last one. Most drives have one step: in the loop itself the compiler would
    /// prepare for many.
    #[inline(never)]
    fn advance(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if self.budget == 0 {
            // Answers that are rendered are sent before others proceed.
            let next = self.send_all(ctx).err().unwrap_or(Next::Yield);
            return Err(self.leave(next, ctx));
        }
        self.budget -= 1;
        match self.step(ctx) {
            Ok(()) => Ok(()),
            Err(next) => Err(self.leave(next, ctx)),
        }
    }

    /// Handles a deadline that has passed.
    pub fn expire(&mut self, ctx: &mut ThreadCtx) -> Next {
        match &self.phase {
            Phase::Serving(_) => {
                self.timer.deadline = u64::MAX;
                Next::Wait
            }
            Phase::Streaming(_) | Phase::File(_) | Phase::Closing(_) => Next::Close(CloseReason::WriteStall),
            Phase::Head | Phase::Body(_) if self.has_unsent() => Next::Close(CloseReason::WriteStall),
            Phase::Preface => {
                self.miss_preface("did not come in time", ctx);
                Next::Close(CloseReason::Idle)
            }
            Phase::Handshake => {
                self.miss_handshake("it did not end in time", ctx);
                Next::Close(CloseReason::Idle)
            }
            Phase::Head if self.kept.is_none() && !self.link.stream.has_part() => Next::Close(CloseReason::Idle),
            Phase::Linger(Linger { shut: false, .. }) => match self.take_back(ctx) {
                Ok(()) => self.begin_turn(ctx),
                Err(next) => next,
            },
            Phase::Linger(_) => Next::Close(CloseReason::Lingered),
            Phase::Head | Phase::Body(_) | Phase::Waiting(_) => {
                self.time_out(ctx);
                self.kept = None;
                self.begin_turn(ctx)
            }
        }
    }

    /// Ends the drive.
    #[inline]
    fn leave(&mut self, next: Next, ctx: &mut ThreadCtx) -> Next {
        // A call is quick as a rule: the input after its request stays in the thread context meanwhile.
        if !matches!(next, Next::Work(Work::Call)) {
            self.stow(ctx);
        }
        if matches!(next, Next::Close(_)) {
            // Answers that were rendered for a client that is gone.
            ctx.out.clear();
        }
        debug_assert!(ctx.out.is_empty(), "all that was rendered is sent, kept with the connection or held in the outbox");
        next
    }

    #[inline(always)] // each request comes through the one caller, several times
    fn step(&mut self, ctx: &mut ThreadCtx) -> Flow {
        if self.held && self.sends_now() {
            self.recall(ctx)?;
        }
        self.send_waiting(ctx)?;
        match &self.phase {
            Phase::Head | Phase::Body(_) => {
                self.pass_on(ctx)?;
                // Bytes that were read are used at once, so a drive never ends with a piece of a body in hand.
                if ctx.input.has_rest() || self.read_more(ctx)? { self.consume(ctx) } else { Ok(()) }
            }
            Phase::Preface | Phase::Handshake => self.read_first_bytes(ctx),
            // A place in the queue is only for connections that still exist.
            Phase::Waiting(_) if self.io.ended && self.link.is_reset() => Err(Next::Close(CloseReason::ClientGone)),
            Phase::Waiting(_) | Phase::Serving(_) => Err(Next::Wait),
            Phase::Streaming(_) => self.go_on_answering(ctx),
            Phase::File(_) => self.go_on_with_file(ctx),
            &Phase::Closing(fate) => {
                if fate == Fate::CloseWithFin {
                    self.flush_last(ctx)?;
                }
                self.flush(ctx)?;
                self.end(fate, ctx)
            }
            &Phase::Linger(linger) => self.linger(linger, ctx),
        }
    }
}
