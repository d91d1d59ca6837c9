//! A block that is found equals the one that was parsed.

use super::*;
use crate::http::cuts::LIMITS;
use crate::http::places::{OWNER_SHIFT, PLACES};

/// Fields, framing and length of a request, and the name of its block.
type Facts = (Vec<Field>, Framing, usize, Option<BlockId>);

fn ask(blocks: &mut HeaderCache, request: &[u8]) -> Result<Facts, Error> {
    let mut head = Head::default();
    assert_eq!(blocks.resume(&mut head, request, &LIMITS, &mut Progress::default())?, Parsed::Complete);
    let (framing, id) = blocks.framing(&head, request)?;
    let mut plain = Head::default();
    assert_eq!(plain.parse(request, &LIMITS)?, Parsed::Complete);
    assert_eq!((&head.fields, head.len, head.block), (&plain.fields, plain.len, plain.block));
    assert_eq!(framing, framing::of(&plain, request)?);
    Ok((head.fields, framing, head.len, id))
}

fn name(blocks: &mut HeaderCache, request: &str) -> Option<BlockId> {
    ask(blocks, request.as_bytes()).expect("accepted").3
}

#[test]
fn a_block_is_known_from_its_third_coming_on_whatever_the_request_line() {
    let mut blocks = HeaderCache::new(0);
    assert_eq!(name(&mut blocks, "GET / HTTP/1.1\r\nHost: example.org\r\nA: b\r\n\r\n"), None);
    assert_eq!(name(&mut blocks, "GET / HTTP/1.1\r\nHost: example.org\r\nA: b\r\n\r\n"), None);
    let first = name(&mut blocks, "GET / HTTP/1.1\r\nHost: example.org\r\nA: b\r\n\r\n");
    assert!(first.is_some());
    assert_eq!(
        name(&mut blocks, "DELETE /some/where?else HTTP/1.1\r\nHost: example.org\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n"),
        first
    );
}

#[test]
fn a_byte_or_the_version_makes_another_block() {
    let mut blocks = HeaderCache::new(0);
    for _ in 0..3 {
        name(&mut blocks, "GET / HTTP/1.1\r\nHost: example.org\r\nCookie: a=1\r\nAccept: */*\r\n\r\n");
    }
    for other in [
        "GET / HTTP/1.1\r\nHost: example.com\r\nCookie: a=1\r\nAccept: */*\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: example.org\r\nCookie: a=1\r\nAccept: */*\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.org\r\ncookie: a=1\r\nAccept: */*\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.org\r\nCookie: a=1\r\nAccept: */*\r\nX: y\r\n\r\n",
    ] {
        assert_eq!(name(&mut blocks, other), None, "{other}");
    }
}

#[test]
fn a_block_with_a_coding_an_expectation_or_an_upgrade_is_never_kept() {
    let mut blocks = HeaderCache::new(0);
    for field in
        ["Transfer-Encoding: chunked", "Expect: 100-continue", "Content-Length: 5\r\nExpect: 100-continue", "Upgrade: h2c"]
    {
        for _ in 0..4 {
            assert_eq!(name(&mut blocks, &format!("POST / HTTP/1.1\r\nHost: example.org\r\n{field}\r\n\r\n")), None, "{field}");
        }
    }
}

#[test]
fn the_length_of_a_body_is_read_each_time() {
    let mut blocks = HeaderCache::new(0);
    let request =
        |length: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nCookie: c\r\nContent-Length: {length}\r\nAccept: */*\r\n\r\n");
    for length in ["5", "0", "17"] {
        name(&mut blocks, &request(length));
    }
    for length in ["0", "1", "0005", "18446744073709551615", "17"] {
        let (_, framing, _, id) = ask(&mut blocks, request(length).as_bytes()).expect("accepted");
        assert_eq!(Length::Known(length.parse().expect("a number")), framing.length);
        assert!(id.is_some(), "{length}");
    }
    for bad in ["", "+5", "-1", "5,5", "5 5", "0x5", "1_0", "18446744073709551616", "5\r\nContent-Length: 5", "5;"] {
        let bytes = request(bad).into_bytes();
        let mut plain = Head::default();
        assert_eq!(plain.parse(&bytes, &LIMITS), Ok(Parsed::Complete));
        let wanted = framing::of(&plain, &bytes).expect_err(bad);
        assert_eq!(ask(&mut blocks, &bytes), Err(wanted), "{bad}");
    }
    // More loose fields than there are places: then the length must be the same.
    let many = |length: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nCookie: c\r\nReferer: r\r\nAuthorization: a\r\nX-Request-Id: i\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    for length in [5, 5, 5, 6, 7] {
        let (_, framing, _, _) = ask(&mut blocks, many(length).as_bytes()).expect("accepted");
        assert_eq!(framing.length, Length::Known(length as u64));
    }
}

#[test]
fn a_block_is_found_again_with_other_values_in_its_loose_fields() {
    let mut blocks = HeaderCache::new(0);
    let request = |cookie: &str, agent: &str, referer: &str| {
        format!("GET / HTTP/1.1\r\nHost: example.org\r\nCookie: {cookie}\r\nUser-Agent: {agent}\r\nReferer: {referer}\r\n\r\n")
    };
    // Each comes once.
    for number in 0..2 {
        assert_eq!(name(&mut blocks, &request(&format!("id={number}"), "a", "http://example.org/")), None);
    }
    let known = name(&mut blocks, &request("id=2", "a", "http://example.org/"));
    assert!(known.is_some());
    let long = "x".repeat(1000);
    for (cookie, referer) in [("id=3", "/"), (long.as_str(), "/a b\tc"), ("a", "\u{e4}"), ("id=2; id=3", long.as_str())] {
        assert_eq!(name(&mut blocks, &request(cookie, "a", referer)), known, "{cookie} {referer}");
        assert_ne!(name(&mut blocks, &request(cookie, "b", referer)), known, "another agent");
    }
}

#[test]
fn what_the_parser_does_with_a_value_is_done_with_a_loose_one_too() {
    let mut blocks = HeaderCache::new(0);
    let request = |cookie: &[u8]| {
        [b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nCookie: ", cookie, b"\r\nX: y\r\n\r\nGET /next HTTP/1.1\r\n"].concat()
    };
    for number in 0..3 {
        ask(&mut blocks, &request(format!("id={number}").as_bytes())).expect("accepted");
    }
    for byte in 0..=u8::MAX {
        for cookie in
            [vec![byte], vec![b'a', byte], vec![byte, b'a'], vec![b'a', byte, b'b'], [vec![byte], b"abcdefgh".to_vec()].concat()]
        {
            let bytes = request(&cookie);
            let (mut head, mut plain) = (Head::default(), Head::default());
            let found = blocks.resume(&mut head, &bytes, &LIMITS, &mut Progress::default());
            let parsed = plain.parse(&bytes, &LIMITS);
            assert_eq!(found, parsed, "{cookie:?}");
            if parsed.is_ok() {
                assert_eq!((&head.fields, head.len, head.block), (&plain.fields, plain.len, plain.block), "{cookie:?}");
                assert_eq!(blocks.framing(&head, &bytes).map(|(framing, _)| framing), framing::of(&plain, &bytes), "{cookie:?}");
            }
        }
    }
    for cookie in ["", " ", "a\r\nHost: b", "a\r\nContent-Length: 5", "a\nX: y", "a\r\n b", "a\r", "a\r\n\r\n"] {
        let bytes = request(cookie.as_bytes());
        let (mut head, mut plain) = (Head::default(), Head::default());
        let found = blocks.resume(&mut head, &bytes, &LIMITS, &mut Progress::default());
        assert_eq!(found, plain.parse(&bytes, &LIMITS), "{cookie:?}");
        if found.is_ok() {
            assert_eq!((&head.fields, head.len, head.block), (&plain.fields, plain.len, plain.block), "{cookie:?}");
        }
    }
}

#[test]
fn a_loose_value_is_as_long_as_a_field_may_be() {
    let limits = Limits { field_size: 50, ..LIMITS };
    let mut blocks = HeaderCache::new(0);
    for len in (1..60).chain((1..60).rev()) {
        let request = format!("GET / HTTP/1.1\r\nHost: example.org\r\nReferer: {}\r\nA: b\r\n\r\n", "x".repeat(len));
        let mut head = Head::default();
        let found = blocks.resume(&mut head, request.as_bytes(), &limits, &mut Progress::default());
        assert_eq!(found, Head::default().parse(request.as_bytes(), &limits), "{len}");
        if found.is_ok() {
            blocks.framing(&head, request.as_bytes()).expect("accepted");
        }
    }
}

#[test]
fn a_head_in_pieces_is_complete_only_with_its_end_whatever_is_known() {
    let mut blocks = HeaderCache::new(0);
    let request = |cookie: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nAccept: */*\r\n\r\n").into_bytes();
    for cookie in ["a", "b", "c"] {
        ask(&mut blocks, &request(cookie)).expect("accepted");
    }
    let bytes = request("another");
    for end in 0..bytes.len() {
        let mut head = Head::default();
        let parsed = blocks.resume(&mut head, &bytes[..end], &LIMITS, &mut Progress::default());
        assert_eq!(parsed, Ok(Parsed::Partial), "{end}");
    }
}

#[test]
fn a_field_that_comes_twice_is_not_loose() {
    let mut blocks = HeaderCache::new(0);
    let request = |second: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCOOKIE: {second}\r\n\r\n");
    for _ in 0..3 {
        name(&mut blocks, &request("b=1"));
    }
    assert!(name(&mut blocks, &request("b=1")).is_some());
    assert_eq!(name(&mut blocks, &request("b=2")), None);
}

#[test]
fn a_bad_request_line_is_refused_before_a_known_block() {
    let mut blocks = HeaderCache::new(0);
    for _ in 0..3 {
        name(&mut blocks, "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    }
    assert_eq!(ask(&mut blocks, b"GET nowhere HTTP/1.1\r\nHost: example.org\r\n\r\n"), Err(Error::TargetForm));
    assert_eq!(ask(&mut blocks, b"CONNECT / HTTP/1.1\r\nHost: example.org\r\n\r\n"), Err(Error::Connect));
}

#[test]
fn a_refused_block_is_refused_each_time() {
    let mut blocks = HeaderCache::new(0);
    for _ in 0..4 {
        assert_eq!(ask(&mut blocks, b"GET / HTTP/1.1\r\nX-Without: host\r\n\r\n"), Err(Error::HostMissing));
    }
}

#[test]
fn places_are_bounded_and_a_name_is_never_given_twice() {
    let mut blocks = HeaderCache::new(7);
    let mut names = Vec::new();
    for number in 0..PLACES * 8 {
        let request = format!("GET / HTTP/1.1\r\nHost: example.org\r\nX-Number: {number:08}\r\n\r\n");
        for _ in 0..4 {
            names.extend(name(&mut blocks, &request).map(|id| (id.place(), id.serial, number)));
        }
    }
    assert!(blocks.entries.len() <= PLACES && names.iter().all(|name| name.0 < PLACES));
    names.sort_unstable_by_key(|name| name.1);
    names.dedup();
    assert!(names.windows(2).all(|two| two[0].1 != two[1].1), "a name stands for two blocks");
    assert!(names.iter().all(|name| name.1 >> OWNER_SHIFT == 7));
}

#[test]
fn a_block_in_use_is_not_driven_out_by_those_that_come_twice() {
    let mut blocks = HeaderCache::new(0);
    let kept = "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    for number in 0..PLACES * 8 {
        let id = name(&mut blocks, kept);
        assert!(number < 2 || id.is_some(), "{number}");
        for _ in 0..2 {
            name(&mut blocks, &format!("GET / HTTP/1.1\r\nHost: example.org\r\nX-Number: {number:08}\r\n\r\n"));
        }
    }
}
