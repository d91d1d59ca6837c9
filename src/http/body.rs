//! Decoding a request body: returns how much of the input it consumed and which part of it is data; owns and reads nothing.

use super::chunked::{self, Decoded};
use super::error::Error;
use super::framing::Length;

/// Decoder of one body.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// Bytes still to come of a Content-Length body.
    Length(u64),
    /// A chunked body.
    Chunked(chunked::ChunkedDecoder),
}

impl Decoder {
    /// A decoder for the framing of a head; `max_trailer` bounds the trailer section in bytes.
    pub fn new(length: Length, max_trailer: usize) -> Self {
        match length {
            Length::None => Self::Length(0),
            Length::Known(len) => Self::Length(len),
            Length::Chunked => Self::Chunked(chunked::ChunkedDecoder::new(max_trailer)),
        }
    }

    /// Decodes what it can from the start of `input`. Call again with the rest until `done` or `consumed == 0`.
    #[inline]
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Error> {
        match self {
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                Ok(Decoded { consumed: take, data: 0..take, done: *left == 0 })
            }
            Self::Chunked(decoder) => decoder.decode(input),
        }
    }

    /// Bytes still to come, all of them data; `None` when only decoding shows it.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) => None,
        }
    }

    /// Notes that so many of the bytes that [`Decoder::left`] announced were taken past the decoder.
    pub fn pass(&mut self, count: u64) {
        match self {
            Self::Length(left) => *left = left.saturating_sub(count),
            Self::Chunked(_) => {}
        }
    }
}
