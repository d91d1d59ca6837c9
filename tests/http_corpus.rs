//! The corpus of requests under `tests/corpus`: the result of reading each file, or the status that refuses it.

#[path = "fuzz/exchange.rs"]
mod exchange;

use std::fs;
use std::path::{Path, PathBuf};

use exchange::{End, LIMITS, Message, read};
use tapster::http::framing::Length;

/// Files below which the corpus has lost something.
const FEWEST: usize = 60;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).expect("the corpus is there").map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "http"));
    files.sort();
    files
}

fn outcome(messages: &[Message], end: End) -> String {
    let mut text = String::new();
    for Message { line, framing, body, .. } in messages {
        let length = match framing.length {
            Length::None => "none".to_owned(),
            Length::Known(length) => length.to_string(),
            Length::Chunked => "chunked".to_owned(),
        };
        let fate = if framing.persistent { "keep" } else { "close" };
        let awaited = if framing.expect_continue { " continue" } else { "" };
        let upgrade = if framing.upgrade { " upgrade" } else { "" };
        text += &format!("{length} {fate}{awaited}{upgrade} {} \"{}\"\n", line.escape_ascii(), body.escape_ascii());
    }
    text + match end {
        End::Idle | End::Closed => "",
        End::Partial => "partial\n",
        End::Refused(_) => "refused\n",
    }
}

#[test]
fn the_corpus_is_complete() {
    assert!(files("valid").len() + files("invalid").len() >= FEWEST);
}

#[test]
fn valid_requests_are_read_as_their_outcome_says() {
    for file in files("valid") {
        let bytes = fs::read(&file).unwrap();
        let expected = fs::read_to_string(file.with_extension("outcome")).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let (messages, end) = read([bytes.as_slice()], &LIMITS);
        assert_eq!(outcome(&messages, end), expected, "{}: {end:?}", file.display());
        assert_eq!(read(bytes.chunks(1), &LIMITS), (messages.clone(), end), "{} byte by byte", file.display());
        if end == End::Idle {
            let trailing = b"GET /trailing HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
            let (more, end) = read([[&bytes, trailing].concat().as_slice()], &LIMITS);
            assert_eq!((&more[..messages.len()], more.len(), end), (&messages[..], messages.len() + 1, End::Idle));
        }
    }
}

#[test]
fn invalid_requests_are_refused_with_the_status_of_their_name() {
    for file in files("invalid") {
        let bytes = fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let status: u16 = name.split('-').next().unwrap().parse().expect("the name begins with a status");
        let (messages, end) = read([bytes.as_slice()], &LIMITS);
        match end {
            End::Refused(error) => assert_eq!(error.status(), status, "{name}: {error}"),
            End::Idle | End::Partial | End::Closed => panic!("{name}: not refused but {end:?} after {messages:?}"),
        }
        assert_eq!(read(bytes.chunks(1), &LIMITS), (messages.clone(), end), "{name} byte by byte");
        let trailing = [&bytes, b"GET /trailing HTTP/1.1\r\nHost: a\r\n\r\n".as_slice()].concat();
        assert_eq!(read([trailing.as_slice()], &LIMITS), (messages, end), "{name} with trailing bytes");
    }
}
