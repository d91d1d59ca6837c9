//! The token of a connection.

/// Identifies a connection in events and timers: slab key and generation, so that a stale event finds no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(usize);

const _: () = assert!(usize::BITS == 64, "a token holds two 32-bit numbers");

impl Token {
    /// The token of no connection: generations begin at 1.
    pub const NONE: Self = Self(0);

    /// The token of `key` in its `generation`.
    pub fn new(key: u32, generation: u32) -> Self {
        Self((generation as usize) << 32 | key as usize)
    }

    /// The slab key.
    pub fn key(self) -> usize {
        self.0 & 0xffff_ffff
    }
}

impl From<Token> for mio::Token {
    fn from(token: Token) -> Self {
        Self(token.0)
    }
}

impl From<mio::Token> for Token {
    fn from(token: mio::Token) -> Self {
        Self(token.0)
    }
}
