//! Time stamps in the shapes that the logs use.

use crate::sys::time::{Local, Wall, local};

/// Appends `2026-11-21T10:00:00+00:00`, or with milliseconds before the offset (RFC 3339 section 5.6).
pub fn rfc3339(out: &mut Vec<u8>, seconds: u64, millis: Option<u32>) {
    let t = local(seconds);
    number(out, t.year.unsigned_abs(), 4);
    for (before, n) in [(b'-', t.month), (b'-', t.day), (b'T', t.hour), (b':', t.minute), (b':', t.second)] {
        out.push(before);
        number(out, n.into(), 2);
    }
    if let Some(millis) = millis {
        out.push(b'.');
        number(out, millis, 3);
    }
    offset(out, &t, true);
}

/// Appends the wall time as [`rfc3339`] with milliseconds.
pub fn precise(out: &mut Vec<u8>, now: Wall) {
    rfc3339(out, now.seconds, Some(now.nanos / 1_000_000));
}

/// Bytes of [`common`] in a year of four digits.
pub const COMMON_LEN: usize = 28;

/// Appends `[21/Nov/2026:10:00:00 +0000]`, the common log format's time.
pub fn common(out: &mut Vec<u8>, seconds: u64) {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let t = local(seconds);
    out.push(b'[');
    number(out, t.day.into(), 2);
    out.push(b'/');
    out.extend_from_slice(MONTHS[usize::from(t.month.clamp(1, 12)) - 1]);
    out.push(b'/');
    number(out, t.year.unsigned_abs(), 4);
    for n in [t.hour, t.minute, t.second] {
        out.push(b':');
        number(out, n.into(), 2);
    }
    out.push(b' ');
    offset(out, &t, false);
    out.push(b']');
}

fn offset(out: &mut Vec<u8>, t: &Local, colon: bool) {
    let minutes = t.offset.unsigned_abs();
    out.push(if t.offset < 0 { b'-' } else { b'+' });
    number(out, minutes / 60, 2);
    if colon {
        out.push(b':');
    }
    number(out, minutes % 60, 2);
}

/// Appends `n` in decimal, filled with zeroes to `width` digits (at most ten, which every u32 fits into).
pub fn number(out: &mut Vec<u8>, n: u32, width: usize) {
    let mut digits = [b'0'; 10];
    let mut rest = n;
    let mut start = digits.len();
    while rest > 0 || digits.len() - start < width {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(render: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        render(&mut out);
        String::from_utf8(out).expect("stamps are ASCII")
    }

    /// The offset of the zone that the tests run in, as `+HHMM`.
    fn zone(at: u64) -> String {
        let minutes = local(at).offset;
        format!("{}{:02}{:02}", if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60, minutes.abs() % 60)
    }

    #[test]
    fn shapes_are_those_of_the_standards() {
        let at = 1_795_255_200;
        let t = local(at);
        let zone = zone(at);
        let date = format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", t.year, t.month, t.day, t.hour, t.minute, t.second);
        let colon = format!("{}:{}", &zone[..3], &zone[3..]);
        assert_eq!(text(|o| rfc3339(o, at, None)), format!("{date}{colon}"));
        assert_eq!(text(|o| precise(o, Wall { seconds: at, nanos: 7_999_999 })), format!("{date}.007{colon}"));
        assert_eq!(
            text(|o| common(o, at)),
            format!("[{:02}/Nov/2026:{:02}:{:02}:{:02} {zone}]", t.day, t.hour, t.minute, t.second)
        );
    }

    #[test]
    fn offsets_west_of_greenwich_keep_their_minutes() {
        let t = Local { year: 2026, month: 1, day: 1, hour: 0, minute: 0, second: 0, offset: -(3 * 60 + 30) };
        assert_eq!(text(|o| offset(o, &t, true)), "-03:30");
        assert_eq!(text(|o| offset(o, &t, false)), "-0330");
    }

    #[test]
    fn numbers_are_filled_and_never_cut() {
        assert_eq!(text(|o| number(o, 7, 3)), "007");
        assert_eq!(text(|o| number(o, 0, 1)), "0");
        assert_eq!(text(|o| number(o, u32::MAX, 2)), "4294967295");
    }
}
