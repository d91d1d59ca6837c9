//! How far an incomplete head is known to be good: whether it is in its target, and for the field lines a byte-wise automaton
//! (RFC 9112 section 5).
//!
//! ```text
//! Start --token--> Name --':'--> Value --CR--> LineCr --LF--> Start
//! Start --CR--> FinalCr --LF--> complete
//! ```

use super::bytes::{TOKEN, is_value_byte, target_len};
use super::error::Error;

/// Empty lines skipped before a request line (RFC 9112 section 2.2): old clients sent one after a body, nobody sends many.
pub const MAX_EMPTY_LINES: usize = 4;

/// Longest head in bytes, whatever the product of the limits of its parts: spans count in 32 bits. Twenty times what the default
/// limits of its parts allow.
pub const MAX_HEAD: usize = 16 * 1024 * 1024;

/// Limits of a head; sizes in bytes without the line end, as gunicorn's options of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request line; beyond it 414.
    pub request_line: usize,
    /// Most header fields; beyond it 431.
    pub fields: usize,
    /// Longest header field line (name, colon, value); beyond it 431.
    pub field_size: usize,
}

impl Limits {
    /// Length in bytes that no acceptable head exceeds, at most [`MAX_HEAD`]: a reader that holds this much without a complete
    /// head answers 431.
    pub fn head_max(&self) -> usize {
        const CRLF: usize = 2;
        let fields = self.fields.saturating_mul(self.field_size.saturating_add(CRLF));
        (MAX_EMPTY_LINES * CRLF)
            .saturating_add(self.request_line)
            .saturating_add(CRLF)
            .saturating_add(fields)
            .saturating_add(CRLF)
            .min(MAX_HEAD)
    }
}

/// Result of [`Head::parse`](super::head::Head::parse).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The head is complete.
    Complete,
}

/// Memory of [`Head::resume`](super::head::Head::resume) between two reads of one head; 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    state: HeadState,
    /// First byte that was not read yet.
    next: u32,
    /// First byte of the current line.
    line: u32,
    /// Complete lines and the current one.
    fields: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HeadState {
    /// The request line is not complete, and [`Head::request_line`](super::head::Head::request_line) reads all of it: its method
    /// and its version have a few bytes each.
    #[default]
    Idle,
    /// It is complete up to some byte of the target, which may be long: only its end or a fault matters from here on.
    Target,
    Start,
    Name,
    Value,
    LineCr,
    FinalCr,
}

impl Progress {
    pub(super) fn is_started(&self) -> bool {
        self.state != HeadState::Idle
    }

    /// The request line of `bytes` is good so far, and not complete.
    #[cold]
    pub(super) fn wait_for_line(&mut self, bytes: &[u8]) {
        let is_in_target = memchr::memchr_iter(b' ', bytes).take(2).count() == 1;
        let (state, next) = if is_in_target { (HeadState::Target, bytes.len() as u32) } else { (HeadState::Idle, 0) };
        *self = Self { state, next, ..Self::default() };
    }

    /// As [`Self::scan`], also while the request line is not complete: `None` when it must be read as a whole.
    pub(super) fn go_on(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<Parsed>, Error> {
        match self.state {
            HeadState::Start | HeadState::Name | HeadState::Value | HeadState::LineCr | HeadState::FinalCr => {
                self.scan(bytes, limits).map(Some)
            }
            HeadState::Idle | HeadState::Target => {
                let new = bytes.get(self.next as usize..).unwrap_or_default();
                if self.state == HeadState::Target && bytes.len() <= limits.request_line && target_len(new) == new.len() {
                    self.next = bytes.len() as u32;
                    return Ok(Some(Parsed::Partial));
                }
                *self = Self::default();
                Ok(None)
            }
        }
    }

    /// Begins at the first byte after the request line.
    pub(super) fn start(&mut self, block: u32) {
        *self = Self { state: HeadState::Start, next: block, line: block, fields: 0 };
    }

    /// Reads the bytes that are new. `bytes` begins with those of the last call.
    pub(super) fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Error> {
        for &byte in bytes.get(self.next as usize..).unwrap_or_default() {
            self.state = match (self.state, byte) {
                (HeadState::Idle | HeadState::Target | HeadState::Start, b'\r') => HeadState::FinalCr,
                (HeadState::Idle | HeadState::Target | HeadState::Start, b'\n') => return Err(Error::LineEnd),
                (HeadState::Idle | HeadState::Target | HeadState::Start, _) => {
                    self.line = self.next;
                    if self.fields as usize >= limits.fields {
                        return Err(Error::TooManyFields(limits.fields));
                    }
                    self.fields += 1;
                    match byte {
                        b' ' | b'\t' => return Err(Error::Fold),
                        _ => name(byte)?,
                    }
                }
                (HeadState::Name, b':') => HeadState::Value,
                (HeadState::Name, b' ' | b'\t') => return Err(Error::SpaceBeforeColon),
                (HeadState::Name, _) => name(byte)?,
                (HeadState::Value, b'\r') => HeadState::LineCr,
                (HeadState::Value, b'\n') => return Err(Error::LineEnd),
                (HeadState::Value, _) if is_value_byte(byte) => HeadState::Value,
                (HeadState::Value, _) => return Err(Error::FieldValue(byte)),
                (HeadState::LineCr, b'\n') => HeadState::Start,
                (HeadState::FinalCr, b'\n') => return Ok(Parsed::Complete),
                (HeadState::LineCr | HeadState::FinalCr, _) => return Err(Error::LineEnd),
            };
            self.next += 1;
            if matches!(self.state, HeadState::Name | HeadState::Value) && (self.next - self.line) as usize > limits.field_size {
                return Err(Error::FieldTooLong(limits.field_size));
            }
        }
        Ok(Parsed::Partial)
    }
}

fn name(byte: u8) -> Result<HeadState, Error> {
    if TOKEN[byte as usize] { Ok(HeadState::Name) } else { Err(Error::FieldName) }
}
