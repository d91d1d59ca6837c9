//! Which proxies are believed: `--forwarded-allow-ips`, `--proxy-allow-from`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Which proxies are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trusted {
    /// Everybody (`*`).
    All,
    /// These addresses or networks (CIDR), and unix sockets.
    Only(Vec<Network>),
}

/// An IP network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Address.
    pub addr: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

impl Default for Trusted {
    /// Nobody but unix sockets.
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl Trusted {
    /// Reads `*`, or a comma list of addresses and networks; the empty text trusts no address.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        if text.trim().is_empty() {
            return Ok(Self::Only(Vec::new()));
        }
        text.split(',').map(|part| Network::parse(part.trim())).collect::<Result<_, _>>().map(Self::Only)
    }
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/PREFIX`; bits after the prefix must be zero.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (addr, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let addr: IpAddr = match (addr, addr.parse()) {
            (_, Ok(addr)) => addr,
            ("*", _) => return Err("* trusts everybody and stands alone".into()),
            ("", _) => return Err("an address is missing; write addresses or networks separated by commas".into()),
            (_, Err(_)) => return Err(format!("{addr:?} is not an IP address; names are not looked up")),
        };
        let bits = if addr.is_ipv4() { u8::try_from(u32::BITS) } else { u8::try_from(u128::BITS) }.expect("128 fits into a byte");
        let prefix = match prefix {
            None => bits,
            Some(text) => {
                super::value::number(text, 0, u64::from(bits)).map_err(|why| format!("the prefix of {addr} {why}"))? as u8
            }
        };
        let network = masked(addr, prefix);
        if network != addr {
            return Err(format!("{addr}/{prefix} has bits set behind its prefix; write {network}/{prefix} or the address alone"));
        }
        Ok(Self { addr, prefix })
    }
}

fn masked(addr: IpAddr, prefix: u8) -> IpAddr {
    match addr {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() & u32::MAX.checked_shl(u32::BITS - u32::from(prefix)).unwrap_or(0)).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits() & u128::MAX.checked_shl(u128::BITS - u32::from(prefix)).unwrap_or(0)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_read() {
        let network = |addr: &str, prefix| Network { addr: addr.parse().unwrap(), prefix };
        assert_eq!(Trusted::parse("*"), Ok(Trusted::All));
        assert_eq!(Trusted::parse(""), Ok(Trusted::Only(vec![])));
        assert_eq!(
            Trusted::parse("127.0.0.1, ::1,10.0.0.0/8,0.0.0.0/0,fd00::/8,::/0"),
            Ok(Trusted::Only(vec![
                network("127.0.0.1", 32),
                network("::1", 128),
                network("10.0.0.0", 8),
                network("0.0.0.0", 0),
                network("fd00::", 8),
                network("::", 0),
            ]))
        );
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for (text, why) in [
            ("localhost", "not an IP address"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("fd00::1/8", "write fd00::/8"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/", "the prefix"),
            ("127.0.0.1,", "missing"),
            ("127.0.0.1,*", "stands alone"),
        ] {
            let error = Trusted::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
