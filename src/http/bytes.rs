//! Byte classes and numbers: the lexical rules that requests and answers share (RFC 9110 section 5.6).

/// Bytes that are tested at once: one machine word.
const WORD: usize = size_of::<u64>();

/// 1 in each byte of a word.
const ONES: u64 = u64::from_ne_bytes([1; WORD]);

/// The high bit of each byte of a word.
const HIGH: u64 = ONES * 0x80;

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
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().fold(true, |ok, &b| ok & TOKEN[b as usize])
}

/// How many token bytes `text` begins with.
#[inline]
pub(super) fn token_len(text: &[u8]) -> usize {
    let mut at = 0;
    for chunk in text.as_chunks::<WORD>().0 {
        let others = others(u64::from_le_bytes(*chunk));
        if others != 0 {
            at += others.trailing_zeros() as usize / WORD;
            break;
        }
        at += WORD;
    }
    // Digits and the other bytes that a token may have are rare in names.
    at + text[at..].iter().position(|&b| !TOKEN[b as usize]).unwrap_or(text.len() - at)
}

/// The high bit of each byte of `word` that is neither a letter nor a hyphen, counted from the lowest.
#[inline]
fn others(word: u64) -> u64 {
    // Without its high bit no byte carries into the next one.
    let low = word & !HIGH;
    let lower = low | (ONES * 0x20);
    let from_a = lower + ONES * u64::from(0x80 - b'a');
    let beyond_z = lower + ONES * u64::from(0x7f - b'z');
    let not_hyphen = (low ^ (ONES * u64::from(b'-'))) + ONES * 0x7f;
    (word | (!from_a | beyond_z) & not_hyphen) & HIGH
}

/// Whether a byte may be in a field value or a reason phrase: no control but HTAB; bytes from 0x80 may (obs-text).
#[inline]
pub(super) fn is_value_byte(b: u8) -> bool {
    (b >= b' ' && b != 0x7f) || b == b'\t'
}

/// The first byte that [`is_value_byte`] refuses.
#[inline]
pub fn bad_value_byte(text: &[u8]) -> Option<u8> {
    // Eight bytes at a time, the last eight overlapping those before: nearly every text passes here.
    let clean = match text.last_chunk::<8>() {
        Some(last) => !has_control(*last) && text.as_chunks::<8>().0.iter().all(|chunk| !has_control(*chunk)),
        None => text.iter().all(|&b| b >= b' ' && b != 0x7f),
    };
    if clean { None } else { find_bad_value_byte(text) }
}

/// How many bytes `text` begins with for which [`is_value_byte`] holds.
#[inline]
pub(super) fn value_len(text: &[u8]) -> usize {
    let mut at = 0;
    for chunk in text.as_chunks::<WORD>().0 {
        let word = u64::from_le_bytes(*chunk);
        // Printable ASCII passes by a cheaper test, which takes a few other bytes for controls as well.
        let plain = (word | word.wrapping_add(ONES) | word.wrapping_sub(ONES * 0x20)) & HIGH == 0;
        let controls = if plain { 0 } else { controls(word) };
        if controls != 0 {
            let first = at + controls.trailing_zeros() as usize / WORD;
            // A tab is a control too, and rare.
            return if text[first] == b'\t' { value_len_from(text, first) } else { first };
        }
        at += WORD;
    }
    value_len_from(text, at)
}

fn value_len_from(text: &[u8], start: usize) -> usize {
    start + text[start..].iter().position(|&b| !is_value_byte(b)).unwrap_or(text.len() - start)
}

#[cold]
fn find_bad_value_byte(text: &[u8]) -> Option<u8> {
    text.iter().copied().find(|&b| !is_value_byte(b))
}

/// Whether one of eight bytes is a control (HTAB among them).
#[inline]
fn has_control(bytes: [u8; WORD]) -> bool {
    controls(u64::from_le_bytes(bytes)) != 0
}

/// The high bit of each byte of `word` that is a control (HTAB among them), counted from the lowest. After the first hit there
/// may be false ones.
#[inline]
fn controls(word: u64) -> u64 {
    // The usual tests for a byte below n and for a zero byte: borrows can add a hit only after a real one.
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    let is_delete = delete.wrapping_sub(ONES) & !delete;
    (below_space | is_delete) & HIGH
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

/// Bytes of a request target, which are those before the first space, control character or `#`: a fragment is no part of any
/// form. Bytes from 0x80 pass: clients send raw UTF-8.
#[inline]
pub(super) fn target_len(bytes: &[u8]) -> usize {
    let ends = |b: u8| b <= b' ' || b == b'#' || b == 0x7f;
    // Fixed-size chunks without an early exit become vector instructions.
    let clean = bytes.as_chunks::<16>().0.iter().take_while(|chunk| !chunk.iter().fold(false, |end, &b| end | ends(b))).count();
    let clean = clean * 16;
    clean + bytes[clean..].iter().position(|&b| ends(b)).unwrap_or(bytes.len() - clean)
}

/// `text` without blanks (SP, HTAB) at both ends.
#[inline]
pub fn trim(mut text: &[u8]) -> &[u8] {
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
pub fn decimal(text: &[u8]) -> Option<u64> {
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

/// The value of one hexadecimal digit.
#[inline]
pub fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Appends `number` in decimal.
#[inline]
pub(super) fn put_decimal(out: &mut Vec<u8>, number: u64) {
    put_number::<10>(out, number);
}

/// Appends `number` in lower-case hexadecimal.
#[inline]
pub fn put_hex(out: &mut Vec<u8>, number: u64) {
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
    fn the_first_byte_that_is_no_token_is_found_at_every_place() {
        for len in 0..20 {
            assert_eq!(token_len(&vec![b'a'; len]), len);
            for at in 0..len {
                for byte in 0..=255 {
                    for around in [b'-', b'Z', b'z', b'5', b'~'] {
                        let mut text = vec![around; len];
                        text[at] = byte;
                        assert_eq!(token_len(&text), if TOKEN[usize::from(byte)] { len } else { at });
                        text[at + 1..].fill(0xff);
                        assert_eq!(token_len(&text), if TOKEN[usize::from(byte)] { at + 1 } else { at });
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_byte_that_is_no_value_is_found_at_every_place() {
        for len in 0..40 {
            assert_eq!(value_len(&vec![b'a'; len]), len);
            for at in 0..len {
                for bad in [0, b'\r', b'\n', 0x1f, 0x7f] {
                    let mut text = vec![b'a'; len];
                    text[at] = bad;
                    // Others after it change nothing, and tabs before it pass.
                    for other in [b'a', 0x80, 0xff, b'\n', b'\t'] {
                        text[at + 1..].fill(other);
                        assert_eq!(value_len(&text), at);
                    }
                    for other in [0x80, 0xff, b' ', b'\t'] {
                        text[..at].fill(other);
                        assert_eq!(value_len(&text), at);
                    }
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
