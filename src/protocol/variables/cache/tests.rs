//! What is found equals what is sorted.

use super::*;
use crate::http::error::Error;
use crate::http::framing::Length;
use crate::http::head::Span;
use crate::http::places::PLACES;
use crate::protocol::variables;
use proptest::prelude::*;

const LIMITS: Limits = Limits { request_line: 200, fields: 12, field_size: 100 };

type Pair<'a> = (&'a [u8], &'a [u8]);

/// What nginx sends with its uwsgi_params.
const USUAL: [(&str, &str); 15] = [
    ("CONTENT_LENGTH", "0"),
    ("QUERY_STRING", "a=1"),
    ("REQUEST_METHOD", "GET"),
    ("CONTENT_TYPE", ""),
    ("REQUEST_URI", "/some/where?a=1"),
    ("PATH_INFO", "/some/where"),
    ("DOCUMENT_ROOT", "/var/www"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REMOTE_ADDR", "192.0.2.7"),
    ("REMOTE_PORT", "4711"),
    ("SERVER_NAME", "host.example:80"),
    ("HTTP_HOST", "host.example"),
    ("HTTP_COOKIE", "id=1"),
    ("HTTP_X_REQUEST_ID", "first"),
    ("HTTP_ACCEPT", "*/*"),
];

/// The usual pairs with these in the place of those with their names, or behind them.
fn with<'a>(others: &[(&'a str, &'a str)]) -> Vec<Pair<'a>> {
    let mut pairs: Vec<Pair<'a>> = USUAL.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    for (name, value) in others {
        match pairs.iter_mut().find(|(other, _)| *other == name.as_bytes()) {
            Some(pair) => pair.1 = value.as_bytes(),
            None => pairs.push((name.as_bytes(), value.as_bytes())),
        }
    }
    pairs
}

/// The pairs as they are packed, behind some bytes and before some.
fn pack(packing: Packing, pairs: &[Pair<'_>]) -> (Vec<u8>, Range<usize>) {
    let mut bytes = b"head".to_vec();
    let long = |bytes: &mut Vec<u8>, text: &[u8]| match u8::try_from(text.len()) {
        Ok(len @ ..0x80) => bytes.push(len),
        _ => bytes.extend((text.len() as u32 | 0x8000_0000).to_be_bytes()),
    };
    for (name, value) in pairs {
        match packing {
            Packing::Nul => bytes.extend([name, &b"\0"[..], value, b"\0"].concat()),
            Packing::Short => [name, value].iter().for_each(|text| {
                bytes.extend((text.len() as u16).to_le_bytes());
                bytes.extend_from_slice(text);
            }),
            Packing::Long => {
                long(&mut bytes, name);
                long(&mut bytes, value);
                bytes.extend_from_slice(name);
                bytes.extend_from_slice(value);
            }
        }
    }
    let end = bytes.len();
    bytes.push(b',');
    (bytes, 4..end)
}

/// The verdict of the cache, which is that of the reader; and whether the block was known.
#[track_caller]
fn ask(cache: &mut VariableCache, packing: Packing, pairs: &[Pair<'_>]) -> (Result<(Head, Vec<u8>), Error>, bool) {
    let (came, place) = pack(packing, pairs);
    let (mut head, mut bytes) = (Head { len: 7, line: Span::new(1, 2), ..Head::default() }, came.clone());
    let (mut plain, mut plain_bytes) = (head.clone(), came.clone());
    let found = cache.read(&mut head, &mut bytes, (packing, place.clone()), &LIMITS);
    let framing = variables::read(&mut plain, &mut plain_bytes, (packing, place), &LIMITS);
    let Ok((found, block)) = found else {
        assert_eq!(found.map(|(framing, _)| framing), framing, "{pairs:?}");
        return (Err(framing.expect_err("both refuse it")), false);
    };
    assert_eq!(Ok(found), framing, "{pairs:?}");
    assert_eq!(format!("{head:?}"), format!("{plain:?}"), "{pairs:?}");
    assert_eq!(bytes.escape_ascii().to_string(), plain_bytes.escape_ascii().to_string());
    let mut restored = head.block.of(&bytes).to_vec();
    variables::restore(&head, &mut restored);
    assert_eq!(restored, came, "it can be sent on as it came");
    (Ok((head, bytes)), block.is_some())
}

const PACKINGS: [Packing; 3] = [Packing::Nul, Packing::Short, Packing::Long];

/// A cache that knows these pairs.
fn knowing(packing: Packing, pairs: &[Pair<'_>]) -> VariableCache {
    let mut cache = VariableCache::new(0);
    for time in 0..3 {
        let (_, is_known) = ask(&mut cache, packing, pairs);
        assert_eq!(is_known, time == 2, "from the third coming on");
    }
    cache
}

#[test]
fn a_block_is_known_from_its_third_coming_on_with_other_values_of_loose_pairs() {
    let long = format!("/{}", "x".repeat(90));
    for packing in PACKINGS {
        let mut cache = knowing(packing, &with(&[]));
        for others in [
            &[("REMOTE_PORT", "1")][..],
            &[("REMOTE_ADDR", "2001:db8::1"), ("REMOTE_PORT", "")],
            &[("REQUEST_URI", "/"), ("PATH_INFO", "/"), ("QUERY_STRING", "")],
            &[("REQUEST_URI", &long), ("PATH_INFO", &long), ("QUERY_STRING", &long)],
            &[("HTTP_COOKIE", &long), ("HTTP_X_REQUEST_ID", "another")],
            &[("HTTP_COOKIE", "")],
            &[("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "17")],
            &[("CONTENT_LENGTH", "")],
            &[("PATH_INFO", "/with\r\nline end")],
            &[],
        ] {
            let (answer, is_known) = ask(&mut cache, packing, &with(others));
            let (head, bytes) = answer.expect("accepted");
            assert!(is_known, "{packing:?} {others:?}");
            assert_eq!(head.iter(&bytes).count(), 4);
        }
    }
}

#[test]
fn another_name_order_packing_or_value_makes_another_block() {
    for packing in PACKINGS {
        let mut cache = knowing(packing, &with(&[]));
        for others in [
            &[("HTTP_ACCEPT", "*/")][..],
            &[("HTTP_ACCEPT", "*/*,")],
            &[("HTTP_HOST", "other.example")],
            &[("SERVER_NAME", "other.example:80")],
            &[("SERVER_PROTOCOL", "HTTP/1.0")],
            &[("CONTENT_TYPE", "text/plain")],
            &[("HTTPS", "on")],
            &[("HTTP_TRANSFER_ENCODING", "chunked")],
            &[("", "")],
        ] {
            assert!(!ask(&mut cache, packing, &with(others)).1, "{packing:?} {others:?}");
        }
        for (first, second) in [(0, 1), (9, 10), (11, 12), (13, 14)] {
            let mut pairs = with(&[]);
            pairs.swap(first, second);
            assert!(!ask(&mut cache, packing, &pairs).1, "{first}");
        }
        for left_out in 0..USUAL.len() {
            let mut pairs = with(&[]);
            pairs.remove(left_out);
            assert!(!ask(&mut cache, packing, &pairs).1, "{left_out}");
        }
        for other in PACKINGS.iter().filter(|other| **other != packing) {
            assert!(!ask(&mut cache, *other, &with(&[])).1);
        }
        assert!(ask(&mut cache, packing, &with(&[])).1, "it is still known");
    }
}

#[test]
fn a_name_that_comes_twice_is_not_loose() {
    for packing in PACKINGS {
        for name in ["HTTP_COOKIE", "REMOTE_PORT", "HTTP_X_REQUEST_ID", "REQUEST_URI", "PATH_INFO"] {
            let value = USUAL.iter().find(|(usual, _)| *usual == name).expect("it is usual").1;
            let twice = |second: &'static str| [with(&[]), vec![(name.as_bytes(), second.as_bytes())]].concat();
            let mut cache = knowing(packing, &[with(&[]), vec![(name.as_bytes(), value.as_bytes())]].concat());
            assert!(!ask(&mut cache, packing, &twice("/other")).1, "{name}");
        }
    }
}

#[test]
fn what_the_reader_refuses_is_refused_where_the_block_is_known() {
    for packing in PACKINGS {
        let mut cache = knowing(packing, &with(&[]));
        let long = "x".repeat(101);
        for others in [
            ("HTTP_COOKIE", "a\nb"),
            ("HTTP_COOKIE", "a\rb"),
            ("HTTP_COOKIE", "\x7f"),
            ("HTTP_COOKIE", &long),
            ("CONTENT_LENGTH", "+5"),
            ("CONTENT_LENGTH", "5,5"),
            ("CONTENT_LENGTH", "9223372036854775808"),
            ("CONTENT_LENGTH", "5\r\n"),
            ("REQUEST_METHOD", "CONNECT"),
            ("REQUEST_METHOD", "G ET"),
            ("REQUEST_METHOD", ""),
            ("PATH_INFO", "relative"),
            ("QUERY_STRING", "a\nb"),
            ("REQUEST_URI", "/a\r\nb"),
            ("REMOTE_ADDR", "a\nb"),
            ("REMOTE_PORT", "\r"),
        ] {
            let (verdict, _) = ask(&mut cache, packing, &with(&[others]));
            assert!(verdict.is_err(), "{others:?}");
        }
        if packing != Packing::Nul {
            for name in ["HTTP_COOKIE", "REMOTE_PORT", "PATH_INFO"] {
                assert!(ask(&mut cache, packing, &with(&[(name, "/a\0b")])).0.is_err(), "{name}");
            }
        }
        assert!(ask(&mut cache, packing, &with(&[])).1, "it is still known");
    }
}

#[test]
fn nothing_of_a_request_is_left_in_the_next_one() {
    for packing in PACKINGS {
        let mut cache = knowing(packing, &with(&[]));
        let text = |span: Span, bytes: &[u8]| span.of(bytes).to_vec();
        let other = [("CONTENT_LENGTH", "5"), ("QUERY_STRING", "secret"), ("HTTP_COOKIE", "secret")];
        assert!(ask(&mut cache, packing, &with(&other)).1);
        let (head, bytes) = ask(&mut cache, packing, &with(&[("QUERY_STRING", ""), ("REQUEST_URI", "/")])).0.expect("accepted");
        assert_eq!(text(head.gateway.query, &bytes), b"");
        assert_eq!(head.line.of(&bytes), b"GET / HTTP/1.1");
        assert!(memchr::memmem::find(&bytes, b"secret").is_none());
        let (came, place) = pack(packing, &with(&[]));
        let framing = cache.read(&mut Head::default(), &mut came.clone(), (packing, place), &LIMITS).expect("accepted").0;
        assert_eq!(framing.length, Length::Known(0));
    }
}

#[test]
fn a_block_in_use_keeps_its_place_and_names_are_never_given_twice() {
    let mut cache = VariableCache::new(0);
    let mut names = Vec::new();
    let mut name = |cache: &mut VariableCache, accept: &str| {
        let (mut bytes, place) = pack(Packing::Short, &with(&[("HTTP_ACCEPT", accept)]));
        let (_, block) = cache.read(&mut Head::default(), &mut bytes, (Packing::Short, place), &LIMITS).expect("accepted");
        names.extend(block.map(|block| (format!("{block:?}"), accept.to_owned())));
        block
    };
    for number in 0..PLACES * 4 {
        assert!(name(&mut cache, "kept").is_some() || number < 2, "{number}");
        for _ in 0..4 {
            name(&mut cache, &format!("{number:08}"));
        }
    }
    assert!(cache.entries.len() <= PLACES);
    names.sort();
    names.dedup();
    assert!(names.windows(2).all(|two| two[0].0 != two[1].0), "a name stands for two blocks");
}

/// Names that mean something and some that do not, and values that are and are not allowed.
fn any_pair() -> impl Strategy<Value = (String, String)> {
    let mut names: Vec<&str> = USUAL.iter().map(|(name, _)| *name).collect();
    names.extend([
        "DOCUMENT_URI",
        "SCRIPT_NAME",
        "SCRIPT_FILENAME",
        "UNIQUE_ID",
        "HTTPS",
        "REQUEST_SCHEME",
        "HTTP_cookie",
        "HTTP_X-REAL-IP",
        "HTTP_X_REAL_IP",
        "HTTP_CONTENT_LENGTH",
        "HTTP_TRANSFER_ENCODING",
        "wsgi.input",
        "UWSGI_FILE",
        "REMOTE_USER",
        "SERVER_PORT",
    ]);
    let value = prop_oneof![Just(String::new()), "/[a-c]{0,3}", "[0-9]{1,3}", "[ -~]{0,8}", "[a\r\n]{1,2}", "[a-z]{120,140}"];
    (proptest::sample::select(names), value).prop_map(|(name, value)| (name.to_owned(), value))
}

#[test]
fn an_empty_value_at_the_end_of_a_block_or_before_a_loose_one_stays_where_it_is() {
    // A name that comes twice is not loose, so its values are fixed.
    let twice = [("REMOTE_ADDR", ""); 2];
    for packing in PACKINGS {
        for place in [USUAL.len(), 0] {
            let (before, behind) = USUAL.split_at(place);
            let usual = |pairs: &[(&'static str, &'static str)]| {
                pairs.iter().copied().filter(|(name, _)| *name != "REMOTE_ADDR").collect::<Vec<_>>()
            };
            let pairs = [usual(before), twice.to_vec(), usual(behind)].concat();
            let pairs: Vec<Pair<'_>> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let mut cache = knowing(packing, &pairs);
            assert!(ask(&mut cache, packing, &pairs).1);
        }
    }
}

proptest! {
    #[test]
    fn any_history_of_requests_has_the_verdicts_of_the_reader(
        base in proptest::collection::vec(any_pair(), 0..8),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any_pair(), 0..4_u8), 1..40),
        packing in proptest::sample::select(PACKINGS.to_vec()),
    ) {
        let mut cache = VariableCache::new(0);
        let mut pairs: Vec<(String, String)> =
            USUAL.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).chain(base).collect();
        for (place, (name, value), kind) in changes {
            let before = pairs.clone();
            let place = place.index(pairs.len());
            match kind {
                // Mostly only a value changes.
                0 | 1 => pairs[place].1 = value,
                2 => pairs.insert(place, (name, value)),
                _ => pairs.swap(place, 0),
            }
            for _ in 0..3 {
                let pairs: Vec<Pair<'_>> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
                if ask(&mut cache, packing, &pairs).0.is_err() {
                    break;
                }
            }
            // What is refused is not built upon.
            let plain: Vec<Pair<'_>> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            if ask(&mut cache, packing, &plain).0.is_err() {
                pairs = before;
            }
        }
    }
}
