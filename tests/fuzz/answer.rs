//! Any bytes as a connection: the requests are read alike wherever they are cut, and each is answered by an application that
//! sends the request's own fields and body back. What the encoder accepts must read back as one answer.
#![no_main]

mod exchange;

use exchange::{LIMITS, Message, read};
use libfuzzer_sys::fuzz_target;
use tapster::http::body::Decoder;
use tapster::http::framing::Length;
use tapster::http::head::Version;
use tapster::http::page;
use tapster::http::response::{BodyFraming, Context, Encoder, Refused};
use tapster::http::terms::Terms;

const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// Renders the answer; the target's last bytes are the status, so that the fuzzer reaches every kind.
fn answer(out: &mut Vec<u8>, message: &Message, context: &Context<'_>) -> Result<(), Refused> {
    let target = message.line.split(|&b| b == b' ').nth(1).unwrap_or_default();
    let status = match target.last_chunk::<3>() {
        Some(digits) if digits.iter().all(u8::is_ascii_digit) => digits.as_slice(),
        _ => b"200 OK",
    };
    let encoded = encode(out, message, context, status);
    if encoded.is_err() {
        out.clear();
    }
    let mut body = encoded?;
    for block in message.body.chunks(3) {
        body.block(out, block);
    }
    body.end(out);
    Ok(())
}

fn encode<'a>(out: &'a mut Vec<u8>, message: &'a Message, context: &Context<'a>, status: &[u8]) -> Result<BodyFraming, Refused> {
    let mut encoder = Encoder::begin(out, context, status)?;
    for (name, value) in message.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"Transfer-Encoding")) {
        encoder.field(name, value)?;
    }
    Ok(encoder.finish((message.body.len() % 2 == 0).then_some(message.body.len() as u64)))
}

/// Reads an answer back and insists that nothing is left over.
fn check(out: &[u8], head_only: bool) {
    let mut fields = [httparse::EMPTY_HEADER; 110];
    let mut response = httparse::Response::new(&mut fields);
    let len = response.parse(out).expect("a valid head").unwrap();
    let count = |name: &str| response.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    let find = |name: &str| response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    assert!(count("Content-Length") + count("Transfer-Encoding") <= 1, "one framing");
    let status = response.code.unwrap();
    let rest = &out[len..];
    if head_only || matches!(status, 204 | 304) {
        assert!(rest.is_empty(), "no body");
    } else if find("Transfer-Encoding").is_some() {
        let (mut decoder, mut at) = (Decoder::new(Length::Chunked, 0), 0);
        loop {
            let decoded = decoder.decode(&rest[at..]).expect("valid chunks");
            at += decoded.consumed;
            if decoded.done {
                break;
            }
            assert!(decoded.consumed > 0, "the last chunk is there");
        }
        assert_eq!(at, rest.len());
    } else if let Some(length) = find("Content-Length") {
        let length: u64 = std::str::from_utf8(length.value).unwrap().trim().parse().expect("a number");
        assert!(rest.len() as u64 <= length, "never more than promised");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (messages, end) = read([bytes], &LIMITS);
    assert_eq!(read(bytes.chunks(11), &LIMITS), (messages.clone(), end));
    for message in &messages {
        let version = if message.line.ends_with(b"1.0") { Version::Http10 } else { Version::Http11 };
        let head_only = message.line.starts_with(b"HEAD ");
        let context = Context {
            terms: Terms { version, head_only, persistent: message.framing.persistent, ..Terms::default() },
            date: DATE,
            id: b"",
        };
        let mut out = Vec::new();
        match answer(&mut out, message, &context) {
            Ok(()) => check(&out, head_only),
            Err(refused) => assert!(!refused.to_string().contains(|c: char| c.is_control())),
        }
    }
    if let exchange::End::Refused(refusal) = end {
        let mut out = Vec::new();
        let context = Context { terms: Terms::default(), date: DATE, id: b"" };
        page::render(&mut out, refusal.status(), &refusal.to_string(), &context);
        check(&out, false);
    }
});
