//! The body of a request in packets.
//!
//! The first packet of a body whose length is known comes without being asked for; every other one is asked for, and may have less
//! than that. An empty one ends a body without a length.
//!
//! ```text
//! 0x12 0x34, length of the payload (2), length of the bytes (2), bytes
//! ```

use crate::http::chunked::Decoded;
use crate::http::error::Error;
use crate::http::framing::Length;
use crate::http::packets::{PONG, WANTED_MAX, put_wish};

use super::{HEAD, MARK, PING};

/// Bytes before those of a body in their packet: what every packet begins with, and their length.
const AROUND: usize = HEAD + 2;

/// The error of packets that have more than they should.
const TOO_MUCH: Error = Error::Malformed("more of the body comes than its length says");

/// Reads a body.
#[derive(Clone, Debug)]
pub struct PacketDecoder {
    /// Its length, if it has one.
    length: Option<u64>,
    /// Bytes of it that have come.
    came: u64,
    /// What precedes the bytes of the packet in hand, as far as it has come.
    head: [u8; AROUND],
    have: usize,
    /// Bytes of the packet in hand that are still to come.
    left: usize,
    /// Whether the front is about to send a packet.
    is_awaited: bool,
    /// What is due to be sent.
    replies: Vec<u8>,
}

impl PacketDecoder {
    /// A decoder of a body with a length, or of one that ends with an empty packet.
    pub fn new(length: Length) -> Self {
        let length = match length {
            Length::Known(length) => Some(length),
            Length::None | Length::Chunked => None,
        };
        Self { length, came: 0, head: [0; AROUND], have: 0, left: 0, is_awaited: length.is_some(), replies: Vec::new() }
    }

    /// As [`crate::http::body::Decoder::decode`].
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Error> {
        if self.left > 0 {
            let len = self.left.min(input.len());
            self.left -= len;
            self.came += len as u64;
            return Ok(Decoded { consumed: len, data: 0..len, done: self.left == 0 && self.length == Some(self.came) });
        }
        let mut consumed = 0;
        let mut done = false;
        while let Some(&byte) = input.get(consumed) {
            if self.have < MARK.len() && byte != MARK[self.have] {
                return Err(Error::Malformed("its body is not in packets of AJP"));
            }
            self.head[self.have] = byte;
            (self.have, consumed) = (self.have + 1, consumed + 1);
            if self.have >= HEAD && self.finish_head(&mut done)? {
                self.have = 0;
                break;
            }
        }
        Ok(Decoded { consumed, data: 0..0, done })
    }

    /// Looks at what precedes the bytes of a packet; whether it is complete.
    fn finish_head(&mut self, done: &mut bool) -> Result<bool, Error> {
        let [_, _, high, low, first, second] = self.head;
        let len = match (usize::from(u16::from_be_bytes([high, low])), self.have) {
            (0, _) => 0,
            (_, HEAD) => return Ok(false),
            (1, _) if first == PING => {
                self.replies.extend_from_slice(PONG);
                return Ok(true);
            }
            (1, _) => return Err(Error::Malformed("a packet of its body is too short")),
            (_, ..AROUND) => return Ok(false),
            (outer, _) => {
                let inner = usize::from(u16::from_be_bytes([first, second]));
                // lighttpd leaves this length out of all bodies; whoever guessed would lose bytes, or take a body for a request.
                if inner + 2 != outer {
                    return Err(Error::Malformed("the two lengths of a packet of its body differ"));
                }
                inner
            }
        };
        self.is_awaited = false;
        match self.length {
            _ if len > 0 && self.length.is_some_and(|length| length - self.came < len as u64) => return Err(TOO_MUCH),
            Some(_) if len == 0 => return Err(Error::BodyShort),
            None if len == 0 => *done = true,
            Some(_) | None => self.left = len,
        }
        Ok(true)
    }

    /// What is to be sent now, when all that has come is decoded, and more is needed; empty: nothing.
    pub fn take_replies(&mut self) -> Vec<u8> {
        if !self.is_awaited && self.have == 0 && self.left == 0 {
            let left = self.length.map_or(u64::MAX, |length| length - self.came);
            put_wish(&mut self.replies, left.min(u64::from(WANTED_MAX)) as u16);
            self.is_awaited = true;
        }
        std::mem::take(&mut self.replies)
    }

    /// The length of the body that is complete, and what is still to be sent.
    pub fn finish(&mut self) -> (Length, Vec<u8>) {
        let length = match self.length {
            None if self.came == 0 => Length::None,
            Some(_) | None => Length::Known(self.came),
        };
        (length, std::mem::take(&mut self.replies))
    }
}

/// Appends a body in packets, as a front sends it that needs not be asked; `is_chunked`: the empty packet ends it.
pub fn put(out: &mut Vec<u8>, body: &[u8], is_chunked: bool) {
    let end: &[&[u8]] = if is_chunked { &[&[]] } else { &[] };
    for part in body.chunks(usize::from(WANTED_MAX)).chain(end.iter().copied()) {
        let ([outer_high, outer_low], [high, low]) = ((part.len() as u16 + 2).to_be_bytes(), (part.len() as u16).to_be_bytes());
        out.extend_from_slice(&[MARK[0], MARK[1], outer_high, outer_low, high, low]);
        out.extend_from_slice(part);
    }
}

/// At most so many bytes has [`put`] around a body.
pub fn around(body: usize) -> usize {
    (body / usize::from(WANTED_MAX) + 2) * AROUND
}
