//! What a request says of the answer that it wants, and what becomes of it: preconditions in the order of RFC 9110 section 13.2.2,
//! then the range.

use std::time::UNIX_EPOCH;

use super::range::{self, WantedRange};
use super::validator::{EntityTag, Validator};
use crate::http::bytes::trim;
use crate::http::head::HeadView;

/// The fields of a request that decide about a file.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    view: HeadView<'a>,
    has_if_match: bool,
    has_if_none_match: bool,
    /// Whether there is an Accept-Encoding.
    pub has_accept_encoding: bool,
    if_modified_since: Option<&'a [u8]>,
    if_unmodified_since: Option<&'a [u8]>,
    if_range: Option<&'a [u8]>,
    range: Option<&'a [u8]>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole is sent (200).
    Whole,
    /// A part is sent (206).
    Part {
        /// First byte.
        first: u64,
        /// Bytes.
        len: u64,
    },
    /// The client has it already (304).
    NotModified,
    /// The client has asked for another state (412).
    Failed,
    /// The range lies behind the end (416).
    NoSuchRange,
}

impl<'a> Wishes<'a> {
    /// Those of this request.
    pub fn of(view: HeadView<'a>) -> Self {
        let mut wishes = Self {
            view,
            has_if_match: false,
            has_if_none_match: false,
            has_accept_encoding: false,
            if_modified_since: None,
            if_unmodified_since: None,
            if_range: None,
            range: None,
        };
        for (name, value) in view.head.iter(view.bytes) {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            // The length selects the few names that matter before any byte is compared. Those that are no lists come once.
            match name.len() {
                5 if is("range") => wishes.range = Some(value),
                8 if is("if-match") => wishes.has_if_match = true,
                8 if is("if-range") => wishes.if_range = Some(value),
                13 if is("if-none-match") => wishes.has_if_none_match = true,
                15 if is("accept-encoding") => wishes.has_accept_encoding = true,
                17 if is("if-modified-since") => wishes.if_modified_since = Some(value),
                19 if is("if-unmodified-since") => wishes.if_unmodified_since = Some(value),
                _ => {}
            }
        }
        wishes
    }

    /// Values of all lines of this name, in order.
    pub fn lines(&self, wanted: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let named = move |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(wanted.as_bytes());
        self.view.head.iter(self.view.bytes).filter(named).map(|(_, value)| value)
    }

    /// What becomes of a GET (or HEAD, which has no ranges) for a file in this state at the second `now`.
    pub fn judge(&self, state: &Validator, tag: &EntityTag, is_get: bool, now: u64) -> Selection {
        let modified = state.last_modified(now);
        if self.has_if_match {
            if !self.lines("if-match").any(|line| is_listed(line, tag, Comparison::Strong)) {
                return Selection::Failed;
            }
        } else if self.if_unmodified_since.and_then(date).is_some_and(|date| modified > date) {
            return Selection::Failed;
        }
        if self.has_if_none_match {
            if self.lines("if-none-match").any(|line| is_listed(line, tag, Comparison::Weak)) {
                return Selection::NotModified;
            }
        } else if self.if_modified_since.and_then(date).is_some_and(|date| modified <= date) {
            return Selection::NotModified;
        }
        match self.range.filter(|_| is_get && self.is_range_wanted(tag, modified, now)) {
            None => Selection::Whole,
            Some(value) => match range::wanted(value, state.size) {
                WantedRange::Whole => Selection::Whole,
                WantedRange::Part { first, len } => Selection::Part { first, len },
                WantedRange::Nothing => Selection::NoSuchRange,
            },
        }
    }

    /// Whether the range counts: what the client has is of this very state (section 13.1.5).
    fn is_range_wanted(&self, tag: &EntityTag, modified: u64, now: u64) -> bool {
        match self.if_range {
            None => true,
            Some(value @ ([b'"', ..] | [b'W', b'/', ..])) => trim(value) == tag.as_bytes(),
            // A date names one state only when its second is over.
            Some(value) => date(value) == Some(modified) && modified < now,
        }
    }
}

/// How tags are compared (section 8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// Neither may be weak.
    Strong,
    /// Weakness does not matter.
    Weak,
}

/// Whether a list of tags has this one, which is strong, or is `*`. What follows a malformed element counts for nothing.
fn is_listed(line: &[u8], tag: &EntityTag, comparison: Comparison) -> bool {
    let mut rest = trim(line);
    if rest == b"*" {
        return true;
    }
    loop {
        while let [b' ' | b'\t' | b',', others @ ..] = rest {
            rest = others;
        }
        let weak = rest.starts_with(b"W/");
        let Some(quoted) = rest[if weak { 2 } else { 0 }..].strip_prefix(b"\"") else { return false };
        // A comma may be within the quotes, and a quote may not.
        let Some(end) = memchr::memchr(b'"', quoted) else { return false };
        let len = end + 2;
        let found = &rest[if weak { 2 } else { 0 }..][..len];
        if found == tag.as_bytes() && (comparison == Comparison::Weak || !weak) {
            return true;
        }
        rest = &rest[if weak { 2 } else { 0 } + len..];
        let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        if rest.get(blanks) != Some(&b',') {
            return false;
        }
    }
}

/// The second of a date in one of its three forms (section 5.6.7); `None` for anything else.
fn date(value: &[u8]) -> Option<u64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Head, Limits, Parsed};

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const MODIFIED: u64 = 784_111_777;
    const STATE: Validator = Validator { seconds: MODIFIED as i64, nanos: 1, size: 1000, coding: None };
    const NOW: u64 = MODIFIED + 100;
    const ON: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    /// What becomes of a request with these lines, in which `@` stands for the tag of the file.
    fn judge_at(lines: &str, is_get: bool, now: u64) -> Selection {
        let tag = STATE.tag();
        let text = std::str::from_utf8(tag.as_bytes()).unwrap();
        let bytes = format!("GET / HTTP/1.1\r\n{}\r\n", lines.replace('@', text)).into_bytes();
        let mut head = Head::default();
        let limits = Limits { request_line: 1000, fields: 50, field_size: 1000 };
        assert_eq!(head.parse(&bytes, &limits), Ok(Parsed::Complete), "{lines}");
        Wishes::of(HeadView { head: &head, bytes: &bytes }).judge(&STATE, &tag, is_get, now)
    }

    fn judge(lines: &str) -> Selection {
        judge_at(lines, true, NOW)
    }

    #[test]
    fn tags_are_compared_as_their_fields_say() {
        for (lines, expected) in [
            // Section 13.1.1: strongly.
            ("If-Match: @\r\n", Selection::Whole),
            ("If-Match: \"x\", @\r\n", Selection::Whole),
            ("If-Match: \"x\"\r\nIf-Match: @\r\n", Selection::Whole),
            ("If-Match: *\r\n", Selection::Whole),
            ("If-Match: W/@\r\n", Selection::Failed),
            ("If-Match: \"x\"\r\n", Selection::Failed),
            ("If-Match: x\r\n", Selection::Failed),
            ("If-Match: \r\n", Selection::Failed),
            ("If-Match: \"x @\r\n", Selection::Failed),
            // Section 13.1.2: weakly.
            ("If-None-Match: @\r\n", Selection::NotModified),
            ("If-None-Match: W/@\r\n", Selection::NotModified),
            ("If-None-Match: *\r\n", Selection::NotModified),
            ("If-None-Match: \"x\",W/\"y\" , @\r\n", Selection::NotModified),
            ("If-None-Match: \"a,b\", @\r\n", Selection::NotModified),
            ("If-None-Match: , ,@,\r\n", Selection::NotModified),
            ("If-None-Match: \"x\"\r\nIf-None-Match: @\r\n", Selection::NotModified),
            ("If-None-Match: \"x\"\r\n", Selection::Whole),
            ("If-None-Match: w/@\r\n", Selection::Whole),
            ("If-None-Match: \"x\" @\r\n", Selection::Whole),
            ("If-None-Match: *, @x\r\n", Selection::Whole),
            ("If-None-Match: \"\r\n", Selection::Whole),
            ("If-None-Match: \r\n", Selection::Whole),
            ("if-none-match: @\r\n", Selection::NotModified),
        ] {
            assert_eq!(judge(lines), expected, "{lines}");
        }
    }

    #[test]
    fn dates_have_three_forms_and_garbage_is_ignored() {
        for (date, expected) in [
            (ON, Selection::NotModified),
            (AFTER, Selection::NotModified),
            (BEFORE, Selection::Whole),
            // Section 5.6.7: the obsolete forms.
            ("Sunday, 06-Nov-94 08:49:37 GMT", Selection::NotModified),
            ("Sun Nov  6 08:49:37 1994", Selection::NotModified),
            ("Sunday, 06-Nov-94 08:49:36 GMT", Selection::Whole),
            ("Sun Nov  6 08:49:36 1994", Selection::Whole),
            ("Sun, 06 Nov 1994 08:49:37 CET", Selection::Whole),
            ("1994-11-06T08:49:37Z", Selection::Whole),
            ("784111777", Selection::Whole),
            ("now", Selection::Whole),
            ("\u{e9}", Selection::Whole),
            ("", Selection::Whole),
        ] {
            assert_eq!(judge(&format!("If-Modified-Since: {date}\r\n")), expected, "{date}");
        }
        for (date, expected) in
            [(ON, Selection::Whole), (AFTER, Selection::Whole), (BEFORE, Selection::Failed), ("never", Selection::Whole)]
        {
            assert_eq!(judge(&format!("If-Unmodified-Since: {date}\r\n")), expected, "{date}");
        }
    }

    #[test]
    fn preconditions_have_their_order() {
        // Section 13.2.2.
        for (lines, expected) in [
            (format!("If-Match: @\r\nIf-Unmodified-Since: {BEFORE}\r\n"), Selection::Whole),
            (format!("If-Match: \"x\"\r\nIf-Unmodified-Since: {AFTER}\r\n"), Selection::Failed),
            (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {AFTER}\r\n"), Selection::Whole),
            (format!("If-None-Match: @\r\nIf-Modified-Since: {BEFORE}\r\n"), Selection::NotModified),
            ("If-Match: \"x\"\r\nIf-None-Match: @\r\n".into(), Selection::Failed),
            ("If-Match: @\r\nIf-None-Match: @\r\n".into(), Selection::NotModified),
            (format!("If-Unmodified-Since: {BEFORE}\r\nIf-None-Match: @\r\n"), Selection::Failed),
            ("If-None-Match: @\r\nRange: bytes=5000-\r\n".into(), Selection::NotModified),
            ("If-Match: \"x\"\r\nRange: bytes=5000-\r\n".into(), Selection::Failed),
            ("If-None-Match: \"x\"\r\nRange: bytes=5000-\r\n".into(), Selection::NoSuchRange),
            ("If-Match: @\r\nRange: bytes=0-9\r\n".into(), Selection::Part { first: 0, len: 10 }),
        ] {
            assert_eq!(judge(&lines), expected, "{lines}");
        }
    }

    #[test]
    fn a_range_counts_only_for_the_state_that_the_client_has() {
        let part = Selection::Part { first: 0, len: 10 };
        for (value, expected) in [
            ("@", part),
            ("W/@", Selection::Whole),
            ("\"x\"", Selection::Whole),
            (ON, part),
            (BEFORE, Selection::Whole),
            (AFTER, Selection::Whole),
            ("garbage", Selection::Whole),
            ("", Selection::Whole),
            ("*", Selection::Whole),
        ] {
            assert_eq!(judge(&format!("Range: bytes=0-9\r\nIf-Range: {value}\r\n")), expected, "{value}");
        }
        assert_eq!(judge("Range: bytes=5000-\r\nIf-Range: \"x\"\r\n"), Selection::Whole, "no 416 for another state");
        let lines = format!("Range: bytes=0-9\r\nIf-Range: {ON}\r\n");
        assert_eq!(judge_at(&lines, true, MODIFIED), Selection::Whole, "its second is not over");
        assert_eq!(judge("If-Range: @\r\n"), Selection::Whole, "without a range it means nothing");
    }

    #[test]
    fn head_has_no_ranges_but_preconditions() {
        assert_eq!(judge_at("Range: bytes=0-9\r\n", false, NOW), Selection::Whole);
        assert_eq!(judge_at("Range: bytes=5000-\r\n", false, NOW), Selection::Whole);
        assert_eq!(judge_at("If-None-Match: @\r\n", false, NOW), Selection::NotModified);
    }
}
