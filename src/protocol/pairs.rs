//! The heads of SCGI and uwsgi: pairs of names and values, whose length is known from the first bytes.
//!
//! ```text
//! SCGI   LENGTH ':' (name NUL value NUL)* ','      LENGTH in decimal; CONTENT_LENGTH bytes follow
//! uwsgi  0, length (2, little-endian), modifier2   (length (2) name length (2) value)*; CONTENT_LENGTH bytes follow
//! ```
//! Both have one request for each connection.

use std::ops::Range;

use crate::http::error::Error;
use crate::http::head::{Field, Span};

#[cfg(test)]
mod tests;

/// Bytes before the pairs of uwsgi: modifier1, the length in two bytes, modifier2.
const PACKET_HEAD: usize = 4;

/// Bytes of the length of a name or a value.
const LENGTH: usize = 2;

/// The head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// A netstring of texts that end with NUL.
    Scgi,
    /// A packet of texts, each after its length.
    Uwsgi,
}

/// What the first bytes of a head say of its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// At least so many bytes are missing, one or more.
    Missing(usize),
    /// It is there.
    Whole {
        /// Where its pairs are.
        pairs: Range<usize>,
        /// Its bytes; the body follows.
        len: usize,
    },
}

impl Envelope {
    /// Measures the head at the start of these bytes; `max` bounds its pairs in bytes.
    pub fn measure(self, bytes: &[u8], max: usize) -> Result<Measure, Error> {
        match self {
            Self::Scgi => measure_netstring(bytes, max),
            Self::Uwsgi => measure_packet(bytes, max),
        }
    }

    /// How its pairs are packed.
    pub fn packing(self) -> Packing {
        match self {
            Self::Scgi => Packing::Nul,
            Self::Uwsgi => Packing::Short,
        }
    }
}

/// How names and values stand one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Each ends with NUL.
    Nul,
    /// Each follows its length in two bytes, the low one first.
    Short,
    /// Both follow their lengths, each in one byte or in four (FastCGI specification, section 3.4).
    Long,
}

impl Packing {
    /// The pairs at this place of these bytes. After an error there are no more.
    pub fn pairs(self, bytes: &[u8], place: Range<usize>) -> Pairs<'_> {
        Pairs { packing: self, bytes: &bytes[..place.end], at: place.start }
    }
}

fn measure_netstring(bytes: &[u8], max: usize) -> Result<Measure, Error> {
    const NO_LENGTH: Error = Error::Malformed("it does not begin with the length of its variables");
    let mut len = 0_usize;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at > 0 && len == 0 => return Err(NO_LENGTH),
            b'0'..=b'9' => {
                len = len.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
                if len > max {
                    return Err(Error::HeadTooLong(max));
                }
            }
            b':' if at > 0 => {
                let pairs = at + 1..at + 1 + len;
                let end = pairs.end + 1;
                return match bytes.get(pairs.end) {
                    Some(b',') => Ok(Measure::Whole { pairs, len: end }),
                    Some(_) => Err(Error::Malformed("no comma follows its variables")),
                    None => Ok(Measure::Missing(end - bytes.len())),
                };
            }
            _ => return Err(NO_LENGTH),
        }
    }
    Ok(Measure::Missing(1))
}

fn measure_packet(bytes: &[u8], max: usize) -> Result<Measure, Error> {
    // The others load code, call functions, write to caches or signal the server; 0 is a request to a WSGI application.
    if bytes.first().is_some_and(|&modifier| modifier != 0) {
        return Err(Error::Malformed("its modifier1 is not 0"));
    }
    let Some(&[_, low, high, _]) = bytes.first_chunk::<PACKET_HEAD>() else {
        return Ok(Measure::Missing(PACKET_HEAD - bytes.len()));
    };
    let len = usize::from(u16::from_le_bytes([low, high]));
    if len > max {
        return Err(Error::HeadTooLong(max));
    }
    let end = PACKET_HEAD + len;
    if bytes.len() < end {
        return Ok(Measure::Missing(end - bytes.len()));
    }
    Ok(Measure::Whole { pairs: PACKET_HEAD..end, len: end })
}

/// The pairs of a head.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    packing: Packing,
    bytes: &'a [u8],
    at: usize,
}

impl Pairs<'_> {
    /// Where the next pair begins.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Lets the next pair begin there.
    #[inline]
    pub fn go_on_at(&mut self, at: usize) {
        self.at = at;
    }

    fn pair(&mut self) -> Option<Field> {
        match self.packing {
            Packing::Nul => self.text_pair(Self::text_to_nul),
            Packing::Short => self.text_pair(Self::text_of_length),
            Packing::Long => {
                let (name, value) = (self.length()?, self.length()?);
                Some(Field { name: self.text(name)?, value: self.text(value)? })
            }
        }
    }

    fn text_pair(&mut self, text: fn(&mut Self) -> Option<Span>) -> Option<Field> {
        Some(Field { name: text(self)?, value: text(self)? })
    }

    /// The next bytes, if there are so many.
    fn text(&mut self, len: usize) -> Option<Span> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        Some(Span::new(std::mem::replace(&mut self.at, end), end))
    }

    fn text_to_nul(&mut self) -> Option<Span> {
        let text = self.text(memchr::memchr(0, &self.bytes[self.at..])?)?;
        self.at += 1;
        Some(text)
    }

    fn text_of_length(&mut self) -> Option<Span> {
        let &[low, high] = self.bytes.get(self.at..)?.first_chunk::<LENGTH>()?;
        self.at += LENGTH;
        self.text(usize::from(u16::from_le_bytes([low, high])))
    }

    /// A length of the long packing.
    fn length(&mut self) -> Option<usize> {
        let (len, used) = match *self.bytes.get(self.at..)? {
            [short @ ..0x80, ..] => (usize::from(short), 1),
            [a, b, c, d, ..] => ((u32::from_be_bytes([a, b, c, d]) & 0x7FFF_FFFF) as usize, 4),
            _ => return None,
        };
        self.at += used;
        Some(len)
    }
}

impl Iterator for Pairs<'_> {
    type Item = Result<Field, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let pair = self.pair();
        if pair.is_none() {
            self.at = self.bytes.len();
        }
        Some(pair.ok_or(Error::Malformed("its last variable is cut off")))
    }
}
