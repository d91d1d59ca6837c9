//! Any bytes as a preface of the PROXY protocol: no panic, one verdict wherever the input is cut, and a client that is read again
//! from a preface that names it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapster::protocol::proxy::{Accept, LINE_MAX, PREFACE_MAX, Preface, read};

/// What the fuzzer would need long to find: the first bytes of each version, up to where it gets interesting.
const BEGINS: [&[u8]; 5] = [b"", b"PROXY ", b"PROXY TCP6 ", b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"];

fn check(bytes: &[u8], accept: Accept) {
    let verdict = read(bytes, accept);
    let mut pieces = Ok(None);
    // A step that is coprime to most lengths keeps the cost linear and moves the cuts about.
    for end in (0..bytes.len()).step_by(7).chain([bytes.len()]) {
        pieces = read(&bytes[..end], accept);
        if pieces != Ok(None) {
            break;
        }
    }
    assert_eq!(verdict, pieces);
    let Ok(Some(Preface { len, client })) = verdict else {
        assert!(verdict.is_err() || bytes.len() < PREFACE_MAX, "it has to end");
        return;
    };
    assert!(len <= bytes.len() && len <= PREFACE_MAX);
    assert_eq!(read(&bytes[..len], accept), verdict);
    assert_eq!(read(&bytes[..len - 1], accept), Ok(None));
    if let Some(client) = client {
        let (family, ip, port) = (if client.is_ipv4() { "TCP4" } else { "TCP6" }, client.ip(), client.port());
        let line = format!("PROXY {family} {ip} {ip} {port} {port}\r\n");
        assert!(line.len() <= LINE_MAX);
        assert_eq!(read(line.as_bytes(), Accept::V1), Ok(Some(Preface { len: line.len(), client: Some(client) })));
    }
}

fuzz_target!(|bytes: &[u8]| {
    for accept in [Accept::V1, Accept::V2, Accept::Auto] {
        for begin in BEGINS {
            check(&[begin, bytes].concat(), accept);
        }
    }
});
