//! Which blocks that a thread has seen it keeps, and in which place: those that come for the second time, in a free place or in that of a
//! block that nobody has asked for lately.

/// Most blocks that a cache keeps. A block that is not found is compared with each of them.
pub const PLACES: usize = 32;

/// Hashes of blocks that were seen once; a power of two.
const SEEN: usize = 64;

/// Bits of a serial number that name the owner.
pub const OWNER_SHIFT: u32 = 48;

/// The places of one cache, whose blocks are with it.
#[derive(Debug)]
pub struct Places {
    seen: [u64; SEEN],
    /// The place that is considered next for removal.
    hand: usize,
    serial: u64,
}

impl Places {
    /// All of them free. `owner` is a different number (below 65,536) for each cache whose serial numbers could meet.
    pub fn new(owner: usize) -> Self {
        Self { seen: [0; SEEN], hand: 0, serial: (owner as u64) << OWNER_SHIFT }
    }

    /// Whether a block of this hash was the last one here of those that share its first bits; it is now.
    pub fn knows(&mut self, hash: u64) -> bool {
        let seen = &mut self.seen[(hash >> (u64::BITS - SEEN.trailing_zeros())) as usize];
        std::mem::replace(seen, hash) == hash
    }

    /// Keeps a block, which is made for its serial number, if there is a place for it. `used` is whether one was found since it was
    /// last considered for removal.
    pub fn keep<T>(&mut self, blocks: &mut Vec<T>, used: impl Fn(&mut T) -> &mut bool, make: impl FnOnce(u64) -> T) {
        if blocks.len() < PLACES {
            blocks.push(make(self.next()));
            return;
        }
        let block = &mut blocks[self.hand];
        self.hand = (self.hand + 1) % PLACES;
        // A block that is in use has a second chance, so that blocks that come only twice do not displace it.
        if !std::mem::take(used(block)) {
            *block = make(self.next());
        }
    }

    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}
