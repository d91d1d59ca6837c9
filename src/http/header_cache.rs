//! Header blocks that were seen before: their fields and framing without parsing them again.
//!
//! Clients send the same block with every request of a connection, and load balancers and health checks with every connection. A
//! block gets in when it comes for the second time, and only when it was parsed in full and has no transfer coding. It is
//! compared by all its bytes but the values of a few fields that differ each time, such as cookies ([`Varying`]). A hash alone
//! only decides whether a block gets a place. Cookies and credentials of a block stay in memory as long as it has its place.

mod varying;

use super::bytes::{decimal, same};
use super::error::Error;
use super::framing::{self, Framing, Length};
use super::hash::{mix, mix_bytes};
use super::head::{Field, Head, Limits, Parsed, Progress, Span, Version};
use super::places::Places;
use super::target::Target;
use varying::ValueLengths;
pub use varying::Varying;

/// Longest block that is kept, in bytes; a longer one is mostly cookies.
const LONGEST: usize = 4096;

/// Shortest block that is kept, in bytes: a shorter one would gain nothing, and the comparison needs so many bytes.
const SHORTEST: usize = TAIL + END;

/// Bytes in front of the final line ends that are compared first: blocks differ in their length or there.
const TAIL: usize = 8;

/// Bytes of the final line ends.
const END: usize = 4;

/// Names a block: the same name means the same version and the same bytes but for the values of its loose fields, in all caches
/// whose owners differ.
#[derive(Clone, Copy, Debug, Eq)]
pub struct BlockId {
    serial: u64,
    place: u8,
    /// The fields whose values may differ.
    pub loose: Varying,
}

impl PartialEq for BlockId {
    /// A serial number is given once by each cache: place and loose fields follow from it.
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl BlockId {
    /// The name of what another cache keeps under this serial number at this place; nothing of it is loose for the reader
    /// of header blocks.
    pub fn of_variables(serial: u64, place: usize) -> Self {
        Self { serial, place: place as u8, loose: Varying::default() }
    }

    /// Its place, below [`super::places::PLACES`]; taken by another block when this one is forgotten.
    pub fn place(self) -> usize {
        usize::from(self.place)
    }
}

/// One block.
#[derive(Debug)]
struct CachedBlock {
    bytes: Box<[u8]>,
    tail: [u8; TAIL],
    version: Version,
    /// Spans from the start of the block.
    fields: Box<[Field]>,
    request_id: Option<usize>,
    loose: Varying,
    /// Place of Content-Length among the fields.
    sized: Option<usize>,
    framing: Framing,
    serial: u64,
    /// Whether it was found since it was last considered for removal.
    used: bool,
}

/// The blocks that one thread has seen.
#[derive(Debug)]
pub struct HeaderCache {
    entries: Vec<CachedBlock>,
    places: Places,
    /// The place that was found last.
    last: usize,
    /// How the last head was found.
    found: Option<usize>,
}

impl HeaderCache {
    /// No blocks. `owner` is a different number (below 65,536) for each cache whose names could meet.
    pub fn new(owner: usize) -> Self {
        Self { entries: Vec::new(), places: Places::new(owner), last: 0, found: None }
    }

    /// As [`Head::resume`]; the limits must always be the same.
    #[inline(always)] // each request comes through the one caller, heads in pieces through the other
    pub fn resume(&mut self, head: &mut Head, bytes: &[u8], limits: &Limits, progress: &mut Progress) -> Result<Parsed, Error> {
        self.found = None;
        if progress.is_started() {
            return head.resume(bytes, limits, progress);
        }
        if head.request_line(bytes, limits)? == Parsed::Partial {
            progress.wait_for_line(bytes);
            return Ok(Parsed::Partial);
        }
        let rest = &bytes[head.block.start as usize..];
        let place = match self.find(head.version, rest) {
            Some(place) => {
                self.entries[place].set_fields(head);
                place
            }
            None => match self.find_loose(head.version, rest, limits) {
                Some((place, lengths, len)) => {
                    self.entries[place].set_loose_fields(head, &lengths, len);
                    place
                }
                None => return head.resume_fields(bytes, limits, progress),
            },
        };
        self.entries[place].used = true;
        (self.found, self.last) = (Some(place), place);
        Ok(Parsed::Complete)
    }

    /// As [`framing::of`], for the head that [`HeaderCache::resume`] has just found complete; and the name of its block if it is
    /// kept.
    #[inline(always)] // each request comes through the one caller
    pub fn framing(&mut self, head: &Head, bytes: &[u8]) -> Result<(Framing, Option<BlockId>), Error> {
        let Some(place) = self.found else {
            let framing = framing::of(head, bytes)?;
            self.consider(head, bytes, framing);
            return Ok((framing, None));
        };
        Target::check(head, bytes)?;
        let entry = &self.entries[place];
        let framing = Framing { length: entry.length(head, bytes)?, ..entry.framing };
        Ok((framing, Some(BlockId { serial: entry.serial, place: place as u8, loose: entry.loose })))
    }

    /// The place of the block that `rest` begins with.
    fn find(&self, version: Version, rest: &[u8]) -> Option<usize> {
        let is = |entry: &CachedBlock| {
            let len = entry.bytes.len();
            entry.version == version
                && rest.get(len - SHORTEST..len - END) == Some(&entry.tail)
                && rest.get(..len) == Some(&*entry.bytes)
        };
        if self.entries.get(self.last).is_some_and(is) {
            return Some(self.last);
        }
        self.entries.iter().position(is)
    }

    /// The place of the block that `rest` begins with but for the values of its loose fields, with their lengths and its length
    /// in `rest`.
    fn find_loose(&self, version: Version, rest: &[u8], limits: &Limits) -> Option<(usize, ValueLengths, usize)> {
        let find = |place: usize| {
            let entry = self.entries.get(place).filter(|entry| entry.version == version)?;
            let (lengths, len) = entry.loose.find(&entry.bytes, &entry.fields, rest, limits)?;
            Some((place, lengths, len))
        };
        find(self.last).or_else(|| (0..self.entries.len()).find_map(find))
    }

    /// Keeps a block that came for the second time, if there is a place for it.
    fn consider(&mut self, head: &Head, bytes: &[u8], framing: Framing) {
        let block = head.block.of(bytes);
        if framing.length == Length::Chunked || !(SHORTEST..=LONGEST).contains(&block.len()) {
            return;
        }
        let start = head.block.start;
        let loose = Varying::of(&head.fields, bytes);
        let hash = hash(loose.pieces(&head.fields, bytes, start as usize, head.len));
        if !self.places.knows(hash) || head.iter(bytes).any(|(name, _)| same(name, b"expect") || same(name, b"upgrade")) {
            return;
        }
        self.places.keep(
            &mut self.entries,
            |entry| &mut entry.used,
            |serial| CachedBlock {
                bytes: block.into(),
                tail: *block[..block.len() - END].last_chunk().expect("it is not shorter than the shortest"),
                version: head.version,
                fields: head.fields.iter().map(|field| field.moved(start.wrapping_neg())).collect(),
                request_id: head.request_id,
                loose,
                sized: head.fields.iter().position(|field| same(field.name.of(bytes), b"content-length")),
                framing,
                serial,
                used: false,
            },
        );
    }
}

impl CachedBlock {
    /// Length of the body that a head with this block announces. The value of Content-Length may differ from the block's.
    #[inline]
    fn length(&self, head: &Head, bytes: &[u8]) -> Result<Length, Error> {
        match self.sized {
            None => Ok(self.framing.length),
            Some(place) => decimal(head.fields[place].value.of(bytes)).map(Length::Known).ok_or(Error::Length),
        }
    }

    /// Gives a head, whose request line is parsed, the field lines of this block, which was parsed before.
    fn set_fields(&self, head: &mut Head) {
        let start = head.block.start;
        head.fields.clear();
        head.fields.extend(self.fields.iter().map(|field| field.moved(start)));
        self.end_block(head, self.bytes.len());
    }

    /// The same with values of these lengths in the loose fields and so with `len` bytes.
    fn set_loose_fields(&self, head: &mut Head, lengths: &ValueLengths, len: usize) {
        head.fields.clear();
        self.loose.moved(&self.fields, lengths, head.block.start, &mut head.fields);
        self.end_block(head, len);
    }

    fn end_block(&self, head: &mut Head, len: usize) {
        head.request_id = self.request_id;
        let start = head.block.start as usize;
        head.len = start + len;
        head.block = Span::new(start, head.len);
    }
}

/// The hash of a block in pieces; which blocks share one matters only for speed.
fn hash<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> u64 {
    pieces.fold(0, |hash, piece| mix_bytes(mix(hash, piece.len() as u64), piece))
}

#[cfg(test)]
mod tests;
