//! The possessions of the thread that serves: the application, the scratch buffers that every connection shares, the clock, the
//! logs.
//!
//! A connection that waits holds no buffer of its own: input is read into the thread's buffer, answers are rendered into the
//! thread's buffer, and only unfinished data is copied to the connection.

use std::mem::take;
use std::sync::Arc;

use crate::config::Settings;
use crate::http::date;
use crate::http::head::HeadView;
use crate::http::header_cache::HeaderCache;
use crate::log::access::{Format, Record};
use crate::log::error::Log;
use crate::log::sink::Sink;
use crate::protocol::variables::cache::VariableCache;
use crate::scoreboard::{Call, Scoreboard, Slot};
use crate::sys::signals::WithoutSigpipe;

use super::app::App;
use super::clock::Clock;
use super::files::FileServer;
use super::gateway::Gateways;
use super::job::{Job, QueuedRequest};
use super::kept::InputBudget;
use super::link::Link;
use super::preface::Gate;
use super::read_buffer::{READ_SIZE, ReadBuffer};
use super::registrar::Registrar;
use super::rules::Rules;
use super::tls::Terminator;
use crate::worker::body::spool::BodyBudget;
use crate::worker::deadline::alarm::Alarms;
use crate::worker::send::file_pace::FilePace;
use crate::worker::send::policy::SendPolicy;
use crate::worker::threads::precedence::Passage;
use crate::worker::threads::thread_id::ThreadId;
use journal::Journal;

mod coalesce;
pub mod files;
mod fin;
pub mod journal;
mod late;
mod refusal;
mod serve;
mod signals;
mod streaming;

/// Memory that a buffer of the thread context keeps between iterations, in bytes: enough for pipelined small answers.
const KEEP_MAX: usize = 256 * 1024;

/// The serving thread's belongings.
pub struct ThreadCtx {
    /// The application.
    pub app: Box<dyn App>,
    /// The buffer for input.
    pub input: ReadBuffer,
    /// Header blocks that this thread has seen.
    pub(super) blocks: HeaderCache,
    /// Variables of gateways that it has seen.
    pub(super) variables: VariableCache,
    /// The buffer for rendered answers.
    pub out: Vec<u8>,
    /// The answers that wait for others, while this thread has the loop.
    pub send: SendPolicy,
    /// Memory for the blocks of the stream that is asked.
    pub(super) coalesced: Vec<u8>,
    /// The request in hand; heads are parsed to it.
    pub job: Job,
    /// The clock.
    pub clock: Clock,
    /// The rendered Date value.
    pub date: date::Cache,
    /// Timeouts and limits.
    pub rules: Rules,
    /// The worker's memory for bodies, shared by its thread contexts.
    pub bodies: BodyBudget,
    /// The worker's memory for input that connections keep, shared by its thread contexts.
    pub memory: InputBudget,
    /// Where calls of the worker wait for the loop to send, shared by its thread contexts.
    pub passage: Arc<Passage>,
    /// The rules for a preface before the first request, shared by the worker's thread contexts; `None`: connections have none.
    pub gate: Option<Gate>,
    /// The rules for gateways, shared likewise.
    pub gateways: Gateways,
    /// TLS of encrypted listeners, shared by the worker's thread contexts; `None`: there are none.
    pub tls: Option<Terminator>,
    /// The static files; `None`: there are none.
    pub files: Option<Box<FileServer>>,
    /// How much of a file one call may send.
    pub(super) file_pace: FilePace,
    /// Keeps SIGPIPE away from calls that send files, until the application runs here again; `None`: nothing does.
    pub(super) sigpipe: Option<WithoutSigpipe>,
    /// What is found out about who has sent a request; `None`: nothing.
    pub registrar: Option<Box<Registrar>>,
    /// The error log.
    pub log: Log,
    /// The access log.
    pub journal: Option<Journal>,
    /// Whether the worker is leaving: no connection is kept after its answer.
    pub draining: bool,
    /// Whether the worker is leaving: connections that it cannot hand over are not kept after their answers.
    pub leaving: bool,
    /// The thread.
    pub thread: ThreadId,
    /// Whether it may call the application.
    pub may_call: bool,
    /// Streams that it has begun and not ended.
    pub streams: u64,
    /// The alarms of all threads.
    pub(super) alarms: Alarms,
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) slot: usize,
}

/// The data from which the contexts of all threads are made.
#[derive(Clone)]
pub struct CtxParts {
    /// Settings of this generation.
    pub settings: Arc<Settings>,
    /// The error log.
    pub log: Log,
    /// The access log and its compiled format.
    pub access: Option<(Arc<Sink>, Arc<Format>)>,
    /// The shared scoreboard.
    pub scoreboard: Arc<Scoreboard>,
    /// The worker's slot of it.
    pub slot: usize,
    /// The worker's memory for bodies.
    pub bodies: BodyBudget,
    /// The alarms of all threads.
    pub alarms: Alarms,
    /// The worker's memory for input that connections keep.
    pub memory: InputBudget,
    /// Where calls of the worker wait for the loop to send.
    pub passage: Arc<Passage>,
    /// The rules for a preface before the first request.
    pub gate: Option<Gate>,
    /// The rules for gateways.
    pub gateways: Gateways,
    /// TLS of encrypted listeners.
    pub tls: Option<Terminator>,
    /// The static files.
    pub files: Option<FileServer>,
}

impl CtxParts {
    /// The thread context of the calling thread.
    pub fn ctx(&self, app: Box<dyn App>, thread: ThreadId) -> ThreadCtx {
        if let Some(interrupter) = app.interrupter() {
            self.alarms[thread.index()].set(interrupter);
        }
        let Self { settings, log, access, scoreboard, slot, bodies, alarms, memory, passage, gate, gateways, tls, files } =
            self.clone();
        ThreadCtx {
            app,
            input: ReadBuffer::new(),
            blocks: HeaderCache::new(thread.index()),
            variables: VariableCache::new(thread.index()),
            out: Vec::with_capacity(READ_SIZE),
            send: SendPolicy::default(),
            coalesced: Vec::new(),
            job: Job::default(),
            clock: Clock::new(),
            date: date::Cache::new(),
            rules: Rules::of(&settings),
            bodies,
            memory,
            passage,
            gate,
            gateways,
            tls,
            files: files.map(Box::new),
            file_pace: FilePace::default(),
            sigpipe: None,
            registrar: Registrar::of(&settings),
            log,
            journal: access.map(|(sink, format)| Journal::new(sink, format)),
            draining: false,
            leaving: false,
            thread,
            may_call: true,
            streams: 0,
            alarms,
            scoreboard,
            slot,
        }
    }
}

impl ThreadCtx {
    /// Requests served in this worker's slot since the start of the server.
    pub fn requests(&self) -> u64 {
        self.scoreboard.requests(self.slot)
    }

    /// This worker's slot of the scoreboard.
    pub fn slot(&self) -> &Slot {
        self.scoreboard.slot(self.slot)
    }

    /// Threads of this worker whose calls have taken their connections over.
    pub fn calls_without_deadline(&self) -> usize {
        self.scoreboard.calls(self.slot).filter(|call| call.has_no_deadline()).count()
    }

    /// The flight recorder's entry of this thread.
    pub(super) fn flight(&self) -> &Call {
        self.scoreboard.call(self.slot, self.thread.index())
    }

    /// Runs a function with the head in hand, which is no part of the thread context meanwhile. Nothing is copied.
    pub(super) fn with_head<T>(&mut self, act: impl FnOnce(&mut Self, HeadView<'_>) -> T) -> T {
        let (head, own, input) = (take(&mut self.job.head), take(&mut self.job.own), take(&mut self.input));
        let bytes = if own.is_empty() { &input.bytes()[self.job.at.clone()] } else { &own };
        let result = act(self, HeadView { head: &head, bytes });
        (self.job.head, self.job.own, self.input) = (head, own, input);
        result
    }

    /// Runs a function with the bytes that are not used, likewise.
    pub(super) fn with_rest<T>(&mut self, act: impl FnOnce(&mut Self, &[u8]) -> T) -> T {
        let input = take(&mut self.input);
        let result = act(self, input.rest());
        self.input = input;
        result
    }

    /// Whether an answer may leave this connection open.
    #[inline]
    pub fn keeps_alive(&self, link: &Link) -> bool {
        self.rules.keep_alive > 0 && !self.draining && (!self.leaving || link.stream.can_travel())
    }

    /// Takes the request in hand, whose head is detached, out of the thread context.
    pub fn pack_job(&mut self) -> Box<QueuedRequest> {
        // One whose connection cannot be handed over ends with its answer.
        let stays = self.leaving && self.job.link.as_ref().is_some_and(|link| !link.stream.can_travel());
        self.job.pack(self.draining || stays)
    }

    /// Whether SIGPIPE is blocked for calls that send files.
    #[inline]
    pub fn blocks_sigpipe(&self) -> bool {
        self.sigpipe.is_some()
    }

    /// Gives SIGPIPE back: code of the application is about to run, or the thread may wait for long.
    #[inline]
    pub fn unblock_sigpipe(&mut self) {
        if self.sigpipe.is_some() {
            self.sigpipe = None;
        }
    }

    /// Whether the access log's format needs heads of answers.
    pub fn wants_response_head(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.format.wants_response_head())
    }

    /// Counts one answer that is not whole when its call returns, and writes its access-log line. `lasted` is its time in
    /// nanoseconds; `None`: the application was not called.
    pub fn record(&mut self, record: Record<'_>, lasted: Option<u64>) {
        let counters = self.flight().counters();
        counters.count_answer(record.status, record.sent);
        if let Some(lasted) = lasted {
            counters.count_duration(lasted);
        }
        if let Some(journal) = &mut self.journal {
            journal.record(record);
        }
    }

    /// Gives the access-log lines of the iteration away, for the time of a call; `lines` is empty.
    #[inline]
    pub(super) fn give_lines(&mut self, lines: &mut Vec<u8>) {
        if let Some(journal) = &mut self.journal
            && !journal.lines.is_empty()
        {
            std::mem::swap(lines, &mut journal.lines);
        }
    }

    /// Takes lines before its own; leaves `lines` empty.
    pub(super) fn take_lines(&mut self, lines: &mut Vec<u8>) {
        if let Some(journal) = &mut self.journal {
            lines.append(&mut journal.lines);
            std::mem::swap(lines, &mut journal.lines);
        }
    }

    /// Ends an iteration of the loop: writes the log lines, gives back memory that one large answer took.
    #[inline]
    pub fn end_iteration(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.flush();
            give_back(&mut journal.lines);
        }
        give_back(&mut self.out);
        give_back(&mut self.coalesced);
    }

    /// Whether lines of a log wait for its reader, or were lost and nobody knows.
    #[inline]
    pub(super) fn is_log_behind(&self) -> bool {
        self.log.is_behind() || self.journal.as_ref().is_some_and(Journal::is_behind)
    }

    /// Lines that the logs of this worker have ever lost.
    pub(super) fn lost_lines(&self) -> u64 {
        self.log.lost_ever() + self.journal.as_ref().map_or(0, Journal::lost_ever)
    }

    /// Writes the lines that wait, as far as there is room.
    #[cold]
    pub(super) fn catch_up_logs(&self) {
        self.log.catch_up();
        self.journal.iter().for_each(Journal::catch_up);
    }

    /// Takes over the bytes that another thread has rendered.
    pub(super) fn take_output(&mut self, out: Vec<u8>) {
        debug_assert!(self.out.is_empty(), "what was rendered for one connection must not meet the next one");
        self.out = out;
    }
}

/// Gives back memory that a buffer has beyond its limit. Its contents stay: bytes that are rendered and not sent belong to a
/// connection, whenever this is called.
#[inline]
fn give_back(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEEP_MAX {
        shrink(buffer);
    }
}

#[cold]
fn shrink(buffer: &mut Vec<u8>) {
    buffer.shrink_to(READ_SIZE);
}
