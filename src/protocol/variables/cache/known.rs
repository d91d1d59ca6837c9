//! One block of variables that was sorted before.

use std::ops::Range;

use super::super::{FIELD, Seen, TEXTS, is_one_line, restore};
use super::relative;
use crate::http::bytes::bad_value_byte;
use crate::http::head::{Field, Head, Limits, Span};
use crate::http::loose::{is_loose_field, is_loose_variable};
use crate::protocol::pairs::Packing;

/// Most loose pairs of a block; the values of others have to be the same.
pub(super) const MOST: usize = 16;

/// What a loose pair becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A field, at the end of the others so far.
    Field,
    /// A variable, likewise.
    Variable,
    /// Only a text that is read, or nothing.
    Read,
}

/// A pair whose value may differ. Spans and places count from the start of the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoosePair {
    /// The pair, with its lengths.
    start: usize,
    end: usize,
    name: Span,
    used_as: Use,
    /// Its place among the texts that are read.
    text: Option<usize>,
    is_one_line: bool,
}

/// What is between two loose pairs: bytes of the block, and places among its fields, variables and texts.
#[derive(Clone, Debug)]
struct FixedPiece {
    bytes: Range<usize>,
    fields: Range<usize>,
    variables: Range<usize>,
    texts: Range<usize>,
}

/// A loose pair as it has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FoundPair {
    name: Span,
    value: Span,
    /// Where the next pair begins.
    end: usize,
}

/// One block.
#[derive(Debug)]
pub(super) struct KnownBlock {
    packing: Packing,
    /// As it comes.
    bytes: Box<[u8]>,
    /// The same with the names of fields as HTTP has them.
    renamed: Box<[u8]>,
    loose: Box<[LoosePair]>,
    /// What precedes each of them, and what follows the last one.
    pieces: Box<[FixedPiece]>,
    /// What is not loose, in order.
    fields: Box<[Field]>,
    variables: Box<[Field]>,
    /// With their places among the texts.
    texts: Box<[(usize, Span)]>,
    chunked: bool,
    is_delimited: bool,
    request_id: Option<usize>,
    pub(super) serial: u64,
    /// Whether it was found since it was last considered for removal.
    pub(super) used: bool,
}

/// The loose pairs of these, which have been sorted. A name that comes twice is none: the values depend on each other.
pub(super) fn loose_pairs(
    head: &Head,
    variables: &[Field],
    bytes: &[u8],
    (packing, place): (Packing, Range<usize>),
) -> Vec<LoosePair> {
    let names = || packing.pairs(bytes, place.clone()).flatten().map(|pair| pair.name.of(bytes));
    let mut loose: Vec<LoosePair> = Vec::new();
    let (mut pairs, mut start) = (packing.pairs(bytes, place.clone()), place.start);
    while let Some(Ok(pair)) = pairs.next() {
        let end = pairs.at();
        let (from, name) = (std::mem::replace(&mut start, end), pair.name.of(bytes));
        let used_as = match name.strip_prefix(FIELD) {
            Some(field) if is_loose_field(field) && head.fields.iter().any(|field| field.value == pair.value) => Use::Field,
            _ if !is_loose_variable(name) => continue,
            _ if variables.contains(&pair) => Use::Variable,
            _ => Use::Read,
        };
        if loose.len() == MOST || names().filter(|other| *other == name).count() > 1 {
            continue;
        }
        loose.push(LoosePair {
            start: from - place.start,
            end: end - place.start,
            name: relative(pair, place.start).name,
            used_as,
            text: None,
            is_one_line: is_one_line(name),
        });
    }
    loose
}

/// The bytes of a block between its loose pairs.
pub(super) fn fixed_pieces<'a>(loose: &[LoosePair], block: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let starts = loose.iter().map(|pair| pair.start).chain([block.len()]);
    let ends = [0].into_iter().chain(loose.iter().map(|pair| pair.end));
    ends.zip(starts).map(|(from, to)| &block[from..to])
}

impl KnownBlock {
    /// The block of these pairs, which have been sorted to the head, with these variables, and to `seen`.
    pub(super) fn new(
        head: &Head,
        variables: &[Field],
        bytes: &[u8],
        (packing, place): (Packing, Range<usize>),
        mut loose: Vec<LoosePair>,
        mut seen: Seen,
        serial: u64,
    ) -> Self {
        let mut raw = bytes[..place.end].to_vec();
        restore(head, &mut raw);
        let is_fixed = |loose: &[LoosePair], span: Span| {
            let at = span.start as usize;
            !loose.iter().any(|pair| pair.start <= at && at < pair.end.max(pair.start + 1))
        };
        let fixed = |loose: &[LoosePair], fields: &[Field]| -> Box<[Field]> {
            fields.iter().map(|field| relative(*field, place.start)).filter(|field| is_fixed(loose, field.name)).collect()
        };
        let (fields, variables) = (fixed(&loose, &head.fields), fixed(&loose, variables));
        let mut texts = Vec::new();
        for (number, text) in seen.texts().into_iter().enumerate() {
            let Some(value) = *text else { continue };
            let value = relative(Field { name: value, value }, place.start).value;
            match loose.iter_mut().find(|pair| pair.name.end <= value.start && value.end as usize <= pair.end) {
                Some(pair) => pair.text = Some(number),
                None => texts.push((number, value)),
            }
        }
        texts.sort_unstable_by_key(|(_, value)| value.start);
        let mut last = FixedPiece { bytes: 0..0, fields: 0..0, variables: 0..0, texts: 0..0 };
        let ends = loose.iter().map(|pair| (pair.start, pair.end)).chain([(place.len(), place.len())]);
        let pieces = ends.map(|(end, next)| {
            let earlier = |span: Span| (span.start as usize) < end;
            // Names are not empty. A value may be, and stand at the very end of its pair.
            let is_value_of_it = |value: Span| value.start as usize <= end;
            let piece = FixedPiece {
                bytes: last.bytes.end..end,
                fields: last.fields.end..fields.iter().filter(|field| earlier(field.name)).count(),
                variables: last.variables.end..variables.iter().filter(|variable| earlier(variable.name)).count(),
                texts: last.texts.end..texts.iter().filter(|(_, value)| is_value_of_it(*value)).count(),
            };
            last = FixedPiece { bytes: next..next, ..piece.clone() };
            piece
        });
        let pieces = pieces.collect();
        Self {
            packing,
            bytes: raw[place.clone()].into(),
            renamed: bytes[place].into(),
            loose: loose.into(),
            pieces,
            fields,
            variables,
            texts: texts.into(),
            chunked: seen.chunked,
            is_delimited: seen.is_delimited,
            request_id: head.request_id,
            serial,
            used: false,
        }
    }

    /// Whether the pairs at this place are the block, given other values of the loose ones, which are put to `found`. A value that the
    /// sorter would refuse is none: the sorter says why.
    pub(super) fn find(
        &self,
        bytes: &[u8],
        packing: Packing,
        place: &Range<usize>,
        limits: &Limits,
        found: &mut [FoundPair; MOST],
    ) -> bool {
        let [pieces @ .., last] = &*self.pieces else { return false };
        let rest = &self.bytes[last.bytes.clone()];
        // Most blocks differ there.
        if self.packing != packing || !bytes[place.clone()].ends_with(rest) {
            return false;
        }
        let (mut at, mut pairs) = (place.start, packing.pairs(bytes, place.clone()));
        for ((pair, piece), found) in self.loose.iter().zip(pieces).zip(found) {
            let piece = &self.bytes[piece.bytes.clone()];
            if !bytes[at..place.end].starts_with(piece) {
                return false;
            }
            pairs.go_on_at(at + piece.len());
            let Some(Ok(Field { name, value })) = pairs.next() else { return false };
            if name.of(bytes) != pair.name.of(&self.bytes) || !pair.admits(value.of(bytes), limits) {
                return false;
            }
            at = pairs.at();
            *found = FoundPair { name, value, end: at };
        }
        at + rest.len() == place.end
    }

    /// Sorts the pairs that begin at `start`, which are this block with the loose pairs that were found, as the sorter would.
    pub(super) fn sort_as_before(&self, head: &mut Head, bytes: &mut [u8], start: usize, found: &[FoundPair; MOST]) -> Seen {
        head.fields.clear();
        head.variables.clear();
        head.request_id = self.request_id;
        let mut seen = Seen { chunked: self.chunked, is_delimited: self.is_delimited, ..Seen::default() };
        let mut texts = seen.texts();
        let mut at = start;
        for ((pair, piece), &FoundPair { name, value, end }) in self.loose.iter().zip(&self.pieces).zip(found) {
            self.settle(piece, at, head, &mut texts, bytes);
            match pair.used_as {
                Use::Field => {
                    bytes[name.start as usize..name.end as usize].copy_from_slice(pair.name.of(&self.renamed));
                    let name = Span { start: name.start + FIELD.len() as u32, ..name };
                    head.fields.push(Field { name, value });
                }
                Use::Variable => head.variables.push(Field { name, value }),
                Use::Read => {}
            }
            if let Some(number) = pair.text {
                *texts[number] = Some(value);
            }
            at = end;
        }
        if let Some(last) = self.pieces.last() {
            self.settle(last, at, head, &mut texts, bytes);
        }
        seen
    }

    /// Sorts a piece without loose pairs that begins at `at`.
    #[inline]
    fn settle(&self, piece: &FixedPiece, at: usize, head: &mut Head, texts: &mut [&mut Option<Span>; TEXTS], bytes: &mut [u8]) {
        let renamed = &self.renamed[piece.bytes.clone()];
        bytes[at..at + renamed.len()].copy_from_slice(renamed);
        let by = (at as u32).wrapping_sub(piece.bytes.start as u32);
        head.fields.extend(self.fields[piece.fields.clone()].iter().map(|field| field.moved(by)));
        head.variables.extend(self.variables[piece.variables.clone()].iter().map(|variable| variable.moved(by)));
        for (number, value) in &self.texts[piece.texts.clone()] {
            *texts[*number] = Some(value.moved(by));
        }
    }
}

impl LoosePair {
    /// Whether the sorter would take this value.
    fn admits(&self, value: &[u8], limits: &Limits) -> bool {
        let is_plain = bad_value_byte(value).is_none();
        match self.used_as {
            Use::Field => is_plain && self.name.len() - FIELD.len() + value.len() <= limits.field_size,
            Use::Variable | Use::Read => {
                is_plain
                    || memchr::memchr(0, value).is_none() && !(self.is_one_line && memchr::memchr2(b'\r', b'\n', value).is_some())
            }
        }
    }
}
