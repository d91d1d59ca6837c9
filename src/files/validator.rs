//! What names one state of a file: its entity tag and the date of its last change (RFC 9110 section 8.8).
//!
//! The tag is strong. It has the time of the last change to the nanosecond, since a second is too coarse for a deployment that
//! writes a file twice, and the size, since a rollback may bring an older time back.

use std::fmt;

use super::coding::ContentCoding;
use crate::http::bytes::put_hex;

/// One state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validator {
    /// Last change in seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds of that second.
    pub nanos: u32,
    /// Bytes.
    pub size: u64,
    /// How its bytes are coded.
    pub coding: Option<ContentCoding>,
}

/// An entity tag with its quotes.
#[derive(Clone, PartialEq, Eq)]
pub struct EntityTag(Vec<u8>);

impl fmt::Debug for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityTag({})", self.0.escape_ascii())
    }
}

/// Bytes of the longest tag: three numbers, their separators, a coding and the quotes.
const TAG_MAX: usize = 64;

impl Validator {
    /// Its entity tag. Two codings of one file never share a tag (section 8.8.3.3).
    pub fn tag(&self) -> EntityTag {
        let mut tag = Vec::with_capacity(TAG_MAX);
        tag.push(b'"');
        put_hex(&mut tag, self.seconds as u64);
        tag.push(b'.');
        put_hex(&mut tag, self.nanos.into());
        tag.push(b'-');
        put_hex(&mut tag, self.size);
        if let Some(coding) = self.coding {
            tag.push(b'-');
            tag.extend_from_slice(coding.name().as_bytes());
        }
        tag.push(b'"');
        EntityTag(tag)
    }

    /// The second of its last change, which is never later than `now` (section 8.8.2.1), nor before the epoch.
    pub fn last_modified(&self, now: u64) -> u64 {
        u64::try_from(self.seconds).unwrap_or(0).min(now)
    }
}

impl EntityTag {
    /// As the field has it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: Validator = Validator { seconds: 0x6543_2100, nanos: 0xabc, size: 0x1f4, coding: None };

    #[test]
    fn a_tag_has_time_size_and_coding() {
        assert_eq!(STATE.tag().as_bytes(), b"\"65432100.abc-1f4\"");
        assert_eq!(Validator { coding: Some(ContentCoding::Br), ..STATE }.tag().as_bytes(), b"\"65432100.abc-1f4-br\"");
        let longest = Validator { seconds: -1, nanos: 999_999_999, size: u64::MAX, coding: Some(ContentCoding::Zstd) };
        assert!(longest.tag().as_bytes().len() <= TAG_MAX);
    }

    #[test]
    fn each_difference_is_another_tag() {
        for other in [
            Validator { seconds: STATE.seconds + 1, ..STATE },
            Validator { nanos: STATE.nanos + 1, ..STATE },
            Validator { size: STATE.size + 1, ..STATE },
            Validator { coding: Some(ContentCoding::Gzip), ..STATE },
        ] {
            assert_ne!(other.tag(), STATE.tag());
        }
    }

    #[test]
    fn the_last_change_is_never_later_than_the_answer() {
        assert_eq!(STATE.last_modified(u64::MAX), 0x6543_2100);
        assert_eq!(STATE.last_modified(5), 5);
        assert_eq!(Validator { seconds: -7, ..STATE }.last_modified(5), 0);
    }
}
