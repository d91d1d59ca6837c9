//! The access log as JSON: one object a line, through a real encoder.
//!
//! Text is kept to ASCII: other characters are `\u` escapes, which every reader turns back, while U+2028 or a C1 control in
//! the line could end it for some readers or steer a terminal. Bytes that are not UTF-8 have no place in JSON and are shown as
//! the four characters `\xHH`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::access::Record;
use super::escape::{Shown, TryText};

#[derive(Serialize)]
struct JsonLine<'a> {
    time: &'a str,
    remote_addr: Option<&'a str>,
    peer_addr: Option<&'a str>,
    request_id: Option<&'a str>,
    traceparent: Option<&'a str>,
    method: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    query: Option<Cow<'a, str>>,
    protocol: Option<&'static str>,
    status: u16,
    bytes: u64,
    duration_us: u64,
    queue_us: u64,
    referer: Option<Cow<'a, str>>,
    user_agent: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
    pid: u32,
}

/// Appends the record as one line. `time` is the start of the request as RFC 3339 says, `pid` the worker.
pub fn render(record: &Record<'_>, time: &str, pid: u32, out: &mut Vec<u8>) {
    let target = record.target();
    let line = JsonLine {
        time,
        remote_addr: address(record.client()),
        peer_addr: address(record.socket),
        request_id: record.given_id().and_then(|id| std::str::from_utf8(id).ok()),
        traceparent: record
            .field(b"traceparent")
            .filter(|value| is_traceparent(value))
            .and_then(|value| std::str::from_utf8(value).ok()),
        method: record.method().and_then(text),
        path: target.and_then(|t| text(t.path)),
        query: target.and_then(|t| t.query).and_then(text),
        protocol: record.protocol(),
        status: record.status,
        bytes: record.sent,
        duration_us: record.timing.micros(),
        queue_us: record.timing.queued_micros(),
        referer: record.field(b"referer").and_then(text),
        user_agent: record.field(b"user-agent").and_then(text),
        host: record.field(b"host").and_then(text),
        pid,
    };
    // Writing to a Vec cannot fail, and `JsonLine` has nothing that JSON cannot hold.
    let _ = line.serialize(&mut Serializer::with_formatter(&mut *out, Ascii(CompactFormatter)));
    out.push(b'\n');
}

fn address(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|addr| !addr.is_empty())
}

/// Whether it names a trace and a span (W3C Trace Context, section 3.2.2): version, trace, span and flags in hexadecimal digits.
/// Later versions may have more behind them.
fn is_traceparent(text: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let Some((known, more)) = text.split_at_checked(55) else { return false };
    let parts: Vec<_> = known.split(|byte| *byte == b'-').collect();
    let [version, trace, span, flags] = parts[..] else { return false };
    let is_whole = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
    is_whole
        && [version, trace, span, flags].iter().all(|part| is_hex(part))
        && !is_zero(trace)
        && !is_zero(span)
        && version != b"ff"
        && (more.is_empty() || version != b"00" && more[0] == b'-')
}

/// Bytes as text. Only those that are not UTF-8 cost an allocation, as long as a client wants: `None` when there is no memory for
/// it.
fn text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Some(Cow::Borrowed(text));
    }
    let mut text = TryText::default();
    write!(text, "{}", Shown(bytes)).ok()?;
    Some(Cow::Owned(text.into_string()))
}

/// serde_json's compact form with everything beyond printable ASCII as `\u` escapes.
struct Ascii(CompactFormatter);

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().fold(true, |all, byte| all & (byte < 0x7F)) {
            return self.0.write_string_fragment(writer, fragment);
        }
        let steers = |c: char| !c.is_ascii() || c == '\x7F';
        let mut rest = fragment;
        while let Some(at) = rest.find(steers) {
            let (before, after) = rest.split_at(at);
            self.0.write_string_fragment(writer, before)?;
            let mut characters = after.chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        self.0.write_string_fragment(writer, rest)
    }
}
