//! The Date header's value (RFC 9110 section 5.6.7), rendered once a second.

/// Length of an IMF-fixdate, in bytes.
pub const LEN: usize = 29;

/// Remembers the rendered date of the last second asked for.
#[derive(Debug)]
pub struct Cache {
    second: u64,
    text: [u8; LEN],
}

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        let _ = Self { second: 0, text: [0; LEN] };
        todo!()
    }

    /// The date of `second` (seconds since the epoch, UTC), as `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn at(&mut self, second: u64) -> &[u8; LEN] {
        let _ = (second, self.second);
        &self.text
    }
}
