//! The chunked transfer coding (RFC 9112 section 7.1): a strict decoder, and the encoder's chunk head.
//!
//! ```text
//! SizeStart --digit--> Size --CR--> SizeLf --LF--> Data --all--> DataCr --CR--> DataLf --LF--> SizeStart
//!                      Size --';' or blank--> Extension --CR--> SizeLf
//!                                           SizeLf --LF, size 0--> TrailerStart
//!
//! Extension; blanks may separate these, but not precede the last CR (RFC 9112 section 7.1.1):
//! Size ... ';' --> NameStart --token--> Name --';'--> NameStart
//!                                       Name --'='--> ValueStart --token--> Value --';'--> NameStart
//!                                                     ValueStart --'"'--> Quoted --'"'--> QuotedEnd --';'--> NameStart
//! TrailerStart --token--> TrailerName --':'--> TrailerValue --CR--> TrailerLf --LF--> TrailerStart
//! TrailerStart --CR--> FinalLf --LF--> Done
//! ```

use std::ops::Range;

use super::bytes::{TOKEN, hex, is_value_byte, put_hex};
use super::error::Error;

/// Digits of a chunk size: as many as 64 bits have, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;

/// Bytes of chunk extensions that are allowed without data. Nobody uses extensions, except to make a server read much and receive
/// little (CVE-2023-39326). So every byte of data allows two more bytes of extension.
const MAX_EXTENSION_DEBT: u64 = 4096;

/// The end of a body: the last chunk and an empty trailer section.
pub(super) const LAST: &[u8] = b"0\r\n\r\n";

/// Decoder of one chunked body with its trailer section.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: ChunkState,
    /// Size of the chunk while its head is read, then the data still to come.
    left: u64,
    digits: u8,
    extension_debt: u64,
    trailer: usize,
    max_trailer: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    SizeStart,
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    FinalLf,
    Done,
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, where a value is a token or a quoted string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// Blanks after a size or a value: only `;` may follow. A line that ends here is refused, since it has a blank at its end:
    /// the grammar has none there, and readers treat it differently.
    Blank,
    NameStart,
    Name,
    /// Blanks after a name.
    NameEnd,
    ValueStart,
    Value,
    Quoted,
    /// After a backslash in a quoted string.
    Escaped,
    QuotedEnd,
}

/// One step of decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that were decoded, framing included.
    pub consumed: usize,
    /// The data among them, as a range of the input (may be empty).
    pub data: Range<usize>,
    /// Whether the body is complete; nothing after `consumed` belongs to it.
    pub done: bool,
}

impl ChunkedDecoder {
    /// A decoder at the start of a body. Trailer fields are checked and dropped; `max_trailer` bounds their bytes.
    pub fn new(max_trailer: usize) -> Self {
        Self { state: ChunkState::SizeStart, left: 0, digits: 0, extension_debt: 0, trailer: 0, max_trailer }
    }

    /// Decodes as much as it can: everything up to the second piece of data or the end of the body.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Error> {
        let mut data = 0..0;
        let mut at = 0;
        while at < input.len() && self.state != ChunkState::Done {
            if self.state == ChunkState::Data {
                if !data.is_empty() {
                    break;
                }
                let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - at);
                data = at..at + take;
                at += take;
                self.left -= take as u64;
                if self.left == 0 {
                    self.state = ChunkState::DataCr;
                }
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(Decoded { consumed: at, data, done: self.state == ChunkState::Done })
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<ChunkState, Error> {
        match self.state {
            ChunkState::SizeStart => {
                self.left = 0;
                self.digits = 0;
                self.digit(byte)
            }
            ChunkState::Size => match byte {
                b'\r' => Ok(ChunkState::SizeLf),
                b';' | b' ' | b'\t' => self.extension(Extension::Blank, byte),
                _ => self.digit(byte),
            },
            ChunkState::Extension(at) => self.extension(at, byte),
            ChunkState::SizeLf if byte != b'\n' => Err(Error::LineEnd),
            ChunkState::SizeLf if self.left == 0 => Ok(ChunkState::TrailerStart),
            ChunkState::SizeLf => {
                self.extension_debt = self.extension_debt.saturating_sub(self.left.saturating_mul(2));
                Ok(ChunkState::Data)
            }
            ChunkState::DataCr if byte == b'\r' => Ok(ChunkState::DataLf),
            ChunkState::DataLf if byte == b'\n' => Ok(ChunkState::SizeStart),
            ChunkState::DataCr | ChunkState::DataLf => Err(Error::ChunkEnd),
            ChunkState::TrailerStart if byte == b'\r' => Ok(ChunkState::FinalLf),
            ChunkState::TrailerLf | ChunkState::FinalLf if byte != b'\n' => Err(Error::LineEnd),
            ChunkState::FinalLf => Ok(ChunkState::Done),
            ChunkState::TrailerStart | ChunkState::TrailerName | ChunkState::TrailerValue | ChunkState::TrailerLf => {
                self.trailer_byte(byte)
            }
            // The loop in `decode` never calls this in these states.
            ChunkState::Data | ChunkState::Done => Ok(self.state),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<ChunkState, Error> {
        let digit = hex(byte).ok_or(Error::ChunkSize)?;
        self.digits += 1;
        if self.digits > MAX_SIZE_DIGITS {
            return Err(Error::ChunkSize);
        }
        // Sixteen digits of four bits fit exactly.
        self.left = self.left << 4 | u64::from(digit);
        Ok(ChunkState::Size)
    }

    fn extension(&mut self, at: Extension, byte: u8) -> Result<ChunkState, Error> {
        use Extension::{Blank, Escaped, Name, NameEnd, NameStart, Quoted, QuotedEnd, Value, ValueStart};
        let (blank, token) = (matches!(byte, b' ' | b'\t'), TOKEN[byte as usize]);
        let next = match (at, byte) {
            (Name | Value | QuotedEnd, b'\r') => return Ok(ChunkState::SizeLf),
            (Blank | Name | NameEnd | Value | QuotedEnd, b';') => NameStart,
            (Name | NameEnd, b'=') => ValueStart,
            (ValueStart, b'"') => Quoted,
            (Quoted, b'"') => QuotedEnd,
            (Quoted, b'\\') => Escaped,
            (NameStart | Name, _) if token => Name,
            (ValueStart | Value, _) if token => Value,
            (Quoted | Escaped, _) if is_value_byte(byte) => Quoted,
            (NameStart | ValueStart, _) if blank => at,
            (Name | NameEnd, _) if blank => NameEnd,
            (Blank | Value | QuotedEnd, _) if blank => Blank,
            _ => return Err(Error::ChunkExtension),
        };
        self.extension_debt += 1;
        if self.extension_debt > MAX_EXTENSION_DEBT {
            return Err(Error::ChunkExtensionTooLong);
        }
        Ok(ChunkState::Extension(next))
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<ChunkState, Error> {
        self.trailer += 1;
        if self.trailer > self.max_trailer {
            return Err(Error::TrailerTooLong(self.max_trailer));
        }
        match (self.state, byte) {
            (ChunkState::TrailerLf, _) => Ok(ChunkState::TrailerStart),
            (ChunkState::TrailerName, b':') => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerValue, b'\r') => Ok(ChunkState::TrailerLf),
            (ChunkState::TrailerValue, _) if is_value_byte(byte) => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerStart | ChunkState::TrailerName, _) if TOKEN[byte as usize] => Ok(ChunkState::TrailerName),
            _ => Err(Error::Trailer),
        }
    }
}

/// Appends the head of a chunk with `len` bytes, which must not be 0.
#[inline]
pub(super) fn put_head(out: &mut Vec<u8>, len: u64) {
    put_hex(out, len);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
