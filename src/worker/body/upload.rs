//! A request whose body is still coming: its head, kept until the body is complete, and the spool that collects it.
//!
//! A body of known length is read straight to its final place, once the read buffer is used up.

use std::io;

use crate::http::error::Error;
use crate::http::framing::{Framing, Length};
use crate::http::head::{Head, HeadView};
use crate::net::stream::{Got, Stream};

use super::spool::{BodyBudget, Lease, Spool};
use crate::worker::app::{RequestBody, StorageError};
use crate::worker::kept::Leased;
use crate::worker::rules::Rules;
use crate::worker::wire::{BodyDecoder, BodyEnd, Prompt};

/// A body in progress.
#[derive(Debug)]
pub struct Upload {
    /// The head's bytes, empty while they are still in the read buffer.
    pub bytes: Leased,
    /// The head, its spans relative to `bytes`.
    pub head: Head,
    /// The head's framing.
    pub framing: Framing,
    decoder: BodyDecoder,
    spool: Spool,
    max: u64,
}

/// The result of a piece of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes used.
    pub used: usize,
    /// Whether the body is complete.
    pub done: bool,
    /// What is to be sent so that the rest comes.
    pub prompt: Option<Prompt>,
}

/// Why a body cannot be taken.
#[derive(Debug)]
pub enum UploadError {
    /// The client broke the rules of its framing.
    Bad(Error),
    /// The body exceeds `--limit-request-body`.
    TooLarge,
    /// The body cannot be stored.
    Spool(StorageError),
}

impl Upload {
    /// The head, once it is kept here.
    pub fn view(&self) -> HeadView<'_> {
        HeadView { head: &self.head, bytes: &self.bytes }
    }

    /// A body with this framing; refused at once when its announced length is too large, or has no room at present.
    pub fn new(decoder: BodyDecoder, framing: Framing, rules: &Rules, budget: &BodyBudget) -> Result<Self, UploadError> {
        let expected = match framing.length {
            Length::Known(length) if length > rules.body_max => return Err(UploadError::TooLarge),
            Length::Known(length) if length > rules.body_buffer as u64 && !budget.disk.has_room(length) => {
                return Err(UploadError::Spool(budget.disk.full()));
            }
            Length::Known(length) => Some(length),
            Length::None | Length::Chunked => None,
        };
        Ok(Self {
            bytes: Leased::default(),
            head: Head::default(),
            framing,
            decoder,
            spool: Spool::new(rules.body_buffer, budget, expected),
            max: rules.body_max,
        })
    }

    /// Takes the bytes of the body from the start of `input`.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed, UploadError> {
        let mut used = 0;
        loop {
            let step = self.decoder.decode(&input[used..]).map_err(UploadError::Bad)?;
            let data = &input[used..][step.data];
            if self.spool.len() + data.len() as u64 > self.max {
                return Err(UploadError::TooLarge);
            }
            if !data.is_empty() {
                self.spool.push(data).map_err(UploadError::Spool)?;
            }
            used += step.consumed;
            if step.done || step.consumed == 0 {
                let prompt = if step.done { None } else { self.decoder.prompt(input) };
                return Ok(Fed { used, done: step.done, prompt });
            }
        }
    }

    /// Reads at most `left` bytes of the body, as [`Self::left`] returns it, from this stream to their final place.
    pub fn receive(&mut self, stream: &Stream, left: u64) -> io::Result<Got> {
        let got = self.spool.receive(stream, left)?;
        self.decoder.pass(got.count as u64);
        Ok(got)
    }

    /// Bytes still to come, if they are all data and can be read straight to memory.
    pub fn left(&mut self) -> Option<u64> {
        self.decoder.left().filter(|&left| left > 0 && self.spool.takes_more())
    }

    /// The part of the worker's budget for bodies that its memory has.
    pub fn lease(&mut self) -> Lease {
        self.spool.lease()
    }

    /// What the decoder leaves behind when the body is complete.
    #[inline]
    pub fn end(&mut self) -> Option<BodyEnd> {
        self.decoder.finish()
    }

    /// The complete body.
    pub fn finish(self) -> Result<RequestBody, UploadError> {
        self.spool.finish().map_err(UploadError::Spool)
    }
}
