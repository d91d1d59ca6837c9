//! Statuses of answers: one counter for each that is in use, and one for each class of the others.

/// The statuses that have a counter of their own.
const KNOWN: [u16; 61] = [
    101, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308, 400, 401, 402, 403, 404,
    405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499,
    500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// Classes of statuses, from 1xx to 5xx.
const STATUS_CLASSES: usize = 5;

/// How many counters there are.
pub const STATUSES: usize = KNOWN.len() + STATUS_CLASSES;

/// The counter of each status from 100 to 611. What is no status belongs to 5xx, as clients treat it (RFC 9110 section 15).
const INDEX: [u8; 512] = {
    let mut index = [0; 512];
    let mut status = 0;
    while status < index.len() {
        let class = status / 100;
        let class = if class < STATUS_CLASSES { class } else { STATUS_CLASSES - 1 };
        index[status] = (KNOWN.len() + class) as u8;
        status += 1;
    }
    let mut known = 0;
    while known < KNOWN.len() {
        index[KNOWN[known] as usize - 100] = known as u8;
        known += 1;
    }
    index
};

/// The counter of a status, less than [`STATUSES`].
#[inline]
pub fn index_of(status: u16) -> usize {
    let at = usize::from(status.wrapping_sub(100)).min(INDEX.len() - 1);
    usize::from(INDEX[at])
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusKey {
    /// Answers with this status.
    Exact(u16),
    /// Answers with other statuses of this class: 4 for 4xx.
    Class(u16),
}

impl StatusKey {
    /// That of a counter.
    pub fn of(index: usize) -> Self {
        match KNOWN.get(index) {
            Some(status) => Self::Exact(*status),
            None => Self::Class((index - KNOWN.len() + 1) as u16),
        }
    }
}

impl std::fmt::Display for StatusKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(status) => write!(f, "{status}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_the_counter_of_its_own_or_of_its_class() {
        for status in 100..600 {
            let key = StatusKey::of(index_of(status));
            let expected = if KNOWN.contains(&status) { StatusKey::Exact(status) } else { StatusKey::Class(status / 100) };
            assert_eq!(key, expected);
        }
        for strange in [0, 99, 600, 999, u16::MAX] {
            assert_eq!(StatusKey::of(index_of(strange)).to_string(), "5xx", "{strange}");
        }
        assert!((0..STATUSES).all(|index| StatusKey::of(index).to_string().len() == 3));
    }
}
