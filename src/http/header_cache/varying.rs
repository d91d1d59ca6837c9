//! Fields whose values change from request to request while the rest of the block stays: a known block is found again with other
//! values in them.
//!
//! Only the value may differ, byte for byte; it is checked by the rules of the parser. Of the fields that the server reads for
//! framing, host or scheme only Content-Length is among them. It is read again each time, so that all other facts about the block
//! stay true.

use crate::http::bytes::bad_value_byte;
use crate::http::head::{Field, Limits};
use crate::http::loose::is_loose_field;

/// Most loose fields of a block.
const MOST: usize = 4;

/// The loose fields of a block, by their places among its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Varying {
    count: u8,
    places: [u8; MOST],
}

/// Lengths of the values that were found in the loose fields.
pub(super) type ValueLengths = [u32; MOST];

impl Varying {
    /// The loose fields among these of `bytes`. One that comes twice is none: the values are joined for the application.
    pub(super) fn of(fields: &[Field], bytes: &[u8]) -> Self {
        let mut loose = Self::default();
        for (place, field) in fields.iter().enumerate().take(usize::from(u8::MAX)) {
            let name = field.name.of(bytes);
            if usize::from(loose.count) < MOST
                && is_loose_field(name)
                && !field.value.is_empty()
                && bytes.get(field.value.end as usize) == Some(&b'\r')
                && fields.iter().filter(|other| other.name.of(bytes).eq_ignore_ascii_case(name)).count() == 1
            {
                loose.places[usize::from(loose.count)] = place as u8;
                loose.count += 1;
            }
        }
        loose
    }

    /// Places among the fields, ascending.
    pub fn places(&self) -> impl ExactSizeIterator<Item = usize> {
        self.places[..usize::from(self.count)].iter().map(|place| usize::from(*place))
    }

    /// The bytes of a block without the values of its loose fields, in pieces. The fields are those of `bytes`, the block begins
    /// at `start` and ends at `end`.
    pub(super) fn pieces<'a>(
        &'a self,
        fields: &'a [Field],
        bytes: &'a [u8],
        start: usize,
        end: usize,
    ) -> impl Iterator<Item = &'a [u8]> {
        let values = self.places().map(|place| fields[place].value).map(|value| (value.start as usize, value.end as usize));
        let mut from = start;
        values.chain([(end, end)]).map(move |(stop, next)| &bytes[std::mem::replace(&mut from, next)..stop])
    }

    /// Whether `rest` begins with the block, given other values in the loose fields: their lengths, and that of the block.
    pub(super) fn find(&self, block: &[u8], fields: &[Field], rest: &[u8], limits: &Limits) -> Option<(ValueLengths, usize)> {
        if self.count == 0 {
            return None;
        }
        let mut lengths = ValueLengths::default();
        let mut at = 0;
        let fixed = |piece: &[u8], at: usize| rest.get(at..at + piece.len()) == Some(piece);
        let mut from = 0;
        for (place, length) in self.places().zip(&mut lengths) {
            let field = fields[place];
            let piece = &block[from..field.value.start as usize];
            if !fixed(piece, at) {
                return None;
            }
            at += piece.len();
            let len = memchr::memchr(b'\r', &rest[at..])?;
            let before = (field.value.start - field.name.start) as usize;
            if before + len > limits.field_size || !is_plain(&rest[at..at + len]) {
                return None;
            }
            *length = len as u32;
            at += len;
            from = field.value.end as usize;
        }
        let piece = &block[from..];
        fixed(piece, at).then_some((lengths, at + piece.len()))
    }

    /// The fields of the block with values of these lengths, `by` bytes further on.
    pub(super) fn moved(&self, fields: &[Field], lengths: &ValueLengths, mut by: u32, into: &mut Vec<Field>) {
        let mut from = 0;
        for (place, length) in self.places().zip(lengths) {
            into.extend(fields[from..=place].iter().map(|field| field.moved(by)));
            if let Some(last) = into.last_mut() {
                last.value.end = last.value.start + length;
            }
            let value = fields[place].value;
            by = by.wrapping_add(*length).wrapping_sub(value.end - value.start);
            from = place + 1;
        }
        into.extend(fields[from..].iter().map(|field| field.moved(by)));
    }
}

/// Whether the parser would take it for a value as it stands, with nothing to strip.
fn is_plain(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| byte.is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last()) && bad_value_byte(value).is_none()
}
