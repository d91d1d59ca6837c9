//! The short text page that Tapster makes itself when there is no answer of the application.

use super::head::Span;
use super::response::{Context, Encoder, End};

/// The standard reason phrase of a status (IANA registry), or an empty string.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// Renders a complete answer with a short text body that Tapster makes itself (400, 408, 413, 500, 503 ...), closing the
/// connection. `detail` is one line for the body. A `status` that cannot end an
/// exchange with a body (below 200, 204, 304, above 999) is rendered as 500.
pub fn render(out: &mut Vec<u8>, status: u16, detail: &str, context: &Context<'_>) -> Page {
    render_with(out, status, detail, &[], context)
}

/// A rendered page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Where its head is in the output.
    pub head: Span,
    /// Bytes of its body.
    pub sent: u64,
}

/// Name and value of a field.
pub type FieldPair<'a> = (&'a [u8], &'a [u8]);

/// As [`render`], with more fields. One that must not be sent (RFC 9110 section 5.5) is left out.
pub fn render_with(out: &mut Vec<u8>, status: u16, detail: &str, fields: &[FieldPair<'_>], context: &Context<'_>) -> Page {
    write(out, status, detail, fields, &Context { terms: context.terms.closing(), ..*context }).0
}

/// As [`render`] for a connection that stays open, if the terms say so.
pub fn render_open(out: &mut Vec<u8>, status: u16, detail: &str, context: &Context<'_>) -> (Page, End) {
    write(out, status, detail, &[], context)
}

fn write(out: &mut Vec<u8>, status: u16, detail: &str, fields: &[FieldPair<'_>], context: &Context<'_>) -> (Page, End) {
    let status = if matches!(status, 200..=203 | 205..=303 | 305..=999) { status } else { 500 };
    let title = format!("{status} {}", reason(status));
    let text = format!("{}\n{detail}\n", title.trim_end());
    let from = out.len();
    let mut encoder = Encoder::begin(out, context, title.as_bytes()).expect("three digits and a known reason are a valid status");
    encoder.field(b"Content-Type", b"text/plain; charset=utf-8").expect("a constant field without controls is valid");
    for (name, value) in fields {
        // An error page without the field is better than no page.
        let _ = encoder.field(name, value);
    }
    let mut body = encoder.finish(Some(text.len() as u64));
    let head = Span::new(from, out.len());
    body.block(out, text.as_bytes());
    // It is as long as was said.
    let end = body.end(out);
    (Page { head, sent: body.sent() }, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::Error;
    use crate::http::head::Version;
    use crate::http::terms::Terms;

    const CONTEXT: Context<'_> = Context {
        terms: Terms {
            version: Version::Http11,
            head_only: false,
            persistent: false,
            dialect: crate::http::terms::Dialect::Http,
            stale: false,
        },
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        id: b"",
    };

    #[test]
    fn an_error_page_names_status_and_detail_and_closes() {
        let mut out = b"earlier".to_vec();
        render(&mut out, 414, &Error::LineTooLong(8190).to_string(), &CONTEXT);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "earlierHTTP/1.1 414 URI Too Long\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 60\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: tapster\r\nConnection: close\r\n\r\n\
             414 URI Too Long\nthe request line is longer than 8190 bytes\n"
        );
    }

    #[test]
    fn an_error_page_may_have_more_fields_but_no_broken_ones() {
        let mut out = Vec::new();
        let fields: [FieldPair; 2] = [(b"Retry-After", b"5"), (b"X", b"a\r\nb")];
        render_with(&mut out, 503, "busy", &fields, &CONTEXT);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\r\nRetry-After: 5\r\n") && !text.contains("X:"), "{text}");
        assert!(text.ends_with("\r\n\r\n503 Service Unavailable\nbusy\n"), "{text}");
    }

    #[test]
    fn an_error_page_for_head_has_the_length_but_no_body() {
        let mut out = Vec::new();
        render(
            &mut out,
            500,
            "broken",
            &Context {
                terms: Terms { version: Version::Http10, head_only: true, persistent: true, ..Terms::default() },
                ..CONTEXT
            },
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\r\nContent-Length: 33\r\n") && text.contains("\r\nConnection: close\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn an_impossible_status_becomes_500_and_an_unknown_one_passes() {
        for (given, shown) in [(0, "500 I"), (100, "500 I"), (204, "500 I"), (304, "500 I"), (1000, "500 I"), (599, "599 \r")] {
            let mut out = Vec::new();
            render(&mut out, given, "x", &CONTEXT);
            assert!(out[9..].starts_with(shown.as_bytes()), "{}", out.escape_ascii());
        }
    }
}
