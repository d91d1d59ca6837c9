//! What the fields of trusted proxies tell of a request: X-Forwarded-*, X-Real-IP, or Forwarded (RFC 7239).
//!
//! A client can send these fields too, so only what a trusted proxy has written counts: proxies append. The walk goes from the
//! right. The peer is trusted, so the last address is true; if it is that of a trusted proxy as well, so is the one before it. The
//! first that is not trusted is the client. What cannot be read ends the walk, and the address stays the last one that was found.
//! Of a list without addresses the last value counts, which the nearest proxy wrote.
//!
//! Everything is read from the right, quoted strings too: whatever a client has sent stands to the left, and cannot change how the
//! part of the proxies is understood.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::{TOKEN, decimal, trim};
use super::head::Scheme;
use super::target::{is_authority, percent_decode};

/// The fields that are believed: one family, since an operator's proxies write one, and clients can send the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// X-Forwarded-For and its kin, those that are named.
    XForwarded {
        /// X-Forwarded-For.
        address: bool,
        /// X-Forwarded-Proto.
        scheme: bool,
        /// X-Forwarded-Host.
        host: bool,
        /// X-Forwarded-Port.
        port: bool,
        /// X-Forwarded-Prefix.
        prefix: bool,
    },
    /// Forwarded (RFC 7239): its parameters `for`, `proto` and `host`.
    Standard,
    /// X-Real-IP and X-Scheme, as nginx is often told to send them. They are no lists.
    XReal {
        /// X-Real-IP.
        address: bool,
        /// X-Scheme.
        scheme: bool,
    },
}

/// An address, with its port where that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The address; an IPv4 one that was mapped to IPv6 is an IPv4 one.
    pub addr: IpAddr,
    /// The port.
    pub port: Option<u16>,
}

/// What the fields tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told<'a> {
    /// The client.
    pub client: Option<Node>,
    /// The scheme that it used.
    pub scheme: Option<Scheme>,
    /// The host that it asked for, as `host[:port]`.
    pub host: Option<Cow<'a, [u8]>>,
    /// The port that it connected to, where a field of its own says that.
    pub port: Option<u16>,
    /// What the proxy has cut off the path, decoded: with a slash at its begin and none at its end.
    pub prefix: Option<Vec<u8>>,
}

/// Whether an address that a field names is that of a trusted proxy.
pub type IsTrusted<'t> = &'t dyn Fn(IpAddr) -> bool;

/// Reads the fields of this family, which a trusted proxy has sent. `fields` are names and values in order.
pub fn read<'a, F>(family: Family, fields: F, is_trusted: IsTrusted<'_>) -> Told<'a>
where
    F: DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    let lines = |name: &'static str| {
        fields.clone().rev().filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    };
    let last = |asked: bool, name: &'static str| if asked { lines(name).find_map(last_value) } else { None };
    match family {
        Family::XForwarded { address, scheme, host, port, prefix } => Told {
            client: if address { walk(lines("x-forwarded-for"), is_trusted) } else { None },
            scheme: last(scheme, "x-forwarded-proto").and_then(read_scheme),
            host: last(host, "x-forwarded-host").filter(|host| is_authority(host)).map(Cow::Borrowed),
            port: last(port, "x-forwarded-port").and_then(read_port),
            prefix: last(prefix, "x-forwarded-prefix").and_then(read_prefix),
        },
        Family::Standard => read_standard(lines("forwarded"), is_trusted),
        Family::XReal { address, scheme } => {
            // Two of them contradict each other.
            let only = |name| {
                let mut lines = lines(name);
                lines.next().filter(|_| lines.next().is_none())
            };
            Told {
                client: if address { only("x-real-ip").and_then(|value| Node::read(value, false)) } else { None },
                scheme: if scheme { only("x-scheme").and_then(read_scheme) } else { None },
                ..Told::default()
            }
        }
    }
}

/// The client among the entries of these lines, the last line first.
fn walk<'a>(lines: impl Iterator<Item = &'a [u8]>, is_trusted: IsTrusted<'_>) -> Option<Node> {
    let mut client = None;
    let entries = lines.flat_map(|line| line.rsplit(|byte| *byte == b',')).map(trim).filter(|entry| !entry.is_empty());
    for entry in entries {
        let Some(node) = Node::read(entry, false) else { break };
        client = Some(node);
        if !is_trusted(node.addr) {
            break;
        }
    }
    client
}

/// The last value of a list that is not empty.
fn last_value(line: &[u8]) -> Option<&[u8]> {
    line.rsplit(|byte| *byte == b',').map(trim).find(|value| !value.is_empty())
}

fn read_scheme(text: &[u8]) -> Option<Scheme> {
    // A proxy may name the scheme of a WebSocket, which is one of HTTP until it is opened (RFC 6455 section 3).
    if text.eq_ignore_ascii_case(b"https") || text.eq_ignore_ascii_case(b"wss") {
        Some(Scheme::Https)
    } else if text.eq_ignore_ascii_case(b"http") || text.eq_ignore_ascii_case(b"ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// A port; 0 is none.
fn read_port(text: &[u8]) -> Option<u16> {
    decimal(text).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

/// The port of a `host[:port]`.
pub fn port_of(authority: &[u8]) -> Option<u16> {
    let (_, port) = split_port(authority)?;
    read_port(port)
}

/// The host of a `host[:port]`.
pub fn host_of(authority: &[u8]) -> &[u8] {
    split_port(authority).map_or(authority, |(host, _)| host)
}

fn split_port(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memrchr(b':', authority)?;
    // The colons of an IPv6 address are in brackets.
    if authority[colon..].contains(&b']') { None } else { Some((&authority[..colon], &authority[colon + 1..])) }
}

/// A prefix of paths, decoded. One that could stand for another host, or that steps through the tree, is none.
fn read_prefix(text: &[u8]) -> Option<Vec<u8>> {
    let is_plain = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'/' | b'%' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'')
            || matches!(byte, b'(' | b')' | b'*' | b'+' | b';' | b'=' | b':' | b'@')
    };
    let text = text.strip_suffix(b"/").unwrap_or(text);
    if !text.iter().all(is_plain) {
        return None;
    }
    let mut decoded = Vec::new();
    decoded.try_reserve_exact(text.len()).ok()?;
    percent_decode(text, &mut decoded);
    let is_step = |segment: &[u8]| matches!(segment, b"" | b"." | b"..") || segment.iter().any(u8::is_ascii_control);
    match decoded.split_first() {
        None => Some(decoded),
        Some((b'/', rest)) if !rest.split(|byte| *byte == b'/').any(is_step) && !rest.contains(&b'\\') => Some(decoded),
        Some(_) => None,
    }
}

impl Node {
    /// Reads an address: IPv4 or IPv6 in brackets, with or without a port, or, unless `is_strict` as in RFC 7239 (section 6), an
    /// IPv6 address without brackets. Names, zones, and octets with leading zeros are none. Where RFC 7239 hides a port, it is not
    /// known.
    fn read(text: &[u8], is_strict: bool) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"[") {
            let end = memchr::memchr(b']', rest)?;
            let addr: Ipv6Addr = parsed(&rest[..end])?;
            return Some(Self { addr: IpAddr::V6(addr).to_canonical(), port: Self::port(&rest[end + 1..], is_strict)? });
        }
        if !is_strict && let Some(addr) = parsed::<Ipv6Addr>(text) {
            return Some(Self { addr: IpAddr::V6(addr).to_canonical(), port: None });
        }
        let colon = memchr::memchr(b':', text).unwrap_or(text.len());
        let addr: Ipv4Addr = parsed(&text[..colon])?;
        Some(Self { addr: IpAddr::V4(addr), port: Self::port(&text[colon..], is_strict)? })
    }

    /// What follows an address: nothing, or a colon and a port. `None`: neither.
    fn port(text: &[u8], is_strict: bool) -> Option<Option<u16>> {
        match text {
            [] => Some(None),
            // 0 is written where the port is not known.
            [b':', digits @ ..] if digits.len() <= 5 && decimal(digits).is_some_and(|port| port <= u64::from(u16::MAX)) => {
                Some(read_port(digits))
            }
            [b':', name @ ..] if is_strict && is_obfuscated(name) => Some(None),
            _ => None,
        }
    }
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether it is an obfuscated name (RFC 7239 section 6.3).
fn is_obfuscated(text: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.len() > 1 && text[0] == b'_' && text.iter().all(is_of_name)
}

/// Reads the lines of Forwarded, the last one first.
fn read_standard<'a>(lines: impl Iterator<Item = &'a [u8]>, is_trusted: IsTrusted<'_>) -> Told<'a> {
    let mut client = None;
    let mut reached = None;
    'walk: for line in lines {
        let mut rest = line;
        loop {
            match Element::last(rest) {
                Ok(Some((element, before))) => {
                    rest = before;
                    // A proxy that is trusted has written it.
                    reached = Some(element);
                    let node = element.node.and_then(|text| Node::read(&text.unescaped(), true));
                    let Some(node) = node else { break 'walk };
                    client = Some(node);
                    if !is_trusted(node.addr) {
                        break 'walk;
                    }
                }
                Ok(None) => break,
                Err(Malformed) => break 'walk,
            }
        }
    }
    let Some(Element { proto, host, .. }) = reached else { return Told::default() };
    Told {
        client,
        scheme: proto.and_then(|text| read_scheme(&text.unescaped())),
        host: host.map(ElementText::unescaped).filter(|host| is_authority(host)),
        ..Told::default()
    }
}

/// Something that RFC 7239 (section 4) does not allow.
#[derive(Debug)]
struct Malformed;

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ElementText<'a> {
    /// Without quotes.
    text: &'a [u8],
    /// Whether backslashes in it quote what follows them.
    is_escaped: bool,
}

impl<'a> ElementText<'a> {
    fn unescaped(self) -> Cow<'a, [u8]> {
        if !self.is_escaped {
            return Cow::Borrowed(self.text);
        }
        let mut bytes = self.text.iter();
        let mut plain = Vec::new();
        while let Some(&byte) = bytes.next() {
            plain.extend(if byte == b'\\' { bytes.next().copied() } else { Some(byte) });
        }
        Cow::Owned(plain)
    }
}

/// What one proxy has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Element<'a> {
    node: Option<ElementText<'a>>,
    by: Option<ElementText<'a>>,
    proto: Option<ElementText<'a>>,
    host: Option<ElementText<'a>>,
}

/// An element, and what stands before it.
type Split<'a> = (Element<'a>, &'a [u8]);

impl<'a> Element<'a> {
    /// The last element of a line and what stands before it; `None`: there is none.
    fn last(line: &'a [u8]) -> Result<Option<Split<'a>>, Malformed> {
        let mut rest = line;
        while let [before @ .., b' ' | b'\t' | b','] = rest {
            rest = before;
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let mut element = Self::default();
        loop {
            rest = trim(rest);
            match rest {
                [] => return Ok(Some((element, rest))),
                [before @ .., b','] => return Ok(Some((element, before))),
                // A pair may be missing, and follows otherwise.
                [before @ .., b';'] => rest = before,
                _ => {
                    let (value, before) = last_text(rest)?;
                    let [before @ .., b'='] = before else { return Err(Malformed) };
                    let (before, name) = before.split_at(token_start(before));
                    if name.is_empty() || !matches!(trim(before), [] | [.., b';' | b',']) {
                        return Err(Malformed);
                    }
                    element.put(name, value)?;
                    rest = before;
                }
            }
        }
    }

    /// Takes a parameter, which an element has once.
    fn put(&mut self, name: &[u8], value: ElementText<'a>) -> Result<(), Malformed> {
        let place = match name.to_ascii_lowercase().as_slice() {
            b"for" => &mut self.node,
            b"by" => &mut self.by,
            b"proto" => &mut self.proto,
            b"host" => &mut self.host,
            _ => return Ok(()),
        };
        match place.replace(value) {
            Some(_) => Err(Malformed),
            None => Ok(()),
        }
    }
}

/// Where the token begins that `text` ends with.
fn token_start(text: &[u8]) -> usize {
    text.iter().rposition(|byte| !TOKEN[usize::from(*byte)]).map_or(0, |before| before + 1)
}

/// The token or quoted string that `text` ends with, and what stands before it.
fn last_text(text: &[u8]) -> Result<(ElementText<'_>, &[u8]), Malformed> {
    let [inner @ .., b'"'] = text else {
        let (before, token) = text.split_at(token_start(text));
        return if token.is_empty() { Err(Malformed) } else { Ok((ElementText { text: token, is_escaped: false }, before)) };
    };
    let backslashes = |end: usize| inner[..end].iter().rev().take_while(|byte| **byte == b'\\').count();
    if backslashes(inner.len()) % 2 != 0 {
        // The quote is part of a text whose end is missing.
        return Err(Malformed);
    }
    let opening = memchr::memrchr_iter(b'"', inner).find(|at| backslashes(*at) % 2 == 0).ok_or(Malformed)?;
    let text = &inner[opening + 1..];
    Ok((ElementText { text, is_escaped: text.contains(&b'\\') }, &inner[..opening]))
}

#[cfg(test)]
mod tests;
