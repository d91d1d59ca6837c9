use super::*;

const MAX: usize = 1000;

/// The head of these pairs.
pub fn envelope(envelope: Envelope, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        match envelope {
            Envelope::Scgi => body.extend([text.as_bytes(), b"\0"].concat()),
            Envelope::Uwsgi => body.extend([&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()),
        }
    }
    let len = body.len();
    match envelope {
        Envelope::Scgi => [format!("{len}:").as_bytes(), &body, b","].concat(),
        Envelope::Uwsgi => [&[0][..], &(len as u16).to_le_bytes(), &[0], &body].concat(),
    }
}

/// What is said of these bytes when they come whole, and in every number of pieces up to single bytes.
#[track_caller]
fn measured(form: Envelope, bytes: &[u8]) -> Result<Measure, Error> {
    let whole = form.measure(bytes, MAX);
    for step in [1, 2, 3, 7] {
        let mut last = Ok(Measure::Missing(1));
        for end in (1..bytes.len()).step_by(step).chain([bytes.len()]) {
            last = form.measure(&bytes[..end], MAX);
            match &last {
                Ok(Measure::Missing(more)) => assert!(*more > 0, "at least one more"),
                Ok(Measure::Whole { .. }) | Err(_) => break,
            }
        }
        assert_eq!(last, whole, "{:?} in pieces of {step}", bytes.escape_ascii().to_string());
    }
    whole
}

fn texts(form: Envelope, bytes: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let Measure::Whole { pairs, .. } = form.measure(bytes, MAX)? else { panic!("it is whole") };
    let text = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
    form.packing().pairs(bytes, pairs).map(|pair| pair.map(|pair| (text(pair.name), text(pair.value)))).collect()
}

#[test]
fn pairs_are_found_whole_in_pieces_and_with_what_follows() {
    let given = [("CONTENT_LENGTH", "5"), ("SCGI", "1"), ("EMPTY", ""), ("PATH_INFO", "/ä")];
    for form in [Envelope::Scgi, Envelope::Uwsgi] {
        let head = envelope(form, &given);
        for tail in [&b""[..], b"x", b"hello, world", &head] {
            let bytes = [&head, tail].concat();
            let Ok(Measure::Whole { len, .. }) = measured(form, &bytes) else { panic!("it is whole") };
            assert_eq!(len, head.len(), "{form:?}");
            let expected: Vec<_> = given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(texts(form, &bytes), Ok(expected));
        }
        for end in 0..head.len() {
            assert!(matches!(form.measure(&head[..end], MAX), Ok(Measure::Missing(_))), "{form:?} at {end}");
        }
    }
}

#[test]
fn what_is_no_head_is_refused_at_the_byte_that_shows_it() {
    let malformed = |form, bytes: &[u8]| matches!(measured(form, bytes), Err(Error::Malformed(_)));
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b":", b"-1:", b"+1:", b"01:a,", b"00:,", b" 1:", b"3:a\0bc", b"1x", b"\0", b"\xff"]
    {
        assert!(malformed(Envelope::Scgi, bytes), "{:?}", bytes.escape_ascii().to_string());
    }
    for modifier in 1..=255 {
        assert!(malformed(Envelope::Uwsgi, &[modifier, 0, 0, 0]), "modifier1 {modifier}");
    }
}

#[test]
fn a_head_is_bounded_before_it_is_read() {
    assert_eq!(measured(Envelope::Scgi, b"1001:"), Err(Error::HeadTooLong(MAX)));
    assert_eq!(measured(Envelope::Scgi, b"99999999999999999999999999999999:"), Err(Error::HeadTooLong(MAX)));
    assert_eq!(measured(Envelope::Uwsgi, &[0, 0xff, 0xff, 0]), Err(Error::HeadTooLong(MAX)));
    assert_eq!(measured(Envelope::Scgi, b"1000:"), Ok(Measure::Missing(1001)));
}

#[test]
fn pairs_that_are_cut_off_are_refused() {
    for bytes in [&b"3:a\0b,"[..], b"1:a,", b"2:a\0,", b"5:a\0b\0c,"] {
        assert!(matches!(texts(Envelope::Scgi, bytes), Err(Error::Malformed(_))), "{:?}", bytes.escape_ascii().to_string());
    }
    for pairs in [&[1][..], &[1, 0], &[1, 0, b'a'], &[1, 0, b'a', 1], &[1, 0, b'a', 1, 0], &[0xff, 0xff, b'a', 0, 0]] {
        let bytes = [&[0, pairs.len() as u8, 0, 0], pairs].concat();
        assert!(matches!(texts(Envelope::Uwsgi, &bytes), Err(Error::Malformed(_))), "{pairs:?}");
    }
    assert_eq!(texts(Envelope::Uwsgi, &[0; 4]), Ok(Vec::new()));
    assert_eq!(texts(Envelope::Scgi, b"0:,"), Ok(Vec::new()));
}
