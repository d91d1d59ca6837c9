//! Short texts without a heap: each connection holds those of its client.

use std::fmt;
use std::ops::Deref;

/// A text of at most `N` bytes, `N` below 256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// Its bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The number in decimal, several times as fast as by the formatter, which each connection would notice.
    pub(super) fn decimal(number: u16) -> Self {
        const { assert!(N >= DECIMAL_MAX) };
        let mut text = Self::default();
        let digits = match number {
            0..10 => 1,
            10..100 => 2,
            100..1_000 => 3,
            1_000..10_000 => 4,
            10_000.. => DECIMAL_MAX,
        };
        let mut rest = number;
        for digit in text.bytes[..digits].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        text.len = digits as u8;
        text
    }

    /// The address with its four numbers in decimal, likewise.
    pub(super) fn dotted(octets: [u8; 4]) -> Self {
        const { assert!(N >= DOTTED_MAX) };
        let mut text = Self::default();
        let place = text.bytes.first_chunk_mut::<DOTTED_MAX>().expect("it is as long");
        let mut len = 0;
        for octet in octets {
            // At most three times four bytes precede these.
            let Some(place) = place.get_mut(len..len + OCTET_MAX) else { break };
            place.copy_from_slice(&OCTETS[usize::from(octet)]);
            len += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
        }
        // The last point.
        place[len - 1] = 0;
        text.len = (len - 1) as u8;
        text
    }
}

/// Longest number of 16 bits in bytes.
const DECIMAL_MAX: usize = 5;

/// Longest octet with a point in bytes.
const OCTET_MAX: usize = 4;

/// Longest IPv4 address with a point at its end in bytes.
const DOTTED_MAX: usize = 4 * OCTET_MAX;

/// Each octet in decimal, with a point at its end.
static OCTETS: [[u8; OCTET_MAX]; 256] = octets();

const fn octets() -> [[u8; OCTET_MAX]; 256] {
    let mut all = [[0; OCTET_MAX]; 256];
    let mut octet = 0;
    while octet < all.len() {
        let (hundreds, tens, ones) = (b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8);
        all[octet] = match octet {
            0..10 => [ones, b'.', 0, 0],
            10..100 => [tens, ones, b'.', 0],
            _ => [hundreds, tens, ones, b'.'],
        };
        octet += 1;
    }
    all
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        const { assert!(N <= u8::MAX as usize) };
        Self { len: 0, bytes: [0; N] }
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = usize::from(self.len);
        let place = self.bytes.get_mut(start..start + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len += text.len() as u8;
        Ok(())
    }
}

/// A text that is too long becomes empty.
impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Self {
        let mut short = Self::default();
        // Fails before anything is written.
        let _ = fmt::Write::write_str(&mut short, text);
        short
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        // Only whole texts and ASCII characters are added.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::Text;

    #[test]
    fn numbers_are_those_of_the_formatter() {
        for number in [0, 1, 9, 10, 19, 99, 100, 101, 999, 1000, 1001, 9999, 10_000, 10_001, 54_321, u16::MAX] {
            assert_eq!(&*Text::<5>::decimal(number), number.to_string());
        }
    }

    #[test]
    fn addresses_are_those_of_the_formatter() {
        for octet in 0..=u8::MAX {
            for octets in [[octet; 4], [octet, 0, 255, 10], [255, octet, 9, 99], [1, 100, octet, 0], [127, 0, 0, octet]] {
                let expected = std::net::Ipv4Addr::from(octets).to_string();
                assert_eq!(Text::<39>::dotted(octets), Text::from(expected.as_str()), "{expected}");
            }
        }
    }

    #[test]
    fn what_has_no_room_is_not_written() {
        let mut text = Text::<3>::from("abc");
        assert!(write!(text, "d").is_err());
        assert_eq!((&*text, &*Text::<3>::from("abcd")), ("abc", ""));
    }
}
