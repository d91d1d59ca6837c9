use super::*;

#[test]
fn an_abort_behind_a_request_is_found_up_to_the_next_of_its_id() {
    let record =
        |kind: u8, id: u16, len: u16| [&records::head(kind, id, len)[..], &vec![kind::ABORT_REQUEST; len.into()]].concat();
    let (abort, other, next) =
        (record(kind::ABORT_REQUEST, 7, 0), record(kind::ABORT_REQUEST, 8, 0), record(kind::BEGIN_REQUEST, 7, 8));
    for (bytes, found) in [
        (vec![], false),
        (abort.clone(), true),
        (abort[..7].to_vec(), false),
        (other.clone(), false),
        (
            [&record(kind::BEGIN_REQUEST, 8, 8), &record(kind::STDIN, 8, 100), &other, &abort]
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            true,
        ),
        ([&next, &abort].into_iter().flatten().copied().collect(), false),
        ([&[2][..], &abort[1..]].concat(), false),
    ] {
        assert_eq!(has_abort(&bytes, 7), found, "{bytes:?}");
    }
}
use crate::http::records::{self, head, wrap};

/// A record.
fn record(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let mut bytes = head(kind, id, content.len() as u16).to_vec();
    bytes[6] = padding;
    bytes.extend_from_slice(content);
    bytes.extend(vec![0xAA; usize::from(padding)]);
    bytes
}

fn begin(id: u16, role: u16, flags: u8) -> Vec<u8> {
    record(kind::BEGIN_REQUEST, id, &[&role.to_be_bytes()[..], &[flags, 0, 0, 0, 0, 0]].concat(), 0)
}

/// A whole request with these variables, as they are packed, and this body.
fn request(id: u16, params: &[u8], body: &[u8]) -> Vec<u8> {
    let stream = |kind, bytes: &[u8]| if bytes.is_empty() { Vec::new() } else { record(kind, id, bytes, 3) };
    [
        begin(id, 1, KEEP_CONN),
        stream(kind::PARAMS, params),
        record(kind::PARAMS, id, b"", 0),
        stream(kind::STDIN, body),
        record(kind::STDIN, id, b"", 5),
    ]
    .concat()
}

/// What a reader finds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    params: Vec<u8>,
    stdin: Vec<u8>,
    events: Vec<&'static str>,
    replies: Vec<u8>,
    /// Bytes behind the end of the request.
    left: usize,
    stash: Vec<u8>,
}

/// Reads up to the end of one request, in pieces of this size.
fn read_in(bytes: &[u8], piece: usize) -> Result<Found, Error> {
    let (mut reader, mut found) = (RecordReader::default(), Found::default());
    let mut at = 0;
    for end in (piece..bytes.len()).step_by(piece).chain([bytes.len()]) {
        loop {
            let input = &bytes[at..end];
            let RecordStep { used, event } = reader.step(input, &mut found.replies, &mut || true)?;
            let is_end = event == RecordEvent::StdinEnd;
            match event {
                RecordEvent::None if used == 0 => break,
                RecordEvent::None => {}
                RecordEvent::Params(part) => found.params.extend_from_slice(&input[part]),
                RecordEvent::Stdin(part) => found.stdin.extend_from_slice(&input[part]),
                RecordEvent::ParamsEnd => found.events.push("params"),
                RecordEvent::StdinEnd => found.events.push("end"),
                RecordEvent::Aborted { .. } => found.events.push("aborted"),
                RecordEvent::Refused => found.events.push("refused"),
            }
            at += used;
            if is_end {
                (found.left, found.stash) = (bytes.len() - at, reader.take_stash());
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// The same whole, and byte by byte, and in between.
#[track_caller]
fn read(bytes: &[u8]) -> Result<Found, Error> {
    let whole = read_in(bytes, bytes.len().max(1));
    for piece in [1, 2, 3, 7, 8, 9] {
        assert_eq!(read_in(bytes, piece), whole, "in pieces of {piece}");
    }
    whole
}

#[test]
fn a_request_is_read_wherever_it_is_cut() {
    let bytes = request(1, b"\x01\x01ab", b"hello");
    let found = read(&[&bytes[..], b"trailing"].concat()).unwrap();
    assert_eq!((&found.params[..], &found.stdin[..], found.left), (&b"\x01\x01ab"[..], &b"hello"[..], 8));
    assert_eq!((found.events, found.replies.len()), (vec!["params", "end"], 0));
    let none = read(&request(0xFFFF, b"", b"")).unwrap();
    assert_eq!((none.params.len(), none.stdin.len(), none.left), (0, 0, 0));
}

#[test]
fn streams_are_divided_anywhere_and_records_may_be_as_long_as_can_be() {
    let params = vec![7; 70_000];
    let mut bytes = begin(9, 1, 0);
    for part in params.chunks(0xFFFF) {
        bytes.extend(record(kind::PARAMS, 9, part, 255));
    }
    bytes.extend(record(kind::PARAMS, 9, b"", 0));
    bytes.extend(record(kind::STDIN, 9, b"", 0));
    let found = read_in(&bytes, 64 * 1024).unwrap();
    assert_eq!(found.params, params);
    let single: Vec<u8> = params[..20].iter().flat_map(|byte| record(kind::PARAMS, 9, &[*byte], 7)).collect();
    let bytes = [&begin(9, 1, 0)[..], &single, &record(kind::PARAMS, 9, b"", 0), &record(kind::STDIN, 9, b"", 0)].concat();
    assert_eq!(read(&bytes).unwrap().params, &params[..20]);
}

#[test]
fn questions_are_answered_at_any_time() {
    let asked = b"\x0e\x00FCGI_MAX_CONNS\x0f\x00FCGI_MPXS_CONNS\x05\x00OTHER";
    let get = record(kind::GET_VALUES, 0, asked, 1);
    let odd = record(77, 0, b"?", 0);
    let whole = request(1, b"\x01\x01ab", b"x");
    let bytes = [&get[..], &odd, &whole[..16], &get, &whole[16..]].concat();
    let found = read(&bytes).unwrap();
    let values = b"\x0e\x05FCGI_MAX_CONNS65535\x0f\x01FCGI_MPXS_CONNS0";
    let answer = record(kind::GET_VALUES_RESULT, 0, values, 0);
    let unknown = record(kind::UNKNOWN_TYPE, 0, &[77, 0, 0, 0, 0, 0, 0, 0], 0);
    assert_eq!(found.replies, [&answer[..], &unknown, &answer].concat());
    assert_eq!(read(&record(kind::GET_VALUES, 0, b"", 0)).unwrap().replies, record(kind::GET_VALUES_RESULT, 0, b"", 0));
    // A length beyond the record names nothing.
    let cut = record(kind::GET_VALUES, 0, b"\xff\xff\xff\xff\x7f\xff\xff\xff", 0);
    assert_eq!(read(&cut).unwrap().replies, record(kind::GET_VALUES_RESULT, 0, b"", 0));
}

#[test]
fn other_roles_are_refused_and_the_connection_goes_on_if_it_may() {
    let ended = |id, how: u8| record(kind::END_REQUEST, id, &[0, 0, 0, 0, how, 0, 0, 0], 0);
    let bytes = [begin(4, 2, KEEP_CONN), record(kind::PARAMS, 4, b"xx", 0), request(5, b"", b"")].concat();
    let found = read(&bytes).unwrap();
    assert_eq!((found.replies, found.events), (ended(4, 3), vec!["params", "end"]));
    assert_eq!(read(&begin(4, 3, 0)).unwrap().events, ["refused"]);
}

#[test]
fn an_abort_ends_the_request_at_any_stage() {
    let ended = record(kind::END_REQUEST, 1, &[0; 8], 0);
    let whole = request(1, b"\x01\x01ab", b"hello");
    for cut in [16, 31, 39] {
        let bytes = [&whole[..cut], &record(kind::ABORT_REQUEST, 1, b"", 0), &request(2, b"", b"")].concat();
        let found = read(&bytes).unwrap();
        assert_eq!((&found.replies, found.events.contains(&"aborted")), (&ended, true), "after {cut} bytes");
    }
    let stray = [record(kind::ABORT_REQUEST, 8, b"", 0), record(kind::STDIN, 8, b"late", 4), request(1, b"", b"")].concat();
    assert_eq!(read(&stray).unwrap().replies, b"", "of a request that is over");
}

#[test]
fn requests_that_begin_meanwhile_wait_or_are_refused() {
    let first = request(1, b"\x01\x01ab", b"hello");
    let second = request(3, b"\x01\x01cd", b"other");
    let (begun, rest) = second.split_at(20);
    // Records of both in turn; cuts are between records.
    let records = |bytes: &[u8]| {
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let len = 8 + usize::from(u16::from_be_bytes([bytes[at + 4], bytes[at + 5]])) + usize::from(bytes[at + 6]);
            found.push(bytes[at..at + len].to_vec());
            at += len;
        }
        found
    };
    assert!(!begun.is_empty() && !rest.is_empty());
    let turns: Vec<u8> = records(&first).into_iter().zip(records(&second)).flat_map(|(a, b)| [a, b].concat()).collect();
    let found = read(&turns).unwrap();
    assert_eq!((&found.stdin[..], found.replies.len()), (&b"hello"[..], 0));
    let later = read(&[&found.stash[..], &turns[turns.len() - found.left..]].concat()).unwrap();
    assert_eq!((&later.params[..], &later.stdin[..]), (&b"\x01\x01cd"[..], &b"other"[..]));
    // More than there is room for.
    let large = [begin(3, 1, KEEP_CONN), record(kind::STDIN, 3, &[0; 0xFFF0], 0)].concat();
    let bytes = [&first[..20], &first[20..31], &large, &begin(5, 1, 1), &record(kind::STDIN, 3, b"x", 0), &first[31..]].concat();
    let found = read(&bytes).unwrap();
    assert_eq!(found.replies, record(kind::END_REQUEST, 3, &[0, 0, 0, 0, 1, 0, 0, 0], 0));
    assert_eq!(found.stash, begin(5, 1, 1));
    let many: Vec<u8> = (10..10 + WAITING_MAX as u16 + 1).flat_map(|id| begin(id, 1, 1)).collect();
    let found = read(&[&first[..16], &many, &first[16..]].concat()).unwrap();
    assert_eq!(found.replies.len(), 16, "one is too many");
}

#[test]
fn what_is_no_fastcgi_is_refused() {
    let malformed = |bytes: &[u8]| matches!(read(bytes), Err(Error::Malformed(_)));
    assert!(malformed(b"GET / HTTP/1.1\r\n") && malformed(b"\0") && malformed(b"\x02"));
    assert!(malformed(&begin(0, 1, 0)));
    assert!(malformed(&[begin(1, 1, 0), begin(1, 1, 0)].concat()));
    assert!(malformed(&[begin(1, 1, 0), begin(3, 1, 0), begin(3, 1, 0)].concat()));
    assert!(malformed(&record(kind::BEGIN_REQUEST, 1, b"short", 0)));
    assert!(malformed(&record(kind::GET_VALUES, 0, &[0; CONTROL_MAX + 1], 0)));
    assert!(malformed(&[begin(1, 1, 0), record(kind::STDIN, 1, b"x", 0)].concat()));
    let done = request(1, b"\x01\x01ab", b"");
    let params_end = done.len() - 13;
    assert!(malformed(&[&done[..params_end], &record(kind::PARAMS, 1, b"x", 0)].concat()));
}

#[test]
fn what_is_written_can_be_read() {
    let mut out = b"before".to_vec();
    let long = vec![b'x'; 150_000];
    out.extend_from_slice(&long);
    wrap(&mut out, 6, kind::STDOUT, 7);
    records::put_last(&mut out, 7);
    let (mut at, mut content) = (6, Vec::new());
    while at < out.len() {
        let len = usize::from(u16::from_be_bytes([out[at + 4], out[at + 5]]));
        assert_eq!((out[at], out[at + 6], &out[at + 2..at + 4]), (1, 0, &[0, 7][..]));
        if out[at + 1] == kind::STDOUT {
            content.extend_from_slice(&out[at + 8..at + 8 + len]);
        }
        at += 8 + len;
    }
    assert_eq!(content, long);
    assert!(out.ends_with(&[1, kind::END_REQUEST, 0, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn more_than_a_little_of_other_requests_is_kept_only_where_there_is_room() {
    for has_room in [true, false] {
        let (mut reader, mut replies, mut asked) = (RecordReader::default(), Vec::new(), 0);
        let part = vec![b'x'; STASH_FREE / 2];
        let other = [
            begin(3, 1, 1),
            record(kind::PARAMS, 3, &part, 0),
            record(kind::PARAMS, 3, &part, 0),
            record(kind::PARAMS, 3, &part, 0),
        ];
        let bytes = [&begin(1, 1, 1)[..], &begin(5, 1, 1), &other.concat()].concat();
        let mut at = 0;
        while at < bytes.len() {
            let mut room = || {
                asked += 1;
                has_room
            };
            at += reader.step(&bytes[at..], &mut replies, &mut room).unwrap().used;
        }
        // The one that was there before stays.
        let kept = if has_room { [begin(5, 1, 1), other.concat()].concat() } else { begin(5, 1, 1) };
        assert_eq!((reader.take_stash(), asked), (kept, 1), "{has_room}");
        let mut refused = Vec::new();
        put_end(&mut refused, 3, RequestEnd::CannotMultiplex);
        assert_eq!(replies, if has_room { Vec::new() } else { refused }, "{has_room}");
    }
}
