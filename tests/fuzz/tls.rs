//! Clients of TLS of every kind. Before the end of the handshake: any bytes, and a client's own with some of them changed. After it:
//! records of any length in any pieces, new keys, ends, and garbage. No panic; what the server opens is what the client sealed, up to
//! the first byte that is not the client's, and nothing after that; what the client reads is what the server sealed. Now and then the
//! session goes to another process, where new keys are the end.
#![no_main]

use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore};
use tapster::config::{ClientCertificates, TlsSettings, TlsVersion};
use tapster::tls::material::{CertifiedPair, Material};
use tapster::tls::provider;
use tapster::tls::records::{Scratch, SliceSink, VecSink};
use tapster::tls::server::{TlsServer, tls_server};
use tapster::tls::session::Session;

/// Bytes that a side seals in one case at most: they are opened one by one if the case says so, which takes its time.
const SEALED_MAX: usize = 256 * 1024;

/// New keys without contents between them that rustls takes.
const KEYS_MAX: u32 = 32;

/// Everybody knows this key: it is for nothing else.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBiTCCAS6gAwIBAgIUVYY5m6N+KA2C/kS8fZDJqWJ2S6EwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEZnV6ejAgFw0yNjExMzAyMTAwMTdaGA8yMTI2MTEwNjIxMDAx
N1owDzENMAsGA1UEAwwEZnV6ejBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJOX
vGJd531YckDDb+1QuvMV9GyTqTHzHyNvoxDkrJeEHI3xjRqRDXx+jIyAE8rHT7Ij
/ZH6YM83/WZkj4Gk8JSjZjBkMB0GA1UdDgQWBBRFUCDtApGMgiUJaPMDuipngYe+
ajAfBgNVHSMEGDAWgBRFUCDtApGMgiUJaPMDuipngYe+ajAUBgNVHREEDTALggls
b2NhbGhvc3QwDAYDVR0TAQH/BAIwADAKBggqhkjOPQQDAgNJADBGAiEA2aKIWHjx
yq7assiqgJ22WrUhvukI9PQPo8di2MAg5OsCIQDDljK11WrofuTS5yUUP4TasAUk
bTLaZgH4erFD3L3JoA==
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgnv2kT1XWPvyWoKqa
Bk1mthPy0dVUdRUueLn2im0WSaehRANCAASTl7xiXed9WHJAw2/tULrzFfRsk6kx
8x8jb6MQ5KyXhByN8Y0akQ18foyMgBPKx0+yI/2R+mDPN/1mZI+BpPCU
-----END PRIVATE KEY-----
";

static SERVER: LazyLock<TlsServer> = LazyLock::new(|| {
    let pair = CertifiedPair { chain: CERTIFICATE.to_owned(), key: KEY.to_owned() };
    let material = Material { pairs: vec![pair], client_roots: CERTIFICATE.to_owned(), ..Material::default() };
    let settings = TlsSettings {
        pairs: Vec::new(),
        client_roots: None,
        client_certificates: ClientCertificates::Optional,
        oldest: TlsVersion::V1_2,
    };
    tls_server(&material, &settings).expect("a pair")
});

/// Clients of 1.2 and 1.3, without and with a certificate.
static CLIENTS: LazyLock<Vec<Arc<ClientConfig>>> = LazyLock::new(|| {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate");
    let make = |number: usize| {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        let versions = [if number.is_multiple_of(2) { &TLS12 } else { &TLS13 }];
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions).expect("it has both");
        let builder = builder.with_root_certificates(roots);
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
        Arc::new(match number / 2 {
            0 => builder.with_no_client_auth(),
            _ => builder.with_client_auth_cert(vec![certificate.clone()], key).expect("a pair"),
        })
    };
    (0..4).map(make).collect()
});

/// What has left one side and has not come to the other.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    /// Bytes that have come to the other.
    passed: usize,
    is_ended: bool,
}

impl Wire {
    /// One read of a socket that has so many bytes at once at most.
    fn read(&mut self, space: &mut [u8], most: usize) -> io::Result<usize> {
        let count = self.bytes.len().min(space.len()).min(most);
        if count == 0 && !self.is_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        space[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        self.passed += count;
        Ok(count)
    }
}

/// The server's side, with what it has opened and what its client gets.
struct Server {
    session: Session,
    scratch: Scratch,
    opened: Vec<u8>,
    sent: Vec<u8>,
    /// How it has ended: in order, or not.
    ended: Option<bool>,
}

impl Server {
    fn new(begun: &[u8]) -> Self {
        let session = Session::new(SERVER.clone(), begun).expect("the configuration can be used");
        Self { session, scratch: Scratch::default(), opened: Vec::new(), sent: Vec::new(), ended: None }
    }

    /// Takes what is on the wire, `most` bytes at once, with room for `room` bytes of contents.
    fn take(&mut self, wire: &mut Wire, most: usize, room: usize) {
        // Each turn but the handshake's and the last gives a byte at least, and there are fewer of them than of the records' bytes.
        for _ in 0..wire.passed + wire.bytes.len() + 2 {
            if self.ended.is_some() {
                return;
            }
            let sent = &mut self.sent;
            let mut write = |records: &[u8]| {
                sent.extend_from_slice(records);
                Ok(records.len())
            };
            let read = |space: &mut [u8]| wire.read(space, most);
            let result = if self.session.is_handshaking() {
                self.session.shake_hands(read, &mut write, &mut self.scratch).map(|_| None)
            } else if room.is_multiple_of(2) {
                let mut place = VecSink { bytes: &mut self.opened, left: room };
                self.session.receive(read, &mut place, &mut self.scratch).map(|opened| Some(opened.count))
            } else {
                let mut memory = vec![0; room];
                let opened = self.session.receive(read, &mut SliceSink::of(&mut memory), &mut self.scratch);
                opened.map(|opened| {
                    self.opened.extend_from_slice(&memory[..opened.count]);
                    Some(opened.count)
                })
            };
            self.session.flush(&mut write).expect("it takes everything");
            match result {
                Ok(Some(0)) => self.ended = Some(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.ended = Some(false),
            }
        }
        panic!("it does not come to an end");
    }
}

/// The numbers that a case is made of; 0 when there are no more.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> usize {
        self.0.split_off_first().map_or(0, |byte| usize::from(*byte))
    }

    fn word(&mut self) -> usize {
        self.byte() << 8 | self.byte()
    }
}

fn client(number: usize) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(CLIENTS[number % CLIENTS.len()].clone(), name).expect("it can begin")
}

fn leave(client: &mut ClientConnection, wire: &mut Wire) {
    while client.wants_write() {
        client.write_tls(&mut wire.bytes).expect("a vector takes everything");
    }
}

/// Has the client take what the server has sent, and adds what is in it to `received`; whether that was TLS.
fn come_back(client: &mut ClientConnection, server: &mut Server, received: &mut Vec<u8>) -> bool {
    let mut records = server.sent.as_slice();
    while !records.is_empty() {
        if client.read_tls(&mut records).is_err() || client.process_new_packets().is_err() {
            return false;
        }
        // Until there is no more, which is an error without an end.
        let _ = client.reader().read_to_end(received);
    }
    server.sent.clear();
    true
}

/// Bytes that are nobody's.
fn any_bytes(bytes: &[u8]) {
    let (begun, rest) = bytes.split_at(bytes.len().min(bytes.first().map_or(0, |first| usize::from(*first))));
    let mut server = Server::new(begun);
    let mut wire = Wire { bytes: rest.to_vec(), passed: begun.len(), is_ended: true };
    server.take(&mut wire, 1 + bytes.len() / 3, 4096);
    assert_eq!(server.opened, b"", "nobody has sealed anything");
    // What another process is said to have packed.
    if let Ok(session) = Session::unpack(bytes) {
        server = Server { session, ..Server::new(&[]) };
        server.take(&mut Wire { bytes: rest.to_vec(), passed: bytes.len(), is_ended: true }, 1 + bytes.len() / 3, 4096);
        let _ = server.session.send(&[b"x"], |records| Ok(records.len()), &mut server.scratch);
        server.session.end();
    }
}

/// A handshake some bytes of which are changed, left out or made up.
fn changed_handshake(mut numbers: Numbers<'_>) {
    let mut client = client(numbers.byte());
    let (mut server, mut wire) = (Server::new(&[]), Wire::default());
    for _ in 0..4 {
        let before = wire.bytes.len();
        leave(&mut client, &mut wire);
        for _ in 0..numbers.byte() % 4 {
            let (at, len) = (before + numbers.word() % (wire.bytes.len() - before + 1), numbers.byte());
            match len % 3 {
                0 if at < wire.bytes.len() => wire.bytes[at] ^= numbers.byte() as u8,
                1 => drop(wire.bytes.drain(at..wire.bytes.len().min(at + len))),
                _ => {
                    let made: Vec<u8> = (0..len % 16).map(|_| numbers.byte() as u8).collect();
                    wire.bytes.splice(at..at, made);
                }
            }
        }
        server.take(&mut wire, 1 + numbers.word(), 1000);
        if server.ended.is_some() || !come_back(&mut client, &mut server, &mut Vec::new()) {
            return;
        }
    }
}

/// What is sealed: its byte at a place. A whole record that is left out shows: 16 KiB are no multiple of 251.
fn made(at: usize) -> u8 {
    (at % 251) as u8
}

/// A handshake as it should be, and then everything that may be on a connection.
fn records(mut numbers: Numbers<'_>) {
    let mut client = client(numbers.byte());
    let (mut server, mut wire) = shake_hands(&mut client, &mut numbers);
    let has_new_keys = client.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let (mut sealed, mut expected, mut is_forged, mut has_ended) = (Vec::new(), Vec::new(), false, false);
    let (mut received, mut keys) = (Vec::new(), 0);
    // Bytes that were sealed before the first new keys after a move.
    let (mut is_moved, mut last) = (false, None);
    while !numbers.0.is_empty() && server.ended.is_none() {
        let (act, len) = (numbers.byte(), numbers.word());
        match act % 8 {
            0 | 1 if !has_ended => {
                let bytes: Vec<u8> =
                    (0..len % 40_000).take(SEALED_MAX - sealed.len()).map(|at| made(at + sealed.len())).collect();
                client.writer().write_all(&bytes).expect("there is room");
                leave(&mut client, &mut wire);
                sealed.extend_from_slice(&bytes);
                keys = if bytes.is_empty() { keys } else { 0 };
            }
            2 if has_new_keys && keys < KEYS_MAX => {
                let _ = client.refresh_traffic_keys();
                keys += 1;
                if is_moved && !has_ended {
                    last = last.or(Some(sealed.len()));
                }
                leave(&mut client, &mut wire);
            }
            3 if act > 200 => {
                client.send_close_notify();
                leave(&mut client, &mut wire);
                has_ended = true;
            }
            3 if act < 100 && wire.bytes.is_empty() => {
                if let Some(packed) = server.session.pack() {
                    server.session = Session::unpack(&packed).expect("it was packed");
                    is_moved = true;
                }
            }
            4 if act > 200 && !wire.bytes.is_empty() => {
                let at = len % wire.bytes.len();
                wire.bytes[at] ^= 1 << (act / 8 % 8);
                is_forged = true;
            }
            5 => {
                let bytes: Vec<u8> =
                    (0..len % 40_000).take(SEALED_MAX - expected.len()).map(|at| made(at + expected.len())).collect();
                let sent = &mut server.sent;
                let write = |records: &[u8]| {
                    sent.extend_from_slice(records);
                    Ok(records.len())
                };
                let (one, other) = bytes.split_at(bytes.len() / 3);
                match server.session.send(&[one, b"", other], write, &mut server.scratch) {
                    Ok(count) => assert_eq!(count, bytes.len(), "the writer takes everything"),
                    Err(error) => panic!("it cannot send: {error}"),
                }
                expected.extend_from_slice(&bytes);
            }
            6 => server.take(&mut wire, 1 + len, 1 + numbers.word()),
            _ => {
                assert!(come_back(&mut client, &mut server, &mut received), "the client understands the server");
                leave(&mut client, &mut wire);
            }
        }
        assert!(sealed.starts_with(&server.opened), "what is opened is what was sealed");
    }
    wire.is_ended = true;
    server.take(&mut wire, usize::MAX, 1000);
    assert!(sealed.starts_with(&server.opened), "what is opened is what was sealed");
    if !is_forged {
        assert_eq!(server.opened.len(), last.unwrap_or(sealed.len()), "all of it");
        assert_eq!(server.ended, Some(has_ended || last.is_some()), "an end that nobody said is none");
    }
    assert!(come_back(&mut client, &mut server, &mut received) || is_forged);
    assert!(expected.starts_with(&received) && (is_forged || expected.len() == received.len()));
}

/// A handshake, up to its end.
fn shake_hands(client: &mut ClientConnection, numbers: &mut Numbers<'_>) -> (Server, Wire) {
    let (mut server, mut wire) = (Server::new(&[]), Wire::default());
    let most = 1 + numbers.word();
    for _ in 0..4 {
        leave(client, &mut wire);
        server.take(&mut wire, most, 1000);
        assert_eq!(server.ended, None, "it is TLS");
        assert!(come_back(client, &mut server, &mut Vec::new()), "it is TLS");
    }
    assert!(!server.session.is_handshaking() && !client.is_handshaking());
    (server, wire)
}

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0..=84, rest)) => any_bytes(rest),
        Some((85..=169, rest)) => changed_handshake(Numbers(rest)),
        Some((_, rest)) => records(Numbers(rest)),
        None => any_bytes(&[]),
    }
});
