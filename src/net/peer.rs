//! Who is at the other end of a socket.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::text::Text;

/// Longest text of an address in bytes: eight groups of four hexadecimal digits.
pub const IP_MAX: usize = 39;

/// Longest text of a port in bytes.
pub const PORT_MAX: usize = 5;

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket has no address.
    Unix,
}

impl PeerAddr {
    /// The address; an IPv4 client of a dual-stack socket (`::ffff:192.0.2.1`) has its IPv4 address. `None` for a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(addr) => Some(addr.ip().to_canonical()),
            Self::Unix => None,
        }
    }

    /// Address and port as text, both empty for a unix socket.
    pub fn text(&self) -> (Text<IP_MAX>, Text<PORT_MAX>) {
        let Self::Tcp(addr) = self else { return (Text::default(), Text::default()) };
        let ip = match addr.ip().to_canonical() {
            IpAddr::V4(addr) => Text::dotted(addr.octets()),
            IpAddr::V6(addr) => {
                let mut ip = Text::default();
                // Cannot fail: the longest one fits.
                let _ = write!(ip, "{addr}");
                ip
            }
        };
        (ip, Text::decimal(addr.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_a_dual_stack_socket_has_its_ipv4_address() {
        let peer = PeerAddr::Tcp("[::ffff:192.0.2.1]:81".parse().unwrap());
        assert_eq!(peer.text(), ("192.0.2.1".into(), "81".into()));
        assert_eq!(peer.ip(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(PeerAddr::Tcp("[2001:db8::1]:81".parse().unwrap()).text(), ("2001:db8::1".into(), "81".into()));
        assert_eq!(PeerAddr::Unix.text(), (Text::default(), Text::default()));
        assert_eq!(PeerAddr::Unix.ip(), None);
    }
}
