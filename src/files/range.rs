//! Which part of a representation a Range field asks for (RFC 9110 section 14).
//!
//! One range of bytes is served. Several in one request are answered with the whole, as section 14.2 allows: the clients that send
//! them live with it, and parts of parts have been used to exhaust servers. What is malformed is ignored, since that costs a
//! client nothing but bytes.

use crate::http::bytes::trim;

/// What a Range field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedRange {
    /// Nothing that is served as a part.
    Whole,
    /// This part, which is not empty.
    Part {
        /// First byte.
        first: u64,
        /// Bytes.
        len: u64,
    },
    /// A part that lies behind the end (section 15.5.17).
    Nothing,
}

/// What the value of a Range field asks for of a representation of `size` bytes.
pub fn wanted(value: &[u8], size: u64) -> WantedRange {
    const UNIT: &[u8; 6] = b"bytes=";
    // Units are compared without case (section 14.1).
    let Some((unit, set)) = value.split_first_chunk::<6>().filter(|(unit, _)| unit.eq_ignore_ascii_case(UNIT)) else {
        return WantedRange::Whole;
    };
    debug_assert_eq!(unit.len(), UNIT.len());
    // Empty elements of a list count for nothing (section 5.6.1).
    let mut ranges = set.split(|&b| b == b',').map(trim).filter(|range| !range.is_empty());
    match (ranges.next().and_then(|range| one(range, size)), ranges.next()) {
        (Some(wanted), None) => wanted,
        _ => WantedRange::Whole,
    }
}

/// What one element asks for; `None` for a malformed one.
fn one(range: &[u8], size: u64) -> Option<WantedRange> {
    let dash = range.iter().position(|&b| b == b'-')?;
    let (first, last) = (&range[..dash], &range[dash + 1..]);
    let (first, last) = match (first, last) {
        ([], []) => return None,
        ([], suffix) => {
            let suffix = number(suffix)?.min(size);
            if suffix == 0 {
                return Some(WantedRange::Nothing);
            }
            (size - suffix, size - 1)
        }
        (first, []) => (number(first)?, u64::MAX),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last)
        }
    };
    if first >= size {
        return Some(WantedRange::Nothing);
    }
    Some(WantedRange::Part { first, len: last.min(size - 1) - first + 1 })
}

/// A number of any length; those that do not fit are as good as the largest.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| digits.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, len: u64) -> WantedRange {
        WantedRange::Part { first, len }
    }

    #[test]
    fn one_range_is_a_part() {
        // RFC 9110 section 14.1.2.
        for (value, expected) in [
            ("bytes=0-499", part(0, 499 + 1)),
            ("bytes=500-999", part(500, 500)),
            ("bytes=-500", part(9500, 500)),
            ("bytes=9500-", part(9500, 500)),
            ("bytes=0-0", part(0, 1)),
            ("bytes=-1", part(9999, 1)),
            ("bytes=9999-9999", part(9999, 1)),
            ("bytes=0-", part(0, 10_000)),
            ("bytes=0-99999", part(0, 10_000)),
            ("bytes=-99999", part(0, 10_000)),
            ("BYTES=1-2", part(1, 2)),
            ("bytes= 1-2 ", part(1, 2)),
            ("bytes=,1-2,,", part(1, 2)),
            ("bytes=0000000000000000000000001-2", part(1, 2)),
            ("bytes=0-18446744073709551615", part(0, 10_000)),
            ("bytes=0-99999999999999999999999999", part(0, 10_000)),
            ("bytes=-99999999999999999999999999", part(0, 10_000)),
        ] {
            assert_eq!(wanted(value.as_bytes(), 10_000), expected, "{value}");
        }
    }

    #[test]
    fn a_range_behind_the_end_has_nothing() {
        for (value, size) in [
            ("bytes=10000-", 10_000),
            ("bytes=10000-10001", 10_000),
            ("bytes=-0", 10_000),
            ("bytes=99999999999999999999999999-", 10_000),
            ("bytes=0-", 0),
            ("bytes=0-0", 0),
            ("bytes=-1", 0),
            ("bytes=18446744073709551615-18446744073709551615", u64::MAX),
        ] {
            assert_eq!(wanted(value.as_bytes(), size), WantedRange::Nothing, "{value} of {size}");
        }
    }

    #[test]
    fn several_and_malformed_ones_are_ignored() {
        for value in [
            "bytes=0-1,3-4",
            "bytes=0-,0-,0-,0-",
            "bytes=99999-,0-1",
            "bytes=5-4",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=--1",
            "bytes=1 -2",
            "bytes=0x1-2",
            "bytes 0-1",
            "bytes",
            "items=0-1",
            "seconds=1-2",
            "",
            "bytes =0-1",
            "bytes=1-2;q=1",
        ] {
            assert_eq!(wanted(value.as_bytes(), 10_000), WantedRange::Whole, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_part_lies_within(value in "(bytes=)?[0-9,\\- ]{0,30}", size in 0u64..1000) {
            if let WantedRange::Part { first, len } = wanted(value.as_bytes(), size) {
                proptest::prop_assert!(len > 0 && first + len <= size);
            }
        }
    }
}
