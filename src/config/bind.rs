//! One address to listen on, and the protocol that is spoken there: their spelling, as gunicorn's `--bind`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::value::{is_alias, similar_protocol};
use crate::protocol::Protocol;

/// Port of a bind that names none, as in gunicorn.
const DEFAULT_PORT: u16 = 8000;

/// Longest path of a unix socket in bytes: `sun_path` has 108 with its NUL (unix(7)).
const UNIX_PATH_MAX: usize = 107;

/// Longest host name in bytes (RFC 1035 section 2.3.4).
const HOST_MAX: usize = 255;

/// What stands in front of an address where HTTP is spoken over TLS.
const HTTPS: &str = "https";

/// One address to listen on, and the protocol that is spoken there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The address.
    pub endpoint: Endpoint,
    /// The protocol; `None`: that of `--protocol`.
    pub protocol: Option<Protocol>,
    /// Whether `https` stands in front of it; else [`Settings::encrypts`](super::Settings::encrypts) decides.
    pub https: bool,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Endpoint {
    /// TCP; the host may be a name, an IPv4 or an IPv6 address (without brackets), empty for all IPv4 addresses.
    Tcp {
        /// Host.
        host: String,
        /// Port; 0 lets the kernel choose.
        port: u16,
    },
    /// A unix socket.
    Unix(#[serde(with = "super::paths")] PathBuf),
    /// An inherited listening descriptor.
    Fd(i32),
}

impl Bind {
    /// This address, for the protocol of `--protocol`.
    pub fn plain(endpoint: Endpoint) -> Self {
        Self { endpoint, protocol: None, https: false }
    }

    /// Reads an address as [`Endpoint::parse`] does, after the prefix of its protocol (`scgi:127.0.0.1:4000`).
    pub fn parse(text: &str) -> Result<Self, String> {
        let (protocol, address) = match text.strip_prefix(HTTPS).and_then(|rest| rest.strip_prefix(':')) {
            Some(address) => (Some(Protocol::Http), address),
            None => Protocol::split(text),
        };
        let https = protocol == Some(Protocol::Http) && text.starts_with(HTTPS);
        if let Some(protocol) = protocol
            && let Some(rest) = address.strip_prefix("//")
        {
            let name = if https { HTTPS } else { protocol.name() };
            return Err(format!("an address has no scheme; write {name}:{}", rest.trim_end_matches('/')));
        }
        if protocol.is_none()
            && let Some((name, rest)) = text.split_once(':')
            && (is_alias(name) || is_word(name) && is_address(rest) && text.parse::<Ipv6Addr>().is_err())
        {
            let hint = similar_protocol(name);
            return Err(format!("{name} is no protocol here; write one of {} in front of the address{hint}", Protocol::names()));
        }
        Ok(Self { endpoint: Endpoint::parse(address)?, protocol, https })
    }
}

/// Whether this could be the name of a protocol, and is none of the words that an address may begin with.
fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !matches!(name, "unix" | "fd" | "tcp")
}

/// Whether this is an address by itself, and no port: then what stands in front of it is meant as a protocol.
fn is_address(text: &str) -> bool {
    (text.contains(':') || text.parse::<Ipv4Addr>().is_ok()) && Endpoint::parse(text).is_ok()
}

impl fmt::Display for Bind {
    /// The shortest spelling that [`Bind::parse`] reads back, always with the port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            _ if self.https => write!(f, "{HTTPS}:")?,
            Some(protocol) => write!(f, "{}:", protocol.name())?,
            None => {}
        }
        self.endpoint.fmt(f)
    }
}

impl Endpoint {
    /// Reads `HOST`, `HOST:PORT`, `:PORT`, `[IPV6]`, `[IPV6]:PORT` (each also with `tcp://` in front), `unix:PATH` or `fd://N`.
    /// The error says why and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_unix(path.strip_prefix("//").unwrap_or(path));
        }
        if let Some(number) = text.strip_prefix("fd://") {
            return parse_fd(number);
        }
        let address = text.strip_prefix("tcp://").unwrap_or(text);
        if address.contains(',') {
            return Err("a comma cannot be in an address; give each of several addresses by itself".into());
        }
        if address.contains('/') {
            return Err(match address.split_once("://") {
                Some((_, rest)) => format!("an address has no scheme; write {}", rest.trim_end_matches('/')),
                None => format!("a slash cannot be in HOST:PORT; for a unix socket write unix:{address}"),
            });
        }
        if let Some(rest) = address.strip_prefix('[') {
            return parse_v6(rest);
        }
        if address.parse::<Ipv6Addr>().is_ok() {
            return Err(format!("an IPv6 address needs brackets; write [{address}]:{DEFAULT_PORT}"));
        }
        match address.split_once(':') {
            Some((host, port)) => Ok(Self::Tcp { host: parse_host(host)?, port: parse_port(port)? }),
            None if !address.is_empty() && address.bytes().all(|b| b.is_ascii_digit()) => Err(format!(
                "a host is expected in front of the port; write 127.0.0.1:{address}, or :{address} for all addresses"
            )),
            None if address.is_empty() => Err("the address is empty; write HOST:PORT, unix:PATH or fd://N".into()),
            None => Ok(Self::Tcp { host: parse_host(address)?, port: DEFAULT_PORT }),
        }
    }

    /// Whether only this machine can connect, as far as the spelling shows. An inherited descriptor shows nothing, and passes.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            }
            Self::Unix(_) | Self::Fd(_) => true,
        }
    }

    /// Whether both would listen on the same address. Port 0 is another port each time.
    pub fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { host: a, port: p }, Self::Tcp { host: b, port: q }) => *p != 0 && p == q && any_v4(a) == any_v4(b),
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Fd(a), Self::Fd(b)) => a == b,
            (Self::Tcp { .. } | Self::Unix(_) | Self::Fd(_), _) => false,
        }
    }
}

impl fmt::Display for Endpoint {
    /// The shortest spelling that [`Endpoint::parse`] reads back, always with the port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(number) => write!(f, "fd://{number}"),
        }
    }
}

/// The empty host is the wildcard of IPv4.
fn any_v4(host: &str) -> &str {
    if host.is_empty() { "0.0.0.0" } else { host }
}

fn parse_unix(path: &str) -> Result<Endpoint, String> {
    if path.is_empty() {
        return Err("the path of the unix socket is missing; write unix:/run/app.sock".into());
    }
    if path.contains('\0') {
        return Err("a NUL character cannot be in a path".into());
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(format!("the path has {} bytes, a unix socket allows {UNIX_PATH_MAX}; choose a shorter one", path.len()));
    }
    Ok(Endpoint::Unix(path.into()))
}

fn parse_fd(text: &str) -> Result<Endpoint, String> {
    match super::value::number(text, 0, i32::MAX as u64).map_err(|why| format!("the descriptor {why}"))? {
        n @ 1..=2 => {
            Err(format!("descriptor {n} is a standard stream, not a socket; pass the listening socket as 0 or as 3 and above"))
        }
        n => Ok(Endpoint::Fd(n as i32)),
    }
}

fn parse_v6(rest: &str) -> Result<Endpoint, String> {
    let (host, after) = rest.split_once(']').ok_or("the closing bracket is missing; write [IPV6]:PORT")?;
    let (address, scope) = host.split_once('%').map_or((host, None), |(a, s)| (a, Some(s)));
    if address.parse::<Ipv6Addr>().is_err() || scope.is_some_and(|s| s.is_empty() || !s.bytes().all(is_host_byte)) {
        return Err(format!("{host:?} is not an IPv6 address; brackets are for those only"));
    }
    let port = match after.strip_prefix(':') {
        Some(port) => parse_port(port)?,
        None if after.is_empty() => DEFAULT_PORT,
        None => return Err(format!("{after:?} follows the bracket; write [{host}]:PORT")),
    };
    Ok(Endpoint::Tcp { host: host.to_ascii_lowercase(), port })
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn parse_host(host: &str) -> Result<String, String> {
    if host.len() > HOST_MAX || !host.bytes().all(is_host_byte) {
        return Err(format!("{host:?} is not a host name or IPv4 address"));
    }
    let numeric = !host.is_empty() && host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("{host:?} is not an IPv4 address: four numbers of 0 to 255, without leading zeros, are expected"));
    }
    Ok(host.to_ascii_lowercase())
}

fn parse_port(port: &str) -> Result<u16, String> {
    super::value::number(port, 0, u64::from(u16::MAX))
        .map(|n| n as u16)
        .map_err(|_| format!("the port must be 0 to {}, 0 letting the kernel choose", u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.into(), port }
    }

    #[test]
    fn every_form_of_an_address_is_understood() {
        for (text, endpoint) in [
            ("127.0.0.1:80", tcp("127.0.0.1", 80)),
            ("localhost", tcp("localhost", 8000)),
            ("EXAMPLE.org:0", tcp("example.org", 0)),
            (":9000", tcp("", 9000)),
            ("tcp://10.0.0.1:1", tcp("10.0.0.1", 1)),
            ("[::1]:65535", tcp("::1", 65535)),
            ("[::]", tcp("::", 8000)),
            ("[fe80::1%eth0]:80", tcp("fe80::1%eth0", 80)),
            ("unix:/run/a.sock", Endpoint::Unix("/run/a.sock".into())),
            ("unix:///run/a.sock", Endpoint::Unix("/run/a.sock".into())),
            ("unix:a:b,c", Endpoint::Unix("a:b,c".into())),
            ("fd://3", Endpoint::Fd(3)),
            ("fd://0", Endpoint::Fd(0)),
        ] {
            let bind = Bind::plain(endpoint);
            assert_eq!(Bind::parse(text).as_ref(), Ok(&bind), "{text}");
            assert_eq!(Bind::parse(&bind.to_string()), Ok(bind.clone()), "the display of {text}");
            for protocol in Protocol::ALL {
                let bind = Bind { protocol: Some(protocol), ..bind.clone() };
                assert_eq!(Bind::parse(&format!("{}:{text}", protocol.name())).as_ref(), Ok(&bind), "{text}");
                assert_eq!(Bind::parse(&bind.to_string()), Ok(bind), "the display of {text}");
            }
            let https = Bind { protocol: Some(Protocol::Http), https: true, ..bind };
            assert_eq!(Bind::parse(&format!("https:{text}")).as_ref(), Ok(&https), "{text}");
            assert_eq!(Bind::parse(&https.to_string()), Ok(https), "the display of {text}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_what_to_write() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, why) in [
            ("127.0.0.1:99999", "the port must be 0 to 65535"),
            ("127.0.0.1:+80", "the port must be"),
            ("127.0.0.1:", "the port must be"),
            ("a:1:2", "the port must be"),
            (":80,:81", "give each"),
            ("8000", "write 127.0.0.1:8000"),
            ("::1", "write [::1]:8000"),
            ("", "empty"),
            ("[::1", "closing bracket"),
            ("[::1]80", "follows the bracket"),
            ("[127.0.0.1]:80", "not an IPv6 address"),
            ("256.0.0.1:80", "not an IPv4 address"),
            ("1.2.3:80", "not an IPv4 address"),
            ("a b:80", "not a host name"),
            ("/run/app.sock", "write unix:/run/app.sock"),
            ("http://localhost:80/", "write http:localhost:80"),
            ("ftp://localhost:80/", "write localhost:80"),
            ("scgi:", "empty"),
            ("scgi:4000", "write 127.0.0.1:4000"),
            ("https://localhost:443/", "write https:localhost:443"),
            ("https:443", "write 127.0.0.1:443"),
            ("ajp13:127.0.0.1:8009", "did you mean ajp?"),
            (
                "fcgi:127.0.0.1:9000",
                "fcgi is no protocol here; write one of http, fastcgi, scgi, uwsgi, ajp in front of the address; did you mean fastcgi?",
            ),
            ("fcgi:unix:/run/x", "did you mean fastcgi?"),
            ("fcgi://127.0.0.1:9000", "did you mean fastcgi?"),
            ("fcgi:9000", "did you mean fastcgi?"),
            ("fastcig:127.0.0.1:9000", "did you mean fastcgi?"),
            ("FastCGI:127.0.0.1:9000", "did you mean fastcgi?"),
            ("uwsgl:fd://3", "did you mean uwsgi?"),
            (
                "gopher:localhost:70",
                "gopher is no protocol here; write one of http, fastcgi, scgi, uwsgi, ajp in front of the address",
            ),
            ("gopher:[::1]:70", "gopher is no protocol here"),
            ("unix:", "path of the unix socket is missing"),
            ("unix:a\0b", "NUL"),
            (&long, "has 108 bytes"),
            ("fd://1", "standard stream"),
            ("fd://x", "the descriptor must be"),
            ("fd://99999999999", "the descriptor must be"),
        ] {
            let error = Bind::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_of_this_machine_alone_are_told_from_others() {
        for text in ["127.0.0.1", "127.9.9.9:1", "localhost:1", "[::1]", "[::ffff:127.0.0.1]:1", "unix:a", "fd://3"] {
            assert!(Endpoint::parse(text).expect(text).is_local(), "{text}");
        }
        for text in [":1", "0.0.0.0", "[::]", "10.0.0.1", "example.org", "localhost.example.org", "[fe80::1%eth0]:1"] {
            assert!(!Endpoint::parse(text).expect(text).is_local(), "{text}");
        }
    }

    #[test]
    fn two_binds_collide_only_when_they_are_the_same_address() {
        let collide = |a: &str, b: &str| Endpoint::parse(a).unwrap().collides(&Endpoint::parse(b).unwrap());
        assert!(collide(":80", "0.0.0.0:80"));
        assert!(collide("unix:/a", "unix:///a"));
        assert!(collide("LOCALHOST:1", "localhost:1"));
        assert!(collide("fd://3", "fd://3"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!collide("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!collide("0.0.0.0:80", "[::]:80"));
    }
}
