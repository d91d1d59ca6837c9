//! The Date header's value (RFC 9110 section 5.6.7), rendered once a second.

use std::fmt::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

/// Length of an IMF-fixdate, in bytes.
pub const LEN: usize = 29;

/// Last second of the year 9999, in seconds since the epoch: the format has four digits for the year.
const MAX_SECOND: u64 = 253_402_300_799;

/// Remembers the rendered date of the last second asked for.
#[derive(Debug)]
pub struct Cache {
    second: u64,
    text: [u8; LEN],
}

impl Cache {
    /// A cache that holds the epoch.
    pub fn new() -> Self {
        Self { second: 0, text: imf_fixdate(0) }
    }

    /// The date of `second` (seconds since the epoch, UTC), as `Sun, 06 Nov 1994 08:49:37 GMT`.
    #[inline]
    pub fn at(&mut self, second: u64) -> &[u8; LEN] {
        if second != self.second {
            self.text = imf_fixdate(second);
            self.second = second;
        }
        &self.text
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

/// The date of `second` (seconds since the epoch, UTC), as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn imf_fixdate(second: u64) -> [u8; LEN] {
    let mut line = DateLine { text: [b' '; LEN], len: 0 };
    let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second.min(MAX_SECOND)));
    write!(line, "{date}").expect("an IMF-fixdate has 29 bytes in every year of four digits");
    line.text
}

struct DateLine {
    text: [u8; LEN],
    len: usize,
}

impl Write for DateLine {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.text.get_mut(self.len..self.len + part.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(part.as_bytes());
        self.len += part.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_an_imf_fixdate() {
        let mut cache = Cache::new();
        assert_eq!(cache.at(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(cache.at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(784_111_778), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(cache.at(1_709_164_800), b"Thu, 29 Feb 2024 00:00:00 GMT");
    }

    #[test]
    fn a_clock_beyond_four_digit_years_does_not_panic() {
        assert_eq!(Cache::new().at(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
