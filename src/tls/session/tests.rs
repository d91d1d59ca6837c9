use std::io::{Cursor, Read as _, Write as _};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore, SupportedCipherSuite,
    SupportedProtocolVersion,
};

mod moved;

use super::*;
use crate::config::{ClientCertificates, TlsSettings, TlsVersion};
use crate::tls::material::{CertifiedPair, Material, TicketSecrets};
use crate::tls::provider;
use crate::tls::records::SliceSink;
use crate::tls::server::{certificates, tls_server};

/// A certificate for localhost that signs itself, until 2100.
const CHAIN: &str = "\
-----BEGIN CERTIFICATE-----
MIIBmzCCAUCgAwIBAgIUMocaK2coqHy1EdlH65odpCExtpcwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFdGVzdHMwIBcNMjYxMTMwMjExMjIwWhgPMjEwMDExMDIyMTEy
MjBaMBAxDjAMBgNVBAMMBXRlc3RzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
Yw4MjPoubn2OGvCNfBG6CtLTun78duXPxfcz6VP3DYnWIfoxvl9YJnXMqfWHPRyd
t6MEAHElOvqFZynBllQW9KN2MHQwHQYDVR0OBBYEFC50KFW/5oOlveh5FIq+NG9C
K/CXMB8GA1UdIwQYMBaAFC50KFW/5oOlveh5FIq+NG9CK/CXMCQGA1UdEQQdMBuC
CWxvY2FsaG9zdIIOKi5leGFtcGxlLnRlc3QwDAYDVR0TAQH/BAIwADAKBggqhkjO
PQQDAgNJADBGAiEAtnp760xgQ/ixSU++FzKCel996h211QJrbizLCSym2F0CIQDV
Xs15G82rSUIRVil4eSUC+xQLWL6UebPzbX0ktTKJ6w==
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQghI6a0RV+88WkJrlh
nqqWTOSV4+pPovAU0kX9a68/9WqhRANCAARjDgyM+i5ufY4a8I18EboK0tO6fvx2
5c/F9zPpU/cNidYh+jG+X1gmdcyp9Yc9HJ23owQAcSU6+oVnKcGWVBb0
-----END PRIVATE KEY-----
";

fn server() -> TlsServer {
    let pairs = vec![CertifiedPair { chain: CHAIN.to_owned(), key: KEY.to_owned() }];
    let material = Material { pairs, client_roots: String::new(), tickets: TicketSecrets::random().unwrap() };
    let settings = TlsSettings {
        pairs: Vec::new(),
        client_roots: None,
        client_certificates: ClientCertificates::None,
        oldest: TlsVersion::V1_2,
    };
    tls_server(&material, &settings).unwrap()
}

/// A client and a session with the wires between them, which deliver so many bytes at once.
struct Pair {
    client: ClientConnection,
    session: Session,
    scratch: Scratch,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    at_once: usize,
    /// Bytes that the way to the client has room for.
    room: usize,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion, at_once: usize) -> Self {
        Self::by(provider(), &[version], at_once)
    }

    fn by(provider: Arc<CryptoProvider>, versions: &[&'static SupportedProtocolVersion], at_once: usize) -> Self {
        let mut roots = RootCertStore::empty();
        certificates(CHAIN).unwrap().into_iter().for_each(|certificate| roots.add(certificate).unwrap());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        client.enable_secret_extraction = true;
        let client = ClientConnection::new(Arc::new(client), ServerName::try_from("localhost").unwrap()).unwrap();
        let session = Session::new(server(), &[]).unwrap();
        let (to_server, to_client) = (Vec::new(), Vec::new());
        Self { client, session, scratch: Scratch::default(), to_server, to_client, at_once, room: usize::MAX }
    }

    /// The same, after the handshake.
    fn shaken(version: &'static SupportedProtocolVersion, at_once: usize) -> Self {
        Self::shaken_by(provider(), &[version], at_once)
    }

    fn shaken_by(provider: Arc<CryptoProvider>, versions: &[&'static SupportedProtocolVersion], at_once: usize) -> Self {
        let mut pair = Self::by(provider, versions, at_once);
        while pair.session.is_handshaking() || pair.client.is_handshaking() {
            pair.pump_client();
            if let Err(error) = pair.shake() {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
            }
        }
        pair.pump_client();
        pair
    }

    fn pump_client(&mut self) {
        let mut came = Cursor::new(std::mem::take(&mut self.to_client));
        while self.client.read_tls(&mut came).unwrap() > 0 {
            self.client.process_new_packets().unwrap();
        }
        while self.client.wants_write() {
            self.client.write_tls(&mut self.to_server).unwrap();
        }
    }

    fn shake(&mut self) -> io::Result<bool> {
        let Self { session, scratch, to_server, to_client, at_once, room, .. } = self;
        session.shake_hands(|space| read(to_server, *at_once, space), |bytes| write(to_client, room, bytes), scratch)
    }

    fn receive(&mut self, space: &mut [u8]) -> io::Result<OpenedBytes> {
        let Self { session, scratch, to_server, at_once, .. } = self;
        session.receive(|space| read(to_server, *at_once, space), &mut SliceSink::of(space), scratch)
    }

    fn send(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        let Self { session, scratch, to_client, room, .. } = self;
        session.send(parts, |bytes| write(to_client, room, bytes), scratch)
    }

    /// What the client has got.
    fn got(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        let mut came = Cursor::new(std::mem::take(&mut self.to_client));
        let mut space = [0; 4096];
        loop {
            let count = self.client.read_tls(&mut came).unwrap();
            self.client.process_new_packets().unwrap();
            while let Ok(count @ 1..) = self.client.reader().read(&mut space) {
                got.extend_from_slice(&space[..count]);
            }
            if count == 0 {
                return got;
            }
        }
    }
}

fn read(wire: &mut Vec<u8>, at_once: usize, space: &mut [u8]) -> io::Result<usize> {
    if wire.is_empty() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let count = wire.len().min(at_once).min(space.len());
    space[..count].copy_from_slice(&wire[..count]);
    wire.drain(..count);
    Ok(count)
}

fn write(wire: &mut Vec<u8>, room: &mut usize, bytes: &[u8]) -> io::Result<usize> {
    let count = bytes.len().min(*room);
    if count == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    wire.extend_from_slice(&bytes[..count]);
    *room -= count;
    Ok(count)
}

fn made(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways_whatever_the_pieces_are() {
    for (version, at_once, room) in [(&TLS13, 1, 10), (&TLS13, 1_000_000, 64 * 1024), (&TLS12, 7, 100_000), (&TLS12, 5_000, 1)] {
        let mut pair = Pair::shaken(version, at_once);
        let sent = made(100_000);
        let (mut at, mut got, mut space) = (0, Vec::new(), vec![0; room]);
        while got.len() < sent.len() {
            if at < sent.len() {
                at += pair.client.writer().write(&sent[at..]).unwrap();
                pair.pump_client();
            }
            let OpenedBytes { count, more } = pair.receive(&mut space).unwrap();
            assert!(count > 0);
            got.extend_from_slice(&space[..count]);
            // Whoever believes that nothing more is here waits for the reader.
            assert!(more || pair.to_server.is_empty() || at_once < 70_000, "bytes are left, and nobody knows");
        }
        assert!(got == sent);
        let part = made(40_000);
        assert_eq!(pair.send(&[&part, b"", b"x", &part]).unwrap(), 80_001);
        assert!(pair.got() == [&part[..], b"x", &part].concat());
    }
}

#[test]
fn nothing_is_kept_between_two_requests() {
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    for _ in 0..3 {
        pair.client.writer().write_all(b"a request").unwrap();
        pair.pump_client();
        assert_eq!(pair.receive(&mut [0; 100]).unwrap(), OpenedBytes { count: 9, more: false });
        assert_eq!(pair.send(&[b"an answer"]).unwrap(), 9);
        assert_eq!(pair.got(), b"an answer");
        let Session { incoming, opened, unsent, .. } = &pair.session;
        assert_eq!((incoming.capacity(), opened.capacity(), unsent.capacity()), (0, 0, 0));
    }
}

#[test]
fn what_a_full_writer_does_not_take_is_bounded_and_leaves_in_order() {
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    pair.room = 1_000;
    let all = made(500_000);
    let mut taken = pair.send(&[&all]).unwrap();
    assert_eq!(taken, AT_ONCE);
    assert!(pair.session.has_unsent());
    assert_eq!(pair.send(&[&all[taken..]]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let mut got = Vec::new();
    while got.len() < all.len() {
        pair.room = 30_000;
        match pair.send(&[&all[taken..]]) {
            Ok(count) => taken += count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        got.extend(pair.got());
    }
    assert!(got == all);
}

#[test]
fn an_end_that_nobody_announced_is_none() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::shaken(version, usize::MAX);
        let cut = pair.session.receive(|_| Ok(0), &mut SliceSink::of(&mut [0; 10]), &mut Scratch::default());
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        pair.client.writer().write_all(b"last").unwrap();
        pair.client.send_close_notify();
        pair.pump_client();
        assert_eq!(pair.receive(&mut [0; 10]).unwrap(), OpenedBytes { count: 4, more: true });
        for _ in 0..2 {
            assert_eq!(pair.receive(&mut [0; 10]).unwrap(), OpenedBytes { count: 0, more: false });
        }
        assert!(pair.session.is_ended());
        assert_eq!(pair.send(&[b"still answered"]).unwrap(), 14);
        pair.session.end();
        let Pair { session, to_client, room, .. } = &mut pair;
        session.flush(|bytes| write(to_client, room, bytes)).unwrap();
        assert_eq!(pair.got(), b"still answered");
        assert_eq!(pair.client.reader().read(&mut [0; 10]).unwrap(), 0, "the server's end is announced");
        assert_eq!(pair.send(&[b"no more"]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn what_is_no_tls_breaks_the_connection_with_an_alert() {
    let mut pair = Pair::shaken(&TLS13, usize::MAX);
    pair.to_server.extend_from_slice(b"\x17\x03\x03\x00\x20 no record that anybody has sealed...");
    assert_eq!(pair.receive(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(pair.session.has_unsent(), "an alert");
    assert!(pair.receive(&mut [0; 10]).is_err());
    assert_eq!(pair.send(&[b"x"]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let mut pair = Pair::new(&TLS12, usize::MAX);
    pair.to_server.extend_from_slice(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00");
    assert_eq!(pair.shake().unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(!pair.to_client.is_empty(), "an alert");
}

#[test]
fn a_request_may_come_with_the_end_of_the_handshake() {
    let mut pair = Pair::new(&TLS13, usize::MAX);
    pair.pump_client();
    assert_eq!(pair.shake().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // The client's last message and the request leave together.
    pair.client.writer().write_all(b"a request").unwrap();
    pair.pump_client();
    assert!(pair.shake().unwrap(), "it is here, and no event will tell");
    assert_eq!(pair.receive(&mut [0; 100]).unwrap().count, 9);
    let facts = pair.session.facts();
    assert_eq!((facts.protocol, facts.cipher, facts.client), ("TLSv1.3", "TLS_AES_256_GCM_SHA384", None));
}

/// A record of the handshake in clear.
fn record(payload: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &u16::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
}

#[test]
fn an_error_behind_a_part_of_a_message_is_an_error_and_no_panic() {
    let mut pair = Pair::new(&TLS13, usize::MAX);
    pair.pump_client();
    let hello = std::mem::take(&mut pair.to_server);
    // Longer than any message may be; another message behind the one that is refused; an alert in the middle of one.
    let (long, alert) = ([&[1, 1, 0, 0][..], &made(16_000)].concat(), b"\x15\x03\x01\x00\x02\x01\x00");
    let twice = [&hello[..], &hello].concat();
    let wrong = [&[2, 0, 0, 0][..], &hello[5..], &hello[5..9]].concat();
    let cut = [&hello[..], alert, &record(&hello[5..20]), alert].concat();
    for (what, came) in [("long", record(&long)), ("twice", twice), ("wrong", record(&wrong)), ("cut", cut)] {
        for at_once in [1, 3, usize::MAX] {
            let mut pair = Pair::new(&TLS13, at_once);
            pair.to_server.clone_from(&came);
            let error = loop {
                match pair.shake() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && !pair.to_server.is_empty() => {}
                    ended => break ended.unwrap_err(),
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}, {at_once} bytes at once");
        }
    }
    for len in 0..hello.len() - 5 {
        let mut pair = Pair::new(&TLS13, usize::MAX);
        pair.to_server = [record(&hello[5..5 + len]), b"\x15\x03\x01\x00\x02\x01\x00".to_vec()].concat();
        assert_eq!(pair.shake().unwrap_err().kind(), io::ErrorKind::InvalidData, "{len} bytes of the hello");
    }
}

/// Seals records of any kind by the keys of this client, which speaks TLS 1.3 with AES-256.
fn sealer(client: ClientConnection) -> impl FnMut(ContentType, &[u8]) -> Vec<u8> {
    let Some(SupportedCipherSuite::Tls13(suite)) = client.negotiated_cipher_suite() else { panic!("TLS 1.3") };
    let (mut number, secrets) = client.dangerous_extract_secrets().unwrap().tx;
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("AES") };
    let mut sealer = suite.aead_alg.encrypter(key, iv);
    move |typ, payload| {
        let payload = OutboundChunks::Single(payload);
        number += 1;
        sealer.encrypt(OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload }, number - 1).unwrap().encode()
    }
}

#[test]
fn bytes_leave_while_a_message_of_the_client_is_not_whole() {
    let Pair { client, mut session, mut scratch, .. } = Pair::shaken(&TLS13, usize::MAX);
    let mut seal = sealer(client);
    // A request, and three of the five bytes of a KeyUpdate.
    let mut wire = [seal(ContentType::ApplicationData, b"a request"), seal(ContentType::Handshake, &[24, 0, 0])].concat();
    let mut space = [0; 9];
    for (room, expected) in [(9, Ok(9)), (9, Err(io::ErrorKind::WouldBlock))] {
        let place = &mut SliceSink::of(&mut space[..room]);
        let got = session.receive(|space| read(&mut wire, usize::MAX, space), place, &mut scratch);
        assert_eq!(got.map(|got| got.count).map_err(|error| error.kind()), expected);
        let mut sent = Vec::new();
        assert_eq!(
            session.send(&[b"an answer"], |bytes| write(&mut sent, &mut usize::MAX.clone(), bytes), &mut scratch).unwrap(),
            9
        );
        assert!(sent.len() > 9);
    }
    // The rest of it, and what is sealed with the new key cannot be made here.
    wire = seal(ContentType::Handshake, &[0, 2]);
    let got = session.receive(|space| read(&mut wire, usize::MAX, space), &mut SliceSink::of(&mut space), &mut scratch);
    assert_eq!(got.unwrap_err().kind(), io::ErrorKind::InvalidData, "2 is no value of it");
    assert!(session.has_unsent(), "an alert");
}

#[test]
fn a_message_that_no_client_has_to_send_is_kept_up_to_the_length_of_a_record() {
    let Pair { client, mut session, mut scratch, .. } = Pair::shaken(&TLS13, usize::MAX);
    let mut seal = sealer(client);
    // A KeyUpdate of nearly 64 KiB, in parts.
    let (mut kept, mut part) = (0, [&[24, 0, 0xff, 0xf0][..], &made(8_000)].concat());
    let error = loop {
        let mut wire = seal(ContentType::Handshake, &part);
        let space = &mut [0; 10];
        let got = session.receive(|space| read(&mut wire, usize::MAX, space), &mut SliceSink::of(space), &mut scratch);
        match got.unwrap_err() {
            error if error.kind() == io::ErrorKind::WouldBlock => kept = session.incoming.len(),
            error => break error,
        }
        part = made(8_000);
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!((8_000..=MESSAGE_MAX).contains(&kept), "{kept}");
}
