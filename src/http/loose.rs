//! Names whose values change from request to request while the rest of what a client or a front server says stays.
//!
//! What was read before is found again with other values in them, and a prepared environ gets those set. Both sides ask the same
//! table, so that no value of one request stays for the next one.

use super::bytes::same;

/// Whether it is the name of a field with credentials, conditions or the length, or of one that proxies write.
pub fn is_loose_field(name: &[u8]) -> bool {
    match name.len() {
        6 => same(name, b"cookie"),
        7 => same(name, b"referer"),
        9 => same(name, b"x-real-ip"),
        11 => same(name, b"traceparent"),
        12 => same(name, b"x-request-id"),
        13 => same(name, b"authorization") || same(name, b"if-none-match"),
        14 => same(name, b"content-length"),
        15 => same(name, b"x-forwarded-for"),
        17 => same(name, b"if-modified-since"),
        _ => false,
    }
}

/// Whether it is the name of a variable of a gateway that says what is asked for, by whom, or which request it is.
pub fn is_loose_variable(name: &[u8]) -> bool {
    matches!(
        name,
        b"CONTENT_LENGTH"
            | b"DOCUMENT_URI"
            | b"HTTP_CONTENT_LENGTH"
            | b"PATH_INFO"
            | b"PATH_TRANSLATED"
            | b"QUERY_STRING"
            | b"REDIRECT_URI"
            | b"REMOTE_ADDR"
            | b"REMOTE_PORT"
            | b"REMOTE_USER"
            | b"REQUEST_METHOD"
            | b"REQUEST_URI"
            | b"SCRIPT_FILENAME"
            | b"SCRIPT_NAME"
            | b"SCRIPT_URI"
            | b"SCRIPT_URL"
            | b"UNIQUE_ID"
    )
}
