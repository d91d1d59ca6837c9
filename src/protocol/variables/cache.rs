//! Blocks of variables that were seen before: their requests without sorting the variables again.
//!
//! A front server sends the same names in the same order, and most of the values too. What is the same, byte for byte, need not be
//! checked again; the values that differ each time ([`crate::http::loose`]) are, by the rules of the sorter. Then the request is put
//! together of all values anew, so that only the sorting is remembered and nothing of a request.
//!
//! A block gets in when it comes for the second time. It is compared by all its bytes but the loose values. A hash alone only decides
//! whether it gets a place. Values that are not loose, such as credentials under names of a front's own, stay in memory as long as
//! the block has its place.

use std::ops::Range;

use super::{Seen, sort};
use crate::http::error::Error;
use crate::http::framing::Framing;
use crate::http::hash::{mix, mix_bytes};
use crate::http::head::{Field, Head, Limits};
use crate::http::header_cache::BlockId;
use crate::http::places::Places;
use crate::protocol::pairs::Packing;
use known::{FoundPair, KnownBlock, MOST};

mod known;
#[cfg(test)]
mod tests;

/// Longest block that is kept, in bytes: longer ones are mostly certificates and cookies.
const LONGEST: usize = 8 * 1024;

/// The blocks of variables that one thread has seen.
#[derive(Debug)]
pub struct VariableCache {
    entries: Vec<KnownBlock>,
    places: Places,
    /// The place that was found last.
    last: usize,
    /// The loose pairs of the block that was found last.
    found: [FoundPair; MOST],
}

impl VariableCache {
    /// No blocks. `owner` is a different number (below 65,536) for each cache whose names could meet.
    pub fn new(owner: usize) -> Self {
        Self { entries: Vec::new(), places: Places::new(owner), last: 0, found: [FoundPair::default(); MOST] }
    }

    /// As [`super::read`], and the name of the block if it is kept; the limits must always be the same. Equal names mean equal names
    /// and values of variables but for the loose values, in all caches whose owners differ.
    pub fn read(
        &mut self,
        head: &mut Head,
        bytes: &mut Vec<u8>,
        (packing, pairs): (Packing, Range<usize>),
        limits: &Limits,
    ) -> Result<(Framing, Option<BlockId>), Error> {
        if let Some(place) = self.find(bytes, packing, &pairs, limits) {
            self.last = place;
            let known = &mut self.entries[place];
            known.used = true;
            let seen = known.sort_as_before(head, bytes, pairs.start, &self.found);
            let block = BlockId::of_variables(known.serial, place);
            return Ok((seen.finish(head, bytes, limits)?, Some(block)));
        }
        let seen = sort(head, bytes, (packing, pairs.clone()), limits)?;
        // What is put together adds one.
        let count = head.variables.len();
        let framing = seen.finish(head, bytes, limits)?;
        self.consider(head, count, bytes, (packing, pairs), seen);
        Ok((framing, None))
    }

    /// The place of the block that these pairs are, with its loose pairs in `found`.
    fn find(&mut self, bytes: &[u8], packing: Packing, pairs: &Range<usize>, limits: &Limits) -> Option<usize> {
        let Self { entries, found, .. } = self;
        let mut is = |known: &KnownBlock| known.find(bytes, packing, pairs, limits, found);
        if entries.get(self.last).is_some_and(&mut is) {
            return Some(self.last);
        }
        entries.iter().position(is)
    }

    /// Keeps a block that came for the second time, if there is a place for it.
    fn consider(&mut self, head: &Head, count: usize, bytes: &[u8], (packing, pairs): (Packing, Range<usize>), seen: Seen) {
        if pairs.len() > LONGEST {
            return;
        }
        let variables = &head.variables[..count];
        let loose = known::loose_pairs(head, variables, bytes, (packing, pairs.clone()));
        let hash = hash(packing, known::fixed_pieces(&loose, &bytes[pairs.clone()]));
        if self.places.knows(hash) {
            let make = |serial| KnownBlock::new(head, variables, bytes, (packing, pairs), loose, seen, serial);
            self.places.keep(&mut self.entries, |known| &mut known.used, make);
        }
    }
}

/// The hash of a block in pieces; which blocks share one matters only for speed.
fn hash<'a>(packing: Packing, pieces: impl Iterator<Item = &'a [u8]>) -> u64 {
    pieces.fold(packing as u64, |hash, piece| mix_bytes(mix(hash, piece.len() as u64), piece))
}

/// The same field without what precedes it.
fn relative(field: Field, start: usize) -> Field {
    field.moved((start as u32).wrapping_neg())
}
