//! A request whose body is still coming: its head, kept until the body is complete, and the spool that collects it.

use std::io;

use crate::http::body::Decoder;
use crate::http::error::Error;
use crate::http::framing::{Framing, Length};
use crate::http::head::Head;

use super::app::Body;
use super::seat::Rules;
use super::spool::Spool;

/// Longest trailer section of a chunked body, in bytes; trailers are checked and dropped.
const TRAILER_MAX: usize = 8 * 1024;

/// A body in progress.
#[derive(Debug)]
pub struct Upload {
    /// The head's bytes, empty while they are still in the read buffer.
    pub bytes: Vec<u8>,
    /// The head, its spans relative to `bytes`.
    pub head: Head,
    /// The head's framing.
    pub framing: Framing,
    decoder: Decoder,
    spool: Spool,
    max: u64,
}

/// What a piece of input brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes used.
    pub used: usize,
    /// Whether the body is complete.
    pub done: bool,
}

/// Why a body cannot be taken.
#[derive(Debug)]
pub enum UploadError {
    /// The client broke the rules of its framing.
    Bad(Error),
    /// The body exceeds `--limit-request-body`.
    TooLarge,
    /// The spool file cannot be written.
    Spool(io::Error),
}

impl Upload {
    /// A body with this framing; refused at once when its announced length is too large.
    pub fn new(framing: Framing, rules: &Rules) -> Result<Self, UploadError> {
        let expected = match framing.length {
            Length::Known(length) if length > rules.body_max => return Err(UploadError::TooLarge),
            Length::Known(length) => Some(length),
            Length::None | Length::Chunked => None,
        };
        Ok(Self {
            bytes: Vec::new(),
            head: Head::default(),
            framing,
            decoder: Decoder::new(framing.length, TRAILER_MAX),
            spool: Spool::new(rules.body_buffer, expected),
            max: rules.body_max,
        })
    }

    /// Takes what belongs to the body from the start of `input`.
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
                return Ok(Fed { used, done: step.done });
            }
        }
    }

    /// The complete body.
    pub fn finish(self) -> Result<Body, UploadError> {
        self.spool.finish().map_err(UploadError::Spool)
    }
}
