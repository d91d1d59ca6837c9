//! Fields that come once in a request: those that are no lists, so that two of them cannot be joined (RFC 9110 section 5.3).
//!
//! Of two such fields one reader takes the first, another the last, a third both with a comma between. Then a proxy may have
//! checked one and the application may act on the other. So the request is refused, also when the two are equal: no honest client
//! sends them. Fields that only describe the client (User-Agent, Referer, From, Date) decide nothing; some clients send them
//! twice, and they are joined as lists are.

use super::error::Error;

/// The table: framing, host, credentials, conditions and ranges; Origin, because applications trust it against forged requests.
const NAMES: [&str; 13] = [
    "Host",
    "Content-Length",
    "Content-Type",
    "Content-Range",
    "Content-Location",
    "Authorization",
    "Proxy-Authorization",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "If-Range",
    "Range",
    "Max-Forwards",
    "Origin",
];

/// The name of the table that this one is, in which underscores may stand for hyphens, as in variables of a gateway.
pub fn single(name: &[u8]) -> Option<&'static str> {
    let is_it = |known: &&str| {
        let same = |(known, byte): (u8, &u8)| known.eq_ignore_ascii_case(byte) || known == b'-' && *byte == b'_';
        known.len() == name.len() && known.bytes().zip(name).all(same)
    };
    NAMES.into_iter().find(is_it)
}

/// The number of values of the low five bits of a byte, by which a letter has its place.
const LETTERS: usize = 32;

/// By the first letter in either case: the lengths of the names of the table that begin with it, as bits.
const LENGTHS: [u32; LETTERS] = {
    let mut table = [0; LETTERS];
    let mut at = 0;
    while at < NAMES.len() {
        let name = NAMES[at].as_bytes();
        table[name[0] as usize % LETTERS] |= 1 << name.len();
        at += 1;
    }
    table
};

/// Which of them a head has had, as bits in the order of the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Once(u32);

impl Once {
    /// Notes a field; refuses the second one with a name of the table.
    #[inline]
    pub(super) fn note(&mut self, name: &[u8]) -> Result<(), Error> {
        let lengths = name.first().map_or(0, |first| LENGTHS[usize::from(*first) % LETTERS]);
        if name.len() < LETTERS && lengths & 1 << name.len() != 0 { self.look(name) } else { Ok(()) }
    }

    fn look(&mut self, name: &[u8]) -> Result<(), Error> {
        let Some(place) = NAMES.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(name)) else { return Ok(()) };
        let seen = 1 << place;
        if self.0 & seen != 0 {
            return Err(Error::Twice(NAMES[place]));
        }
        self.0 |= seen;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_of_the_table_is_known_in_any_case_and_comes_once() {
        for name in NAMES {
            let mut once = Once::default();
            assert_eq!(once.note(name.to_ascii_lowercase().as_bytes()), Ok(()), "{name}");
            for other in NAMES.iter().filter(|other| **other != name) {
                assert_eq!(once.note(other.as_bytes()), Ok(()), "{other} behind {name}");
            }
            assert_eq!(once.note(name.to_ascii_uppercase().as_bytes()), Err(Error::Twice(name)), "{name}");
        }
    }

    #[test]
    fn variables_are_known_by_their_names() {
        assert_eq!(single(b"CONTENT_TYPE"), Some("Content-Type"));
        assert_eq!(single(b"HOST"), Some("Host"));
        for other in [&b"COOKIE"[..], b"HOST_", b"HOS", b"", b"IF_NONE_MATCH"] {
            assert_eq!(single(other), None);
        }
    }

    #[test]
    fn other_names_may_come_as_often_as_they_like() {
        let long = "Content-Type".repeat(10);
        for name in ["Accept", "Cookie", "X-Host", "Content-Typf", "Hosu", "User-Agent", "Via", "R", &long, "!", "\u{e9}"] {
            let mut once = Once::default();
            assert!((0..3).all(|_| once.note(name.as_bytes()).is_ok()), "{name}");
        }
    }
}
