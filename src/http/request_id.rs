//! Names of requests: X-Request-ID, by which the logs of all servers on the way of a request find each other.

/// Longest name that is believed, in bytes.
pub const LONGEST: usize = 128;

/// Bytes of a name that is made here: 128 bits in hexadecimal digits.
pub const LEN: usize = 32;

/// Name of the field.
pub const FIELD: &[u8] = b"X-Request-ID";

/// Whether the name that a proxy gives is one for logs and files: nothing in it has a meaning for a shell, a page or a query.
pub fn is_sound(name: &[u8]) -> bool {
    let is_of_name =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'+' | b'/' | b'=' | b'@' | b'-');
    (1..=LONGEST).contains(&name.len()) && name.iter().all(is_of_name)
}

/// Makes names that no other one makes: 2^128 numbers lie on a circle, each begins at a random one, and goes on from there.
#[derive(Debug)]
pub struct RequestIds {
    next: u128,
}

impl RequestIds {
    /// `seed` is a random number, another one for each thread of each process.
    pub fn new(seed: [u8; 16]) -> Self {
        Self { next: u128::from_ne_bytes(seed) }
    }

    /// The next name.
    #[inline]
    pub fn make(&mut self) -> [u8; LEN] {
        self.next = self.next.wrapping_add(1);
        hexadecimal(scattered(self.next))
    }
}

/// Another number for each number, so that nobody sees from two names how many requests lie between them: three rounds of a
/// Feistel network, which has an inverse whatever its function is.
#[inline]
fn scattered(number: u128) -> u128 {
    let (mut high, mut low) = ((number >> u64::BITS) as u64, number as u64);
    high ^= mixed(low);
    low ^= mixed(high);
    high ^= mixed(low);
    u128::from(high) << u64::BITS | u128::from(low)
}

/// The finalizer of splitmix64.
#[inline]
fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[inline]
fn hexadecimal(number: u128) -> [u8; LEN] {
    let mut text = [0; LEN];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(number.to_be_bytes()) {
        *pair = DIGITS[usize::from(byte)];
    }
    text
}

/// Each byte in hexadecimal digits.
static DIGITS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        all[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_differ_and_have_128_bits() {
        let mut ids = RequestIds::new([255; 16]);
        let names: HashSet<_> = (0..10_000).map(|_| ids.make()).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.iter().all(|digit| b"0123456789abcdef".contains(digit)) && is_sound(name)));
        let first = |seed| RequestIds::new(seed).make();
        assert_ne!(first([0; 16]), first([1; 16]));
    }

    #[test]
    fn neighbours_look_unrelated() {
        let mut ids = RequestIds::new([7; 16]);
        let number = |name: [u8; LEN]| u128::from_str_radix(std::str::from_utf8(&name).unwrap(), 16).unwrap();
        let names: Vec<_> = (0..1000).map(|_| number(ids.make())).collect();
        let changed: u32 = names.windows(2).map(|two| (two[0] ^ two[1]).count_ones()).sum();
        assert!((60_000..68_000).contains(&changed), "half of 128 bits change: {changed}");
    }

    #[test]
    fn a_name_is_short_and_plain() {
        for sound in
            ["a", "7f", "0af7651916cd43dd8448eb211c80319c", "Root=1-67891233-abcdef012345678912345678", "a.b_c:d+e/f=g@h-i"]
        {
            assert!(is_sound(sound.as_bytes()), "{sound}");
        }
        assert!(is_sound(&[b'a'; 128]) && !is_sound(&[b'a'; 129]));
        for bad in
            ["", " ", "a b", "a,b", "a\"", "<a>", "a\u{e4}", "a;b", "a\tb", "a%20", "a?b", "a#b", "a\\b", "$a", "`a`", "a\0"]
        {
            assert!(!is_sound(bad.as_bytes()), "{bad}");
        }
    }
}
