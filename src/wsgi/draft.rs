//! A response head that `start_response` has begun and that is finished later, when the first block is known.
//!
//! PEP 3333 lets an application replace its head until the first non-empty block, and wants bad headers refused while the
//! application still runs. So the head is rendered at once into a buffer of its own, by an [`Encoder`] that stays open.

use std::ptr::NonNull;

use crate::http::response::{Body, Context, Encoder, Refused};

/// Bytes reserved for a head at first; the buffer is reused and grows once.
const HEAD_CAPACITY: usize = 512;

/// A head in the making.
///
/// Invariants: `buffer` came from `Box::into_raw` and is freed only in `drop`; while `encoder` is `Some`, nothing but the
/// encoder touches the buffer.
pub struct Draft {
    encoder: Option<Encoder<'static>>,
    buffer: NonNull<Vec<u8>>,
}

// SAFETY: the pointer is the only owner of its Vec, which is Send, and an Encoder borrows nothing but that Vec.
unsafe impl Send for Draft where Encoder<'static>: Send {}

impl Draft {
    /// An empty draft.
    pub fn new() -> Self {
        let buffer = Box::into_raw(Box::new(Vec::with_capacity(HEAD_CAPACITY)));
        Self { encoder: None, buffer: NonNull::new(buffer).expect("a Box is not null") }
    }

    /// Whether a head was begun and not yet finished.
    pub fn is_begun(&self) -> bool {
        self.encoder.is_some()
    }

    /// Begins a head, forgetting an earlier one.
    pub fn begin(&mut self, context: &Context<'_>, status: &[u8]) -> Result<(), Refused> {
        self.clear();
        // SAFETY: `buffer` is live until `drop`; `clear` has just dropped the encoder, so nobody else refers to it; the new
        // reference lives in `encoder`, which every method here drops before it touches the buffer.
        let buffer: &'static mut Vec<u8> = unsafe { &mut *self.buffer.as_ptr() };
        self.encoder = Some(Encoder::begin(buffer, context, status)?);
        Ok(())
    }

    /// Adds a field to a head that was begun.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        match &mut self.encoder {
            Some(encoder) => encoder.field(name, value),
            None => Ok(()),
        }
    }

    /// Finishes the head and appends it to `out`; `None` if none was begun.
    pub fn finish(&mut self, known: Option<u64>, out: &mut Vec<u8>) -> Option<Body> {
        let body = self.encoder.take()?.finish(known);
        let buffer = self.buffer();
        out.extend_from_slice(buffer);
        buffer.clear();
        Some(body)
    }

    /// Forgets a head.
    pub fn clear(&mut self) {
        self.encoder = None;
        self.buffer().clear();
    }

    /// Call only when `encoder` is `None`.
    fn buffer(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.encoder.is_none(), "the encoder owns the buffer");
        // SAFETY: the Vec is live until `drop`, and without an encoder `self` is the only one who refers to it.
        unsafe { &mut *self.buffer.as_ptr() }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.encoder = None;
        // SAFETY: the pointer came from `Box::into_raw`, and the only other reference was dropped in the line above.
        drop(unsafe { Box::from_raw(self.buffer.as_ptr()) });
    }
}
