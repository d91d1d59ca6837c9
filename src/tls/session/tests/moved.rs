//! Sessions that go on in another process, by their bytes.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, ConnectionTrafficSecrets};

use super::*;
use crate::tls::travel::{SESSION_MAX, Travelling};

impl Pair {
    /// The same, after the handshake with this suite.
    fn of_suite(suite: SupportedCipherSuite) -> Self {
        let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..(*provider()).clone() });
        Self::shaken_by(provider, &[&TLS12, &TLS13], usize::MAX)
    }

    /// As if the session had gone to another process.
    fn go(&mut self) {
        let bytes = self.session.pack().expect("nothing is in between");
        self.session = Session::unpack(&bytes).unwrap();
    }

    /// One request and its answer.
    fn exchange(&mut self, what: &str) {
        self.client.writer().write_all(what.as_bytes()).unwrap();
        self.pump_client();
        let mut space = vec![0; what.len() + 1];
        assert_eq!(self.receive(&mut space).unwrap(), OpenedBytes { count: what.len(), more: false });
        assert_eq!(&space[..what.len()], what.as_bytes());
        let answer = made(40_000);
        assert_eq!(self.send(&[what.as_bytes(), &answer]).unwrap(), what.len() + answer.len());
        assert!(self.got() == [what.as_bytes(), &answer].concat());
    }

    /// Closes it from this side.
    fn end(&mut self) {
        self.session.end();
        let Self { session, to_client, room, .. } = self;
        session.flush(|bytes| write(to_client, room, bytes)).unwrap();
    }
}

#[test]
fn it_goes_on_with_every_suite_and_may_go_again() {
    let mut tried = 0;
    for suite in provider().cipher_suites.clone() {
        if suite.suite().as_str().is_some_and(|name| name.contains("_RSA_")) {
            continue; // sealed as those of ECDSA, whose certificate is here
        }
        tried += 1;
        let mut pair = Pair::of_suite(suite);
        let before = pair.session.facts();
        for round in ["first", "second", "third"] {
            pair.exchange(round);
            pair.go();
            assert_eq!(pair.session.facts(), before);
            // The parts of one record come before and after the move.
            pair.client.writer().write_all(b"in pieces").unwrap();
            pair.pump_client();
            let rest = pair.to_server.split_off(11);
            assert_eq!(pair.receive(&mut [0; 100]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            pair.go();
            pair.to_server = rest;
            // What has no room is opened, and goes along.
            assert_eq!(pair.receive(&mut [0; 4]).unwrap(), OpenedBytes { count: 4, more: true });
            pair.go();
            let mut space = [0; 100];
            assert_eq!((pair.receive(&mut space).unwrap().count, &space[..5]), (5, &b"ieces"[..]));
        }
        pair.client.writer().write_all(&made(50_000)).unwrap();
        pair.pump_client();
        let (mut got, mut space) = (Vec::new(), [0; 7_000]);
        while got.len() < 50_000 {
            let count = pair.receive(&mut space).unwrap().count;
            got.extend_from_slice(&space[..count]);
        }
        assert!(got == made(50_000));
        pair.client.send_close_notify();
        pair.pump_client();
        assert_eq!(pair.receive(&mut [0; 10]).unwrap(), OpenedBytes { count: 0, more: false });
        pair.go();
        assert!(pair.session.is_ended());
        assert_eq!(pair.send(&[b"still answered"]).unwrap(), 14);
        pair.end();
        assert_eq!(pair.got(), b"still answered");
        assert_eq!(pair.client.reader().read(&mut [0; 10]).unwrap(), 0, "the end is announced");
    }
    assert_eq!(tried, 6);
}

#[test]
fn an_end_that_nobody_announced_is_none_after_a_move_either() {
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    pair.go();
    let cut = pair.session.receive(|_| Ok(0), &mut SliceSink::of(&mut [0; 10]), &mut Scratch::default());
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn new_keys_of_the_client_are_the_end_of_what_it_can_say() {
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    pair.go();
    pair.client.writer().write_all(b"before").unwrap();
    pair.client.refresh_traffic_keys().unwrap();
    pair.client.writer().write_all(b"after").unwrap();
    pair.pump_client();
    let mut space = [0; 100];
    assert_eq!((pair.receive(&mut space).unwrap().count, &space[..6]), (6, &b"before"[..]));
    assert_eq!(pair.receive(&mut space).unwrap(), OpenedBytes { count: 0, more: false });
    assert_eq!(pair.send(&[b"an answer"]).unwrap(), 9);
    pair.end();
    assert_eq!(pair.got(), b"an answer");
    assert_eq!(pair.client.reader().read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn it_stays_until_new_keys_of_the_client_are_answered() {
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    pair.client.refresh_traffic_keys().unwrap();
    pair.client.writer().write_all(b"a request").unwrap();
    pair.pump_client();
    assert_eq!(pair.receive(&mut [0; 100]).unwrap().count, 9);
    for _ in 0..3 {
        assert!(pair.session.pack().is_none(), "the client waits for new keys of this side");
    }
    assert_eq!(pair.send(&[b"an answer"]).unwrap(), 9);
    assert_eq!(pair.got(), b"an answer");
    pair.go();
    pair.exchange("by the new keys of both");
}

#[test]
fn what_nobody_has_sealed_breaks_it_with_an_alert() {
    let long = [&[23, 3, 3, 0x41, 0x01][..], &[0; 0x4101]].concat();
    let records: [&[u8]; 6] = [
        b"\x17\x03\x03\x00\x20 no record that anybody has sealed...",
        b"\x17\x03\x03\x00\x00",
        b"\x17\x03\x03\x00\x03abc",
        b"\x16\x03\x03\x00\x20 another kind that nobody has sealed..",
        b"GET / HTTP/1.1\r\n",
        &long,
    ];
    for version in [&TLS12, &TLS13] {
        for bytes in records {
            let mut pair = Pair::shaken(version, usize::MAX);
            pair.go();
            pair.to_server.extend_from_slice(bytes);
            assert_eq!(pair.receive(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
            assert!(pair.session.has_unsent(), "an alert");
            assert!(pair.session.pack().is_none());
            let Pair { session, to_client, room, .. } = &mut pair;
            session.flush(|bytes| write(to_client, room, bytes)).unwrap();
            let error = loop {
                pair.client.read_tls(&mut Cursor::new(std::mem::take(&mut pair.to_client))).unwrap();
                if let Err(error) = pair.client.process_new_packets() {
                    break error;
                }
            };
            assert!(matches!(error, Error::AlertReceived(_)), "{error}");
            assert!(pair.receive(&mut [0; 10]).is_err());
            assert_eq!(pair.send(&[b"x"]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
        // The same record twice.
        let mut pair = Pair::shaken(version, usize::MAX);
        pair.go();
        pair.client.writer().write_all(b"once").unwrap();
        pair.pump_client();
        let again = pair.to_server.clone();
        assert_eq!(pair.receive(&mut [0; 10]).unwrap().count, 4);
        pair.to_server = again;
        assert_eq!(pair.receive(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn it_stays_while_something_is_in_between() {
    let mut pair = Pair::new(&TLS13, usize::MAX);
    assert!(pair.session.pack().is_none(), "the handshake is not over");
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    pair.room = 10;
    pair.send(&[b"an answer"]).unwrap();
    assert!(pair.session.pack().is_none(), "a record is unsent");
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    pair.end();
    assert!(pair.session.pack().is_none(), "it is over");
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    for _ in 0..2 {
        pair.client.writer().write_all(&made(100)).unwrap();
    }
    pair.pump_client();
    assert_eq!(pair.receive(&mut [0; 1]).unwrap().count, 1);
    assert!(pair.session.pack().is_none(), "a whole record waits");
    assert_eq!(pair.receive(&mut [0; 100]).unwrap().count, 99);
    assert_eq!(pair.receive(&mut [0; 1]).unwrap().count, 1);
    pair.session.pack().unwrap();
    assert_eq!(pair.receive(&mut [0; 100]).unwrap().count, 99);
    pair.exchange("it goes on here too when nobody has taken it");
}

#[test]
fn what_is_no_session_is_refused_and_any_that_is_one_does_no_harm() {
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    pair.client.writer().write_all(b"opened").unwrap();
    pair.pump_client();
    assert_eq!(pair.receive(&mut [0; 1]).unwrap().count, 1);
    let bytes = pair.session.pack().unwrap();
    for len in 0..bytes.len() {
        if let Ok(mut session) = Session::unpack(&bytes[..len]) {
            assert!(len + 6 > bytes.len(), "{len} of {}", bytes.len());
            let _ = session.receive(|_| Ok(0), &mut SliceSink::of(&mut [0; 10]), &mut Scratch::default());
        }
    }
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut wrong = bytes.to_vec();
            wrong[at] = value;
            let Ok(mut session) = Session::unpack(&wrong) else { continue };
            let record = b"\x17\x03\x03\x00\x20 no record that anybody has sealed...";
            let mut wire = record.to_vec();
            while session
                .receive(|space| read(&mut wire, 100, space), &mut SliceSink::of(&mut [0; 10]), &mut Scratch::default())
                .is_ok_and(|got| got.count > 0)
            {}
            let _ = session.send(&[b"x"], |bytes| Ok(bytes.len()), &mut Scratch::default());
            session.end();
        }
    }
    assert!(Session::unpack(&vec![0; SESSION_MAX + 1]).is_err());
}

#[test]
fn a_key_that_has_sealed_enough_ends_the_connection_in_order() {
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    let mut bytes = pair.session.pack().unwrap().to_vec();
    // Where the number of the next record is; the client's is set to it too.
    let number = (1u64 << 23) - 1;
    bytes[37..45].copy_from_slice(&number.to_le_bytes());
    let Some(SupportedCipherSuite::Tls13(suite)) = pair.client.negotiated_cipher_suite() else { panic!("TLS 1.3") };
    let Pair { client, .. } = pair;
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = client.dangerous_extract_secrets().unwrap().rx.1 else { panic!("AES") };
    let mut opener = suite.aead_alg.decrypter(key, iv);
    let mut session = Session::unpack(&bytes).unwrap();
    let (mut sent, mut scratch) = (Vec::new(), Scratch::default());
    session.send(&[b"the last answer"], |bytes| write(&mut sent, &mut usize::MAX.clone(), bytes), &mut scratch).unwrap();
    let mut record = sent[5..].to_vec();
    let message =
        rustls::crypto::cipher::InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut record);
    assert_eq!(opener.decrypt(message, number).unwrap().payload, b"the last answer");
    let got = session.receive(|_| Err(io::ErrorKind::WouldBlock.into()), &mut SliceSink::of(&mut [0; 9]), &mut scratch);
    assert_eq!(got.unwrap(), OpenedBytes { count: 0, more: false });
    assert_eq!(session.facts().cipher, "TLS_AES_256_GCM_SHA384");
    assert_eq!(suite.common.suite, CipherSuite::TLS13_AES_256_GCM_SHA384);
}

#[test]
fn a_key_that_has_sealed_all_it_may_seals_nothing_more() {
    for (suite, most) in
        [(CipherSuite::TLS13_AES_128_GCM_SHA256, 22 << 20), (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, 1 << 63)]
    {
        let suites = provider().cipher_suites.clone();
        let mut pair = Pair::of_suite(*suites.iter().find(|known| known.suite() == suite).unwrap());
        let mut travelling = Travelling::of_bytes(&pair.session.pack().unwrap()).unwrap();
        travelling.keys.sealing.number = most - 1;
        let mut session = Session::unpack(&travelling.to_bytes().unwrap()).unwrap();
        let mut scratch = Scratch::default();
        assert_eq!(session.send(&[b"x"], |bytes| Ok(bytes.len()), &mut scratch).unwrap(), 1);
        assert!(session.is_ended());
        assert!(session.send(&[b"x"], |bytes| Ok(bytes.len()), &mut scratch).is_err(), "{suite:?}");
    }
}
