//! The peers that are believed: their forwarding headers (`--forwarded-allow-ips`), their PROXY prefaces (`--proxy-allow-from`).

use std::net::IpAddr;

use crate::config::{Network, Trusted};
use crate::net::stream::PeerAddr;

/// Whether this peer is among them; the other end of a unix socket always is.
pub fn is_trusted(trusted: &Trusted, peer: &PeerAddr) -> bool {
    match trusted {
        Trusted::All => true,
        Trusted::Only(networks) => peer.ip().is_none_or(|addr| networks.iter().any(|network| contains(network, addr))),
    }
}

/// Whether a proxy of this address, which another one names, is among them. Where everybody is trusted, that is who connects: a
/// client could name any address.
pub fn is_trusted_hop(trusted: &Trusted, addr: IpAddr) -> bool {
    match trusted {
        Trusted::All => false,
        Trusted::Only(networks) => networks.iter().any(|network| contains(network, addr)),
    }
}

fn contains(network: &Network, addr: IpAddr) -> bool {
    match (network.addr, addr) {
        (IpAddr::V4(net), IpAddr::V4(addr)) => {
            let shift = 32 - u32::from(network.prefix.min(32));
            (u32::from(net) ^ u32::from(addr)).checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(addr)) => {
            let shift = 128 - u32::from(network.prefix.min(128));
            (u128::from(net) ^ u128::from(addr)).checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(addr: &str, prefix: u8) -> Trusted {
        Trusted::Only(vec![Network { addr: addr.parse().unwrap(), prefix }])
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        for (net, prefix, addr, expected) in [
            ("127.0.0.1", 32, "127.0.0.1", true),
            ("127.0.0.1", 32, "127.0.0.2", false),
            ("10.1.0.0", 16, "10.1.255.3", true),
            ("10.1.0.0", 16, "10.2.0.1", false),
            ("0.0.0.0", 0, "8.8.8.8", true),
            ("fd00::", 8, "fdff::1", true),
            ("fd00::", 8, "fe80::1", false),
            ("::", 0, "::1", true),
            ("::", 0, "127.0.0.1", false),
        ] {
            let found = is_trusted(&only(net, prefix), &PeerAddr::Tcp((addr.parse::<IpAddr>().unwrap(), 1).into()));
            assert_eq!(found, expected, "{addr} in {net}/{prefix}");
        }
    }
}
