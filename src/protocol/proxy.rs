//! The PROXY protocol, versions 1 and 2: a preface in which a proxy names the client, before anything else on the connection
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>; section numbers below are those of this text).
//!
//! Nothing is guessed: a connection without a preface, and one whose preface is broken in any way, is an error. The verdict does
//! not depend on where the input was cut. An error is found as soon as the bytes show it.
//!
//! A preface may name no client: the proxy speaks for itself (LOCAL, its health checks), does not know (UNKNOWN, UNSPEC), or its
//! client came over a unix socket. The connection's own peer is the client then (2.1, 2.2).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

mod crc32c;
#[cfg(test)]
mod tests;

/// Longest preface of version 1 in bytes, the end of its line included (2.1).
pub const LINE_MAX: usize = 107;

/// Longest address block of version 2 with what follows it, in bytes. The format has room for 65,535; proxies send some hundred,
/// and a few thousand with the certificate of the client.
pub const BLOCK_MAX: usize = 16 * 1024;

/// Longest preface in bytes.
pub const PREFACE_MAX: usize = START + BLOCK_MAX;

/// The first bytes of version 1.
const TEXT: &[u8] = b"PROXY ";

/// The first bytes of version 2.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before its block: the first bytes, version and command, family, length.
const START: usize = 16;

/// Bytes before the value of a TLV: its type, and its length in two bytes.
const TLV_HEAD: usize = 3;

/// Type of the TLV that has the checksum of the preface.
const CRC32C: u8 = 0x03;

/// Bytes of the checksum.
const CRC32C_LEN: usize = 4;

/// Which versions are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accept {
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
    /// Either.
    Auto,
}

impl Accept {
    /// The versions that the first bytes may have.
    fn signatures(self) -> &'static [&'static [u8]] {
        match self {
            Self::V1 => &[TEXT],
            Self::V2 => &[BINARY],
            Self::Auto => &[TEXT, BINARY],
        }
    }
}

/// A complete preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preface {
    /// The length of its bytes; those that follow are the client's.
    pub len: usize,
    /// The client; `None`: the connection's own peer.
    pub client: Option<SocketAddr>,
}

/// Why the connection cannot continue; shown as a predicate of the preface (`is missing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Its first bytes belong to no preface, or to one of the other version.
    Missing,
    /// The line of version 1 is too long.
    LineTooLong,
    /// The line of version 1 does not end with CR LF.
    LineEnd,
    /// The line of version 1 is not made of the parts that it has to have.
    Line,
    /// An address of version 1 is not one of its protocol.
    Address,
    /// A port of version 1 is no number from 0 to 65535.
    Port,
    /// Version 2 with another version or command.
    Command(u8),
    /// Version 2 with another family or transport.
    Family(u8),
    /// The block of version 2 is too long.
    BlockTooLong(usize),
    /// The block of version 2 is shorter than its addresses.
    BlockTooShort(usize),
    /// A TLV of version 2 is longer than what is left.
    Tlv,
    /// The checksum of version 2 is wrong.
    Checksum,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "is missing"),
            Self::LineTooLong => write!(f, "has a line of more than {LINE_MAX} bytes"),
            Self::LineEnd => write!(f, "has a line that does not end with CR LF"),
            Self::Line => write!(f, "has a malformed line"),
            Self::Address => write!(f, "has a malformed address"),
            Self::Port => write!(f, "has a malformed port"),
            Self::Command(byte) => write!(f, "has 0x{byte:02x} as its version and command"),
            Self::Family(byte) => write!(f, "has 0x{byte:02x} as its address family"),
            Self::BlockTooLong(len) => write!(f, "has a block of {len} bytes, more than {BLOCK_MAX}"),
            Self::BlockTooShort(len) => write!(f, "has a block of {len} bytes, too short for its addresses"),
            Self::Tlv => write!(f, "has a TLV that is cut off"),
            Self::Checksum => write!(f, "has a wrong checksum"),
        }
    }
}

/// Reads the preface at the start of a connection's bytes; `None`: it is not complete.
pub fn read(bytes: &[u8], accept: Accept) -> Result<Option<Preface>, Broken> {
    let begins = |signature: &&&[u8]| {
        let len = bytes.len().min(signature.len());
        bytes[..len] == signature[..len]
    };
    match accept.signatures().iter().find(begins) {
        None => Err(Broken::Missing),
        Some(signature) if bytes.len() < signature.len() => Ok(None),
        Some(signature) if *signature == TEXT => text(bytes),
        Some(_) => binary(bytes),
    }
}

/// Most bytes that may follow these of an incomplete preface and belong to it, as far as they show its length: at least one.
pub fn left(bytes: &[u8]) -> usize {
    let len = match (bytes.first(), bytes.get(START - 2..START)) {
        (Some(b'P'), _) => LINE_MAX,
        (_, Some(&[high, low])) => START + usize::from(u16::from_be_bytes([high, low])),
        (_, _) => START,
    };
    len.saturating_sub(bytes.len()).max(1)
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443` and CR LF.
fn text(bytes: &[u8]) -> Result<Option<Preface>, Broken> {
    let window = &bytes[..bytes.len().min(LINE_MAX)];
    let whole = window.len() == LINE_MAX;
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if whole { Err(Broken::LineTooLong) } else { Ok(None) };
    };
    match window[end..] {
        [b'\r', b'\n', ..] => {
            let client = client_of(&window[TEXT.len()..end])?;
            Ok(Some(Preface { len: end + 2, client }))
        }
        [b'\r'] if whole => Err(Broken::LineTooLong),
        [b'\r'] => Ok(None),
        _ => Err(Broken::LineEnd),
    }
}

/// The client of a line of version 1, without its first bytes.
fn client_of(line: &[u8]) -> Result<Option<SocketAddr>, Broken> {
    let line = match line.strip_prefix(b"UNKNOWN") {
        // The rest is to be ignored (2.1).
        Some([] | [b' ', ..]) => return Ok(None),
        _ => str::from_utf8(line).map_err(|_| Broken::Line)?,
    };
    let mut parts = line.split(' ');
    let mut next = || parts.next().ok_or(Broken::Line);
    let (protocol, source, target, source_port, target_port) = (next()?, next()?, next()?, next()?, next()?);
    if parts.next().is_some() {
        return Err(Broken::Line);
    }
    let ip: fn(&str) -> Option<IpAddr> = match protocol {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(Broken::Line),
    };
    let source = ip(source).ok_or(Broken::Address)?;
    ip(target).ok_or(Broken::Address)?;
    let client = SocketAddr::new(source, port(source_port)?);
    port(target_port)?;
    Ok(Some(client))
}

/// Digits without a sign or zeros before them.
fn port(text: &str) -> Result<u16, Broken> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.len() > 1 && text.starts_with('0') {
        return Err(Broken::Port);
    }
    text.parse().map_err(|_| Broken::Port)
}

/// Version 2: its start, a block of addresses, and TLVs to the end.
fn binary(bytes: &[u8]) -> Result<Option<Preface>, Broken> {
    let Some(&command) = bytes.get(BINARY.len()) else { return Ok(None) };
    let local = match command {
        0x20 => true,
        0x21 => false,
        other => return Err(Broken::Command(other)),
    };
    let Some(&family) = bytes.get(BINARY.len() + 1) else { return Ok(None) };
    // Source and target: UNSPEC, TCP over IPv4 and over IPv6, unix stream. A datagram makes no connection, and the other values
    // are to be refused (2.2). The family of LOCAL means nothing.
    let addresses = match family {
        _ if local => 0,
        0x00 => 0,
        0x11 => 2 * (4 + 2),
        0x21 => 2 * (16 + 2),
        0x31 => 2 * 108,
        other => return Err(Broken::Family(other)),
    };
    let Some(&[high, low]) = bytes.get(START - 2..START) else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > BLOCK_MAX {
        return Err(Broken::BlockTooLong(len));
    }
    if len < addresses {
        return Err(Broken::BlockTooShort(len));
    }
    let Some(preface) = bytes.get(..START + len) else { return Ok(None) };
    let preface_len = preface.len();
    if local {
        // The block is to be discarded (2.2): it need not even have the addresses of the family that is named.
        return Ok(Some(Preface { len: preface_len, client: None }));
    }
    check_tlvs(preface, START + addresses)?;
    let (addresses, _) = preface[START..].split_at(addresses);
    Ok(Some(Preface { len: preface_len, client: source(family, addresses) }))
}

/// The source in an address block: addresses of source and target, then their ports.
fn source(family: u8, block: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = match family {
        0x11 => (IpAddr::from(*block.first_chunk::<4>()?), block.get(8..10)?),
        0x21 => (IpAddr::from(*block.first_chunk::<16>()?), block.get(32..34)?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
}

/// Whether the TLVs from `at` to the end of the preface are whole, and the checksum is right if one of them has it.
fn check_tlvs(preface: &[u8], mut at: usize) -> Result<(), Broken> {
    let mut checksum = None;
    while at < preface.len() {
        let Some(&[kind, high, low]) = preface.get(at..at + TLV_HEAD) else { return Err(Broken::Tlv) };
        let value = at + TLV_HEAD..at + TLV_HEAD + usize::from(u16::from_be_bytes([high, low]));
        if value.end > preface.len() {
            return Err(Broken::Tlv);
        }
        at = value.end;
        if kind == CRC32C && (value.len() != CRC32C_LEN || checksum.replace(value).is_some()) {
            return Err(Broken::Checksum);
        }
    }
    let Some(field) = checksum else { return Ok(()) };
    // It was made with zeros in its place (2.2.3).
    let made = crc32c::of([&preface[..field.start], &[0; CRC32C_LEN], &preface[field.end..]]);
    if preface[field] == made.to_be_bytes() { Ok(()) } else { Err(Broken::Checksum) }
}
