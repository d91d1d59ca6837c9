//! How far the field lines of an incomplete head are known to be good: a byte-wise automaton (RFC 9112 section 5).
//!
//! ```text
//! Start --token--> Name --':'--> Value --CR--> LineCr --LF--> Start
//! Start --CR--> FinalCr --LF--> complete
//! ```

use super::bytes::{TOKEN, is_value_byte};
use super::error::Error;
use super::head::{Limits, Parsed};

/// Memory of [`Head::resume`](super::head::Head::resume) between two reads of one head; 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    state: State,
    /// First byte that was not looked at.
    next: u32,
    /// First byte of the current line.
    line: u32,
    /// Complete lines and the current one.
    fields: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The request line is not complete: [`Head::request_line`](super::head::Head::request_line) looks at all of it each time,
    /// which its limit bounds.
    #[default]
    Idle,
    Start,
    Name,
    Value,
    LineCr,
    FinalCr,
}

impl Progress {
    pub(super) fn is_started(&self) -> bool {
        self.state != State::Idle
    }

    /// Begins at the first byte behind the request line.
    pub(super) fn start(&mut self, block: u32) {
        *self = Self { state: State::Start, next: block, line: block, fields: 0 };
    }

    /// Looks at the bytes that are new. `bytes` begins with those of the last call.
    pub(super) fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Error> {
        for &byte in bytes.get(self.next as usize..).unwrap_or_default() {
            self.state = match (self.state, byte) {
                (State::Idle | State::Start, b'\r') => State::FinalCr,
                (State::Idle | State::Start, b'\n') => return Err(Error::LineEnd),
                (State::Idle | State::Start, _) => {
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
                (State::Name, b':') => State::Value,
                (State::Name, b' ' | b'\t') => return Err(Error::SpaceBeforeColon),
                (State::Name, _) => name(byte)?,
                (State::Value, b'\r') => State::LineCr,
                (State::Value, b'\n') => return Err(Error::LineEnd),
                (State::Value, _) if is_value_byte(byte) => State::Value,
                (State::Value, _) => return Err(Error::FieldValue(byte)),
                (State::LineCr, b'\n') => State::Start,
                (State::FinalCr, b'\n') => return Ok(Parsed::Complete),
                (State::LineCr | State::FinalCr, _) => return Err(Error::LineEnd),
            };
            self.next += 1;
            if matches!(self.state, State::Name | State::Value) && (self.next - self.line) as usize > limits.field_size {
                return Err(Error::FieldTooLong(limits.field_size));
            }
        }
        Ok(Parsed::Partial)
    }
}

fn name(byte: u8) -> Result<State, Error> {
    if TOKEN[byte as usize] { Ok(State::Name) } else { Err(Error::FieldName) }
}
