//! Byte classes and numbers: the lexical rules that requests and answers share (RFC 9110 section 5.6).

/// Bytes of a token: field names, methods, codings.
pub(super) static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether `text` is a token: at least one byte, and only token bytes.
#[inline]
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().fold(true, |ok, &b| ok & TOKEN[b as usize])
}

/// Whether a byte may stand in a field value or a reason phrase: no control but HTAB; bytes from 0x80 may (obs-text).
#[inline]
pub(super) fn is_value_byte(b: u8) -> bool {
    (b >= b' ' && b != 0x7f) || b == b'\t'
}

/// The first byte that [`is_value_byte`] refuses.
#[inline]
pub(super) fn bad_value_byte(text: &[u8]) -> Option<u8> {
    // Eight bytes at a time, the last eight overlapping those before: nearly every text passes here.
    let clean = match text.last_chunk::<8>() {
        Some(last) => !has_control(*last) && text.as_chunks::<8>().0.iter().all(|chunk| !has_control(*chunk)),
        None => text.iter().all(|&b| b >= b' ' && b != 0x7f),
    };
    if clean { None } else { find_bad_value_byte(text) }
}

#[cold]
fn find_bad_value_byte(text: &[u8]) -> Option<u8> {
    text.iter().copied().find(|&b| !is_value_byte(b))
}

/// Whether one of eight bytes is a control (HTAB among them).
#[inline]
fn has_control(bytes: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES * 0x80;
    let word = u64::from_ne_bytes(bytes);
    // The usual tests for a byte below n and for a zero byte: borrows can add a hit only behind a real one.
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    let is_delete = delete.wrapping_sub(ONES) & !delete;
    (below_space | is_delete) & HIGH != 0
}

/// Whether `text` is `lower` but for the case of its letters. `lower` has lower-case letters and hyphens, and `text` no CR, which
/// would pass for a hyphen: names and values of a head that was parsed, and those of an answer that were checked.
#[inline]
pub(super) fn same<const N: usize>(text: &[u8], lower: &[u8; N]) -> bool {
    match <&[u8; N]>::try_from(text) {
        Ok(text) => text.iter().zip(lower).fold(0, |different, (a, b)| different | ((a | 0x20) ^ b)) == 0,
        Err(_) => false,
    }
}

/// `text` without blanks (SP, HTAB) at both ends.
#[inline]
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// A decimal number: digits only. `str::parse` would take a sign, which is request smuggling.
#[inline]
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for &b in text {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(number)
}

/// Appends `number` in decimal.
#[inline]
pub(super) fn put_decimal(out: &mut Vec<u8>, number: u64) {
    put_number::<10>(out, number);
}

/// Appends `number` in lower-case hexadecimal.
#[inline]
pub(super) fn put_hex(out: &mut Vec<u8>, number: u64) {
    put_number::<16>(out, number);
}

fn put_number<const BASE: u64>(out: &mut Vec<u8>, mut number: u64) {
    /// Digits of u64::MAX in decimal.
    const LONGEST: usize = 20;
    let mut text = [0u8; LONGEST];
    let mut at = LONGEST;
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[(number % BASE) as usize];
        number /= BASE;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_digits_only_and_never_overflow() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in
            [&b""[..], b"+5", b"-1", b" 5", b"5 ", b"0x5", b"5,5", b"1_0", b"18446744073709551616", b"99999999999999999999999"]
        {
            assert_eq!(decimal(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 1, 9, 10, 255, 4096, u64::MAX] {
            let (mut ten, mut sixteen) = (Vec::new(), Vec::new());
            put_decimal(&mut ten, number);
            put_hex(&mut sixteen, number);
            assert_eq!(ten, format!("{number}").into_bytes());
            assert_eq!(sixteen, format!("{number:x}").into_bytes());
        }
    }

    #[test]
    fn a_bad_value_byte_is_found_at_every_place() {
        for len in 1..40 {
            for at in 0..len {
                let mut text = vec![b'a'; len];
                assert_eq!(bad_value_byte(&text), None);
                for bad in [0, b'\r', b'\n', 0x1f, 0x7f] {
                    text[at] = bad;
                    assert_eq!(bad_value_byte(&text), Some(bad));
                }
                for good in [b'\t', b' ', 0x80, 0xff] {
                    text[at] = good;
                    assert_eq!(bad_value_byte(&text), None);
                }
            }
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        assert!(same(b"Content-LENGTH", b"content-length") && same(b"te", b"te"));
        for other in [&b"Content-Lengtg"[..], b"Content_Length", b"Content-Length ", b"Content-Lengt", b"", b"CONTENT.LENGTH"] {
            assert!(!same(other, b"content-length"), "{}", other.escape_ascii());
        }
        for byte in (0..=255).filter(|byte| *byte != b'\r') {
            assert_eq!(same(&[byte], b"-"), byte == b'-');
            assert_eq!(same(&[byte], b"z"), matches!(byte, b'z' | b'Z'));
        }
    }

    #[test]
    fn tokens_are_those_of_the_grammar() {
        assert!(is_token(b"M-SEARCH") && is_token(b"!#$%&'*+-.^_`|~09azAZ"));
        for bad in [&b""[..], b"a b", b"a:", b"a(", b"\xe9", b"a\0", b"a/b", b"\"a\"", b"{a}", b"a@b"] {
            assert!(!is_token(bad), "{}", bad.escape_ascii());
        }
    }
}
