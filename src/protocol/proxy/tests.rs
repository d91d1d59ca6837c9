//! Every shape of a preface, each whole, byte by byte and with trailing bytes.

use proptest::prelude::*;

use super::*;

const ALL: [Accept; 3] = [Accept::V1, Accept::V2, Accept::Auto];

/// Bytes that may follow a preface.
const TRAILING: [&[u8]; 4] = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\0\xff\r\n", b"\n", b"PROXY UNKNOWN\r\n"];

/// The verdict on these bytes, the same for all cuts; `None`: incomplete.
#[track_caller]
fn verdict(bytes: &[u8], accept: Accept) -> Result<Option<Preface>, Broken> {
    let whole = read(bytes, accept);
    for end in 0..=bytes.len() {
        let step = read(&bytes[..end], accept);
        if step == Ok(None) {
            assert!(end < bytes.len() || whole == Ok(None), "whole {whole:?}, byte by byte incomplete");
            continue;
        }
        assert_eq!(step, whole, "byte by byte after {end} bytes, and whole");
        if let Ok(Some(preface)) = whole {
            assert_eq!(preface.len, end, "it is complete with its last byte");
        }
        break;
    }
    if whole != Ok(None) {
        for trailing in TRAILING {
            assert_eq!(read(&[bytes, trailing].concat(), accept), whole, "with trailing bytes");
        }
    }
    whole
}

/// The client that these bytes name; they are a whole preface.
#[track_caller]
fn client(bytes: &[u8]) -> Option<SocketAddr> {
    let preface = verdict(bytes, Accept::Auto).expect("a preface").expect("a whole one");
    assert_eq!(preface.len, bytes.len());
    preface.client
}

#[track_caller]
fn broken(bytes: &[u8], why: Broken) {
    assert_eq!(verdict(bytes, Accept::Auto), Err(why), "{:?}", bytes.escape_ascii().to_string());
}

fn addr(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address"))
}

/// Version 2 with this command, family and block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).expect("two bytes").to_be_bytes();
    [BINARY, &[command, family], &len, block].concat()
}

/// A block of IPv4: 192.0.2.1:56324 to 198.51.100.2:443.
const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xDC, 0x04, 0x01, 0xBB];

/// A preface with these TLVs and the right checksum after them.
fn summed(family: u8, block: &[u8], tlvs: &[u8]) -> Vec<u8> {
    let mut bytes = v2(0x21, family, &[block, tlvs, &[CRC32C, 0, 4, 0, 0, 0, 0]].concat());
    let sum = crc32c::of([&bytes]).to_be_bytes();
    let at = bytes.len() - CRC32C_LEN;
    bytes[at..].copy_from_slice(&sum);
    bytes
}

#[test]
fn a_line_names_the_client() {
    assert_eq!(client(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"), addr("192.0.2.1:56324"));
    assert_eq!(client(b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n"), addr("0.0.0.0:0"));
    assert_eq!(client(b"PROXY TCP6 2001:db8::1 ::1 65535 80\r\n"), addr("[2001:db8::1]:65535"));
    assert_eq!(client(b"PROXY TCP6 ::ffff:192.0.2.1 2001:DB8:0:0:0:0:0:1 1 2\r\n"), addr("[::ffff:192.0.2.1]:1"));
}

#[test]
fn the_longest_line_is_taken_and_a_longer_one_is_not() {
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
    assert_eq!(client(line.as_bytes()), addr(&format!("[{full}]:65535")));
    let unknown = |len: usize| [b"PROXY UNKNOWN ", &vec![b'x'; len - 16][..], b"\r\n"].concat();
    assert_eq!(client(&unknown(LINE_MAX)), None);
    broken(&unknown(LINE_MAX + 1), Broken::LineTooLong);
    broken(&unknown(LINE_MAX + 2), Broken::LineTooLong);
}

#[test]
fn an_unknown_client_is_the_peer() {
    for line in
        ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN \r\n", "PROXY UNKNOWN ff:: ff:: 1 2\r\n", "PROXY UNKNOWN \u{1}\0anything\r\n"]
    {
        assert_eq!(client(line.as_bytes()), None, "{line:?}");
    }
}

#[test]
fn a_malformed_line_is_refused() {
    for (line, why) in [
        ("PROXY \r\n", Broken::Line),
        ("PROXY UNKNOWNS\r\n", Broken::Line),
        ("PROXY unknown\r\n", Broken::Line),
        ("PROXY TCP4\r\n", Broken::Line),
        ("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", Broken::Line),
        ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", Broken::Line),
        ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Broken::Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Broken::Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Broken::Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Broken::Line),
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Broken::Line),
        ("PROXY TCP4  1.2.3.4 1.2.3.4 1\r\n", Broken::Address),
        ("PROXY TCP4 1.2.3.4\t1.2.3.4 1 2\r\n", Broken::Line),
        ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", Broken::Address),
        ("PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", Broken::Address),
        ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Broken::Address),
        ("PROXY TCP4 1.2.3.4 ::1 1 2\r\n", Broken::Address),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Broken::Address),
        ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Broken::Address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Broken::Address),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", Broken::Address),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", Broken::Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", Broken::Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Broken::Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Broken::Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", Broken::Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n", Broken::Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Broken::LineEnd),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX\n", Broken::LineEnd),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", Broken::LineEnd),
        ("PROXY UNKNOWN\n", Broken::LineEnd),
    ] {
        broken(line.as_bytes(), why);
    }
    broken(b"PROXY TCP4 1.2.3.4\xff 1.2.3.4 1 2\r\n", Broken::Line);
}

#[test]
fn a_connection_without_a_preface_is_refused_at_its_first_bytes() {
    for bytes in [
        &b"G"[..],
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"PROXYTCP4",
        b"proxy TCP4",
        b" ",
        b"\r\n\r\nGET",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\x16\x03\x01",
    ] {
        broken(bytes, Broken::Missing);
    }
    assert_eq!(verdict(b"", Accept::Auto), Ok(None));
    assert_eq!(verdict(b"PROXY", Accept::Auto), Ok(None));
    assert_eq!(verdict(b"\r\n\r\n\0", Accept::Auto), Ok(None));
}

#[test]
fn the_other_version_is_none() {
    let (line, binary) = (b"PROXY UNKNOWN\r\n", v2(0x20, 0, b""));
    assert!(matches!(verdict(line, Accept::V1), Ok(Some(_))));
    assert_eq!(verdict(line, Accept::V2), Err(Broken::Missing));
    assert!(matches!(verdict(&binary, Accept::V2), Ok(Some(_))));
    assert_eq!(verdict(&binary, Accept::V1), Err(Broken::Missing));
}

#[test]
fn a_block_names_the_client() {
    assert_eq!(client(&v2(0x21, 0x11, &V4)), addr("192.0.2.1:56324"));
    let mut v6 = [0; 36];
    v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().expect("an address").octets());
    v6[32..34].copy_from_slice(&8000_u16.to_be_bytes());
    assert_eq!(client(&v2(0x21, 0x21, &v6)), addr("[2001:db8::7]:8000"));
}

#[test]
fn a_block_that_names_nobody_leaves_the_peer() {
    // The health checks of haproxy, and those of AWS: no addresses for the family they name, but TLVs.
    assert_eq!(client(&v2(0x20, 0x00, b"")), None);
    assert_eq!(client(&v2(0x20, 0x11, &[CRC32C, 0, 4, 1, 2, 3, 4, 4, 0, 1, 0])), None);
    // The block of a LOCAL one is not read.
    assert_eq!(client(&v2(0x20, 0xFF, b"\x01\xff\xff")), None);
    // Unspecified, and unix sockets.
    assert_eq!(client(&v2(0x21, 0x00, b"")), None);
    assert_eq!(client(&v2(0x21, 0x00, &[4, 0, 0])), None);
    assert_eq!(client(&v2(0x21, 0x31, &[b'/'; 216])), None);
    assert_eq!(client(&summed(0x31, &[0; 216], b"")), None);
}

#[test]
fn a_malformed_start_is_refused() {
    for command in [0x00, 0x10, 0x11, 0x22, 0x2F, 0x31, 0xFF] {
        broken(&v2(command, 0x11, &V4), Broken::Command(command));
    }
    for family in [0x01, 0x02, 0x10, 0x12, 0x20, 0x22, 0x30, 0x32, 0x41, 0xF1, 0xFF] {
        broken(&v2(0x21, family, &[0; 216]), Broken::Family(family));
    }
    for (family, len) in [(0x11, 11), (0x11, 0), (0x21, 35), (0x31, 215)] {
        broken(&v2(0x21, family, &vec![0; len]), Broken::BlockTooShort(len));
    }
}

#[test]
fn no_byte_after_a_preface_is_asked_for_when_its_length_is_known() {
    let whole = v2(0x21, 0x11, &[&V4, &[4, 0, 3][..], b"abc"].concat());
    for cut in 0..whole.len() {
        let (mut len, mut asked) = (cut, 0);
        while len < whole.len() {
            asked = left(&whole[..len]);
            assert!(asked > 0, "cut after {cut} bytes");
            len += asked;
        }
        assert_eq!(len, whole.len(), "cut after {cut} bytes, {asked} asked for");
    }
    assert_eq!((left(b""), left(b"P"), left(&[b'P'; LINE_MAX - 1])), (START, LINE_MAX - 1, 1));
}

#[test]
fn a_block_has_a_bound() {
    let noop = |len: usize| {
        let value = u16::try_from(len - V4.len() - TLV_HEAD).expect("two bytes").to_be_bytes();
        [&V4, &[4][..], &value, &vec![0; len - V4.len() - TLV_HEAD]].concat()
    };
    let longest = v2(0x21, 0x11, &noop(BLOCK_MAX));
    assert_eq!(longest.len(), PREFACE_MAX);
    assert_eq!(client(&longest), addr("192.0.2.1:56324"));
    for command in [0x20, 0x21] {
        broken(&v2(command, 0x11, &noop(BLOCK_MAX + 1)), Broken::BlockTooLong(BLOCK_MAX + 1));
    }
}

#[test]
fn tlvs_are_skipped_and_must_be_whole() {
    let with = |tlvs: &[u8]| v2(0x21, 0x11, &[&V4, tlvs].concat());
    // ALPN, an empty one, SSL with a version inside, one of a vendor.
    let many = [&b"\x01\0\x02h2\x04\0\0"[..], b"\x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.3", b"\xEA\0\x01x"].concat();
    assert_eq!(client(&with(&many)), addr("192.0.2.1:56324"));
    for tlvs in [&b"\x04"[..], b"\x04\0", b"\x04\0\x01", b"\x04\0\x02x", b"\x04\xff\xff", b"\x04\0\0\x05", b"\x20\0\x05\x01"] {
        broken(&with(tlvs), Broken::Tlv);
    }
}

#[test]
fn a_checksum_must_be_right_where_there_is_one() {
    let right = summed(0x11, &V4, b"\x04\0\x02ab");
    assert_eq!(client(&right), addr("192.0.2.1:56324"));
    // Any other bit, in the addresses, in a TLV and in the sum itself.
    for at in [START, START + 11, START + V4.len() + 4, right.len() - 1] {
        let mut wrong = right.clone();
        wrong[at] ^= 0x10;
        broken(&wrong, Broken::Checksum);
    }
    for tlvs in [&b"\x03\0\0"[..], b"\x03\0\x03abc", b"\x03\0\x05abcde"] {
        broken(&v2(0x21, 0x11, &[&V4, tlvs].concat()), Broken::Checksum);
    }
    broken(&summed(0x11, &V4, &[CRC32C, 0, 4, 0, 0, 0, 0]), Broken::Checksum);
}

proptest! {
    #[test]
    fn any_client_survives_both_versions(ip: IpAddr, port: u16, target_port: u16) {
        let expected = Some(SocketAddr::new(ip, port));
        let (name, family, mut block) = match ip {
            IpAddr::V4(ip) => ("TCP4", 0x11, [ip.octets(), ip.octets()].concat()),
            IpAddr::V6(ip) => ("TCP6", 0x21, [ip.octets(), ip.octets()].concat()),
        };
        let line = format!("PROXY {name} {ip} {ip} {port} {target_port}\r\n");
        prop_assert_eq!(client(line.as_bytes()), expected);
        block.extend([port.to_be_bytes(), target_port.to_be_bytes()].concat());
        prop_assert_eq!(client(&v2(0x21, family, &block)), expected);
        prop_assert_eq!(client(&summed(family, &block, b"\x05\0\x01i")), expected);
    }

    #[test]
    fn any_bytes_have_one_verdict_for_all_cuts(
        start in prop::sample::select(vec![TEXT, BINARY, b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", b"PROXY UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x20"]),
        cut in 0..20_usize,
        rest in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n 0129.:f".to_vec())], 0..160),
    ) {
        let bytes = [&start[..start.len() - cut.min(start.len())], &rest].concat();
        for accept in ALL {
            if let Ok(Some(preface)) = verdict(&bytes, accept) {
                prop_assert!(preface.len <= bytes.len() && preface.len <= PREFACE_MAX);
            }
        }
    }
}
