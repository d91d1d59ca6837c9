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
    !text.is_empty() && text.iter().all(|&b| TOKEN[b as usize])
}

/// Whether a byte may stand in a field value or a reason phrase: no control but HTAB; bytes from 0x80 may (obs-text).
#[inline]
pub(super) fn is_value_byte(b: u8) -> bool {
    (b >= b' ' && b != 0x7f) || b == b'\t'
}

/// The first byte that [`is_value_byte`] refuses.
#[inline]
pub(super) fn bad_value_byte(text: &[u8]) -> Option<u8> {
    // Fixed-size chunks without an early exit become vector instructions; the scan for the culprit runs only on a fault.
    let (chunks, rest) = text.as_chunks::<16>();
    let bad = |bytes: &[u8]| bytes.iter().fold(false, |bad, &b| bad | !is_value_byte(b));
    if chunks.iter().any(|chunk| bad(chunk)) || bad(rest) { text.iter().copied().find(|&b| !is_value_byte(b)) } else { None }
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
    fn tokens_are_those_of_the_grammar() {
        assert!(is_token(b"M-SEARCH") && is_token(b"!#$%&'*+-.^_`|~09azAZ"));
        for bad in [&b""[..], b"a b", b"a:", b"a(", b"\xe9", b"a\0", b"a/b", b"\"a\"", b"{a}", b"a@b"] {
            assert!(!is_token(bad), "{}", bad.escape_ascii());
        }
    }
}
