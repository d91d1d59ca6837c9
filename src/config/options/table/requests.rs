//! Rows: what one request may take: time and size.

use std::time::Duration;

use super::row::{ROW, time_or_none};
use crate::config::options::bounds::{
    BODY_BUFFER, BODY_MAX, CALL_TIMEOUT_MIN, FIELDS_MAX, HEAD_MAX, LINE_MAX, LINE_MIN, TIMEOUT_MAX, TIMEOUT_MIN,
};
use crate::config::options::option::{Opt, Section, ValueKind};
use crate::config::value;

pub(super) const ROWS: &[Opt] = &[
    Opt {
        name: "timeout",
        short: Some('t'),
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("30s"),
        help: "How long the application may run for one request, or for one block of a streamed answer; beyond it the request is \
               interrupted (--timeout-grace). 0 is no limit.",
        section: Section::Timeouts,
        set: Some(|s, v| time_or_none(v, CALL_TIMEOUT_MIN).map(|time| s.timeout = time)),
        ..ROW
    },
    Opt {
        name: "timeout-grace",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("1s"),
        help: "At --timeout tapster.RequestTimeout is raised in the request, which has this much time to end. Then its client is \
               answered 504 without it, the log gets the request and the Python stacks, and the worker is replaced. 0 raises no \
               exception.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, Duration::ZERO, TIMEOUT_MAX).map(|time| s.timeout_grace = time)),
        ..ROW
    },
    Opt {
        name: "boot-timeout",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("60s"),
        help: "How long a worker may take to load the application and to answer --warmup. 0 is no limit.",
        section: Section::Timeouts,
        set: Some(|s, v| time_or_none(v, CALL_TIMEOUT_MIN).map(|time| s.boot_timeout = time)),
        ..ROW
    },
    Opt {
        name: "graceful-timeout",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("30s"),
        help: "How long workers may take to finish their requests when they leave: at a graceful stop, a reload, a replacement.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, Duration::ZERO, TIMEOUT_MAX).map(|time| s.graceful_timeout = time)),
        ..ROW
    },
    Opt {
        name: "keep-alive",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("5s"),
        help: "How long an idle connection is kept for the next request; 0 closes after each answer.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, Duration::ZERO, TIMEOUT_MAX).map(|time| s.keep_alive = time)),
        ..ROW
    },
    Opt {
        name: "header-timeout",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("30s"),
        help: "Time for the whole head of a request; beyond it the answer is 408.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, TIMEOUT_MIN, TIMEOUT_MAX).map(|time| s.header_timeout = time)),
        ..ROW
    },
    Opt {
        name: "body-timeout",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("60s"),
        help: "Longest pause of a client within a request body; beyond it the answer is 408.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, TIMEOUT_MIN, TIMEOUT_MAX).map(|time| s.body_timeout = time)),
        ..ROW
    },
    Opt {
        name: "queue-timeout",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("30s"),
        help: "Longest time that a complete request may wait until the application has time for it; beyond it 503 with \
               Retry-After. 0 = no limit.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, Duration::ZERO, TIMEOUT_MAX).map(|time| s.queue_timeout = time)),
        ..ROW
    },
    Opt {
        name: "write-timeout",
        value: "TIME",
        kind: ValueKind::Number,
        default: Some("60s"),
        help: "Longest time that a client may take no byte of its answer; beyond it the connection is closed.",
        section: Section::Timeouts,
        set: Some(|s, v| value::duration(v, TIMEOUT_MIN, TIMEOUT_MAX).map(|time| s.write_timeout = time)),
        ..ROW
    },
    Opt {
        name: "limit-request-line",
        value: "SIZE",
        kind: ValueKind::Number,
        default: Some("8190"),
        help: "Longest request line in bytes; beyond it the answer is 414. 0 stands for 1M, the highest limit.",
        section: Section::Limits,
        set: Some(|s, v| line_size(v).map(|n| s.limit_request_line = n)),
        ..ROW
    },
    Opt {
        name: "limit-request-fields",
        value: "N",
        kind: ValueKind::Number,
        default: Some("100"),
        help: "Most header fields; beyond it the answer is 431. 0 stands for 32768, the highest limit.",
        section: Section::Limits,
        set: Some(|s, v| {
            let fields = value::number(v, 0, FIELDS_MAX)?;
            s.limit_request_fields = if fields == 0 { FIELDS_MAX } else { fields } as usize;
            Ok(())
        }),
        ..ROW
    },
    Opt {
        name: "limit-request-field_size",
        aliases: &["limit-request-field-size"],
        value: "SIZE",
        kind: ValueKind::Number,
        default: Some("8190"),
        help: "Longest header field in bytes, name and value together; beyond it the answer is 431. 0 stands for 1M, the highest \
               limit.",
        section: Section::Limits,
        set: Some(|s, v| line_size(v).map(|n| s.limit_request_field_size = n)),
        ..ROW
    },
    Opt {
        name: "limit-request-head",
        value: "SIZE",
        kind: ValueKind::Number,
        default: Some("64k"),
        help: "Longest head in bytes, request line and header fields together; beyond it the answer is 431. 0 stands for 16M, the \
               highest limit. Unfinished requests of one worker's connections have 64 MiB in all; beyond it the answer is 503.",
        section: Section::Limits,
        set: Some(|s, v| size_up_to(HEAD_MAX, v).map(|n| s.limit_request_head = n)),
        ..ROW
    },
    Opt {
        name: "limit-request-body",
        value: "SIZE",
        kind: ValueKind::Number,
        default: Some("1G"),
        help: "Largest request body in bytes; beyond it the answer is 413. 0 is no limit.",
        section: Section::Limits,
        set: Some(|s, v| value::size(v, 0, BODY_MAX).map(|n| s.limit_request_body = n)),
        ..ROW
    },
    Opt {
        name: "limit-spool",
        value: "SIZE",
        kind: ValueKind::Number,
        default: Some("4G"),
        help: "Most bytes in temporary files (TMPDIR) of all workers together: bodies beyond --body-buffer, and what write() made faster \
               than its client reads. Beyond it requests with such a body are answered 503 with Retry-After, and such an answer is cut. \
               A body that is larger is answered 413. 0 is no limit.",
        section: Section::Limits,
        set: Some(|s, v| value::size(v, 0, BODY_MAX).map(|n| s.limit_spool = n)),
        ..ROW
    },
    Opt {
        name: "body-buffer",
        value: "SIZE",
        kind: ValueKind::Number,
        default: Some("2m"),
        help: "Bytes of a request body kept in memory; a larger body goes to a temporary file, and so do others while a worker's bodies \
               have 64 MiB in all.",
        section: Section::Limits,
        set: Some(|s, v| value::size(v, BODY_BUFFER.0, BODY_BUFFER.1).map(|n| s.body_buffer = n as usize)),
        ..ROW
    },
];

/// The limit of one line of a head.
fn line_size(text: &str) -> Result<usize, String> {
    size_up_to(LINE_MAX, text)
}

/// A limit of a head, for which 0 stands for the highest.
fn size_up_to(highest: u64, text: &str) -> Result<usize, String> {
    match value::size(text, 0, highest)? {
        0 => Ok(highest as usize),
        n if n < LINE_MIN => Err(format!("must be at least {LINE_MIN} bytes, or 0 for the highest limit")),
        n => Ok(n as usize),
    }
}
