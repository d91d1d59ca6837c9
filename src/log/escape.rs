//! Making text from outside harmless: it can neither start a line nor a field of a log, nor steer a terminal.

use std::fmt;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Bytes looked at together: one compare of a vector register instead of sixteen of bytes.
const STRIDE: usize = 16;

/// As [`STRIDE`], for what is shorter than that.
const HALF: usize = STRIDE / 2;

/// What may stand for itself in a field of the access log: printable ASCII but the quote and the backslash.
const fn plain(byte: u8) -> bool {
    byte >= 0x20 && byte <= 0x7E && byte != b'"' && byte != b'\\'
}

/// [`plain`] as a table, which is cheaper for a few bytes; for many the compiler makes vector instructions of the comparison.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = plain(byte as u8);
        byte += 1;
    }
    table
};

/// Appends a field of the access log: quotes, backslashes and everything that is not printable ASCII as `\xHH`, as nginx does,
/// so that the line can be read back without loss.
pub fn field(out: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) { out.extend_from_slice(value) } else { bytes(out, value) }
}

fn is_plain(value: &[u8]) -> bool {
    fn all<const N: usize>(stride: &[u8; N]) -> bool {
        stride.iter().fold(true, |all, &byte| all & plain(byte))
    }
    // The last stride overlaps the one before it, which is cheaper than a tail byte by byte.
    if let Some(last) = value.last_chunk::<STRIDE>() {
        return value.as_chunks::<STRIDE>().0.iter().all(all) && all(last);
    }
    match (value.first_chunk::<HALF>(), value.last_chunk::<HALF>()) {
        (Some(first), Some(last)) => all(first) & all(last),
        _ => value.iter().all(|&byte| PLAIN[usize::from(byte)]),
    }
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        if PLAIN[usize::from(byte)] { out.push(byte) } else { hex(out, byte) }
    }
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Appends a message of the error log: each line after the first is indented by two blanks, blanks and line ends at the end are
/// dropped, control characters and the separators that some readers take for line ends are escaped. Tabs stay.
pub fn message(out: &mut Vec<u8>, text: &str) {
    for (index, line) in text.trim_end().split('\n').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\n  ");
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        let mut start = 0;
        for (at, character) in line.char_indices() {
            if steers(character) {
                let end = at + character.len_utf8();
                out.extend_from_slice(&line.as_bytes()[start..at]);
                if character.is_ascii() {
                    hex(out, character as u8);
                } else {
                    out.extend_from_slice(character.escape_unicode().to_string().as_bytes());
                }
                start = end;
            }
        }
        out.extend_from_slice(&line.as_bytes()[start..]);
    }
}

/// What the program itself says where it was started, `tapster: why` and a line end: escaped as [`message`] does, not indented.
pub fn complaint(why: &str) -> Vec<u8> {
    let mut out = b"tapster: ".to_vec();
    for line in why.split('\n') {
        message(&mut out, line);
        out.push(b'\n');
    }
    out
}

/// Control characters (C0 but the tab, DEL, C1), Unicode's line and paragraph separators, and the marks that turn the direction
/// of text around.
fn steers(character: char) -> bool {
    match character {
        '\t' => false,
        '\u{2028}' | '\u{2029}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => true,
        _ => character.is_control(),
    }
}

/// Text that is only as long as there is memory for it: what is too much is an error of the writer, and what came before it
/// stays.
#[derive(Debug, Default)]
pub struct TryText(String);

impl TryText {
    /// What was written.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Write for TryText {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.0.try_reserve(more.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(more);
        Ok(())
    }
}

/// Shows bytes from a client in a message: UTF-8 as it is, other bytes as `\xHH`. (Control characters are escaped by the log.)
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(value: &[u8]) -> String {
        let mut out = Vec::new();
        field(&mut out, value);
        String::from_utf8(out).expect("fields are ASCII")
    }

    fn message_of(text: &str) -> String {
        let mut out = Vec::new();
        message(&mut out, text);
        String::from_utf8(out).expect("messages are UTF-8")
    }

    #[test]
    fn printable_text_passes_unchanged() {
        let printable: Vec<u8> = (0x20..0x7F).filter(|b| !b"\"\\".contains(b)).collect();
        assert_eq!(field_of(&printable).as_bytes(), printable);
    }

    #[test]
    fn every_other_byte_is_escaped_at_every_place_of_a_stride() {
        for byte in (0..=0x1F).chain([b'"', b'\\']).chain(0x7F..=0xFF) {
            for before in 0..=STRIDE {
                let mut value = vec![b'a'; before];
                value.push(byte);
                value.extend([b'z'; STRIDE]);
                let expected = format!("{}\\x{byte:02X}{}", "a".repeat(before), "z".repeat(STRIDE));
                assert_eq!(field_of(&value), expected);
            }
        }
    }

    #[test]
    fn a_message_cannot_start_a_record() {
        let forged = "first\n2026-11-21T10:00:00.000+00:00 [1] [master] CRITICAL forged\r\nlast\n\n";
        let expected = "first\n  2026-11-21T10:00:00.000+00:00 [1] [master] CRITICAL forged\n  last";
        assert_eq!(message_of(forged), expected);
    }

    #[test]
    fn a_message_cannot_steer_a_terminal() {
        assert_eq!(message_of("a\x1b[2Jb\rc\0d\x7fe\u{9b}f\u{2028}g\u{202e}h\ti"), {
            "a\\x1B[2Jb\\x0Dc\\x00d\\x7Fe\\u{9b}f\\u{2028}g\\u{202e}h\ti"
        });
    }

    #[test]
    fn a_complaint_cannot_steer_a_terminal() {
        assert_eq!(complaint("no\n  x\x1b[2J\x07"), b"tapster: no\n  x\\x1B[2J\\x07\n");
    }

    #[test]
    fn words_of_every_language_stay_readable() {
        assert_eq!(message_of("Füße, 日本語 🦀"), "Füße, 日本語 🦀");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        assert_eq!(Shown(b"caf\xE9 \xC3\xA9\xFF").to_string(), "caf\\xE9 é\\xFF");
    }
}
