//! Rules of the chunked coding, each case three ways.

use super::super::body::Decoder as Body;
use super::super::cuts;
use super::super::framing::Length;
use super::*;

const MAX_TRAILER: usize = 64;

#[track_caller]
fn verdict(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Error> {
    cuts::body(input, Length::Chunked, MAX_TRAILER)
}

#[track_caller]
fn data(input: &str) -> String {
    let (data, consumed) = verdict(input.as_bytes()).expect("accepted").expect("complete");
    assert_eq!(consumed, input.len());
    String::from_utf8(data).unwrap()
}

#[track_caller]
fn refused(input: &str) -> Error {
    verdict(input.as_bytes()).expect_err("refused")
}

#[test]
fn chunks_are_joined() {
    assert_eq!(data("0\r\n\r\n"), "");
    assert_eq!(data("5\r\nhello\r\n0\r\n\r\n"), "hello");
    assert_eq!(data("5\r\nhello\r\n00000006\r\n world\r\n0000\r\n\r\n"), "hello world");
    assert_eq!(data("A\r\n0123456789\r\na\r\n\r\n0\r\n\r\n\r\n!\r\n0\r\n\r\n"), "0123456789\r\n0\r\n\r\n\r\n!");
}

#[test]
fn an_incomplete_body_is_incomplete() {
    let whole = b"5;a=b\r\nhello\r\n0\r\nT: v\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(verdict(&whole[..end]), Ok(None), "{end}");
    }
    assert_eq!(verdict(whole), Ok(Some((b"hello".to_vec(), whole.len()))));
}

#[test]
fn one_chunk_is_one_step() {
    let input = b"5\r\nhello\r\n0\r\n\r\nGET";
    let mut body = Body::new(Length::Chunked, MAX_TRAILER);
    let decoded = body.decode(input).unwrap();
    assert_eq!((decoded.consumed, decoded.data, decoded.done), (15, 3..8, true));
}

#[test]
fn a_size_is_plain_hexadecimal() {
    for size in ["", "+5", "-5", " 5", "0x5", "g", "5_0", "5,", "\u{ff15}", "10000000000000000", "00000000000000005"] {
        assert_eq!(refused(&format!("{size}\r\nhello\r\n0\r\n\r\n")), Error::ChunkSize, "{size:?}");
    }
    assert_eq!(verdict(b"FFFFFFFFFFFFFFFF\r\nx"), Ok(None));
    assert_eq!(verdict(b"ffffffffffffffff0\r\nx"), Err(Error::ChunkSize));
}

#[test]
fn lines_end_with_crlf_only() {
    assert_eq!(refused("5\nhello\r\n0\r\n\r\n"), Error::ChunkSize);
    assert_eq!(refused("5\rhello\r\n0\r\n\r\n"), Error::LineEnd);
    assert_eq!(refused("5\r\r\nhello\r\n0\r\n\r\n"), Error::LineEnd);
    assert_eq!(refused("5;a\nhello\r\n0\r\n\r\n"), Error::ChunkExtension);
    assert_eq!(refused("5;a\rb\r\nhello\r\n0\r\n\r\n"), Error::LineEnd);
    assert_eq!(refused("5;\"\n\"\r\nhello\r\n0\r\n\r\n"), Error::ChunkExtension);
    assert_eq!(refused("5\r\nhello\n0\r\n\r\n"), Error::ChunkEnd);
    assert_eq!(refused("5\r\nhello\rX0\r\n\r\n"), Error::ChunkEnd);
    assert_eq!(refused("5\r\nhelloo\r\n0\r\n\r\n"), Error::ChunkEnd);
    assert_eq!(refused("5\r\nhello0\r\n\r\n"), Error::ChunkEnd);
    assert_eq!(refused("0\r\n\n"), Error::Trailer);
    assert_eq!(refused("0\r\n\rX"), Error::LineEnd);
}

#[test]
fn extensions_are_tokens_or_quoted_strings_with_blanks_between() {
    for extension in [
        ";a",
        " ;a",
        "\t ; a",
        ";a;b",
        ";a ; b",
        ";a=b",
        ";a = b",
        ";a= b;c",
        ";a=\"\"",
        ";a=\"b;c=\t\u{e9}\"",
        ";a=\"\\\"\\\\\"",
        " ;\ta =\t\"b\" ;c",
        ";!#$%&'*+-.^_`|~=0",
    ] {
        assert_eq!(data(&format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n")), "hello", "{extension:?}");
    }
    for extension in [
        " ",
        "\t",
        ";",
        " ;",
        "; ",
        ";;a",
        ";a;",
        ";a ",
        ";a=",
        ";a= ",
        ";a=b ",
        ";a=\"b\" ",
        ";=b",
        ";a b",
        ";a=b c",
        ";a=\"b\"c",
        ";a==b",
        ";\"a\"",
        ";a=\"b",
        ";a=b\"",
        ";a=\"b\\",
        ";a@b",
        ";a=b@c",
        ";a,b",
        " a",
        "=a",
        ";a\0",
        ";a=\"\0\"",
        ";a=\"\\\0\"",
        ";a=\u{e9}",
        ";\u{e9}",
        ";a=\"\x7f\"",
    ] {
        let refusal = if matches!(extension, "=a") { Error::ChunkSize } else { Error::ChunkExtension };
        assert_eq!(refused(&format!("5{extension}\r\nhello\r\n0\r\n\r\n")), refusal, "{extension:?}");
        assert_eq!(refused(&format!("5\r\nhello\r\n0{extension}\r\n\r\n")), refusal, "{extension:?}");
    }
}

#[test]
fn extensions_are_skipped_and_bounded_with_their_blanks() {
    // Each byte after the size counts, up to the CR.
    let debt = MAX_EXTENSION_DEBT as usize;
    assert_eq!(data(&format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(debt - 1))), "x");
    assert_eq!(refused(&format!("1;{}", "a".repeat(debt))), Error::ChunkExtensionTooLong);
    assert_eq!(refused(&format!("1{}", " ".repeat(debt + 1))), Error::ChunkExtensionTooLong);
    assert_eq!(refused(&format!("1;a=\"{}", "\\\"".repeat(debt))), Error::ChunkExtensionTooLong);
    assert_eq!(refused(&";a".repeat(debt / 2 + 1).replacen(';', "1;", 1)), Error::ChunkExtensionTooLong);
    let padded = format!("1;{}\r\nx\r\n", "a".repeat(100));
    assert_eq!(refused(&padded.repeat(50)), Error::ChunkExtensionTooLong);
    let paid = format!("64;{}\r\n{}\r\n", "a".repeat(100), "x".repeat(100));
    assert_eq!(data(&(paid.repeat(50) + "0\r\n\r\n")).len(), 5000);
}

#[test]
fn trailers_are_checked_dropped_and_bounded() {
    assert_eq!(data("1\r\nx\r\n0\r\nExpires: never\r\nX:\r\nY: \u{e9}\t\r\n\r\n"), "x");
    for trailer in ["X : y", ": y", " X: y", "X", "X: \0", "X\r\n y: z", "X: a\n", "\tX: y"] {
        assert_eq!(refused(&format!("0\r\n{trailer}\r\n\r\n")), Error::Trailer, "{trailer:?}");
    }
    assert_eq!(refused("0\r\nX: a\rb\r\n\r\n"), Error::LineEnd);
    // The bytes counted are those of the field lines up to their CR.
    assert_eq!(data(&format!("0\r\nX:{}\r\n\r\n", "y".repeat(MAX_TRAILER - 4))), "");
    assert_eq!(refused(&format!("0\r\nX:{}", "y".repeat(MAX_TRAILER - 1))), Error::TrailerTooLong(MAX_TRAILER));
    assert_eq!(refused(&"X: y\r\n".repeat(20).replacen("X", "0\r\nX", 1)), Error::TrailerTooLong(MAX_TRAILER));
    assert_eq!(Error::TrailerTooLong(1).status(), 431);
}

#[test]
fn a_known_length_ends_where_it_says() {
    assert_eq!(cuts::body(b"hello", Length::Known(5), 0), Ok(Some((b"hello".to_vec(), 5))));
    assert_eq!(cuts::body(b"hell", Length::Known(5), 0), Ok(None));
    assert_eq!(cuts::body(b"", Length::Known(0), 0), Ok(Some((Vec::new(), 0))));
    assert_eq!(cuts::body(b"", Length::None, 0), Ok(Some((Vec::new(), 0))));
    assert_eq!(cuts::body(b"x", Length::Known(u64::MAX), 0), Ok(None));
}

#[test]
fn a_finished_body_consumes_nothing_more() {
    for length in [Length::None, Length::Known(0), Length::Chunked] {
        let mut body = Body::new(length, MAX_TRAILER);
        if length == Length::Chunked {
            assert!(body.decode(b"0\r\n\r\n").unwrap().done);
        }
        assert_eq!(body.decode(b"5\r\nhello").unwrap(), Decoded { consumed: 0, data: 0..0, done: true });
    }
}
