//! Which fields of trusted proxies are believed: `--trusted-proxy-headers`, with the names that waitress has.

use serde::{Deserialize, Serialize};

/// A field that a proxy writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// `X-Forwarded-Host`
    XForwardedHost,
    /// `X-Forwarded-Port`
    XForwardedPort,
    /// `X-Forwarded-Prefix`
    XForwardedPrefix,
    /// `Forwarded` (RFC 7239)
    Forwarded,
    /// `X-Real-IP`
    XRealIp,
    /// `X-Scheme`
    XScheme,
}

/// Names and fields.
const NAMES: [(&str, ProxyHeader); 8] = [
    ("x-forwarded-for", ProxyHeader::XForwardedFor),
    ("x-forwarded-proto", ProxyHeader::XForwardedProto),
    ("x-forwarded-host", ProxyHeader::XForwardedHost),
    ("x-forwarded-port", ProxyHeader::XForwardedPort),
    ("x-forwarded-prefix", ProxyHeader::XForwardedPrefix),
    ("forwarded", ProxyHeader::Forwarded),
    ("x-real-ip", ProxyHeader::XRealIp),
    ("x-scheme", ProxyHeader::XScheme),
];

impl ProxyHeader {
    /// The family: proxies write fields of one, and clients can send the others.
    fn family(self) -> u8 {
        match self {
            Self::XForwardedFor
            | Self::XForwardedProto
            | Self::XForwardedHost
            | Self::XForwardedPort
            | Self::XForwardedPrefix => 0,
            Self::Forwarded => 1,
            Self::XRealIp | Self::XScheme => 2,
        }
    }
}

/// Reads a list of names, separated by commas or blanks; the empty text names none.
pub fn parse(text: &str) -> Result<Vec<ProxyHeader>, String> {
    let mut found: Vec<(&str, ProxyHeader)> = Vec::new();
    for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
        let known = NAMES.iter().find(|(known, _)| name.replace('_', "-").eq_ignore_ascii_case(known));
        let Some(&(name, header)) = known else {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(match name.to_ascii_lowercase().as_str() {
                "x-forwarded-by" => "x-forwarded-by says nothing of the client; leave it out".into(),
                _ => format!("{name:?} is no field of proxies that can be believed; known: {}", names.join(", ")),
            });
        };
        if let Some((other, _)) = found.iter().find(|(_, other)| other.family() != header.family()) {
            return Err(format!(
                "{other} and {name} are of different families, and a client can send the one that the proxy does not write; name \
                 only what the proxy writes"
            ));
        }
        if !found.iter().any(|(_, other)| *other == header) {
            found.push((name, header));
        }
    }
    Ok(found.into_iter().map(|(_, header)| header).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_family_are_read() {
        use ProxyHeader::{Forwarded, XForwardedFor, XForwardedHost, XForwardedProto, XRealIp, XScheme};
        for (text, headers) in [
            ("", vec![]),
            ("x-forwarded-for", vec![XForwardedFor]),
            ("x-forwarded-for x-forwarded-proto", vec![XForwardedFor, XForwardedProto]),
            ("X-Forwarded-Host, X_Forwarded_For,x-forwarded-host", vec![XForwardedHost, XForwardedFor]),
            ("Forwarded", vec![Forwarded]),
            ("x-real-ip,x-scheme", vec![XRealIp, XScheme]),
        ] {
            assert_eq!(parse(text), Ok(headers), "{text}");
        }
    }

    #[test]
    fn mixtures_and_other_names_are_refused_with_words() {
        for (text, why) in [
            ("x-forwarded-for forwarded", "x-forwarded-for and forwarded are of different families"),
            ("x-real-ip,x-forwarded-proto", "x-real-ip and x-forwarded-proto"),
            ("forwarded x-scheme", "of different families"),
            ("x-forwarded-by", "says nothing of the client"),
            ("true-client-ip", "known: x-forwarded-for"),
            ("*", "no field of proxies"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
