//! Content codings (RFC 9110 section 8.4.1), and which of them a client takes (section 12.5.3).

use crate::http::bytes::trim;

/// A coding that files may have beside them, in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
}

impl ContentCoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Br, Self::Zstd, Self::Gzip];

    /// As Content-Encoding has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What the name of such a file has behind the name of the plain one.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Br => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }

    fn place(self) -> usize {
        match self {
            Self::Br => 0,
            Self::Zstd => 1,
            Self::Gzip => 2,
        }
    }
}

/// The codings that a client takes, the one that it wants most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptedCodings {
    order: [Option<ContentCoding>; 3],
}

impl AcceptedCodings {
    /// What the lines of Accept-Encoding say, taken together as one list. A coding that is wanted less than none is left out.
    pub fn of<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut named, mut others, mut plain) = ([None; 3], None, None);
        for element in lines.flat_map(|line| line.split(|&b| b == b',')) {
            let mut parts = element.split(|&b| b == b';');
            let name = trim(parts.next().unwrap_or_default());
            let Some(weight) = weight(parts) else { continue };
            if name == b"*" {
                others = Some(weight);
            } else if name.eq_ignore_ascii_case(b"identity") {
                plain = Some(weight);
            } else if let Some(coding) = known(name) {
                named[coding.place()] = Some(weight);
            }
        }
        let weight_of = |coding: ContentCoding| named[coding.place()].or(others).unwrap_or(0);
        let plain = plain.or(others).unwrap_or(0);
        let mut order = ContentCoding::ALL.map(Some);
        order.sort_by_key(|coding| std::cmp::Reverse(coding.map_or(0, weight_of)));
        Self { order: order.map(|coding| coding.filter(|&coding| weight_of(coding) > 0 && weight_of(coding) >= plain)) }
    }

    /// The codings, the most wanted first; of those that are wanted as much the one that is most compact as a rule.
    pub fn iter(self) -> impl Iterator<Item = ContentCoding> {
        self.order.into_iter().flatten()
    }
}

fn known(name: &[u8]) -> Option<ContentCoding> {
    // Section 8.4.1.3: x-gzip is gzip.
    let name = if name.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { name };
    ContentCoding::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
}

/// The weight among the parameters, in thousandths (section 12.4.2); `None` when it is malformed.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    let Some(parameter) = parameters.next() else { return Some(1000) };
    let (b'q' | b'Q', rest) = trim(parameter).split_first()? else { return None };
    let (b'=', value) = rest.split_first()? else { return None };
    let (&whole, fraction) = value.split_first()?;
    let fraction = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let thousandths = (0..3).fold(0, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    match (whole, thousandths) {
        _ if parameters.next().is_some() => None,
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(lines: &[&str]) -> String {
        let accepted = AcceptedCodings::of(lines.iter().map(|line| line.as_bytes()));
        accepted.iter().map(ContentCoding::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_most_wanted_coding_is_first() {
        for (line, expected) in [
            // RFC 9110 section 12.5.3.
            ("compress, gzip", "gzip"),
            ("", ""),
            ("*", "br zstd gzip"),
            ("compress;q=0.5, gzip;q=1.0", "gzip"),
            ("gzip;q=1.0, identity; q=0.5, *;q=0", "gzip"),
            // Browsers.
            ("gzip, deflate, br, zstd", "br zstd gzip"),
            ("gzip, deflate", "gzip"),
            ("gzip;q=0.9, br;q=0.8", "gzip br"),
            ("br;q=0, gzip", "gzip"),
            ("gzip;q=0", ""),
            ("gzip;q=0.0, gzip;q=0.000, *;q=0", ""),
            ("br;q=0, *", "zstd gzip"),
            ("*;q=0", ""),
            ("*;q=0, br", "br"),
            ("identity", ""),
            ("identity;q=0", ""),
            ("identity;q=1, gzip;q=0.5", ""),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity;q=0, gzip;q=0.001", "gzip"),
            ("X-GZIP", "gzip"),
            ("BR;Q=0.5", "br"),
            (" , ,gzip , ", "gzip"),
            ("gzip ; q=0.5", "gzip"),
            ("gzip;q=1.000", "gzip"),
        ] {
            assert_eq!(accepted(&[line]), expected, "{line}");
        }
        assert_eq!(accepted(&["gzip;q=0.5", "br;q=0.6"]), "br gzip", "lines are one list");
        assert_eq!(accepted(&[]), "", "without the field nothing is coded");
    }

    #[test]
    fn a_malformed_weight_counts_as_no_element() {
        for line in
            ["gzip;q=2", "gzip;q=1.5", "gzip;q=-1", "gzip;q=", "gzip;q", "gzip;q=0.1234", "gzip;q=0,5x", "gzip;x=1", "br;q=.5"]
        {
            assert_eq!(accepted(&[line]), "", "{line}");
        }
    }
}
