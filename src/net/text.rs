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

    /// Appends the number in decimal: several times as fast as formatting it.
    pub(super) fn push_decimal(&mut self, number: u16) {
        let start = usize::from(self.len);
        let digits = match number {
            0..10 => 1,
            10..100 => 2,
            100..1_000 => 3,
            1_000..10_000 => 4,
            10_000.. => 5,
        };
        let Some(place) = self.bytes.get_mut(start..start + digits) else { return };
        let mut rest = number;
        for digit in place.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.len += digits as u8;
    }

    /// Appends an ASCII character. Without room it is lost.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        debug_assert!(byte.is_ascii());
        if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
            *place = byte;
            self.len += 1;
        }
    }
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
            let mut text = Text::<5>::default();
            text.push_decimal(number);
            assert_eq!(&*text, number.to_string());
        }
    }

    #[test]
    fn what_has_no_room_is_not_written() {
        let mut text = Text::<3>::from("abc");
        assert!(write!(text, "d").is_err());
        text.push(b'e');
        assert_eq!((&*text, &*Text::<3>::from("abcd")), ("abc", ""));
    }
}
