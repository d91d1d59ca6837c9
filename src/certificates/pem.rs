//! The sections of a file in PEM (RFC 7468), each with its line.

/// What stands at the begin of a section.
const BEGIN: &str = "-----BEGIN ";
/// What stands at its end.
const END: &str = "-----END ";
/// What both lines end with.
const DASHES: &str = "-----";

/// A section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PemSection<'a> {
    /// What it is, such as `CERTIFICATE`.
    pub(super) label: &'a str,
    /// The line of its begin, from 1.
    pub(super) line: usize,
    /// From its first line to its last one.
    pub(super) text: &'a str,
}

/// All of them; what stands between them is nobody's. The error is the line of a section without an end.
pub(super) fn sections(text: &str) -> Result<Vec<PemSection<'_>>, usize> {
    let mut found = Vec::new();
    let mut open: Option<(&str, usize, usize)> = None;
    let mut at = 0;
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        let line = whole.trim();
        let label = |before: &str| line.strip_prefix(before).and_then(|rest| rest.strip_suffix(DASHES));
        match (open, label(BEGIN), label(END)) {
            (None, Some(label), _) => open = Some((label, index + 1, at)),
            // The one before was cut off.
            (Some((_, line, _)), Some(_), _) => return Err(line),
            (Some((label, line, start)), None, Some(end)) if end == label => {
                found.push(PemSection { label, line, text: &text[start..at + whole.len()] });
                open = None;
            }
            (Some((_, line, _)), None, Some(_)) => return Err(line),
            (None, None, _) | (Some(_), None, None) => {}
        }
        at += whole.len();
    }
    match open {
        Some((_, line, _)) => Err(line),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_have_their_lines_and_what_is_between_them_is_skipped() {
        let text = "subject=x\n-----BEGIN A-----\naa\n-----END A-----\n\n-----BEGIN B C-----\r\nbb\r\n-----END B C-----\r\nrest";
        let found: Vec<_> =
            sections(text).unwrap().iter().map(|section| (section.label, section.line, section.text.len())).collect();
        assert_eq!(found, [("A", 2, 37), ("B C", 6, 44)]);
        assert_eq!(sections("").unwrap(), []);
    }

    #[test]
    fn a_section_that_is_cut_off_is_named_by_its_line() {
        let whole = "-----BEGIN A-----\naa\n-----END A-----\n";
        for (text, line) in [("x\n-----BEGIN A-----\naa", 2), ("-----BEGIN A-----\naa\n-----END B-----\n", 1)] {
            assert_eq!(sections(text), Err(line), "{text:?}");
            assert_eq!(sections(&format!("{whole}{text}")), Err(line + 3));
        }
        assert_eq!(sections(&format!("-----BEGIN A-----\naa\n{whole}")), Err(1));
    }
}
