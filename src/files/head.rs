//! The heads of answers about files, and the short ones that are no files.

use std::fmt::Write as _;

use super::conditions::Selection;
use super::media::MediaType;
use super::validator::{EntityTag, Validator};
use crate::http::date;
use crate::http::page::reason;
use crate::http::response::{BodyFraming, Context, Encoder};
use crate::http::target::push_encoded;
use crate::http::terms::Terms;

/// Methods that a file has (RFC 9110 section 10.2.1).
pub const ALLOWED: &[u8] = b"GET, HEAD, OPTIONS";

/// What the head of an answer says of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileFacts<'a> {
    /// Its state.
    pub state: &'a Validator,
    /// Tag of that.
    pub tag: &'a EntityTag,
    /// Its type.
    pub media: MediaType<'a>,
    /// Value of Cache-Control; empty: the field is not sent.
    pub cache: &'a [u8],
    /// Whether other requests may get another form of it.
    pub varies: bool,
}

/// How the answer goes over the wire, and when.
#[derive(Clone, Copy, Debug)]
pub struct ReplyContext<'a> {
    /// How it goes over the wire.
    pub terms: Terms,
    /// Date field value.
    pub date: &'a [u8],
    /// X-Request-ID field value; empty: none.
    pub id: &'a [u8],
    /// The date in seconds since the epoch.
    pub now: u64,
}

/// Appends one field. Those that are made here are valid, and a bad type was refused in the settings.
fn put(encoder: &mut Encoder<'_>, name: &str, value: &[u8]) {
    let valid = encoder.field(name.as_bytes(), value);
    debug_assert!(valid.is_ok(), "{name}: {}", value.escape_ascii());
}

fn begin<'o>(out: &'o mut Vec<u8>, reply: &ReplyContext<'o>, status: u16) -> Encoder<'o> {
    let context = Context { terms: reply.terms, date: reply.date, id: reply.id };
    let line: &[u8] = match status {
        200 => b"200 OK",
        206 => b"206 Partial Content",
        304 => b"304 Not Modified",
        404 => b"404 Not Found",
        _ => return begin_other(out, &context, status),
    };
    Encoder::begin(out, &context, line).expect("a constant status is valid")
}

fn begin_other<'o>(out: &'o mut Vec<u8>, context: &Context<'o>, status: u16) -> Encoder<'o> {
    let line = format!("{status} {}", reason(status));
    Encoder::begin(out, context, line.as_bytes()).expect("three digits and a known reason are a valid status")
}

/// Appends the head of the answer to a request for a file. The body, or nothing for HEAD and 304, goes through what is returned;
/// `Selection::Failed` and `Selection::NoSuchRange` have a body of their own, which is appended too.
pub fn render(out: &mut Vec<u8>, verdict: Selection, file: &FileFacts<'_>, reply: &ReplyContext<'_>) -> BodyFraming {
    let size = file.state.size;
    let (status, len) = match verdict {
        Selection::Whole => (200, size),
        Selection::Part { len, .. } => (206, len),
        Selection::NotModified => (304, 0),
        Selection::Failed => {
            let vary = [("Vary", &b"Accept-Encoding"[..])];
            return page(out, 412, "the file is in another state", if file.varies { &vary } else { &[] }, reply);
        }
        Selection::NoSuchRange => {
            let range = format!("bytes */{size}");
            let fields = [("Content-Range", range.as_bytes()), ("Accept-Ranges", b"bytes"), ("Vary", b"Accept-Encoding")];
            return page(out, 416, "the range lies behind the end", &fields[..if file.varies { 3 } else { 2 }], reply);
        }
    };
    let mut encoder = begin(out, reply, status);
    if status != 304 {
        if file.media.is_utf8 {
            put(&mut encoder, "Content-Type", [file.media.name.as_bytes(), b"; charset=utf-8"].concat().as_slice());
        } else {
            put(&mut encoder, "Content-Type", file.media.name.as_bytes());
        }
    }
    put(&mut encoder, "Last-Modified", &date::imf_fixdate(file.state.last_modified(reply.now)));
    put(&mut encoder, "ETag", file.tag.as_bytes());
    if !file.cache.is_empty() {
        put(&mut encoder, "Cache-Control", file.cache);
    }
    if file.varies {
        put(&mut encoder, "Vary", b"Accept-Encoding");
    }
    if status == 304 {
        return encoder.finish(None);
    }
    if let Some(coding) = file.state.coding {
        put(&mut encoder, "Content-Encoding", coding.name().as_bytes());
    }
    put(&mut encoder, "Accept-Ranges", b"bytes");
    if let Selection::Part { first, len } = verdict {
        let mut range = String::new();
        write!(range, "bytes {first}-{}/{size}", first + len - 1).expect("a String takes everything");
        put(&mut encoder, "Content-Range", range.as_bytes());
    }
    if len == 0 {
        // The encoder would not say it for HEAD.
        put(&mut encoder, "Content-Length", b"0");
    }
    encoder.finish(Some(len))
}

/// Appends a short answer that is no file, with one line of text, after which the connection may stay open. Fields that have no room
/// in the head that the protocol has, as a query that comes back in a redirection, make it 414.
pub fn page(out: &mut Vec<u8>, status: u16, detail: &str, fields: &[(&str, &[u8])], reply: &ReplyContext<'_>) -> BodyFraming {
    let text = format!("{status} {}\n{detail}\n", reason(status));
    let start = out.len();
    let mut encoder = begin(out, reply, status);
    put(&mut encoder, "Content-Type", b"text/plain; charset=utf-8");
    fields.iter().for_each(|(name, value)| put(&mut encoder, name, value));
    if !fields.is_empty() && encoder.check_size().is_err() {
        out.truncate(start);
        return page(out, 414, "the answer has no room for it", &[], reply);
    }
    let mut body = encoder.finish(Some(text.len() as u64));
    body.block(out, text.as_bytes());
    body
}

/// Appends the answer to OPTIONS (RFC 9110 section 9.3.7).
pub fn options(out: &mut Vec<u8>, reply: &ReplyContext<'_>) -> BodyFraming {
    let mut encoder = begin(out, reply, 204);
    put(&mut encoder, "Allow", ALLOWED);
    encoder.finish(None)
}

/// The address of a directory, whose decoded path has no slash at its end, with the query as it was sent. It is relative to the
/// host.
pub fn address_of_directory(path: &[u8], query: &[u8]) -> Vec<u8> {
    let mut address = Vec::with_capacity(path.len() + query.len() + 4);
    if path.starts_with(b"//") {
        // A front may put such a path into SCRIPT_NAME. Without the dot, which clients drop, its first part would be a host (RFC
        // 3986 section 4.2).
        address.extend_from_slice(b"/.");
    }
    path.iter().for_each(|&byte| push_encoded(byte, &mut address));
    address.push(b'/');
    if !query.is_empty() {
        address.push(b'?');
        address.extend_from_slice(query);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::coding::ContentCoding;
    use crate::http::packets::{HEAD, PACKET_MAX, is_head};
    use crate::http::terms::Dialect;

    const STATE: Validator = Validator { seconds: 784_111_777, nanos: 0, size: 1000, coding: None };
    const NOW: u64 = 784_111_999;

    fn reply(terms: Terms) -> ReplyContext<'static> {
        ReplyContext { terms, date: b"Sun, 06 Nov 1994 08:53:19 GMT", id: b"", now: NOW }
    }

    fn rendered(verdict: Selection, state: Validator, terms: Terms) -> String {
        let tag = state.tag();
        let media = MediaType { name: "text/css", is_utf8: true, is_compressible: true };
        let file = FileFacts { state: &state, tag: &tag, media, cache: b"max-age=60", varies: state.coding.is_some() };
        let mut out = Vec::new();
        render(&mut out, verdict, &file, &reply(terms));
        String::from_utf8(out).unwrap()
    }

    const KEPT: Terms = Terms {
        version: crate::http::head::Version::Http11,
        head_only: false,
        persistent: true,
        dialect: Dialect::Http,
        stale: false,
    };

    #[test]
    fn a_whole_file_has_all_fields() {
        assert_eq!(
            rendered(Selection::Whole, STATE, KEPT),
            "HTTP/1.1 200 OK\r\nContent-Type: text/css; charset=utf-8\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             ETag: \"2ebc98a1.0-3e8\"\r\nCache-Control: max-age=60\r\nAccept-Ranges: bytes\r\nContent-Length: 1000\r\n\
             Date: Sun, 06 Nov 1994 08:53:19 GMT\r\nServer: tapster\r\n\r\n"
        );
    }

    #[test]
    fn a_part_says_which_one_and_a_coded_form_how() {
        let text = rendered(Selection::Part { first: 5, len: 10 }, Validator { coding: Some(ContentCoding::Br), ..STATE }, KEPT);
        assert!(text.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{text}");
        for line in [
            "Content-Range: bytes 5-14/1000\r\n",
            "Content-Length: 10\r\n",
            "Content-Encoding: br\r\n",
            "Vary: Accept-Encoding\r\n",
            "ETag: \"2ebc98a1.0-3e8-br\"\r\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn what_the_client_has_is_named_and_not_described() {
        // RFC 9110 section 15.4.5.
        let text = rendered(Selection::NotModified, Validator { coding: Some(ContentCoding::Gzip), ..STATE }, KEPT);
        for line in ["ETag:", "Cache-Control:", "Vary:", "Last-Modified:", "Date:"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        for line in ["Content-", "Accept-Ranges"] {
            assert!(!text.contains(line), "{line} is in {text}");
        }
    }

    #[test]
    fn refusals_say_what_they_must() {
        let text = rendered(Selection::NoSuchRange, STATE, KEPT);
        assert!(text.starts_with("HTTP/1.1 416 Range Not Satisfiable\r\n") && text.contains("Content-Range: bytes */1000\r\n"));
        assert!(!text.contains("Cache-Control") && !text.contains("Connection: close"), "{text}");
        assert!(rendered(Selection::Failed, STATE, KEPT).starts_with("HTTP/1.1 412 Precondition Failed\r\n"));
        let mut out = Vec::new();
        options(&mut out, &reply(KEPT));
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{text}");
    }

    #[test]
    fn head_has_the_length_of_the_file_also_of_an_empty_one() {
        let terms = Terms { head_only: true, ..KEPT };
        assert!(rendered(Selection::Whole, STATE, terms).contains("Content-Length: 1000\r\n"));
        let empty = rendered(Selection::Whole, Validator { size: 0, ..STATE }, terms);
        assert_eq!(empty.matches("Content-Length: 0\r\n").count(), 1, "{empty}");
    }

    #[test]
    fn a_redirection_that_fits_into_no_packet_says_so() {
        let reply = reply(KEPT.in_dialect(Dialect::Ajp));
        for (len, status) in [(10, 301), (7_900, 301), (8_150, 414), (70_000, 414)] {
            let address = address_of_directory(b"/docs", &vec![b'a'; len]);
            let mut out = b"before".to_vec();
            page(&mut out, 301, "this is a directory", &[("Location", &address)], &reply);
            let packet = out.strip_prefix(b"before").unwrap();
            let size = HEAD + usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            assert!(is_head(packet) && size <= PACKET_MAX, "{len}");
            assert_eq!(u16::from_be_bytes([packet[5], packet[6]]), status, "{len}");
            // The only packet behind it is that of the text.
            let text = &packet[size..];
            assert_eq!(HEAD + usize::from(u16::from_be_bytes([text[2], text[3]])), text.len(), "{len}");
        }
    }

    #[test]
    fn the_address_of_a_directory_never_names_a_host() {
        assert_eq!(address_of_directory(b"/docs", b"a=1&b=%20"), b"/docs/?a=1&b=%20");
        assert_eq!(address_of_directory(b"/\\evil", b""), b"/%5Cevil/");
        assert_eq!(address_of_directory(b"//evil/docs", b"a"), b"/.//evil/docs/?a");
        assert_eq!(address_of_directory(b"///evil", b""), b"/.///evil/");
        assert_eq!(address_of_directory(b"/a b\xe9\r\n", b""), b"/a%20b%E9%0D%0A/");
    }
}
