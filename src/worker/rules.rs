//! Timeouts and limits as the loop uses them.

use crate::config::Settings;
use crate::http::head::Limits;

/// Milliseconds per second.
const MS: u64 = 1_000;

/// Timeouts in milliseconds and limits, as the loop uses them.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Limits of a head.
    pub head: Limits,
    /// Bytes of a whole head.
    pub head_max: usize,
    /// Bytes of a body (u64::MAX: no limit).
    pub body_max: u64,
    /// Bytes of a body in memory.
    pub body_buffer: usize,
    /// Time for a head.
    pub header_timeout: u64,
    /// Longest pause in a body.
    pub body_timeout: u64,
    /// Longest time without progress of the output.
    pub write_timeout: u64,
    /// Longest wait for a permit (u64::MAX: no limit).
    pub queue_timeout: u64,
    /// Idle time of a kept connection; 0: none is kept.
    pub keep_alive: u64,
}

impl Rules {
    /// The rules of these settings.
    pub fn of(settings: &Settings) -> Self {
        // A body that no file may hold, and no memory, could never be taken.
        let most = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        let stored = most(settings.limit_spool).max(settings.body_buffer as u64);
        let head = Limits {
            request_line: settings.limit_request_line,
            fields: settings.limit_request_fields,
            field_size: settings.limit_request_field_size,
        };
        let ms = |duration: std::time::Duration| duration.as_secs() * MS + u64::from(duration.subsec_millis());
        Self {
            head,
            head_max: head.head_max().min(settings.limit_request_head),
            body_max: most(settings.limit_request_body).min(stored),
            body_buffer: settings.body_buffer,
            header_timeout: ms(settings.header_timeout),
            body_timeout: ms(settings.body_timeout),
            write_timeout: ms(settings.write_timeout),
            queue_timeout: if settings.queue_timeout.is_zero() { u64::MAX } else { ms(settings.queue_timeout) },
            keep_alive: ms(settings.keep_alive),
        }
    }
}
