use super::*;
use crate::tls::records::SliceSink;

/// Both ends of a connection.
fn ends(is_newest: bool, aead: Aead) -> [Records; 2] {
    let direction = |byte| Direction { key: Zeroizing::new([byte; KEY_MAX]), iv: [byte; NONCE], number: 7 };
    let keys = |sealing, opening| {
        let suite = CipherSuite::TLS13_AES_256_GCM_SHA384;
        Records::new(KeySet { is_newest, suite, aead, sealing, opening, certificate: Box::default() })
    };
    [keys(direction(1), direction(2)), keys(direction(2), direction(1))]
}

/// Records of these kinds and contents.
fn sealed(end: &mut Records, contents: &[(ContentType, &[u8])]) -> Vec<u8> {
    let (mut unsent, mut bytes) = (Unsent::default(), Vec::new());
    contents.iter().for_each(|(kind, contents)| end.seal_one(*kind, contents, &mut unsent).unwrap());
    let sent = unsent.send(|records| {
        bytes.extend_from_slice(records);
        Ok(records.len())
    });
    sent.unwrap();
    bytes
}

fn opened(end: &mut Records, mut records: Vec<u8>) -> Result<(Vec<u8>, Processed), AlertDescription> {
    let mut space = [0; 100];
    let mut place = SliceSink::of(&mut space);
    let done = end.process(&mut records, &mut place, &mut Vec::new())?;
    let count = 100 - place.room();
    Ok((space[..count].to_vec(), done))
}

/// All that there are.
fn all() -> impl Iterator<Item = [Records; 2]> {
    let aeads = [Aead::Aes128, Aead::Aes256, Aead::ChaCha];
    aeads.into_iter().flat_map(|aead| [false, true].map(|is_newest| ends(is_newest, aead)))
}

#[test]
fn records_without_contents_come_to_an_end() {
    const DATA: ContentType = ContentType::ApplicationData;
    let empty = [(DATA, &b""[..]); 32];
    let canceled = [(ContentType::Alert, &[WARNING, 90][..]); 32];
    for [mut ours, mut theirs] in all() {
        for without in [&empty, &canceled] {
            let contents = [&[(DATA, &b"a"[..])], &without[..], &[(DATA, b"b")], without, &[(DATA, b"c")]].concat();
            let records = sealed(&mut theirs, &contents);
            let used = records.len();
            assert_eq!(opened(&mut ours, records), Ok((b"abc".to_vec(), Processed { used, is_ended: false })));
        }
        let records = sealed(&mut theirs, &[&empty[..], &canceled[..1]].concat());
        assert_eq!(opened(&mut ours, records), Err(AlertDescription::UnexpectedMessage));
    }
}

#[test]
fn any_content_of_any_kind_does_no_harm() {
    for [mut ours, mut theirs] in all() {
        for kind in 0..=255 {
            for contents in [&b""[..], b"\0", b"\x01\0", b"\x02\x28", b"\x02\xff", b"\x18\0\0\x01\x01", &[0; RECORD_MAX]] {
                let records = sealed(&mut theirs, &[(ContentType::from(kind), contents)]);
                // TLS 1.2 shows the kind, and a record is not opened for it then.
                if opened(&mut ours, records).is_err() {
                    ours.keys.opening.number = theirs.keys.sealing.number;
                    ours.fruitless = 0;
                }
            }
        }
    }
}

#[test]
fn what_comes_after_the_end_means_nothing() {
    for [mut ours, mut theirs] in all() {
        let mut records =
            sealed(&mut theirs, &[(ContentType::ApplicationData, b"the last request"), (ContentType::Alert, &[1, 0])]);
        records.extend_from_slice(b"and then something else");
        let used = records.len();
        assert_eq!(opened(&mut ours, records), Ok((b"the last request".to_vec(), Processed { used, is_ended: true })));
    }
}
