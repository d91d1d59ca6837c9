//! A response head that `start_response` has begun and that is finished later, when the first block is known.
//!
//! PEP 3333 lets an application replace its head until the first non-empty block, and wants bad headers refused while the
//! application still runs. So the head is rendered at once into a buffer of its own, by an [`Encoder`] that stays open.

use std::ptr::NonNull;

use crate::http::response::{BodyFraming, Context, Encoder, HeadFacts, Refused};
use crate::http::terms::Terms;

/// Bytes reserved for a head at first; the buffer is reused and grows once.
const HEAD_CAPACITY: usize = 512;

/// The data that an encoder borrows.
#[derive(Default)]
struct EncoderBuffers {
    head: Vec<u8>,
    date: Vec<u8>,
    /// The request's X-Request-ID.
    id: Vec<u8>,
}

/// A head in the making.
///
/// Invariants: `memory` came from `Box::into_raw` and is freed only in `drop`; while `encoder` is `Some`, nothing but the
/// encoder touches what it points to, except for reading the date and the id.
pub struct Draft {
    encoder: Option<Encoder<'static>>,
    memory: NonNull<EncoderBuffers>,
    terms: Terms,
}

impl Draft {
    /// An empty draft.
    pub fn new() -> Self {
        let memory = Box::new(EncoderBuffers { head: Vec::with_capacity(HEAD_CAPACITY), date: Vec::new(), id: Vec::new() });
        Self { encoder: None, memory: NonNull::from(Box::leak(memory)), terms: Terms::default() }
    }

    /// Prepares for a request, with the values of the fields Date and X-Request-ID; forgets the last one.
    pub fn open(&mut self, terms: Terms, date: &[u8], id: &[u8]) {
        self.clear();
        self.terms = terms;
        let memory = self.memory();
        memory.date.clear();
        memory.date.extend_from_slice(date);
        if !id.is_empty() || !memory.id.is_empty() {
            memory.id.clear();
            memory.id.extend_from_slice(id);
        }
    }

    /// The facts about the request.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// The facts that a page of the server's own needs.
    pub fn context(&self) -> Context<'_> {
        // SAFETY: the memory is live until `drop`; both texts are written by `open` only, which needs `self` exclusively, and an
        // encoder only reads them.
        let (date, id) = unsafe { (&(*self.memory.as_ptr()).date, &(*self.memory.as_ptr()).id) };
        Context { terms: self.terms, date, id }
    }

    /// Whether a head was begun and not yet finished.
    pub fn is_begun(&self) -> bool {
        self.encoder.is_some()
    }

    /// Begins a head, forgetting an earlier one.
    pub fn begin(&mut self, status: &[u8]) -> Result<(), Refused> {
        let (head, context) = self.borrow();
        self.encoder = Some(Encoder::begin(head, &context, status)?);
        Ok(())
    }

    /// Begins a head with lines of an earlier one, forgetting what was begun.
    pub fn resume(&mut self, lines: &[u8], facts: HeadFacts) {
        let (head, context) = self.borrow();
        self.encoder = Some(Encoder::resume(head, &context, lines, facts));
    }

    /// The lines of a head that was begun, and the facts about them.
    pub fn rendered(&self) -> Option<(&[u8], HeadFacts)> {
        self.encoder.as_ref().map(Encoder::rendered)
    }

    /// The data for a new encoder, which must be stored in `encoder`, or dropped, before anything else is done with `self`.
    fn borrow(&mut self) -> (&'static mut Vec<u8>, Context<'static>) {
        self.clear();
        // SAFETY: `memory` is live until `drop`; `clear` has just dropped the encoder, so nobody else refers to it; the new
        // references live in `encoder`, which every method here drops before it changes the memory.
        let (head, date, id): (&'static mut Vec<u8>, &'static [u8], &'static [u8]) = unsafe {
            let memory = self.memory.as_ptr();
            (&mut (*memory).head, &(*memory).date, &(*memory).id)
        };
        (head, Context { terms: self.terms, date, id })
    }

    /// Adds a field to a head that was begun.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        match &mut self.encoder {
            Some(encoder) => encoder.field(name, value),
            None => Ok(()),
        }
    }

    /// Whether its protocol can carry the head that was begun.
    pub fn check_size(&self) -> Result<(), Refused> {
        self.encoder.as_ref().map_or(Ok(()), Encoder::check_size)
    }

    /// Finishes the head and appends it to `out`; `None` if none was begun.
    pub fn finish(&mut self, known: Option<u64>, out: &mut Vec<u8>) -> Option<BodyFraming> {
        let body = self.encoder.as_mut()?.finish(known);
        self.encoder = None;
        let memory = self.memory();
        out.extend_from_slice(&memory.head);
        memory.head.clear();
        Some(body)
    }

    /// Forgets a head.
    pub fn clear(&mut self) {
        self.encoder = None;
        self.memory().head.clear();
    }

    /// Call only when `encoder` is `None`.
    fn memory(&mut self) -> &mut EncoderBuffers {
        debug_assert!(self.encoder.is_none(), "the encoder borrows the memory");
        // SAFETY: the memory is live until `drop`, and without an encoder only `self` refers to it.
        unsafe { self.memory.as_mut() }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.encoder = None;
        // SAFETY: the pointer came from a leaked Box, and the only other references were dropped in the line above.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}
