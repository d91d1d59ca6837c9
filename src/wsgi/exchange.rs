//! The answer to one request as `start_response` and `write` build it, without any Python in it.
//!
//! ```text
//! Closed --open--> Open --start--> Begun --head, write--> Sent --close--> Closed
//!                    ^                |
//!                    +---- refused ---+  (start with exc_info begins again)
//! ```

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use super::draft::Draft;
use crate::http::head::{Span, Version};
use crate::http::response::{self, BodyFraming, Context, Fit, HeadFacts, Refused};
use crate::http::terms::{Dialect, Terms};
use crate::worker::app::{Client, Gone, Outlet};

/// Where `write()` puts its bytes while the application, or its iterable, is called.
///
/// Invariant: both pointers are valid, and used by nobody else, as long as [`Exchange::outlet`] holds them; the outlet is emptied
/// before the call that set them returns.
struct LentOutlet {
    out: NonNull<Vec<u8>>,
    outlet: NonNull<dyn Outlet>,
    thread: ThreadId,
}

/// Bytes around a block: an ordinary head, and the framing of a chunk.
const AROUND: usize = 1024;

/// For so many bytes of a block there is one more: the smallest pieces that a protocol divides it into are some KiB long, with some
/// bytes around each.
const AROUND_PART: usize = 256;

/// The calling thread. It is asked for in each call, and [`thread::current`] would count its references by two atomic operations.
fn here() -> ThreadId {
    thread_local! {
        static HERE: Cell<Option<ThreadId>> = const { Cell::new(None) };
    }
    HERE.get().unwrap_or_else(|| {
        let here = thread::current().id();
        HERE.set(Some(here));
        here
    })
}

/// Why `write()` cannot write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotWrite {
    /// The application has returned, and the caller is not its iterable.
    Returned,
    /// The caller is another thread than the one that runs the application.
    OtherThread,
    /// The client has left.
    Gone,
    /// Output that the client has not read could not be kept; the text says why.
    Lost(String),
    /// There is no memory for the block. Nothing of it is sent, and the answer may continue.
    Memory,
}

/// Why early hints cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotHint {
    /// A field is not fit for them.
    Refused(Refused),
    /// Nothing can be written.
    Write(CannotWrite),
}

/// The state of one answer.
pub struct Exchange {
    open: bool,
    draft: Draft,
    body: Option<BodyFraming>,
    /// Where the head is in the output that it was rendered to, until that is pushed.
    place: Span,
    outlet: Option<LentOutlet>,
    gone: bool,
    /// Why bytes of `write()` are lost, if some are.
    lost: Option<String>,
    excess: u64,
    client: Option<Arc<dyn Client>>,
}

impl Exchange {
    /// A closed exchange.
    pub fn new() -> Self {
        Self {
            open: false,
            draft: Draft::new(),
            body: None,
            place: Span::default(),
            outlet: None,
            gone: false,
            lost: None,
            excess: 0,
            client: None,
        }
    }

    /// Opens it for a request of this client.
    pub fn open(&mut self, terms: Terms, date: &[u8], id: &[u8], client: Arc<dyn Client>) {
        self.client = Some(client);
        self.open = true;
        self.draft.open(terms, date, id);
        self.body = None;
        self.place = Span::default();
        self.outlet = None;
        self.gone = false;
        self.lost = None;
        self.excess = 0;
    }

    /// Closes it: later calls of `start_response` or `write` are refused.
    pub fn close(&mut self) {
        self.open = false;
        self.outlet = None;
        self.client = None;
        self.draft.clear();
    }

    /// The client, while the request lasts.
    pub fn client(&self) -> Option<&dyn Client> {
        self.client.as_deref()
    }

    /// Gives the output to `write()`.
    ///
    /// # Safety
    /// Until [`Exchange::reclaim`] or [`Exchange::close`], both must stay valid and nobody else may use them.
    pub unsafe fn lend(&mut self, out: NonNull<Vec<u8>>, outlet: NonNull<dyn Outlet>) {
        self.outlet = Some(LentOutlet { out, outlet, thread: here() });
    }

    /// Ends [`Exchange::lend`].
    pub fn reclaim(&mut self) {
        self.outlet = None;
    }

    /// Whether a request is being answered.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether `start_response` was called.
    pub fn is_begun(&self) -> bool {
        self.body.is_some() || self.draft.is_begun()
    }

    /// Status and bytes of the body so far; both 0 before `start_response`.
    pub fn begun(&self) -> (u16, u64) {
        let draft = || self.draft.rendered().map_or(0, |(_, facts)| facts.status());
        self.body.as_ref().map_or_else(|| (draft(), 0), |body| (body.status, body.sent()))
    }

    /// Where the head is in the output, as the call or step left it that has rendered it; empty when it is not there.
    pub fn place(&self) -> Span {
        self.place
    }

    /// The body, once the head is sent.
    pub fn body(&mut self) -> Option<&mut BodyFraming> {
        self.body.as_mut()
    }

    /// Whether the head is sent.
    pub fn is_sent(&self) -> bool {
        self.body.is_some()
    }

    /// Whether `write()` found that the client has left.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Notes that the client has left.
    pub fn lose_client(&mut self) {
        self.gone = true;
    }

    /// Why bytes that `write()` was given are lost, if some are: the body cannot be completed.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Bytes that were given beyond the Content-Length, by `write()` or in blocks.
    pub fn excess(&self) -> u64 {
        self.excess
    }

    /// Notes that so many bytes of a block were beyond the Content-Length.
    pub fn exceed(&mut self, bytes: u64) {
        self.excess += bytes;
    }

    /// The facts about the request.
    pub fn terms(&self) -> Terms {
        self.draft.terms()
    }

    /// The facts that a page of the server's own needs.
    pub fn context(&self) -> Context<'_> {
        self.draft.context()
    }

    /// Begins a head.
    pub fn begin(&mut self, status: &[u8]) -> Result<(), Refused> {
        self.draft.begin(status)
    }

    /// Adds a field to it.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        self.draft.field(name, value)
    }

    /// Whether its protocol can carry the head that was begun.
    pub fn check_size(&self) -> Result<(), Refused> {
        self.draft.check_size()
    }

    /// Begins a head with lines of an earlier one that were rendered from the same status and fields.
    pub fn resume(&mut self, lines: &[u8], facts: HeadFacts) {
        self.draft.resume(lines, facts);
    }

    /// The lines of a head that was begun and not sent.
    pub fn rendered(&self) -> Option<(&[u8], HeadFacts)> {
        self.draft.rendered()
    }

    /// Forgets a head that was begun and not sent.
    pub fn forget(&mut self) {
        self.draft.clear();
    }

    /// Sends the head unless it is sent already, and returns the body; `None` when `start_response` was not called.
    pub fn head(&mut self, known: Option<u64>, out: &mut Vec<u8>) -> Option<&mut BodyFraming> {
        if self.body.is_none() {
            let from = out.len();
            self.body = Some(self.draft.finish(known, out)?);
            self.place = Span::new(from, out.len());
        }
        self.body.as_mut()
    }

    /// Sends `103 Early Hints` at once. Does nothing in HTTP/1.0 and for gateways, which have none, after the head, when they are too late, and
    /// when the client has left. They are no part of the answer, which is made whether they arrive or not.
    pub fn hint(&mut self, fields: &[(Vec<u8>, Vec<u8>)]) -> Result<(), CannotHint> {
        let Terms { version, dialect, .. } = self.terms();
        if self.is_sent() || version == Version::Http10 || dialect != Dialect::Http {
            return Ok(());
        }
        let gone = self.gone;
        match self.with_pipe(|_, out| response::early_hints(out, fields).map_err(CannotHint::Refused)) {
            Ok(hinted) => hinted,
            Err(CannotWrite::Gone) => {
                // The answer's own bytes will meet the same error, with a head whose status can be logged.
                self.gone = gone;
                Ok(())
            }
            Err(reason) => Err(CannotHint::Write(reason)),
        }
    }

    /// Sends a block at once.
    pub fn write(&mut self, data: &[u8]) -> Result<(), CannotWrite> {
        self.with_pipe(|exchange, out| {
            if data.is_empty() {
                return Ok(());
            }
            if out.try_reserve(data.len() + data.len() / AROUND_PART + AROUND).is_err() {
                return Err(CannotWrite::Memory);
            }
            let Some(body) = exchange.head(None, out) else { return Err(CannotWrite::Returned) };
            if let Fit::Cut(bytes) = body.block(out, data) {
                exchange.excess += bytes;
            }
            Ok(())
        })?
    }

    /// Renders with `render` and sends the result.
    fn with_pipe<E>(
        &mut self,
        render: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Result<(), E>, CannotWrite> {
        if self.gone {
            return Err(CannotWrite::Gone);
        }
        if let Some(why) = &self.lost {
            return Err(CannotWrite::Lost(why.clone()));
        }
        let pipe = match self.outlet.take() {
            Some(pipe) if self.open => pipe,
            _ => return Err(CannotWrite::Returned),
        };
        let result = if pipe.thread == here() { self.push(&pipe, render) } else { Err(CannotWrite::OtherThread) };
        self.outlet = Some(pipe);
        result
    }

    fn push<E>(
        &mut self,
        pipe: &LentOutlet,
        render: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Result<(), E>, CannotWrite> {
        let (mut out, mut outlet) = (pipe.out, pipe.outlet);
        // SAFETY: `lend`'s caller keeps both valid and unused until it reclaims them, which has not happened while the outlet is
        // there; this is the thread that gave them, so nobody uses them at the same time.
        let (out, outlet) = unsafe { (out.as_mut(), outlet.as_mut()) };
        let before = out.len();
        let rendered = render(self, out);
        if rendered.is_err() || out.len() == before {
            return Ok(rendered);
        }
        let place = std::mem::take(&mut self.place);
        if !place.is_empty() {
            outlet.show_head(place.of_any(out));
        }
        let Err(gone) = outlet.push(out) else { return Ok(rendered) };
        // Bytes that were not taken must not be sent after the gap.
        out.clear();
        Err(match gone {
            Gone::Client => {
                self.gone = true;
                CannotWrite::Gone
            }
            Gone::Storage(error) => {
                let why = format!("cannot keep the output that the client has not read: {error}");
                self.lost = Some(why.clone());
                CannotWrite::Lost(why)
            }
        })
    }
}
