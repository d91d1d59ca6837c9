//! Reads the parts of a packet, one after the other.

use crate::http::error::Error;
use crate::http::head::Span;

use super::{FIELDS, KNOWN, PairName, field_name};

/// The length of a text that is none.
const NONE: u16 = 0xFFFF;

/// The error of a packet that is longer inside than outside.
pub(super) fn cut_off() -> Error {
    Error::Malformed("a part of its packet is cut off")
}

/// Reads a packet between two places of some bytes.
#[derive(Clone, Debug)]
pub(super) struct PacketReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> PacketReader<'a> {
    /// From this place on, up to the other one.
    pub(super) fn new(bytes: &'a [u8], at: usize, end: usize) -> Self {
        Self { bytes: &bytes[..end], at }
    }

    /// Where it is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// All bytes up to the end of the packet.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes that come next.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        let byte = *self.rest().first().ok_or_else(cut_off)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next number.
    pub(super) fn number(&mut self) -> Result<u16, Error> {
        let number = *self.rest().first_chunk::<2>().ok_or_else(cut_off)?;
        self.at += 2;
        Ok(u16::from_be_bytes(number))
    }

    /// The next text, if it is one.
    pub(super) fn text(&mut self) -> Result<Option<Span>, Error> {
        let len = self.number()?;
        if len == NONE {
            return Ok(None);
        }
        let (start, end) = (self.at, self.at + usize::from(len));
        match self.bytes.get(end) {
            Some(0) => {
                self.at = end + 1;
                Ok(Some(Span::new(start, end)))
            }
            Some(_) => Err(Error::Malformed("a text does not end with NUL")),
            None => Err(cut_off()),
        }
    }

    /// The next field: its name as a variable, if it may be one, and its value.
    pub(super) fn field(&mut self) -> Result<(Option<PairName>, Span), Error> {
        let name = if let [KNOWN, number, ..] = *self.rest() {
            self.at += 2;
            let known = FIELDS.get(usize::from(number).wrapping_sub(1));
            Some(PairName::Known(known.ok_or(Error::Malformed("the number of a field is unknown"))?))
        } else {
            field_name(self.text()?.ok_or(Error::FieldName)?, self.bytes)?
        };
        Ok((name, self.text()?.unwrap_or_default()))
    }
}
